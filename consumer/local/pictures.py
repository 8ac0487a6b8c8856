"""Photographs that are at hand without a download, and copies of them edited as re-uploaders do."""

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
    """Name and file content of each photograph that ships with the demonstration's packages."""
    for package, names in _PHOTOGRAPHS.items():
        folder = resources.files(package)
        for name in names:
            yield name, (folder / name).read_bytes()


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder and the folders below it, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def brighten(image: Image.Image, random: Generator) -> Image.Image:
    """Brightness, contrast and saturation, each from 0.6 to 1.5 times."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(float(random.uniform(0.6, 1.5)))
    return image


def zoom(image: Image.Image, random: Generator) -> Image.Image:
    """1.15 to 1.5 times nearer, with a crop at a random place, back at the original's size."""
    factor = float(random.uniform(1.15, 1.5))
    width, height = image.width / factor, image.height / factor
    left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def salt_and_pepper(image: Image.Image, random: Generator) -> Image.Image:
    """2 % of the pixels black or white."""
    pixels = np.asarray(image).copy()
    hit = random.random(pixels.shape[:2])
    pixels[hit < 0.01] = 0
    pixels[hit > 0.99] = 255
    return Image.fromarray(pixels)


def gaussian_noise(image: Image.Image, random: Generator) -> Image.Image:
    """Noise with a standard deviation of 15 of 255."""
    noisy = np.asarray(image, np.float32) + random.normal(0, 15, (image.height, image.width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def everything(image: Image.Image, random: Generator) -> Image.Image:
    """Lighting, zoom and noise at once."""
    return gaussian_noise(zoom(brighten(image, random), random), random)


def screenshot(image: Image.Image, random: Generator) -> Image.Image:
    """The picture on a telephone's screen, between a bar and some lines of text."""
    width, height = 540, 960
    screen = Image.new("RGB", (width, height), (250, 250, 252))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, width, 70), fill=(32, 36, 48))
    tall = max(1, min(round(width * image.height / image.width), 600))
    top = 70 + int(random.integers(0, 60))
    screen.paste(image.resize((width, tall), Image.Resampling.BICUBIC, reducing_gap=2.0), (0, top))
    for line in range(top + tall + 30, height - 30, 34):
        draw.rectangle((24, line, int(random.integers(200, width - 24)), line + 12), fill=(120, 124, 134))
    return screen


def same_pixels(image: Image.Image, _: Generator) -> Image.Image:
    """Nothing but what the encoding of the file does."""
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
# Harder than what is promised for every picture, with what they are called; the model card says how many are found.
HARDEST = {"all at once": "with lighting, zoom and noise at once", "screenshot": "in screenshots"}


def edited(original: bytes, name: str, random: Generator) -> bytes:
    """A JPEG of the picture after the edit of this name."""
    edit, quality = EDITS[name]
    with Image.open(io.BytesIO(original)) as image:
        result = edit(image.convert("RGB"), random)
    out = io.BytesIO()
    result.save(out, "JPEG", quality=quality)
    return out.getvalue()
