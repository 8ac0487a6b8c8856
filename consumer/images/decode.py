"""Decoding the bytes of a picture to uint8 [S, S, 3], safely: whatever the bytes, they end as a `Picture` or a reason.

The order matters. The announced type, the format's signature and the size that the header claims are checked before
anything is decoded; JPEGs are decoded at a fraction of their size where that is enough; the picture is made small
before it is converted, composed or turned, so that those steps cost next to nothing.
"""

import re
import struct
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image, UnidentifiedImageError
from pillow_heif import register_heif_opener

from consumer.errors import Unprocessable
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.images.thumbnail import SIDE as THUMBNAIL_SIDE
from consumer.images.thumbnail import Thumbnail, find_content, shrink
from consumer.settings import DecodeSettings

# The formats that are opened. Pillow knows some forty; each further decoder is one more way in for an attacker.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "HEIF", "AVIF", "TIFF", "BMP")

# Content types that say nothing about the content; object stores and upload forms put them when nobody knows.
OPAQUE_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"})

# A progressive JPEG usually has ten scans. Each one passes over the whole picture however few bytes it has, so a file
# of empty scans is a bomb of time: at 100 megapixels, 32 MiB of them keep a core busy for hours.
MAX_JPEG_SCANS = 50
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
MAX_JPEG_SEGMENTS = 10_000  # a segment has up to 64 kB: a hundred are many
JPEG_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # markers that a length follows, and EOI

# Pillow parses headers in Python, a read or more for each chunk, segment, block or tag, so that 32 MiB of empty chunks
# take it up to minutes. A PNG of 100 megapixels with a chunk for each row needs some 50,000 reads.
MAX_READS = 200_000
# For each strip or tile of a TIFF Pillow makes a Python object, 350 bytes for the four in the file. The limit lets
# through one strip for each row of the longest side that other formats have, in three planes.
MAX_TIFF_VALUES = 200_000
TIFF_BYTE_TYPES = (1, 2, 6, 7)  # a tag of these may have any number of values: Pillow keeps them as bytes

# Above this size pictures are decoded one at a time. The worst (lossless WebP) take 16 bytes a pixel while they are
# decoded: 1.6 GB at the default limit, from 4 kB of input, and in each thread if nothing held them back.
LARGE_PIXELS = 16_000_000
_one_large_picture = threading.Lock()

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of R, G, B in the luminance (ITU-R BT.601)

# EXIF orientation -> the transposition that makes the picture upright.
EXIF_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What undoes each: whether the axes change places, and whether places are then mirrored left to right and flipped.
TURNS_BACK = {
    Image.Transpose.FLIP_LEFT_RIGHT: (False, True, False),
    Image.Transpose.ROTATE_180: (False, True, True),
    Image.Transpose.FLIP_TOP_BOTTOM: (False, False, True),
    Image.Transpose.TRANSPOSE: (True, False, False),
    Image.Transpose.ROTATE_270: (True, False, True),
    Image.Transpose.TRANSVERSE: (True, True, True),
    Image.Transpose.ROTATE_90: (True, True, False),
}

# Thumbnails inside a HEIF file may show something else than the picture itself, and one thread a picture is enough,
# since pictures are decoded in parallel already. Both libraries hold these settings for the whole process.
register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# Of larger blocks the system takes the memory back at once. What is allocated beside a picture would otherwise hold it
# back: some 70 MB for each thread that ever decoded a large one.
Image.core.set_block_size(64 << 20)  # type: ignore[attr-defined]  # exported by Pillow's C module alone

