"""What every viewer shows is a picture: damaged metadata, a missing end, depths that files only hint at."""

import struct
import time
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2
from skimage import data as samples

from consumer.errors import Unprocessable
from consumer.images.decode import decode
from consumer.settings import DecodeSettings

SIDE_PX = 192
SETTINGS = DecodeSettings()
PHOTO = Image.fromarray(samples.astronaut()[:, 100:484])
GREY = np.asarray(PHOTO.convert("L"))


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def difference(one: bytes, other: bytes) -> float:
    """The mean absolute difference of two pictures, in grey levels."""
    first, second = (decode(data, SIDE_PX, SETTINGS).pixels.astype(np.float64) for data in (one, other))
    return float(np.abs(first - second).mean())


def with_chunk(kind: bytes, body: bytes, checksum_off: int = 0) -> bytes:
    """A PNG with one more chunk, before its data; its checksum is off by so much."""
    data = encoded(PHOTO, "PNG")
    checksum = (zlib.crc32(kind + body) + checksum_off) & 0xFFFFFFFF
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
    return data[:33] + chunk + data[33:]


def costs_s(*pictures: bytes) -> list[float]:
    """The CPU time in seconds that it takes to decode each picture: the least of three, which are taken in turns."""
    took_s: list[list[float]] = [[] for _ in pictures]
    for _ in range(3):
        for data, each_s in zip(pictures, took_s, strict=True):
            began_s = time.thread_time()
            decode(data, SIDE_PX, SETTINGS)
            each_s.append(time.thread_time() - began_s)
    return [min(each_s) for each_s in took_s]


class TestPng:
    SOUND = encoded(PHOTO, "PNG")

    @pytest.mark.parametrize("kind", [b"tEXt", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"tRNS", b"pHYs", b"tIME", b"prVt"])
    def test_a_checksum_beside_the_pixels(self, kind: bytes) -> None:
        assert difference(with_chunk(kind, b"Comment\0\0text", 1), self.SOUND) == 0

    @pytest.mark.parametrize("kind", [b"sRGB", b"cHRM", b"gAMA", b"pHYs", b"zTXt", b"iCCP", b"sBIT", b"bKGD", b"hIST"])
    @pytest.mark.parametrize("body", [b"", b"\0", b"a\0\7\7\7"])
    def test_a_chunk_cut_short(self, kind: bytes, body: bytes) -> None:
        assert difference(with_chunk(kind, body), self.SOUND) == 0

    @pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt", b"tEXt"])
    def test_megabytes_of_profile_or_text(self, kind: bytes) -> None:
        text = np.random.default_rng(0).bytes(3 << 20)
        body = {b"tEXt": b"a\0" + text, b"iTXt": b"a\0\1\0\0\0" + zlib.compress(text)}
        assert difference(with_chunk(kind, body.get(kind, b"a\0\0" + zlib.compress(text))), self.SOUND) == 0

    @pytest.mark.parametrize("damaged", [False, True])
    def test_which_way_is_up_counts_where_it_is_sound(self, damaged: bool) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = with_chunk(b"eXIf", exif.tobytes()[6:], int(damaged))
        expected = self.SOUND if damaged else encoded(PHOTO.transpose(Image.Transpose.ROTATE_270), "PNG")
        assert difference(turned, expected) < 1

    def test_transparency_counts_where_it_is_sound(self) -> None:
        assert difference(with_chunk(b"tRNS", b"\0\0" * 3), self.SOUND) > 10  # what is black becomes white


