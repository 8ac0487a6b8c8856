"""Malformed pictures and events, made by code after the test suites and manuals that are named with each.

What is right of each is what its source says: `picture` where it is shown or read all the same, else the reason.
"""

import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from PIL import ExifTags, Image
from pillow_heif import register_heif_opener

from consumer.events import Record

register_heif_opener(thumbnails=False)

PICTURE = "picture"
RANDOM = Image.effect_mandelbrot((64, 48), (-1.6, -1, 0.6, 1), 60).convert("RGB")


@dataclass(frozen=True)
class Malformed:
    """An input: what it is, how it is made, what is right, and who says so."""

    name: str
    make: Callable[[], bytes]
    right: str
    source: str


def encoded(form: str, image: Image.Image = RANDOM, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


# JPEG


def jpeg(inserted: bytes, at: int = 20) -> bytes:
    """A JPEG with bytes put behind its first segment."""
    data = encoded("JPEG")
    return data[:at] + inserted + data[at:]


def segment(code: int, body: bytes) -> bytes:
    return b"\xff" + bytes([code]) + struct.pack(">H", len(body) + 2) + body


def jpeg_of_12_bits() -> bytes:
    data = bytearray(encoded("JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


def jpeg_restarts_out_of_order() -> bytes:
    data = encoded("JPEG", restart_marker_blocks=4)
    return replaced(data, b"\xff\xd1", b"\xff\xd4")


EXIF_WITHOUT_END = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0"
DESCRIBED = Image.Exif()
DESCRIBED[ExifTags.Base.ImageDescription] = "a description"
EXIF = DESCRIBED.tobytes()
EXIF_ORIENTATION_9 = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0"
EXIF_IN_A_CIRCLE = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
EXIF_OF_ZERO_BY_ZERO = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0" + bytes(8)

JPEGS = [
    Malformed(
        "junk between segments", lambda: jpeg(b"\x12\x34\x56"), PICTURE, "Pillow test_file_jpeg junk_jpeg_header"
    ),
    Malformed("FF 00 in the header", lambda: jpeg(b"\xff\x00"), PICTURE, "Pillow test_file_jpeg ff00_jpeg_header"),
    Malformed(
        "a multi-picture header of nothing",
        lambda: jpeg(segment(0xE2, b"MPF\0junk")),
        PICTURE,
        "Pillow sugarshack_bad_mpo_header.jpg",
    ),
    Malformed(
        "EXIF that ends in its first entry",
        lambda: jpeg(segment(0xE1, EXIF_WITHOUT_END)),
        PICTURE,
        "Pillow hopper_bad_exif.jpg",
    ),
    Malformed(
        "EXIF orientation 9",
        lambda: jpeg(segment(0xE1, EXIF_ORIENTATION_9)),
        PICTURE,
        "Pillow test_imageops exif_transpose",
    ),
    Malformed(
        "EXIF that points to itself",
        lambda: jpeg(segment(0xE1, EXIF_IN_A_CIRCLE)),
        PICTURE,
        "libexif's test data, as in metadata-extractor-images",
    ),
    Malformed(
        "EXIF resolution of 0/0",
        lambda: jpeg(segment(0xE1, EXIF_OF_ZERO_BY_ZERO)),
        PICTURE,
        "Pillow test_file_jpeg dpi_exif_zero_division",
    ),
    Malformed(
        "a profile whose parts are missing",
        lambda: jpeg(segment(0xE2, b"ICC_PROFILE\0\x03\x05abc")),
        PICTURE,
        "Pillow test_file_jpeg icc",
    ),
    Malformed(
        "an Adobe segment cut short", lambda: jpeg(segment(0xEE, b"Ado")), PICTURE, "Pillow JpegImagePlugin APP14"
    ),
    Malformed(
        "a Photoshop segment of junk",
        lambda: jpeg(segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04")),
        PICTURE,
        "Pillow app13.jpg",
    ),
    Malformed(
        "XMP padded with zeros",
        lambda: jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>" + bytes(99))),
        PICTURE,
        "Pillow xmp_padded.jpg",
    ),
    Malformed(
        "restart markers out of order", jpeg_restarts_out_of_order, PICTURE, "libjpeg jdmarker.c jpeg_resync_to_restart"
    ),
    Malformed(
        "12 bits a sample",
        jpeg_of_12_bits,
        "not-supported",
        "libjpeg-turbo testorig12.jpg, Pillow 'cannot handle 12-bit layers'",
    ),
    Malformed(
        "a quantisation table cut short",
        lambda: jpeg(segment(0xDB, b"\0abc")),
        "broken-image",
        "Pillow test_file_jpeg bad quantization table marker",
    ),
    Malformed(
        "no frame before the scan",
        lambda: replaced(encoded("JPEG"), b"\xff\xc0", b"\xff\xfe"),
        "broken-image",
        "Pillow's fuzzed crashes",
    ),
    Malformed(
        "only the header",
        lambda: encoded("JPEG").partition(b"\xff\xda")[0],
        "broken-image",
        "Pillow test_file_jpeg truncated_jpeg_should_throw_exception",
    ),
]

# PNG


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(*before: bytes, after: bytes = b"", end: bytes = chunk(b"IEND", b""), image: Image.Image = RANDOM) -> bytes:
    """A PNG with chunks put before and after its data."""
    data = encoded("PNG", image)
    start = data.index(b"IDAT") - 4
    return data[:start] + b"".join(before) + data[start : data.rindex(b"IEND") - 4] + after + end


def animated_png(change: Callable[[bytes], bytes]) -> bytes:
    return change(encoded("PNG", save_all=True, append_images=[RANDOM.rotate(180), RANDOM.rotate(90)]))


def png_of_many_empty_parts() -> bytes:
    return png(chunk(b"IDAT", b""), chunk(b"IDAT", b""), after=chunk(b"IDAT", b"") + chunk(b"IDAT", b"padding"))


def png_with_header(**fields: int) -> bytes:
    """A PNG whose header says something else; with the right checksum."""
    names = ("width", "height", "bits", "colours", "compression", "filters", "interlace")
    header = dict(zip(names, (64, 48, 8, 2, 0, 0, 0), strict=True)) | fields
    return replaced(encoded("PNG"), encoded("PNG")[8:33], chunk(b"IHDR", struct.pack(">IIBBBBB", *header.values())))


PNGS = [
    Malformed(
        "international text without its parts",
        lambda: png(chunk(b"iTXt", b"a\0b")),
        PICTURE,
        "Pillow test_file_png bad_itxt",
    ),
    Malformed(
        "text of an unknown compression",
        lambda: png(chunk(b"iTXt", b"a\0\1\x07\0\0x")),
        PICTURE,
        "Pillow test_file_png bad_itxt",
    ),
    Malformed(
        "a profile of an unknown compression",
        lambda: png(chunk(b"iCCP", b"a\0\xffx")),
        PICTURE,
        "Pillow unknown_compression_method.png",
    ),
    Malformed(
        "transparency beside an alpha channel",
        lambda: png(chunk(b"tRNS", b"\0\0"), image=RANDOM.convert("RGBA")),
        PICTURE,
        "PNG specification 11.3.2.1",
    ),
    Malformed(
        "transparency cut short", lambda: png(chunk(b"tRNS", b"\0")), PICTURE, "Pillow test_file_png truncated_chunks"
    ),
    Malformed(
        "a time of no calendar",
        lambda: png(chunk(b"tIME", b"\0\0\x0d\x20\x19\x3d\x3d")),
        PICTURE,
        "libpng contrib/testpngs, badpal",
    ),
    Malformed(
        "a private chunk out of place", lambda: png(after=chunk(b"prVt", b"x" * 99)), PICTURE, "PNG specification 14.2"
    ),
    Malformed("empty and padded parts of data", png_of_many_empty_parts, PICTURE, "Pillow padded_idat.png"),
    Malformed("no end", lambda: png(end=b""), PICTURE, "Pillow issue 4414, libpng's viewers"),
    Malformed("an end with content", lambda: png(end=chunk(b"IEND", b"abc")), PICTURE, "PngSuite's libpng"),
    Malformed(
        "an animation whose numbers have a gap",
        lambda: animated_png(lambda data: replaced(data, b"fdAT\0\0\0\2", b"fdAT\0\0\0\7")),
        PICTURE,
        "Pillow apng/sequence_gap.png, APNG specification: show the static image",
    ),
    Malformed(
        "an animation of no frames",
        lambda: animated_png(lambda data: replaced(data, b"acTL\0\0\0\3", b"acTL\0\0\0\0")),
        PICTURE,
        "Pillow apng/syntax_num_frames_zero.png",
    ),
    Malformed(
        "an animation's control cut short",
        lambda: png(chunk(b"acTL", b"\0\0\0")),
        PICTURE,
        "Pillow apng/chunk_actl_error",
    ),
    Malformed(
        "a checksum of the data that is wrong",
        lambda: png(chunk(b"IDAT", b"x", 1)),
        "broken-image",
        "PngSuite xcsn0g01",
    ),
    Malformed(
        "a checksum of the header that is wrong",
        lambda: encoded("PNG")[:29] + bytes(4) + encoded("PNG")[33:],
        "broken-image",
        "PngSuite xhdn0g08",
    ),
    Malformed("no data", lambda: png_with_header()[:33] + chunk(b"IEND", b""), "broken-image", "PngSuite xdtn0g01"),
    Malformed("a colour type of 5", lambda: png_with_header(colours=5), "broken-image", "PngSuite xc1n0g08"),
    Malformed("a depth of 99 bits", lambda: png_with_header(bits=99), "broken-image", "PngSuite xd9n2c08"),
    Malformed(
        "a signature with line feeds changed",
        lambda: encoded("PNG").replace(b"\r\n", b"\n", 1),
        "not-an-image",
        "PngSuite xlfn0g04",
    ),
    Malformed("a signature of seven bits", lambda: b"\x09" + encoded("PNG")[1:], "not-an-image", "PngSuite xs7n0g01"),
    Malformed(
        "a palette that is missing",
        lambda: replaced(encoded("PNG", RANDOM.quantize(16)), b"PLTE", b"PLTX"),
        "broken-image",
        "PNG specification 11.2.2",
    ),
]

# GIF


def gif(inserted: bytes = b"") -> bytes:
    """A GIF with bytes put behind its palette."""
    data = encoded("GIF")
    at = gif_header_bytes(data)
    return data[:at] + inserted + data[at:]


def gif_header_bytes(data: bytes) -> int:
    return 13 + 3 * 2 ** ((data[10] & 7) + 1)


def gif_frame_beyond_the_screen() -> bytes:
    data = bytearray(gif())
    data[6:10] = struct.pack("<HH", 32, 24)
    return bytes(data)


def gif_of_large_extents() -> bytes:
    data = gif()
    place = data.index(b",", gif_header_bytes(data))
    return data[: place + 1] + struct.pack("<HHHH", 0, 0, 60_000, 60_000) + data[place + 9 :]


GIFS = [
    Malformed(
        "comments of no length", lambda: gif(b"!\xfe\0" * 3), PICTURE, "Pillow hopper_zero_comment_subblocks.gif"
    ),
    Malformed(
        "a background outside of the palette",
        lambda: gif()[:11] + b"\xff" + gif()[12:],
        PICTURE,
        "Pillow background_outside_palette.gif",
    ),
    Malformed("no trailer", lambda: gif()[:-1], PICTURE, "Pillow test_file_gif, giflib"),
    Malformed("a frame beyond the screen", gif_frame_beyond_the_screen, PICTURE, "Pillow test_extents.gif"),
    Malformed("an unknown extension", lambda: gif(b"!\x77\3abc\0"), PICTURE, "GIF89a specification 25"),
    Malformed("a frame of gigapixels", gif_of_large_extents, "too-large", "Pillow decompression_bomb_extents.gif"),
    Malformed(
        "another version", lambda: b"GIF88a" + gif()[6:], "not-an-image", "Pillow test_file_gif test_invalid_file"
    ),
    Malformed(
        "no frame", lambda: gif()[: gif_header_bytes(gif())] + b";", "broken-image", "Pillow's GifImagePlugin, no image"
    ),
]

# BMP


def bmp(offset: int = 0, form: str = "", *values: int, image: Image.Image = RANDOM) -> bytes:
    """A BMP with a field changed."""
    data = bytearray(encoded("BMP", image))
    if form:
        struct.pack_into(form, data, offset, *values)
    return bytes(data)


GREY = RANDOM.convert("L")
BMPS = [
    Malformed("a file size that is wrong", lambda: bmp(2, "<I", 5), PICTURE, "bmpsuite bad/badfilesize.bmp"),
    Malformed("a resolution below zero", lambda: bmp(38, "<ii", -9, -9), PICTURE, "bmpsuite bad/baddens2.bmp"),
    Malformed("five planes", lambda: bmp(26, "<H", 5), PICTURE, "bmpsuite bad/badplanes.bmp"),
    Malformed("an image size that is wrong", lambda: bmp(34, "<I", 7), PICTURE, "bmpsuite bad/badbitssize.bmp"),
    Malformed(
        "a palette of which more is said than there is",
        lambda: bmp(46, "<I", 305, image=GREY),
        "broken-image",
        "bmpsuite bad/badpalettesize.bmp: the pixels overlap",
    ),
    Malformed("three bits a pixel", lambda: bmp(28, "<H", 3), "not-supported", "bmpsuite bad/badbitcount.bmp"),
    Malformed("a header of 66 bytes", lambda: bmp(14, "<I", 66), "not-supported", "bmpsuite bad/badheadersize.bmp"),
    Malformed("a compression nobody knows", lambda: bmp(30, "<I", 99), "not-supported", "bmpsuite, biCompression"),
    Malformed(
        "a width below zero",
        lambda: bmp(18, "<i", -64),
        "too-large",
        "bmpsuite bad/badwidth.bmp: refused, as the number that it is unsigned",
    ),
    Malformed("really big", lambda: bmp(18, "<ii", 3_000_000, 2_000_000), "too-large", "bmpsuite bad/reallybig.bmp"),
    Malformed("half of the pixels", lambda: bmp()[: len(bmp()) // 2], "broken-image", "bmpsuite bad/shortfile.bmp"),
]

# TIFF


def tiff(changes: dict[int, tuple[int, int, int] | None] | None = None, next_directory: int = 0) -> bytes:
    """A grey TIFF of one strip with tags changed (type, count, value) or left out."""
    pixels = GREY.tobytes()
    tags = {256: (4, 1, 64), 257: (4, 1, 48), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 400)}
    tags |= {277: (3, 1, 1), 278: (4, 1, 48), 279: (4, 1, len(pixels))}
    kept = {tag: entry for tag, entry in {**tags, **(changes or {})}.items() if entry is not None}
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(kept.items()))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(kept)) + entries + struct.pack("<I", next_directory)
    return head.ljust(400, b"\0") + pixels


TIFFS = [
    Malformed(
        "a directory that follows itself",
        lambda: tiff(next_directory=8),
        PICTURE,
        "Pillow test_file_tiff, libtiff CVE-2018-*",
    ),
    Malformed("no rows a strip", lambda: tiff({278: None}), PICTURE, "Pillow no_rows_per_strip.tif"),
    Malformed(
        "a tag of an unknown type",
        lambda: tiff({40_000: (99, 1, 0)}),
        PICTURE,
        "Pillow test_file_tiff_metadata, libtiff",
    ),
    Malformed(
        "a tag whose value lies behind the end",
        lambda: tiff({40_000: (7, 900, 99_999)}),
        PICTURE,
        "Pillow issue 1765, corrupt EXIF data",
    ),
    Malformed("an orientation of 9", lambda: tiff({274: (3, 1, 9)}), PICTURE, "TIFF 6.0, Orientation"),
    Malformed(
        "a resolution of 0/0",
        lambda: tiff({282: (5, 1, 392), 283: (5, 1, 392)}),
        PICTURE,
        "Pillow hopper_float_dpi_None.tiff",
    ),
    Malformed("white is zero", lambda: tiff({262: (3, 1, 0)}), PICTURE, "TIFF 6.0, PhotometricInterpretation"),
    Malformed(
        "a strip behind the end", lambda: tiff({273: (4, 1, 99_999)}), "broken-image", "libtiff's fuzzed crashes"
    ),
    Malformed("no width", lambda: tiff({256: None}), "broken-image", "TIFF 6.0, required fields"),
    Malformed(
        "samples of 7 bits", lambda: tiff({258: (3, 1, 7)}), "not-supported", "Pillow hopper_unknown_pixel_mode.tif"
    ),
    Malformed(
        "complex numbers", lambda: tiff({339: (3, 1, 6)}), "not-supported", "TIFF technical note, SampleFormat 6"
    ),
    Malformed(
        "compressed as JPEG 2000", lambda: tiff({259: (3, 1, 34712)}), "not-supported", "GDAL, Compression 34712"
    ),
    Malformed("compressed as WebP", lambda: tiff({259: (3, 1, 50001)}), "not-supported", "libtiff COMPRESSION_WEBP"),
]

# WebP, HEIF and AVIF


def webp(change: Callable[[bytes], bytes]) -> bytes:
    return change(encoded("WEBP"))


def riff(data: bytes) -> bytes:
    """Set the size in the header right."""
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def box_of(data: bytes, kind: bytes) -> int:
    """Where a box of a HEIF or AVIF file begins."""
    return data.index(kind) - 4


def heif(form: str, old: bytes, new: bytes, **options: object) -> bytes:
    return replaced(encoded(form, **options), old, new)


def with_leading_box(form: str) -> bytes:
    """A box that nobody knows behind the file type, and all offsets in the file as they were: it ends the file."""
    return encoded(form) + struct.pack(">I4s", 16, b"free") + bytes(8)


MODERN = [
    Malformed(
        "a WebP with a chunk that nobody knows",
        lambda: webp(lambda data: riff(data + b"juNk\x04\0\0\0abcd")),
        PICTURE,
        "WebP container specification, Unknown Chunks",
    ),
    Malformed(
        "a WebP with bytes behind its end",
        lambda: webp(lambda data: data + b"behind"),
        PICTURE,
        "WebP container specification, trailing data",
    ),
    Malformed(
        "a WebP of half its size",
        lambda: webp(lambda data: data[: len(data) // 2]),
        "broken-image",
        "Pillow test_file_webp",
    ),
    Malformed(
        "a WebP without a picture",
        lambda: riff(b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10) + b"EXIF\x04\0\0\0abcd"),
        "broken-image",
        "libwebp's mux tests",
    ),
    *(
        each
        for form in ("HEIF", "AVIF")
        for each in (
            Malformed(
                f"{form}: EXIF of junk",
                lambda form=form: heif(form, EXIF[6:11], b"junk!", exif=EXIF),
                PICTURE,
                "libavif avifmetadatatest, libheif's fuzzing corpus",
            ),
            Malformed(
                f"{form}: a box that nobody knows",
                lambda form=form: with_leading_box(form),
                PICTURE,
                "ISO/IEC 14496-12, 4.2",
            ),
            Malformed(
                f"{form}: a primary item that is not there",
                lambda form=form: heif(form, b"pitm\0\0\0\0\0\1", b"pitm\0\0\0\0\0\x09"),
                "broken-image",
                "libheif's fuzzing corpus; libavif avif_fuzztest",
            ),
            Malformed(
                f"{form}: a handler that is no picture's",
                lambda form=form: heif(form, b"pict", b"vide"),
                "broken-image",
                "libavif 'hdlr' must be 'pict'",
            ),
            Malformed(
                f"{form}: data behind the end",
                lambda form=form: encoded(form)[: box_of(encoded(form), b"mdat") + 40],
                "broken-image",
                "libheif's fuzzing corpus",
            ),
            Malformed(
                f"{form}: no place of the data",
                lambda form=form: heif(form, b"iloc", b"free"),
                "broken-image",
                "libavif avifparsetest",
            ),
            Malformed(
                f"{form}: no size",
                lambda form=form: heif(form, b"ispe", b"free"),
                PICTURE if form == "HEIF" else "broken-image",
                "libavif AVIF_STRICT; libheif takes the size of the picture's own header",
            ),
            Malformed(
                f"{form}: another brand",
                lambda form=form: b"".join(
                    (
                        encoded(form)[:8],
                        b"qt  ",
                        bytes(4),
                        b"qt  " * ((struct.unpack(">I", encoded(form)[:4])[0] - 16) // 4),
                        encoded(form)[struct.unpack(">I", encoded(form)[:4])[0] :],
                    )
                ),
                "not-an-image",
                "ISO/IEC 14496-12, 4.3",
            ),
        )
    ),
    Malformed(
        "HEIF: coded as JPEG 2000",
        lambda: heif("HEIF", b"hvc1", b"j2k1"),
        "not-supported",
        "libheif heif_suberror_Unsupported_codec",
    ),
    Malformed(
        "HEIF: parameters of the coding cut off",
        lambda: heif("HEIF", b"hvcC", b"free"),
        "broken-image",
        "libheif's fuzzing corpus",
    ),
]

PICTURES = [*JPEGS, *PNGS, *GIFS, *BMPS, *TIFFS, *MODERN]


# Events


@dataclass(frozen=True)
class MalformedEvent:
    """A message on the input topic: the image ids of what it uploads, or the reason why it uploads nothing."""

    name: str
    record: Record
    right: str
    source: str


DATA = {"image_id": "a", "url": "https://example.org/a.png"}
EVENT = {"specversion": "1.0", "id": "1", "source": "/app", "type": "image.uploaded", "data": DATA}
ENVELOPE = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/app", "ce_type": b"image.uploaded"}


def message(value: object, *headers: tuple[str, bytes | None], key: bytes | None = b"key") -> Record:
    value = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return Record("image-uploads", 0, 7, key, value, headers, 1_700_000_000_000)


def structured(content_type: bytes = b"application/cloudevents+json", **changes: object) -> Record:
    return message({**EVENT, **changes}, ("content-type", content_type))


def binary(*headers: tuple[str, bytes | None], value: object = DATA, **changes: bytes | None) -> Record:
    attributes = {**ENVELOPE, **{f"ce_{name}": text for name, text in changes.items()}}
    return message(value, *attributes.items(), *headers)


NESTED = b'{"specversion":"1.0","id":"1","source":"/app","type":"image.uploaded","data":' + b"[" * 50_000
EVENTS = [
    MalformedEvent(
        "a content type in capitals, with parameters",
        structured(b"Application/CloudEvents+JSON ;charset=utf-8"),
        "a",
        "CloudEvents Kafka binding 3.1; sdk-go",
    ),
    MalformedEvent(
        "a content type without a format",
        structured(b"application/cloudevents"),
        "a",
        "CloudEvents Kafka binding 3.3.1",
    ),
    MalformedEvent(
        "a time in small letters", structured(time="2026-01-01t00:00:00z"), "a", "RFC 3339 5.6; sdk-java TimeTest"
    ),
    MalformedEvent("a leap second", structured(time="2016-12-31T23:59:60Z"), "a", "RFC 3339 5.7; sdk-rust"),
    MalformedEvent(
        "a version of the future",
        structured(specversion="1.1"),
        "malformed-event",
        "sdk-python test_event: specversion",
    ),
    MalformedEvent(
        "a version of the past", structured(specversion="0.1"), "malformed-event", "sdk-java UnknownSpecVersion"
    ),
    MalformedEvent("an empty id", structured(id=""), "malformed-event", "CloudEvents 1.0 id: non-empty"),
    MalformedEvent("an empty source", structured(source=""), "malformed-event", "CloudEvents 1.0 source: non-empty"),
    MalformedEvent("an id that is true", structured(id=True), "malformed-event", "sdk-javascript, strict validation"),
    MalformedEvent("data that is null", structured(data=None), "malformed-event", "sdk-go ErrNoData"),
    MalformedEvent("data that is a number", structured(data=5), "malformed-event", "sdk-java CloudEventRWException"),
    MalformedEvent("data in a list", structured(data=[DATA]), "malformed-event", "sdk-python test_json_format"),
    MalformedEvent(
        "data twice",
        structured(data_base64=b64encode(b"{}").decode()),
        "a",
        "CloudEvents JSON format 3.1; sdk-python: data counts",
    ),
    MalformedEvent("base64 of nothing", structured(data=None, data_base64=""), "malformed-event", "sdk-go json tests"),
    MalformedEvent(
        "an attribute twice",
        message(json.dumps(EVENT)[:-1].encode() + b', "id": "2"}'),
        "a",
        "RFC 8259 4: the last counts",
    ),
    MalformedEvent("an extension that is an object", structured(ext={"a": 1}), "a", "sdk-java issue 401"),
    MalformedEvent(
        "nested without end", message(NESTED), "malformed-event", "JSONTestSuite n_structure_100000_opening_arrays"
    ),
    MalformedEvent(
        "a number without end",
        message(b'{"specversion": ' + b"9" * 5000 + b"}"),
        "malformed-event",
        "JSONTestSuite i_number_huge_exp, CVE-2020-10735",
    ),
    MalformedEvent(
        "half of a surrogate pair",
        structured(data={**DATA, "image_id": "\ud800"}),
        "malformed-event",
        "JSONTestSuite i_string_1st_surrogate_but_2nd_missing",
    ),
    MalformedEvent(
        "bytes that are no UTF-8",
        message(b'{"specversion": "\xff"}'),
        "malformed-event",
        "JSONTestSuite i_string_invalid_utf-8",
    ),
    MalformedEvent(
        "a value of one null", message(b"null"), "malformed-event", "JSONTestSuite n_single; Connect JsonConverter"
    ),
    MalformedEvent("an empty value", message(b""), "malformed-event", "JSONTestSuite n_structure_no_data"),
    MalformedEvent("no value", message(None), "malformed-event", "Kafka tombstones"),
    MalformedEvent("no value and no key", message(None, key=None), "malformed-event", "Kafka tombstones"),
    MalformedEvent(
        "headers in capitals",
        message(DATA, *((name.upper(), text) for name, text in ENVELOPE.items())),
        "a",
        "sdk-python kafka bindings: names in any case",
    ),
    MalformedEvent(
        "an attribute's header twice", binary(("ce_id", b"2")), "a", "Kafka allows headers twice: the last counts"
    ),
    MalformedEvent("a header without value", binary(("ce_subject", None)), "a", "sdk-java KafkaBinaryMessageReader"),
    MalformedEvent(
        "a header that is no UTF-8", binary(("ce_comment", b"\xff\xfe")), "a", "CloudEvents Kafka binding 3.2.3.1"
    ),
    MalformedEvent("no id among the headers", binary(id=None), "malformed-event", "sdk-python test_kafka: missing id"),
    MalformedEvent(
        "a data content type as an attribute too",
        binary(("ce_datacontenttype", b"text/plain")),
        "a",
        "CloudEvents Kafka binding 3.2.1",
    ),
    MalformedEvent("no data in binary mode", binary(value=b""), "malformed-event", "sdk-go kafka_sarama tests"),
    MalformedEvent(
        "XML",
        binary(("content-type", b"application/xml"), value=b"<image_id>a</image_id>"),
        "malformed-event",
        "CloudEvents 1.0, datacontenttype",
    ),
    MalformedEvent("another type", structured(type="com.example.created"), "unknown-event", "CloudEvents 1.0 type"),
    MalformedEvent("an empty document", message({}), "unknown-event", "Amazon S3 User Guide: ignore what is not known"),
    MalformedEvent("a notification of no records", message({"Records": []}), "unknown-event", "Amazon S3 User Guide"),
    MalformedEvent(
        "records that are no objects", message({"Records": [None]}), "malformed-event", "Amazon S3 User Guide"
    ),
    MalformedEvent(
        "a bucket without name",
        message({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {}, "object": {"key": "a"}}}]}),
        "malformed-event",
        "Amazon S3 User Guide",
    ),
    MalformedEvent(
        "a key that is badly encoded",
        message(
            {
                "Records": [
                    {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "%zz%"}}}
                ]
            }
        ),
        "s3://b/%zz%",
        "RFC 3986 2.1; S3 takes any key",
    ),
]
