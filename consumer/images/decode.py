"""Decoding the bytes of a picture to uint8 [S, S, 3], safely: whatever the bytes, they end as a `Picture` or a reason.

The order matters. The announced type, the format's signature and the size that the header claims are checked before
anything is decoded; JPEGs are decoded at a fraction of their size where that is enough; the picture is made small
before it is converted, composed or turned, so that those steps cost next to nothing.
"""

import math
import re
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from numbers import Real

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image, ImageCms, UnidentifiedImageError
from pillow_heif import register_heif_opener

from consumer.errors import Unprocessable
from consumer.images.containers import (
    MAX_JPEG_SCANS,
    START_OF_IMAGE,
    Jpeg,
    check_tiff,
    find_unsupported,
    mended,
    read_jpeg,
)
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.images.resize import squash, squash_rgb
from consumer.images.thumbnail import SIDE as THUMBNAIL_SIDE
from consumer.images.thumbnail import Thumbnail, find_content, shrink
from consumer.settings import DecodeSettings

# The formats that are opened. Pillow knows some forty; each further decoder is one more way in for an attacker.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "HEIF", "AVIF", "TIFF", "BMP")

# Content types that say nothing about the content; object stores and upload forms put them when nobody knows.
OPAQUE_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"})

# Pillow parses headers in Python, a read or more for each chunk, segment, block or tag, so that 32 MiB of empty chunks
# take it up to minutes. A PNG of 100 megapixels with a chunk for each row needs some 50,000 reads.
MAX_READS = 200_000
# A JPEG is decoded small. At 200 megapixels one of a single scan, as telephones make them, takes 86 MiB and 0.2 s of a
# core, a progressive one up to 1.2 GiB and 1 s; a lossless WebP of 100 megapixels takes 1.6 GiB and 1.3 s.
JPEG_PIXELS_FACTOR = 2.5
# Where Pillow's own guard against bombs refuses, whatever the settings; half of that, as Pillow counts it.
Image.MAX_IMAGE_PIXELS = 225_000_000

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

# What a 16-bit picture's white is, and what the tags of a TIFF say of it.
FULL_16_BITS = 65_535
USUAL_WHITES = (255, 1023, 4095)
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_MAX_SAMPLE_VALUE, TIFF_SMAX_SAMPLE_VALUE = 258, 262, 281, 341
WHITE_IS_ZERO = 0
LAB_TO_SRGB = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))

