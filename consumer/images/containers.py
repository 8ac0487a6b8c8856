"""What is looked at, and left out, in the bytes of a picture before a decoder parses them.

Each check stands beside the attack that it stops; each leniency beside what every viewer shows all the same.
"""

import re
import struct
import zlib
from typing import NamedTuple

import numpy as np

from consumer.errors import Unprocessable

# A progressive JPEG usually has ten scans. Each one passes over the whole picture however few bytes it has, so a file
# of empty scans is a bomb of time: at 100 megapixels, 32 MiB of them keep a core busy for hours.
MAX_JPEG_SCANS = 50
START_OF_IMAGE, START_OF_SCAN, END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
MAX_JPEG_SEGMENTS = 10_000  # a segment has up to 64 kB: a hundred are many
JPEG_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # markers that a length follows, and EOI
JPEG_RESTARTS = tuple(bytes((0xFF, 0xD0 + number)) for number in range(8))
# Frames that are coded in other ways than the decoder knows: hierarchical ones.
HIERARCHICAL_FRAMES = frozenset(bytes((0xFF, code)) for code in (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF))
FRAMES = HIERARCHICAL_FRAMES | {bytes((0xFF, code)) for code in (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB)}
PROGRESSIVE_FRAMES = frozenset({b"\xff\xc2", b"\xff\xca"})
JPEG_METADATA = frozenset({0xE1, *range(0xE2, 0xEE), 0xEF, 0xFE})  # but for EXIF, which is an E1 too
FILLING_BYTES = 64 << 10

# Chunks that a PNG of 100 megapixels has if there is one for each row are some 12,000.
MAX_PNG_CHUNKS = 60_000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHUNK = struct.Struct(">I4s")

# For each strip or tile of a TIFF Pillow makes a Python object, 350 bytes for the four in the file. The limit lets
# through one strip for each row of the longest side that other formats have, in three planes.
MAX_TIFF_VALUES = 200_000
TIFF_BYTE_TYPES = (1, 2, 6, 7)  # a tag of these may have any number of values: Pillow keeps them as bytes
TIFF_WIDTH, TIFF_HEIGHT, TIFF_COMPRESSION = 256, 257, 259
# None, CCITT (four kinds), LZW, JPEG (two), Deflate (two), PackBits, LZMA, Zstandard: what Pillow's libtiff knows.
TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946, 34925, 50000})

# Entries of a HEIF file that are pictures in codings that libheif is built without here.
HEIF_CODING = re.compile(rb"infe.{8}(?:..)?(j2k1|avc1|vvc1|evc1|unci|jpeg)", re.DOTALL)
AVIF_EXIF = re.compile(rb"infe.{8}(?:..)?Exif", re.DOTALL)
HEIF_HEADER_BYTES = 64 << 10


class Jpeg(NamedTuple):
    """What the markers of a JPEG say: scans, whether its end is there, and whether a decoder here knows its kind.

    One that is not `streamed` is held whole while it is decoded: progressive, or with components left to later scans,
    which need not be there.
    """

    scans: int
    ended: bool
    supported: bool
    streamed: bool


def read_jpeg(data: bytes) -> Jpeg:
    """Read the markers up to the end of the first image; what follows it (pictures, a video) may hold any bytes."""
    scans, offset, supported, streamed = 0, 2, True, False
    sequential, components = False, b""
    for _ in range(MAX_JPEG_SEGMENTS):
        marker = JPEG_SEGMENT.search(data, offset)
        if marker is None or marker[0] == END_OF_IMAGE:
            return Jpeg(scans, marker is not None, supported, streamed)
        scans += marker[0] == START_OF_SCAN
        if scans > MAX_JPEG_SCANS:
            break
        if marker[0] == START_OF_SCAN and scans == 1:
            streamed = sequential and data[marker.end() + 2 : marker.end() + 3] == components
        if marker[0] in FRAMES:
            bits = data[marker.end() + 2 : marker.end() + 3]
            supported = marker[0] not in HIERARCHICAL_FRAMES and bits == b"\x08"
            sequential, components = marker[0] not in PROGRESSIVE_FRAMES, data[marker.end() + 7 : marker.end() + 8]
        offset = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    raise Unprocessable("broken-image", "The JPEG has far too many scans or segments; save it again.")


def mended(data: bytes, jpeg: Jpeg | None) -> tuple[bytes, ...]:
    """Return what to decode instead of the data; if it is more than one, all have to give the same picture.

    `jpeg` is what the markers of the data say, of a JPEG.
    """
    if data.startswith(PNG_SIGNATURE):
        return (_without_metadata(data),)
    if jpeg is not None:
        data = _without_segments(data)
        if jpeg.scans and not jpeg.ended:
            return _filled_up(data.rstrip(b"\xff"))
    if data[4:12] in (b"ftypavif", b"ftypavis") and (entry := AVIF_EXIF.search(data, 0, HEIF_HEADER_BYTES)):
        # libavif gives up where EXIF is damaged. Which way is up is said elsewhere in such a file.
        return (data[: entry.end() - 4] + b"skip" + data[entry.end() :],)
    return (data,)