# Pillow warns of damaged metadata with texts taken from the file, and Python remembers each text: a leak that uploads
# could feed. (`catch_warnings` is no way out, since it is not safe in threads.)
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    `pixels` is uint8 [S, S, 3], RGB, contiguous: the whole picture, upright, squashed to a square. `thumbnail` shows
    what is within its margins. `detail` is the score of `detail()`. `width` and `height` are those of the file, in
    pixels, as stored (before it is turned upright).
    """

    pixels: NDArray[np.uint8]
    thumbnail: Thumbnail
    detail: float
    width: int
    height: int
    format: str


def decode(data: bytes, size: int, settings: DecodeSettings, content_type: str | None = None) -> Picture:
    """Decode the picture in `data`, squashed to `size` x `size` pixels; of an animation or several pages, the first.

    Colour profiles are not applied. Safe to call from many threads; decoding itself does not hold the GIL.
    Raises Unprocessable, and nothing else, for whatever may be wrong with the bytes.
    """
    _check_content_type(content_type)
    try:
        _check_tiff(data)
        with Image.open(_Input(data), formats=FORMATS) as image:
            name, (width, height) = image.format or "", image.size
            _check_size(width, height, settings)
            held_pixels = width * height
            if name in ("JPEG", "MPO"):
                scans = _jpeg_scans(data)
                image.draft(None, (size, size))  # the smallest of 1, 1/2, 1/4, 1/8 that still covers the square
                if scans == 1:
                    held_pixels = image.width * image.height  # a progressive one is held whole
            with _one_large_picture if held_pixels > LARGE_PIXELS else nullcontext():
                pixels, thumbnail = prepare(image, size, width / height)
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except (MemoryError, Image.DecompressionBombError):
        raise Unprocessable(
            "too-large",
            f"The picture needs more memory than allowed; send one of at most {settings.max_pixels} pixels.",
        ) from None
    except Unprocessable:
        raise
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, KeyError and others
        raise Unprocessable(
            "broken-image", f"The picture is cut short or damaged ({_printable(error)}); send the whole file."
        ) from error
    return Picture(pixels, thumbnail, detail(pixels), width, height, name)


def detail(pixels: NDArray[np.uint8]) -> float:
    """Score how much uint8 [S, S, 3] shows, in grey levels: 0 for one flat colour, about 10 for photographs.

    The score is the mean absolute mixed difference, d2/dxdy, of the luminance averaged over some 24 x 24 cells. It is 0
    for every picture f(x) + g(y): blanks, gradients, stripes, a picture split in two; of a frame only the corners
    count. Averaging takes out sensor and compression noise. So it judges such pictures better than the deviation or the
    entropy, which are high for a gradient, or the mean gradient, which is high for a thin frame.
    """
    cell = max(1, pixels.shape[0] // 24)
    cells = pixels.shape[0] // cell
    side = cells * cell
    grey = pixels[:side, :side] @ LUMA
    sums = grey.reshape(cells, cell, side).sum(axis=1).reshape(cells, cells, cell).sum(axis=2)
    return float(np.abs(np.diff(np.diff(sums, axis=0), axis=1)).mean() / cell**2)


def _check_content_type(content_type: str | None) -> None:
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind not in OPAQUE_TYPES and not kind.startswith("image/"):
        raise Unprocessable(
            "wrong-content-type", f"The upload is announced as {kind[:80]!r}, which is no picture; announce image/*."
        )


def _check_size(width: int, height: int, settings: DecodeSettings) -> None:
    if width * height > settings.max_pixels:
        raise Unprocessable(
            "too-large", f"The picture has {width} x {height} pixels; at most {settings.max_pixels} are accepted."
        )
    if min(width, height) < settings.min_side:
        raise Unprocessable(
            "too-small",
            f"The picture has {width} x {height} pixels; each side must have at least {settings.min_side}.",
        )


class _Input(BytesIO):
    """The data as a file that allows at most MAX_READS reads. Parsers that copy a part of it escape the count."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise Unprocessable("broken-image", "The picture is cut into too many parts; save it again.")
        return super().read(size)


def _jpeg_scans(data: bytes) -> int:
    """Count the scans up to the end of the first image; what follows it (pictures, a video) may hold any bytes."""
    scans, offset = 0, 2
    for _ in range(MAX_JPEG_SEGMENTS):
        marker = JPEG_SEGMENT.search(data, offset)
        if marker is None or marker[0] == END_OF_IMAGE:
            return scans
        scans += marker[0] == START_OF_SCAN
        if scans > MAX_JPEG_SCANS:
            break
        offset = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    raise Unprocessable("broken-image", "The JPEG has far too many scans or segments; save it again.")