class TestJpegWithoutEnd:
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}, {"quality": 30}])
    @pytest.mark.parametrize("lost", [1, 2])
    def test_all_of_it_is_there(self, options: dict[str, object], lost: int) -> None:
        data = encoded(PHOTO, "JPEG", **options)
        assert difference(data[:-lost], data) == 0

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}, {"quality": 30}])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97, 0.99])
    def test_a_part_is_missing(self, options: dict[str, object], share: float) -> None:
        data = encoded(PHOTO, "JPEG", **options)
        with pytest.raises(Unprocessable, match="cut short"):
            decode(data[: int(len(data) * share)], SIDE_PX, SETTINGS)

    def test_restart_markers_without_end_cost_little(self) -> None:
        """The decoder takes such for damage that it can go on from, as viewers do; what matters is what it costs."""
        data = encoded(PHOTO, "JPEG", restart_marker_blocks=4)[:-2] + b"\xff\xd0" * 4_000_000
        began = time.thread_time()
        decode(data, SIDE_PX, SETTINGS)
        assert time.thread_time() - began < 2

    def test_it_costs_two_pictures(self) -> None:
        data = encoded(PHOTO.resize((4000, 3000)), "JPEG")
        whole_s, cut_s = costs_s(data, data[:-2])
        assert cut_s < 4 * whole_s


class TestDepth:
    EIGHT_BITS = encoded(Image.fromarray(GREY), "PNG")

    @pytest.mark.parametrize("form", ["PNG", "TIFF"])
    @pytest.mark.parametrize("bits", [8, 10, 12, 16])
    def test_grey_in_16_bits_by_what_is_in_it(self, form: str, bits: int) -> None:
        values = (GREY.astype(np.uint32) * ((1 << bits) - 1) // 255).astype(np.uint16)
        assert difference(encoded(Image.fromarray(values), form), self.EIGHT_BITS) < 1

    def test_a_dark_picture_of_16_bits_stays_dark(self) -> None:
        dark = GREY.astype(np.uint16) * 64  # a quarter of the range
        assert difference(encoded(Image.fromarray(dark), "PNG"), encoded(Image.fromarray(GREY // 4), "PNG")) < 1

    def test_what_a_tiff_says_of_its_range(self) -> None:
        dark = (GREY // 8).astype(np.uint16) * 16  # as dark as 9 bits, in 12
        said = encoded(Image.fromarray(dark), "TIFF", tiffinfo={281: 4095})
        assert difference(said, encoded(Image.fromarray(GREY // 8), "PNG")) < 1
        wrong = encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF", tiffinfo={281: 4095})
        assert difference(wrong, self.EIGHT_BITS) < 1

    @pytest.mark.parametrize(
        ("tag", "kind", "value"),
        [
            *((281, 2, "x"), (281, 3, (0,)), (281, 5, (IFDRational(1, 0),)), (281, 7, b"")),
            *((341, 12, (float("nan"),)), (341, 12, (float("inf"),)), (341, 12, (-1e300,))),
        ],
    )
    def test_what_a_tiff_says_of_its_range_may_be_no_number(self, tag: int, kind: int, value: object) -> None:
        tags = ImageFileDirectory_v2()
        tags.tagtype[tag] = kind
        tags[tag] = value
        data = encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF", tiffinfo=tags)
        assert difference(data, self.EIGHT_BITS) < 1

    def test_white_is_zero_in_16_bits(self) -> None:
        data = encoded(Image.fromarray((255 - GREY).astype(np.uint16) * 257), "TIFF")
        entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
        assert entry in data
        assert difference(data.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0)), self.EIGHT_BITS) < 1

    def test_lab(self) -> None:
        to_lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        lab = ImageCms.profileToProfile(PHOTO, *to_lab, outputMode="LAB")
        assert lab is not None
        assert difference(encoded(lab, "TIFF"), encoded(PHOTO, "PNG")) < 2

    def test_lab_is_converted_once_it_is_small(self) -> None:
        """So that it costs little more than another picture of that size."""
        large = PHOTO.resize((4000, 4000))
        lab = Image.frombytes("LAB", large.size, large.tobytes())
        rgb_s, lab_s = costs_s(encoded(large, "TIFF"), encoded(lab, "TIFF"))
        assert lab_s < 2 * rgb_s + 0.1

    def test_a_picture_of_one_value(self) -> None:
        for value in (0, 1, 65_535):
            data = encoded(Image.fromarray(np.full((64, 64), value, np.uint16)), "PNG")
            assert decode(data, SIDE_PX, SETTINGS).detail == pytest.approx(0, abs=1e-3)
