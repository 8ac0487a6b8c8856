"""Decoding: every form of a picture gives nearly the same pixels, and everything else gives a reason."""

import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data as samples

from consumer.errors import Unprocessable
from consumer.images import decode as decode_module
from consumer.images.decode import EXIF_TRANSPOSITIONS, FORMATS, Picture, decode, detail
from consumer.images.thumbnail import Thumbnail
from consumer.settings import DecodeSettings

SIDE_PX = 192
SETTINGS = DecodeSettings()
PHOTO = Image.fromarray(samples.astronaut()[:, 100:484])  # 384 x 512: not square, so that a rotation shows


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def pixels(data: bytes) -> NDArray[np.float64]:
    return decode(data, SIDE_PX, SETTINGS).pixels.astype(np.float64)


def mean_difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the mean absolute difference, in grey levels."""
    return float(np.abs(a - b).mean())


def refused(data: bytes, settings: DecodeSettings = SETTINGS, content_type: str | None = None) -> Unprocessable:
    with pytest.raises(Unprocessable) as caught:
        decode(data, SIDE_PX, settings, content_type)
    assert caught.value.detail.endswith(".")
    assert caught.value.detail.isprintable()
    return caught.value


REFERENCE = np.asarray(PHOTO.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR), dtype=np.float64)


class TestFormats:
    @pytest.mark.parametrize(
        ("form", "options", "tolerance"),
        [
            ("JPEG", {"quality": 95}, 2.5),
            ("JPEG", {"quality": 90, "progressive": True}, 2.5),
            ("PNG", {}, 0.6),
            ("WEBP", {"quality": 90}, 3.0),
            ("WEBP", {"lossless": True}, 0.6),
            ("GIF", {}, 4.0),
            ("HEIF", {"quality": 90}, 3.0),
            ("AVIF", {"quality": 90}, 3.0),
            ("TIFF", {}, 0.6),
            ("TIFF", {"compression": "tiff_lzw"}, 0.6),
            ("TIFF", {"compression": "jpeg", "quality": 95}, 3.0),
            ("BMP", {}, 0.6),
        ],
    )
    def test_every_format_gives_the_same_picture(self, form: str, options: dict[str, object], tolerance: float) -> None:
        picture = decode(encoded(PHOTO, form, **options), SIDE_PX, SETTINGS)
        assert picture.pixels.shape == (SIDE_PX, SIDE_PX, 3)
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.flags.c_contiguous
        assert (picture.width, picture.height) == PHOTO.size
        assert picture.format == form
        assert mean_difference(picture.pixels.astype(np.float64), REFERENCE) < tolerance
        assert picture.detail > 10

    def test_each_format_opened_is_tested(self) -> None:
        assert set(FORMATS) == {"JPEG", "PNG", "WEBP", "GIF", "HEIF", "AVIF", "TIFF", "BMP"}

    @pytest.mark.parametrize("form", ["PPM", "ICO", "PCX", "TGA", "JPEG2000", "EPS", "PDF"])
    def test_other_formats_are_not_opened(self, form: str) -> None:
        assert refused(encoded(PHOTO.resize((64, 64)), form)).reason == "not-an-image"

    @pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "AVIF", "HEIF", "PNG"])
    def test_the_first_of_several_frames_counts(self, form: str) -> None:
        others = [Image.new("RGB", PHOTO.size, c) for c in ("red", "blue")]
        data = encoded(PHOTO, form, save_all=True, append_images=others)
        assert mean_difference(pixels(data), REFERENCE) < 8

    def test_multi_picture_jpeg(self) -> None:
        data = encoded(PHOTO, "MPO", save_all=True, append_images=[Image.new("RGB", PHOTO.size, "red")], quality=95)
        assert mean_difference(pixels(data), REFERENCE) < 2.5

    def test_a_video_appended_to_a_jpeg_is_ignored(self) -> None:
        """Phones append videos to moving photographs; their bytes may look like any number of JPEG markers."""
        data = encoded(PHOTO, "JPEG", quality=95)
        assert np.array_equal(pixels(data), pixels(data + b"\xff\xda\x00\x02ab" * 1000))

    def test_a_heif_thumbnail_does_not_stand_in_for_the_picture(self) -> None:
        data = encoded(PHOTO.resize((600, 800)), "HEIF", quality=90, thumbnails=[256])
        assert mean_difference(pixels(data), REFERENCE) < 3


class TestModes:
    def test_palette(self) -> None:
        assert mean_difference(pixels(encoded(PHOTO.quantize(256), "PNG")), REFERENCE) < 5

    @pytest.mark.parametrize("form", ["JPEG", "TIFF"])
    def test_cmyk(self, form: str) -> None:
        assert mean_difference(pixels(encoded(PHOTO.convert("CMYK"), form)), REFERENCE) < 3

    @pytest.mark.parametrize("mode", ["L", "1"])
    def test_grey_and_bilevel(self, mode: str) -> None:
        result = pixels(encoded(PHOTO.convert(mode), "PNG"))
        assert np.array_equal(result[..., 0], result[..., 2])
        grey = np.asarray(PHOTO.convert("L").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR), dtype=np.float64)
        assert mean_difference(result[..., 0], grey) < (20 if mode == "1" else 0.6)

    @pytest.mark.parametrize("form", ["PNG", "TIFF"])
    @pytest.mark.parametrize("mode", ["I;16", "I;16B"])
    def test_sixteen_bits_are_scaled_not_clipped(self, form: str, mode: str) -> None:
        grey = np.asarray(PHOTO.convert("L"))
        wide = grey.astype(np.uint16) * 257
        image = Image.frombytes(mode, PHOTO.size, wide.astype(">u2" if mode.endswith("B") else "<u2").tobytes())
        assert mean_difference(pixels(encoded(image, form)), pixels(encoded(PHOTO.convert("L"), form))) < 0.6

    @pytest.mark.parametrize("mode", ["I", "F"])
    def test_values_without_a_range_take_their_own(self, mode: str) -> None:
        grey = np.asarray(PHOTO.convert("L")).astype(np.float32)
        own = (grey - grey.min()) / (grey.max() - grey.min())
        values = (own * 1000 - 300).astype(np.int32) if mode == "I" else own - 0.5
        expected = np.asarray(
            Image.fromarray((own * 255).astype(np.uint8)).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR),
            dtype=np.float64,
        )
        assert mean_difference(pixels(encoded(Image.fromarray(values), "TIFF"))[..., 0], expected) < 4

    def test_values_that_are_no_numbers(self) -> None:
        values = np.full((64, 64), np.nan, np.float32)
        values[10:20, 10:20] = np.inf
        assert decode(encoded(Image.fromarray(values), "TIFF"), SIDE_PX, SETTINGS).detail == 0

    @pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF"])
    def test_transparent_parts_are_white(self, form: str) -> None:
        """The colour under a transparent part does not count."""
        mask = Image.new("L", PHOTO.size, 0)
        ImageDraw.Draw(mask).rectangle((0, 0, PHOTO.width // 2, PHOTO.height), fill=255)
        image = PHOTO.copy()
        image.putalpha(mask)
        options = {"lossless": True} if form == "WEBP" else {}
        result = pixels(encoded(image, form, **options))
        assert (result[:, SIDE_PX // 2 + 4 :] >= 254).all()
        assert mean_difference(result[:, : SIDE_PX // 2 - 4], REFERENCE[:, : SIDE_PX // 2 - 4]) < 4

    @pytest.mark.parametrize("mode", ["P", "L", "RGB"])
    def test_a_transparent_colour_is_white(self, mode: str) -> None:
        image = Image.new(mode, (64, 64), 0)
        ImageDraw.Draw(image).rectangle((0, 0, 31, 63), fill=(200, 10, 10) if mode == "RGB" else 100)
        data = encoded(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
        result = pixels(data)
        assert (result[:, SIDE_PX // 2 + 6 :] == 255).all()
        assert (result[:, : SIDE_PX // 2 - 6] < 255).any()

    def test_translucent_parts_are_mixed_with_white(self) -> None:
        assert (
            mean_difference(
                pixels(encoded(Image.new("RGBA", (64, 64), (0, 0, 0, 128)), "PNG")), np.full((SIDE_PX, SIDE_PX, 3), 127)
            )
            < 1
        )


class TestOrientation:
    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_pictures_are_turned_upright(self, form: str, orientation: int) -> None:
        # Transposed the other way first: each transposition undoes itself but for the two quarter turns.
        undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(
            orientation, EXIF_TRANSPOSITIONS.get(orientation)
        )
        stored = PHOTO if undo is None else PHOTO.transpose(undo)
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(stored, form, exif=exif.tobytes(), quality=95)
        assert mean_difference(pixels(data), REFERENCE) < 3

    def test_damaged_exif_data_is_no_fault(self) -> None:
        data = encoded(PHOTO, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff" + b"\x01" * 40, quality=95)
        assert mean_difference(pixels(data), REFERENCE) < 2.5

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_unknown_orientations_are_ignored(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert mean_difference(pixels(encoded(PHOTO, "JPEG", exif=exif, quality=95)), REFERENCE) < 2.5


class TestConsistency:
    """Two versions of a picture, by whatever way they were decoded, differ far less than two pictures do."""

    @pytest.mark.parametrize("scale", [1, 2, 4, 8, 9])
    def test_a_draft_differs_little_from_the_whole(self, scale: int) -> None:
        large = PHOTO.resize((SIDE_PX * scale + 37, SIDE_PX * scale + 11), Image.Resampling.LANCZOS)
        exact = np.asarray(large.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR), dtype=np.float64)
        # Most where the draft is hardly larger than the square, so that it is copied and not smoothed again.
        assert mean_difference(pixels(encoded(large, "JPEG", quality=95)), exact) < 5.0
        assert mean_difference(pixels(encoded(large, "PNG")), exact) < 1.0

    def test_half_the_size_and_compressed_again(self) -> None:
        large = PHOTO.resize((1200, 1600), Image.Resampling.LANCZOS)
        full = pixels(encoded(large, "JPEG", quality=90))
        half = pixels(encoded(large.resize((600, 800), Image.Resampling.LANCZOS), "JPEG", quality=80))
        again = pixels(encoded(large, "JPEG", quality=50))
        assert mean_difference(full, half) < 2.0
        assert mean_difference(full, again) < 2.0

    def test_smaller_than_the_square(self) -> None:
        picture = decode(encoded(PHOTO.resize((9, 8)), "PNG"), SIDE_PX, SETTINGS)
        assert picture.pixels.shape == (SIDE_PX, SIDE_PX, 3)

    def test_many_threads_give_the_same(self) -> None:
        data = [encoded(PHOTO, form) for form in FORMATS]
        expected = [pixels(each) for each in data]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                assert all(np.array_equal(a, b) for a, b in zip(pool.map(pixels, data), expected, strict=True))


class TestRefusals:
    @pytest.mark.parametrize("data", [b"", b"x", b"<html>no</html>", b"GIF", b"%PDF-1.7\n", b"\x00" * 1000, b"RIFF"])
    def test_what_is_no_picture(self, data: bytes) -> None:
        assert refused(data).reason == "not-an-image"

    @pytest.mark.parametrize("form", FORMATS)
    @pytest.mark.parametrize("part", [0.03, 0.3, 0.6, 0.9])
    def test_half_a_picture(self, form: str, part: float) -> None:
        data = encoded(PHOTO, form)
        assert refused(data[: int(len(data) * part)]).reason == "broken-image"

    @pytest.mark.parametrize("form", FORMATS)
    def test_a_signature_alone(self, form: str) -> None:
        assert refused(encoded(PHOTO, form)[:16]).reason == "broken-image"

    def test_damage_in_the_middle(self) -> None:
        data = bytearray(encoded(PHOTO, "PNG"))
        data[len(data) // 2 : len(data) // 2 + 100] = b"\xff" * 100
        assert refused(bytes(data)).reason == "broken-image"

    @pytest.mark.parametrize("form", FORMATS)
    def test_one_pixel(self, form: str) -> None:
        assert refused(encoded(Image.new("RGB", (1, 1)), form)).reason == "too-small"

    def test_a_line(self) -> None:
        error = refused(encoded(Image.new("RGB", (4000, 7)), "PNG"))
        assert error.reason == "too-small"
        assert "4000 x 7" in error.detail

    @pytest.mark.parametrize("content_type", ["text/html", "application/json; charset=utf-8", "video/mp4", "imagepng"])
    def test_announced_as_no_picture(self, content_type: str) -> None:
        assert refused(encoded(PHOTO, "PNG"), content_type=content_type).reason == "wrong-content-type"

    @pytest.mark.parametrize(
        "content_type", [None, "", "image/png", "IMAGE/JPEG; q=1", "image/x-whatever", "application/octet-stream"]
    )
    def test_announced_as_some_picture(self, content_type: str | None) -> None:
        """The bytes decide on the format: upload forms guess the type from the file's name."""
        assert isinstance(decode(encoded(PHOTO, "WEBP"), SIDE_PX, SETTINGS, content_type), Picture)


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Make a PNG that claims a size; grey, 8 bits."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), *chunks, (b"IEND", b""))
    )