def _check_tiff(data: bytes) -> None:
    """Refuse a TIFF of too many strips, tiles or tags in its first directory, the only one that is decoded."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order or data[2:4] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
        return
    big = b"+" in data[2:4]
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (tags,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
    offset += 8 if big else 2
    complete = min(tags, (len(data) - offset) // entry.size)  # a file that is cut short says more than it has
    if complete <= MAX_TIFF_VALUES and all(
        kind in TIFF_BYTE_TYPES or count <= MAX_TIFF_VALUES
        for _, kind, count in entry.iter_unpack(data[offset : offset + complete * entry.size])
    ):
        return
    raise Unprocessable("broken-image", "The TIFF is cut into too many strips, tiles or tags; save it again.")


def prepare(image: Image.Image, size: int, aspect: float) -> tuple[NDArray[np.uint8], Thumbnail]:
    """Prepare an opened image for the encoder: uint8 [size, size, 3], RGB, upright, and its thumbnail.

    `aspect` is the width over the height of the file, which an image decoded small has only roughly.
    """
    image.load()
    transposition = _transposition(image)  # after loading, since Pillow turns a TIFF while loading it
    image = _resizable(image)
    # Bilinear (a triangle as wide as the reduction asks for) is the cheapest of Pillow's filters but for the box, and
    # the one under which two versions of a picture, full and half size or recompressed, differ least.
    square = _rgb(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))
    if transposition is not None:
        square = square.transpose(transposition)
        aspect = 1 / aspect if TURNS_BACK[transposition][0] else aspect
    small = shrink(square)
    content = find_content(small)
    if content == WHOLE_IMAGE:
        return np.ascontiguousarray(square), Thumbnail.of(small, content, aspect)
    # From the picture itself: of the square, little may be left within wide margins.
    box = _turned_back(content, transposition).box(image.size)
    cut = _rgb(image.resize((THUMBNAIL_SIDE * 2,) * 2, Image.Resampling.BILINEAR, box, reducing_gap=2.0))
    cut = cut if transposition is None else cut.transpose(transposition)
    return np.ascontiguousarray(square), Thumbnail.of(shrink(cut), content, aspect)


def _turned_back(region: Region, transposition: Image.Transpose | None) -> Region:
    """Return where a region of the upright picture is in the picture as stored, which `transposition` makes upright."""
    if transposition is None:
        return region
    left, top, right, bottom = region
    swapped, mirrored, flipped = TURNS_BACK[transposition]
    if swapped:
        left, top, right, bottom = top, left, bottom, right
    if mirrored:
        left, right = 1 - right, 1 - left
    if flipped:
        top, bottom = 1 - bottom, 1 - top
    return Region(left, top, right, bottom)


def _transposition(image: Image.Image) -> Image.Transpose | None:
    """Read from EXIF what makes the picture upright; damaged EXIF data counts as none, as in browsers."""
    try:
        return EXIF_TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return None


def _resizable(image: Image.Image) -> Image.Image:
    """Convert to a mode that can be resized: no palette, no 16 bits, transparency only as RGBA."""
    if image.mode.startswith("I;16"):  # Pillow resizes some of these wrongly, and clips at 255 when it converts them
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "RGBA":
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("P", "PA", "1"):
        return image.convert("RGB")
    return image


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB, transparent parts on white."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode in ("I", "F"):  # no range is agreed upon: stretch the picture's own
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        values -= values.min()
        image = Image.fromarray((values * (255.0 / max(values.max(), 1e-9))).astype(np.uint8))
    return image.convert("RGB")


def _unidentified(data: bytes) -> Unprocessable:
    """Give the reason for data that no decoder took: damaged if it has the signature of a format, else no picture."""
    for name in FORMATS:
        _, accepts = Image.OPEN[name]
        if accepts is not None and accepts(data[:16]) is True:
            return Unprocessable(
                "broken-image",
                f"The data begins as {name} but its header is cut short or damaged; send the whole file.",
            )
    return Unprocessable(
        "not-an-image",
        f"The {len(data)} bytes are no picture of a known format; send JPEG, PNG, WebP, GIF, HEIC, AVIF, TIFF or BMP.",
    )


def _printable(error: Exception) -> str:
    """Return a decoder's message as one printable line of bounded length; it may quote the file."""
    return "".join(c if c.isprintable() else "?" for c in str(error))[:120] or type(error).__name__