# How decoders say that a file is sound, but not of a kind that they know.
UNSUPPORTED = re.compile(r"unsupported|not supported|unknown (?:pixel|raw) mode|no codec", re.IGNORECASE)

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
    pixels, as stored (before it is turned upright). `pdq` is its PDQ hash, where that was asked for.
    """

    pixels: NDArray[np.uint8]
    thumbnail: Thumbnail
    detail: float
    width: int
    height: int
    format: str
    pdq: str | None = None


def decode(data: bytes, size: int, settings: DecodeSettings, content_type: str | None = None) -> Picture:
    """Decode the picture in `data`, squashed to `size` x `size` pixels; of an animation or several pages, the first.

    Colour profiles are not applied. Safe to call from many threads; decoding itself does not hold the GIL.
    Raises Unprocessable, and nothing else, for whatever may be wrong with the bytes.
    """
    _check_content_type(content_type)
    jpeg = read_jpeg(data) if data.startswith(START_OF_IMAGE) else None
    first, *others = [_decode(each, size, settings, jpeg) for each in mended(data, jpeg)]
    if any(not np.array_equal(other.pixels, first.pixels) for other in others):
        raise Unprocessable("broken-image", "The picture is cut short; send the whole file.")
    return first


def _decode(data: bytes, size: int, settings: DecodeSettings, jpeg: Jpeg | None) -> Picture:
    """Decode a picture; `jpeg` is what the markers of a JPEG say. Raises Unprocessable."""
    try:
        check_tiff(data)
        with Image.open(_Input(data), formats=FORMATS) as image:
            name, (width, height) = image.format or "", image.size
            _check_size(width, height, settings, jpeg)
            held_pixels = width * height
            if jpeg is not None:
                image.draft(None, (size, size))  # the smallest of 1, 1/2, 1/4, 1/8 that still covers the square
                if jpeg.streamed:
                    held_pixels = image.width * image.height  # of one that is not, all coefficients are held
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
        if UNSUPPORTED.search(str(error)):
            raise _not_supported(_printable(error)) from error
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
    rows = pixels[:side, :side].reshape(cells, cell, side * 3).sum(axis=1, dtype=np.uint16)
    sums = rows.reshape(cells, cells, cell * 3) @ np.tile(LUMA, cell)
    return float(np.abs(np.diff(np.diff(sums, axis=0), axis=1)).mean() / cell**2)


def _check_content_type(content_type: str | None) -> None:
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind not in OPAQUE_TYPES and not kind.startswith("image/"):
        raise Unprocessable(
            "wrong-content-type", f"The upload is announced as {kind[:80]!r}, which is no picture; announce image/*."
        )


def _check_size(width: int, height: int, settings: DecodeSettings, jpeg: Jpeg | None) -> None:
    """Refuse a picture that costs too much to decode. Of a JPEG each scan costs, and it has no more than others."""
    limit = settings.max_pixels
    if jpeg is not None:
        limit = min(int(limit * JPEG_PIXELS_FACTOR), limit * MAX_JPEG_SCANS // max(jpeg.scans, 1))
    if width * height > limit:
        raise Unprocessable("too-large", f"The picture has {width} x {height} pixels; at most {limit} are accepted.")
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


def prepare(image: Image.Image, size: int, aspect: float) -> tuple[NDArray[np.uint8], Thumbnail]:
    """Prepare an opened image for the encoder: uint8 [size, size, 3], RGB, upright, and its thumbnail.

    `aspect` is the width over the height of the file, which an image decoded small has only roughly.
    """
    image.load()
    transposition = _transposition(image)  # after loading, since Pillow turns a TIFF while loading it
    image = _resizable(image)
    square = _upright(_squash(image, size), transposition)
    if transposition is not None and TURNS_BACK[transposition][0]:
        aspect = 1 / aspect
    small = shrink(square)
    content = find_content(small)
    if content != WHOLE_IMAGE:
        # From the picture itself: of the square, little may be left within wide margins.
        box = _turned_back(content, transposition).box(image.size)
        small = shrink(_upright(_squash(image, THUMBNAIL_SIDE * 2, box), transposition))
    return square, Thumbnail.of(small, content, aspect)


def _squash(image: Image.Image, side: int, box: tuple[float, float, float, float] | None = None) -> NDArray[np.uint8]:
    """Resize a picture, or what is within edges of it in pixels, to uint8 [side, side, 3], RGB."""
    if image.mode == "RGB" and box is None:
        return squash_rgb(image, side)
    return np.asarray(_rgb(squash(image, side, box)))


def _upright(pixels: NDArray[np.uint8], transposition: Image.Transpose | None) -> NDArray[np.uint8]:
    """Turn uint8 [S, S, 3] upright."""
    return pixels if transposition is None else np.asarray(Image.fromarray(pixels).transpose(transposition))


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
        return _eight_bits(image)
    if image.mode == "RGBA":
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("P", "PA", "1"):
        return image.convert("RGB")
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduce grey of 16 bits to 8, by the depth that its values have.

    Scanners and sensors write 10 and 12 bits into 16. A TIFF may say so; where nothing is said, a picture that leaves
    the highest bits of all its values empty is taken for one of those, since none of 16 bits is so dark.
    """
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    white, brightest = FULL_16_BITS, int(values.max(initial=0))
    said = [value for tag in (TIFF_MAX_SAMPLE_VALUE, TIFF_SMAX_SAMPLE_VALUE) for value in tags.get(tag, ())[:1]]
    said = [int(float(value)) for value in said if isinstance(value, Real) and math.isfinite(value)]
    said += [(1 << bits) - 1 for bits in tags.get(TIFF_BITS, ())]
    known = [top for top in (*said, *USUAL_WHITES) if brightest <= top < FULL_16_BITS]
    white = known[0] if known else FULL_16_BITS
    table = np.minimum(np.arange(FULL_16_BITS + 1) * 255 // white, 255).astype(np.uint8)
    if tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        table = 255 - table
    return Image.fromarray(table[values])


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB, transparent parts on white."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode == "LAB":
        image = ImageCms.profileToProfile(image, *LAB_TO_SRGB, outputMode="RGB") or image
    elif image.mode in ("I", "F"):  # no range is agreed upon: stretch the picture's own
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        values -= values.min()
        image = Image.fromarray((values * (255.0 / max(values.max(), 1e-9))).astype(np.uint8))
    return image.convert("RGB")


def _unidentified(data: bytes) -> Unprocessable:
    """Give the reason for data that no decoder took: no picture if it has the signature of no format.

    Else of a kind that is not supported, or damaged.
    """
    if (unsupported := find_unsupported(data)) is not None:
        return _not_supported(unsupported)
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


def _not_supported(what: str) -> Unprocessable:
    return Unprocessable(
        "not-supported", f"The picture is in a form that is not supported ({what}); send 8 bits a channel, RGB or grey."
    )


def _printable(error: Exception) -> str:
    """Return a decoder's message as one printable line of bounded length; it may quote the file."""
    return "".join(c if c.isprintable() else "?" for c in str(error))[:120] or type(error).__name__
