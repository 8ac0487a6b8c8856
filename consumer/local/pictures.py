"""Photographs that need no download, and copies of them edited as re-uploaders do."""

import io
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageEnhance

# Photographs inside the scikit-image and scikit-learn wheels. Of the stereo pair among them only one side counts:
# the other is no copy of it, and no unrelated picture either.
_PHOTOGRAPHS = {
    "skimage.data": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "chelsea.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "moon.png",
        "motorcycle_left.png",
        "page.png",
        "retina.jpg",
        "rocket.jpg",
        "text.png",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".heic"}


def photographs() -> Iterator[tuple[str, bytes]]:
    """Yield name and file content of each photograph that ships with the demonstration's packages."""
    for package, names in _PHOTOGRAPHS.items():
        folder = resources.files(package)
        for name in names:
            yield name, (folder / name).read_bytes()


def pictures_in(folder: Path) -> list[Path]:
    """List the picture files in a folder and the folders below it, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def brighten(image: Image.Image, random: Generator) -> Image.Image:
    """Change brightness, contrast and saturation, each to 0.6 up to 1.5 times."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(float(random.uniform(0.6, 1.5)))
    return image


def zoom(image: Image.Image, random: Generator) -> Image.Image:
    """Enlarge a random part 1.15 to 1.5 times, to the size of the whole."""
    factor = float(random.uniform(1.15, 1.5))
    width, height = image.width / factor, image.height / factor
    left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def salt_and_pepper(image: Image.Image, random: Generator) -> Image.Image:
    """Make 2 % of the pixels black or white."""
    pixels = np.asarray(image).copy()
    lot = random.random(pixels.shape[:2])
    pixels[lot < 0.01] = 0
    pixels[lot > 0.99] = 255
    return Image.fromarray(pixels)


def gaussian_noise(image: Image.Image, random: Generator) -> Image.Image:
    """Add noise with a standard deviation of 15 of 255."""
    noisy = np.asarray(image, np.float32) + random.normal(0, 15, (image.height, image.width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def everything(image: Image.Image, random: Generator) -> Image.Image:
    """Change lighting, zoom and noise at once."""
    return gaussian_noise(zoom(brighten(image, random), random), random)


def screenshot(image: Image.Image, random: Generator) -> Image.Image:
    """Show the picture on a telephone's screen, between a bar and some lines of text."""
    width, height = 540, 960
    phone = Image.new("RGB", (width, height), (250, 250, 252))
    draw = ImageDraw.Draw(phone)
    draw.rectangle((0, 0, width, 70), fill=(32, 36, 48))
    tall = max(1, min(round(width * image.height / image.width), 600))
    top = 70 + int(random.integers(0, 60))
    phone.paste(image.resize((width, tall), Image.Resampling.BICUBIC, reducing_gap=2.0), (0, top))
    for line in range(top + tall + 30, height - 30, 34):
        draw.rectangle((24, line, int(random.integers(200, width - 24)), line + 12), fill=(120, 124, 134))
    return phone


def same_pixels(image: Image.Image, _: Generator) -> Image.Image:
    """Change nothing; only the encoding of the file does."""
    return image


# Name -> the edit and the JPEG quality its result is saved with.
EDITS: dict[str, tuple[Callable[[Image.Image, Generator], Image.Image], int]] = {
    "lighting": (brighten, 90),
    "zoom": (zoom, 90),
    "salt and pepper": (salt_and_pepper, 90),
    "gaussian noise": (gaussian_noise, 90),
    "re-compressed": (same_pixels, 30),
    "all at once": (everything, 85),
    "screenshot": (screenshot, 85),
}
# Edits that are not promised to be recognised in every picture, with what copies by them are called in sentences; the
# model card says how many are recognised.
HARDEST = {"all at once": "with lighting, zoom and noise at once", "screenshot": "in screenshots"}


def edited(original: bytes, name: str, random: Generator) -> bytes:
    """Return a JPEG of the picture after the edit of this name."""
    edit, quality = EDITS[name]
    with Image.open(io.BytesIO(original)) as image:
        result = edit(image.convert("RGB"), random)
    out = io.BytesIO()
    result.save(out, "JPEG", quality=quality)
    return out.getvalue()