def tiff(width: int, height: int, **tags: int) -> bytes:
    """Make a TIFF that claims a size; grey, 8 bits, one strip."""
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 100}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries)) + directory + bytes(104)


def first_scan(data: bytes) -> bytes:
    """End a JPEG with its first scan."""
    return data[: data.index(b"\xff\xc4", data.index(b"\xff\xda"))] + b"\xff\xd9"


class TestBombs:
    @pytest.mark.parametrize(
        "data",
        [
            png(60_000, 60_000, (b"IDAT", zlib.compress(bytes(1 << 20)))),
            tiff(60_000, 60_000),
            tiff(100, 100, t322=60_000, t323=60_000, t324=8, t325=100),  # the tiles claim it
            b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + b",\0\0\0\0" + struct.pack("<HHB", 9, 9, 0),
            b"BM"
            + struct.pack("<IHHI", 54, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, *[0] * 6),
            b"RIFF"
            + struct.pack("<I", 22)
            + b"WEBPVP8X"
            + struct.pack("<II", 10, 0)
            + (59_999).to_bytes(3, "little") * 2,
        ],
        ids=["PNG", "TIFF", "TIFF tiles", "GIF", "BMP", "WEBP"],
    )
    def test_sixty_thousand_by_sixty_thousand(self, data: bytes) -> None:
        began = time.thread_time()
        assert refused(data).reason in ("too-large", "broken-image")
        assert time.thread_time() - began < 1

    @pytest.mark.parametrize("form", ["HEIF", "AVIF"])
    def test_a_container_that_claims_what_its_content_does_not_have(self, form: str) -> None:
        data = encoded(PHOTO.resize((96, 64)), form)
        claim = struct.pack(">II", 96, 64)
        assert claim in data
        assert refused(data.replace(claim, struct.pack(">II", 60_000, 60_000))).reason in ("too-large", "broken-image")
        assert refused(data.replace(claim, struct.pack(">II", 10_001, 10_000))).reason == "too-large"

    @pytest.mark.parametrize("form", FORMATS)
    def test_the_limit_holds_before_anything_is_decoded(self, form: str) -> None:
        data = encoded(Image.new("RGB", (2000, 1000)), form)
        factor = decode_module.JPEG_PIXELS_FACTOR if form == "JPEG" else 1
        error = refused(data, DecodeSettings(max_pixels=int(2_000_000 / factor) - 1))
        assert error.reason == "too-large"
        assert "2000 x 1000" in error.detail
        assert decode(data, SIDE_PX, DecodeSettings(max_pixels=int(2_000_000 / factor))).width == 2000

    def test_the_scans_of_a_jpeg_count(self) -> None:
        data = encoded(Image.new("L", (2000, 1000)), "JPEG", progressive=True)
        last = data[data.rindex(b"\xff\xda") : -2]
        many = data[:-2] + last * 40 + data[-2:]
        assert decode(many, SIDE_PX, DecodeSettings(max_pixels=2_000_000)).width == 2000
        assert refused(many, DecodeSettings(max_pixels=1_000_000)).reason == "too-large"

    @pytest.mark.parametrize("form", ["PNG", "TIFF"])
    def test_what_a_telephone_makes_is_a_picture_only_as_a_jpeg(self, form: str) -> None:
        wide = Image.new("L", (12_000, 9_000), 128)
        assert decode(encoded(wide, "JPEG"), SIDE_PX, SETTINGS).width == 12_000
        assert refused(encoded(wide, form)).reason == "too-large"

    def test_a_jpeg_of_endless_scans(self) -> None:
        data = encoded(Image.new("L", (2000, 2000), 128), "JPEG", progressive=True)
        last = data[data.rindex(b"\xff\xda") : -2]
        began = time.thread_time()
        assert "scans" in refused(data[:-2] + last * 100_000 + data[-2:]).detail
        assert time.thread_time() - began < 2
        decode(data[:-2] + last * 20 + data[-2:], SIDE_PX, SETTINGS)

    @pytest.mark.parametrize(
        ("form", "offset", "part"),
        [
            ("JPEG", 2, b"\xff\xfe\0\2"),  # empty comments
            ("JPEG", 2, b"\xff\xe1\0\2"),  # empty EXIF
            ("JPEG", 2, b"\xff"),  # padding
            ("JPEG", 2, b"\xff\xd0"),  # markers out of place
            ("JPEG", -2, b"\xff\xfe\0\2"),  # after the picture
            ("PNG", 33, b"\0\0\0\0abCd" + struct.pack(">I", zlib.crc32(b"abCd"))),
            ("PNG", 33, b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))),
            ("PNG", -12, b"\0\0\0\0abCd" + struct.pack(">I", zlib.crc32(b"abCd"))),
            ("GIF", 781, b"!\xfe\0"),
            ("GIF", 781, b"!\xfe" + b"\1a" * 20 + b"\0"),
            ("GIF", 781, b"junk"),
        ],
    )
    def test_headers_cut_into_countless_parts(self, form: str, offset: int, part: bytes) -> None:
        """So many parts would keep Pillow's parsers, which hold the GIL, busy for up to minutes."""
        data = encoded(PHOTO.resize((64, 64)), form)
        cut = data[:offset] + part * 250_000 + data[offset:]
        began = time.thread_time()
        assert "too many" in refused(cut).detail
        assert time.thread_time() - began < 3
        decode(data[:offset] + part * 5 + data[offset:], SIDE_PX, SETTINGS)

    @pytest.mark.parametrize("big", [False, True])
    def test_a_tiff_of_countless_strips(self, big: bool) -> None:
        rows = 250_000
        entries = {256: (4, 1, 16), 257: (4, 1, rows), 258: (4, 1, 8), 259: (4, 1, 1), 262: (4, 1, 1)}
        entries |= {273: (4, rows, 400), 277: (4, 1, 1), 278: (4, 1, 1), 279: (4, rows, 400)}
        tags = b"".join(struct.pack("<HHQQ" if big else "<HHII", tag, *each) for tag, each in entries.items())
        head = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 9) if big else struct.pack("<2sHIH", b"II", 42, 8, 9)
        data = (head + tags).ljust(400, b"\0") + struct.pack("<I", 300) * rows
        began = time.thread_time()
        assert "too many" in refused(data).detail
        assert time.thread_time() - began < 1

    def test_a_png_of_a_chunk_for_each_row_is_a_picture(self) -> None:
        """Some encoders write such files."""
        rows = 12_000
        packed = zlib.compress(bytes(65 * rows), 0)
        step = len(packed) // rows + 1
        chunks = [(b"IDAT", packed[i : i + step]) for i in range(0, len(packed), step)]
        assert decode(png(64, rows, *chunks), SIDE_PX, SETTINGS).height == rows

    def test_metadata_that_unpacks_to_much(self) -> None:
        text = b"Comment\0\0" + zlib.compress(bytes(200 << 20), 9)
        body = zlib.compress(bytes((64 + 1) * 64))
        data = png(64, 64, (b"zTXt", text), (b"IDAT", body))
        began = time.thread_time()
        decode(data, SIDE_PX, SETTINGS)
        assert time.thread_time() - began < 0.1  # it is never unpacked, which takes ten times as long

    def test_a_tiff_of_endless_pages(self) -> None:
        """Only the first is read, however the directories are chained."""
        page = tiff(16, 16)[8:]
        size = len(page)
        directory_end = 2 + struct.unpack("<H", page[:2])[0] * 12
        pages = [
            page[:directory_end] + struct.pack("<I", 8 + size * (i + 1)) + page[directory_end + 4 :]
            for i in range(20_000)
        ]
        data = struct.pack("<2sHI", b"II", 42, 8) + b"".join(pages)[:-1] + bytes(400)
        began = time.thread_time()
        decode(data, SIDE_PX, SETTINGS)
        assert time.thread_time() - began < 1

    def test_large_pictures_are_decoded_one_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decode_module, "LARGE_PIXELS", 1000)
        inside, most_inside = 0, 0
        lock = threading.Lock()
        real = decode_module.prepare

        def counted(image: Image.Image, size: int, aspect: float) -> tuple[NDArray[np.uint8], Thumbnail]:
            nonlocal inside, most_inside
            with lock:
                inside += 1
                most_inside = max(most_inside, inside)
            time.sleep(0.02)
            try:
                return real(image, size, aspect)
            finally:
                with lock:
                    inside -= 1

        monkeypatch.setattr(decode_module, "prepare", counted)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(pixels, [encoded(PHOTO, "PNG")] * 8))
        assert most_inside == 1

    @pytest.mark.parametrize(
        ("options", "change", "alone"),
        [
            ({}, lambda data: data, False),
            ({"progressive": True}, lambda data: data, True),
            ({"progressive": True}, first_scan, True),
            ({}, lambda data: data.replace(b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11", b"\xff\xda\0\x08\1\1\0"), True),
        ],
        ids=["sequential", "progressive", "cut to its first scan", "without two components"],
    )
    def test_a_jpeg_that_is_held_whole_is_large_whatever_it_is_decoded_to(
        self,
        options: dict[str, object],
        change: Callable[[bytes], bytes],
        alone: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(decode_module, "LARGE_PIXELS", 1_000_000)
        held = []
        real = decode_module.prepare

        def noticed(image: Image.Image, size: int, aspect: float) -> tuple[NDArray[np.uint8], Thumbnail]:
            held.append(decode_module._one_large_picture.locked())
            return real(image, size, aspect)

        monkeypatch.setattr(decode_module, "prepare", noticed)
        data = change(encoded(PHOTO.resize((1600, 1200)), "JPEG", **options))
        with suppress(Unprocessable):
            decode(data, SIDE_PX, SETTINGS)
        assert held == [alone]

    def test_the_worst_bomb_stays_within_its_memory(self) -> None:
        """Six threads at once unpack some 100 bytes to 17 megapixels each, in a process of their own."""
        code = """
import threading
from io import BytesIO
from PIL import Image
from consumer.images.decode import decode
from consumer.settings import DecodeSettings
out = BytesIO()
Image.new("RGBA", (4100, 4100)).save(out, "WEBP", lossless=True, quality=0, method=0)
data = out.getvalue()
del out
threads = [threading.Thread(target=decode, args=(data, 192, DecodeSettings())) for _ in range(6)]
[t.start() for t in threads]
[t.join() for t in threads]
# Not ru_maxrss, which counts from before the exec: there this process was as large as the one that runs the tests.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(len(data), peak)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        size, peak = map(int, done.stdout.split())
        assert size < 10_000
        assert peak < 600_000  # kB: one such picture at a time, where six would take 1.7 GB


class TestWarnings:
    def test_damaged_metadata_leaves_no_word_on_stderr(self) -> None:
        """The interpreter's registry of warnings stays empty too: it would grow with each new text."""
        code = """
import sys, struct
from PIL import TiffImagePlugin
from consumer.images.decode import decode
from consumer.errors import Unprocessable
from consumer.settings import DecodeSettings
for i in range(50):
    entries = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 4, 1, 8), (259, 4, 1, 1), (262, 4, 1, 1), (273, 4, 1, 8),
               (277, 4, 1, 1), (278, 4, 1, 16), (279, 4, 1, 100), (40000 + i, 7, 10_000_000 + i, 8)]
    data = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries))
    data += b"".join(struct.pack("<HHII", *e) for e in entries) + bytes(400)
    try:
        decode(data, 192, DecodeSettings())
    except Unprocessable:
        pass
print([key for name, module in sys.modules.items() if name.startswith("PIL")
       for key in getattr(module, "__warningregistry__", ()) if key != "version"])
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout.strip() == "[]"


def noisy(colour: int, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(colour, sigma, (600, 800, 3))
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


def framed(width: int) -> Image.Image:
    image = Image.new("RGB", (800, 600), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 799, 599), outline="black", width=width)
    return image


def gradient(kind: str) -> Image.Image:
    y, x = np.mgrid[0:600, 0:800] / np.array([600, 800])[:, None, None]
    ramp = {"across": x, "down": y, "slanted": (x + y) / 2, "round": np.hypot(x - 0.5, y - 0.5), "mesh": x * y}[kind]
    return Image.fromarray((np.stack([ramp, ramp / 2 + 0.2, 1 - ramp], axis=2) * 255).astype(np.uint8))


class TestDetail:
    @pytest.mark.parametrize(
        "image",
        [
            *(Image.new("RGB", (800, 600), c) for c in ("black", "white", "grey", "crimson")),
            *(noisy(c, s) for c in (0, 128, 255) for s in (2, 10)),
            *(framed(w) for w in (1, 4, 12)),
            *(gradient(k) for k in ("across", "down", "slanted", "round", "mesh")),
        ],
    )
    @pytest.mark.parametrize("form", ["PNG", "JPEG"])
    def test_blank_flat_and_framed_pictures_are_below_the_limit(self, image: Image.Image, form: str) -> None:
        assert decode(encoded(image, form), SIDE_PX, SETTINGS).detail < SETTINGS.min_detail

    @pytest.mark.parametrize(
        "name", ["astronaut", "coffee", "chelsea", "rocket", "camera", "page", "coins", "moon", "cell"]
    )
    @pytest.mark.parametrize("size", [128, 192, 224])
    def test_real_pictures_are_above(self, name: str, size: int) -> None:
        image = Image.fromarray(getattr(samples, name)())
        assert decode(encoded(image, "JPEG", quality=40), size, SETTINGS).detail > 1.5 * SETTINGS.min_detail

    def test_it_hardly_depends_on_the_square(self) -> None:
        scores = [decode(encoded(PHOTO, "PNG"), size, SETTINGS).detail for size in (96, 128, 160, 192, 224, 256)]
        assert max(scores) < 1.3 * min(scores)

    def test_one_flat_colour_has_none(self) -> None:
        assert detail(np.full((SIDE_PX, SIDE_PX, 3), 77, np.uint8)) == pytest.approx(0, abs=1e-4)