def _without_segments(data: bytes) -> bytes:
    """Leave out the segments of a JPEG that do not bear upon its pixels: profiles, texts, further pictures.

    EXIF (which way is up) and Adobe's (which colours) stay.
    """
    parts, offset, kept_from = [], 2, 0
    while (marker := JPEG_SEGMENT.search(data, offset)) is not None and marker[0] not in (START_OF_SCAN, END_OF_IMAGE):
        length = int.from_bytes(data[marker.end() : marker.end() + 2])
        offset = marker.end() + length
        if length < 2 or offset > len(data):
            break
        is_exif = marker[0] == b"\xff\xe1" and data.startswith(b"Exif\0\0", marker.end() + 2)
        if marker[0][1] in JPEG_METADATA and not is_exif:
            parts.append(data[kept_from : marker.start()])
            kept_from = offset
    return b"".join((*parts, data[kept_from:])) if parts else data


def _filled_up(data: bytes) -> tuple[bytes, bytes]:
    """End a JPEG without end in two ways. If nothing but its end is missing, what stands before that does not matter.

    What is missing would be made up from these bytes, and the two pictures would differ.
    """
    noise = np.random.default_rng(0).integers(0, 255, FILLING_BYTES, np.uint8).tobytes()  # without 0xFF
    last_restart = max(data.rfind(marker) for marker in JPEG_RESTARTS)
    if last_restart < 0:
        return data + bytes(FILLING_BYTES) + END_OF_IMAGE, data + noise + END_OF_IMAGE
    # Where markers stand between parts of the picture, each part has to be filled up.
    next_restart = data[last_restart + 1] + 1
    markers = [JPEG_RESTARTS[(next_restart + number) % 8] for number in range(FILLING_BYTES // 64)]
    fillings = (bytes(64), noise[:64])
    first, second = (data + b"".join(filling + marker for marker in markers) + END_OF_IMAGE for filling in fillings)
    return first, second


def _without_metadata(data: bytes) -> bytes:
    """Leave out the chunks of a PNG that do not bear upon its pixels: they may be damaged, or unpack to any size.

    Transparency and EXIF (which way is up) stay if they are sound. So no text or profile is ever unpacked.
    """
    parts, offset, kept_from = [], len(PNG_SIGNATURE), 0
    colours = data[25:26]  # the colour type, of the header
    for _ in range(MAX_PNG_CHUNKS):
        if offset + PNG_CHUNK.size > len(data):
            break
        length, kind = PNG_CHUNK.unpack_from(data, offset)
        end = offset + PNG_CHUNK.size + length + 4
        if end > len(data) or not kind.isalpha():
            break
        if kind == b"CgBI":
            raise Unprocessable(
                "not-supported", "The PNG is of Apple's own variant, which is not supported; send a standard one."
            )
        if kind[0] & 32 and not _is_sound(kind, colours, data[offset + 4 : end - 4], data[end - 4 : end]):
            parts.append(data[kept_from:offset])
            kept_from = end
        offset = end
        if kind == b"IEND":
            break
    else:
        raise Unprocessable("broken-image", "The PNG is cut into too many parts; save it again.")
    return b"".join((*parts, data[kept_from:])) if parts else data


def _is_sound(kind: bytes, colours: bytes, checked: bytes, checksum: bytes) -> bool:
    """Tell whether an ancillary chunk is one that counts, with the right checksum and length."""
    length = len(checked) - 4
    if kind == b"tRNS":
        fits = {b"\0": length == 2, b"\2": length == 6, b"\3": 1 <= length <= 256}.get(colours, False)
    else:
        fits = kind == b"eXIf"
    return fits and zlib.crc32(checked).to_bytes(4) == checksum


def check_tiff(data: bytes) -> None:
    """Refuse a TIFF whose first directory, the only one that is decoded, has too many strips, tiles or tags.

    Also one that is compressed in a way that nobody here knows. Raises Unprocessable and struct.error.
    """
    tags = _tiff_tags(data)
    compression = tags.get(TIFF_COMPRESSION, 1)
    if compression not in TIFF_COMPRESSIONS:
        raise Unprocessable(
            "not-supported",
            f"The TIFF's compression ({compression}) is not supported; use LZW, Deflate, JPEG, Zstandard or none.",
        )


def find_unsupported(data: bytes) -> str | None:
    """Name what it is in a picture whose header no decoder took that is not supported; None if it seems damaged."""
    if data.startswith(START_OF_IMAGE) and not read_jpeg(data).supported:
        return "a JPEG of 12 bits, or a hierarchical one"
    if data[4:8] == b"ftyp" and (coding := HEIF_CODING.search(data, 0, HEIF_HEADER_BYTES)):
        return f"HEIF with {coding[1].decode()}"
    try:
        sized = {TIFF_WIDTH, TIFF_HEIGHT} <= _tiff_tags(data).keys()
    except struct.error:
        return None
    return "a TIFF of these bits and kinds of samples" if sized else None


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Read the first value of each short tag in the first directory; empty for what is no TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order or data[2:4] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
        return {}
    big = b"+" in data[2:4]
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    entry = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
    offset += 8 if big else 2
    complete = min(count, (len(data) - offset) // entry.size)  # a file that is cut short says more than it has
    if complete > MAX_TIFF_VALUES:
        raise _too_many_parts()
    tags = {}
    for tag, kind, values, value in entry.iter_unpack(data[offset : offset + complete * entry.size]):
        if kind not in TIFF_BYTE_TYPES and values > MAX_TIFF_VALUES:
            raise _too_many_parts()
        if kind in (3, 4):
            tags[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
    return tags


def _too_many_parts() -> Unprocessable:
    return Unprocessable("broken-image", "The TIFF is cut into too many strips, tiles or tags; save it again.")
