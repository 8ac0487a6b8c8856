"""Edit pictures as re-uploaders do, for evaluation and calibration.

Edits are made with Pillow on the whole picture, as by a person with an editor, and share no code with the augmentation
of the training, so that what is measured is not what was practised. `library_edits()` adds kinds of albumentations.

An edit is `(picture, strength, rng, other) -> picture`: RGB pictures of any size; `strength` in 0..1 goes from hardly
visible to the worst that still leaves the picture recognisable; `other` is another picture, for collages and overlays.
"""

import io
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Picture = Image.Image
Rng = np.random.Generator
Apply = Callable[[Picture, float, Rng, Picture], Picture]


class Edit(NamedTuple):
    family: str
    apply: Apply


def between(low: float, high: float, strength: float) -> float:
    return low + (high - low) * strength


def _either(factor: float, rng: Rng) -> float:
    return factor if rng.random() < 0.5 else 1 / factor


# Lighting and colour


def lighting(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Brightness, contrast and saturation, each by up to 1.6 times or its inverse."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(_either(between(1.05, 1.6, strength * rng.uniform(0.5, 1)), rng))
    return picture


def gamma(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    power = _either(between(1.1, 2.2, strength), rng)
    return picture.point([round(255 * (value / 255) ** power) for value in range(256)] * 3)


def hue(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    channels = np.asarray(picture.convert("HSV")).copy()
    channels[..., 0] += np.uint8(between(8, 128, strength))  # wraps round, as hues do
    bands = [Image.fromarray(np.ascontiguousarray(channels[..., index])) for index in range(3)]
    return Image.merge("HSV", bands).convert("RGB")


def grey(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    return ImageOps.grayscale(picture).convert("RGB")


def tint(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Shades between two colours, as sepia is."""
    dark, light = (tuple(int(v) for v in rng.integers(low, low + 90, 3)) for low in (0, 165))
    tinted = ImageOps.colorize(ImageOps.grayscale(picture), dark, light)
    return Image.blend(picture, tinted, between(0.4, 1.0, strength))


def posterise(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    return ImageOps.posterize(picture, round(between(5, 2, strength)))


# Zoom and crop


def _crop(picture: Picture, side: float, rng: Rng) -> Picture:
    """A part with `side` of each side, anywhere, at the size of the whole."""
    width, height = picture.size
    part_width, part_height = max(8, round(width * side)), max(8, round(height * side))
    left, top = int(rng.integers(0, width - part_width + 1)), int(rng.integers(0, height - part_height + 1))
    part = picture.crop((left, top, left + part_width, top + part_height))
    return part.resize(picture.size, Image.Resampling.BICUBIC)


def zoom(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Up to 1.5 times, with a random crop."""
    return _crop(picture, 1 / between(1.05, 1.5, strength), rng)


def strong_crop(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """A half down to a sixth of the area."""
    return _crop(picture, math.sqrt(between(1 / 2, 1 / 6, strength)), rng)


# Noise


def gaussian_noise(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    pixels = np.asarray(picture, np.float32)
    noisy = pixels + rng.standard_normal(pixels.shape, np.float32) * between(5, 45, strength)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def salt_and_pepper(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    pixels = np.array(picture)
    draws = rng.random(pixels.shape[:2])
    share = between(0.005, 0.12, strength)
    pixels[draws < share / 2] = 0
    pixels[draws > 1 - share / 2] = 255
    return Image.fromarray(pixels)


def noise(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Gaussian, then salt and pepper."""
    return salt_and_pepper(gaussian_noise(picture, strength, rng, other), strength, rng, other)


def all_at_once(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Lighting, zoom and noise."""
    picture = zoom(lighting(picture, strength, rng, other), strength, rng, other)
    return noise(picture, strength, rng, other)


# Compression and loss of detail


def _recompressed(picture: Picture, form: str, quality: int) -> Picture:
    data = io.BytesIO()
    picture.save(data, form, quality=quality)
    return Image.open(data).convert("RGB")


def jpeg(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    return _recompressed(picture, "JPEG", round(between(60, 8, strength)))


def webp(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    return _recompressed(picture, "WEBP", round(between(60, 3, strength)))


def blur(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    return picture.filter(ImageFilter.GaussianBlur(min(picture.size) / 256 * between(1, 5, strength)))


def pixelate(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    cells = between(64, 20, strength) / min(picture.size)
    small = picture.resize(
        (max(8, round(picture.width * cells)), max(8, round(picture.height * cells))), Image.Resampling.BOX
    )
    return small.resize(picture.size, Image.Resampling.NEAREST)


# Geometry


def stretch(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Another aspect by cutting a side off: the squashed square hides mere stretching."""
    factor = 1 / between(1.1, 1.8, strength)
    width, height = (factor, 1.0) if rng.random() < 0.5 else (1.0, factor)
    box = (round(picture.width * width), round(picture.height * height))
    return ImageOps.fit(picture, box, Image.Resampling.BICUBIC, centering=tuple(rng.random(2)))


def pad(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Bars of one colour, on two sides or all round, up to as much again."""
    bars = between(0.1, 1.0, strength)
    kind = rng.integers(3)
    width = round(picture.width * (1 + (bars if kind != 1 else 0)))
    height = round(picture.height * (1 + (bars if kind != 0 else 0)))
    colour = ("black", "white", tuple(int(v) for v in rng.integers(0, 256, 3)))[rng.integers(3)]
    canvas = Image.new("RGB", (width, height), colour)
    canvas.paste(picture, ((canvas.width - picture.width) // 2, (canvas.height - picture.height) // 2))
    return canvas


def perspective(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Seen aslant: each corner moves inwards by up to a fifth of the side."""
    reach = between(0.03, 0.2, strength)
    moved = rng.uniform(0, reach, (4, 2)) * ((1, 1), (1, -1), (-1, -1), (-1, 1)) + ((0, 0), (0, 1), (1, 1), (1, 0))
    corners = (moved * picture.size).ravel()
    return picture.transform(picture.size, Image.Transform.QUAD, corners.tolist(), Image.Resampling.BICUBIC)


def rotate(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """By up to 30 degrees; corners are black, or cut off with the edges."""
    angle = between(2, 30, strength) * rng.choice((-1, 1))
    return picture.rotate(angle, Image.Resampling.BICUBIC, expand=bool(rng.random() < 0.5))


def quarter_turn(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    rotations = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return picture.transpose(rotations[rng.integers(3)])


def mirror(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    return ImageOps.mirror(picture)


def flip(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    return ImageOps.flip(picture)


# Things put upon the picture

WORDS = (
    "LIMITED OFFER",
    "when you see it",
    "@reposts_daily",
    "Follow for more!",
    "2 for 1",
    "so true",
    "breaking news",
)
FACES = ("yellow", "gold", "orange", "deepskyblue", "tomato")


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, round(size)))


def text(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    for _ in range(1 + round(3 * strength)):
        place = (rng.uniform(0, 0.5) * picture.width, rng.uniform(0, 0.9) * picture.height)
        font = _font(min(picture.size) * between(0.06, 0.16, strength))
        colour = ("white", "black", "red", "yellow")[rng.integers(4)]
        draw.text(place, WORDS[rng.integers(len(WORDS))], colour, font, stroke_width=1, stroke_fill="black")
    return picture


def caption(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """A white bar with a line above the picture, as memes have it."""
    bar = round(picture.height * between(0.12, 0.4, strength))
    canvas = Image.new("RGB", (picture.width, picture.height + bar), "white")
    canvas.paste(picture, (0, bar))
    ImageDraw.Draw(canvas).text((8, bar // 4), WORDS[rng.integers(len(WORDS))], "black", _font(bar * 0.45))
    return canvas


def stickers(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Round faces, up to a quarter of the side each."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    for _ in range(1 + round(3 * strength)):
        radius = min(picture.size) * between(0.05, 0.13, strength)
        x, y = rng.uniform(0, picture.width), rng.uniform(0, picture.height)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), FACES[rng.integers(len(FACES))], "black")
        for side in (-0.4, 0.4):
            eye = (x + side * radius, y - 0.3 * radius)
            draw.ellipse((eye[0] - radius / 8, eye[1] - radius / 6, eye[0] + radius / 8, eye[1] + radius / 6), "black")
        draw.arc(
            (x - radius / 2, y - radius / 2, x + radius / 2, y + radius / 1.6),
            15,
            165,
            "black",
            max(1, round(radius / 10)),
        )
    return picture


def watermark(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Half-transparent words all over."""
    layer = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(layer)
    step = max(12, round(min(picture.size) * 0.22))
    opacity = round(between(50, 190, strength))
    for row, top in enumerate(range(0, picture.height, step)):
        for left in range(-step * (row % 2), picture.width, step * 3):
            draw.text((left, top), "SAMPLE", (255, 255, 255, opacity), _font(step * 0.6))
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


# Several pictures


def overlay(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Another picture shines through."""
    return Image.blend(picture, other.resize(picture.size), between(0.1, 0.4, strength))


def covered(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Another picture hides up to a third."""
    picture = picture.copy()
    side = math.sqrt(between(0.04, 0.33, strength))
    part = other.resize((round(picture.width * side), round(picture.height * side)))
    picture.paste(
        part,
        (int(rng.integers(0, picture.width - part.width + 1)), int(rng.integers(0, picture.height - part.height + 1))),
    )
    return picture


def collage(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Beside another picture, or one of four."""
    width, height = picture.size
    beside = other.resize(picture.size)
    columns, rows = ((2, 1), (1, 2))[rng.integers(2)] if strength < 0.5 else (2, 2)
    canvas = Image.new("RGB", (width * columns, height * rows))
    ours = int(rng.integers(columns * rows))
    for cell in range(columns * rows):
        turned = ImageOps.mirror(beside) if cell % 2 else beside
        canvas.paste(picture if cell == ours else turned, (cell % columns * width, cell // columns * height))
    return canvas


def picture_in_picture(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Upon another picture, with 0.8 down to 0.4 of its sides."""
    side = between(0.8, 0.4, strength)
    canvas = other.resize(picture.size)
    small = picture.resize((round(picture.width * side), round(picture.height * side)), Image.Resampling.LANCZOS)
    canvas.paste(
        small,
        (int(rng.integers(0, canvas.width - small.width + 1)), int(rng.integers(0, canvas.height - small.height + 1))),
    )
    return canvas


def screenshot(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """In an application's window on a telephone: bars above and below, lines of text."""
    dark = rng.random() < 0.5
    ground, ink = ((24, 25, 28), "white") if dark else ((250, 250, 250), "black")
    width = round(picture.width * between(1.0, 1.25, strength))
    height = round(picture.height * between(1.25, 2.0, strength))
    canvas = Image.new("RGB", (width, height), ground)
    left, top = (width - picture.width) // 2, round((height - picture.height) * 0.4)
    canvas.paste(picture, (left, top))
    draw = ImageDraw.Draw(canvas)
    line = max(10.0, width / 18)
    draw.text((8, 2), "9:41    seen in the feed", ink, _font(line * 0.8))
    below = top + picture.height + 6.0
    while below + line < height:
        draw.text((8, below), WORDS[rng.integers(len(WORDS))], ink, _font(line * 0.8))
        below += line * 1.6
    return canvas


EDITS: Mapping[str, Edit] = {
    "lighting": Edit("seed", lighting),
    "zoom": Edit("seed", zoom),
    "noise": Edit("seed", noise),
    "lighting + zoom + noise": Edit("seed", all_at_once),
    "gamma": Edit("colour", gamma),
    "hue": Edit("colour", hue),
    "grey": Edit("colour", grey),
    "tint": Edit("colour", tint),
    "posterise": Edit("colour", posterise),
    "strong crop": Edit("crop", strong_crop),
    "Gaussian noise": Edit("noise", gaussian_noise),
    "salt and pepper": Edit("noise", salt_and_pepper),
    "JPEG": Edit("detail", jpeg),
    "WebP": Edit("detail", webp),
    "blur": Edit("detail", blur),
    "pixelate": Edit("detail", pixelate),
    "other aspect": Edit("geometry", stretch),
    "padding": Edit("geometry", pad),
    "perspective": Edit("geometry", perspective),
    "rotation": Edit("geometry", rotate),
    "quarter turns": Edit("geometry", quarter_turn),
    "mirror": Edit("geometry", mirror),
    "flip": Edit("geometry", flip),
    "text": Edit("upon", text),
    "caption": Edit("upon", caption),
    "stickers": Edit("upon", stickers),
    "watermark": Edit("upon", watermark),
    "overlay": Edit("several", overlay),
    "covered": Edit("several", covered),
    "collage": Edit("several", collage),
    "picture in picture": Edit("several", picture_in_picture),
    "screenshot": Edit("several", screenshot),
}


def is_headline(kind: str) -> bool:
    """Tell whether a kind counts in the headline: those that leave most of a picture, and put it into no other."""
    return kind in EDITS and EDITS[kind].family not in ("crop", "several")


def library_edits() -> dict[str, Edit]:
    """Make further kinds, with albumentations: another hand than ours. Needs the `train` extra."""
    import albumentations  # noqa: PLC0415 (an optional dependency)

    def edit_with(*transforms: albumentations.BasicTransform) -> Apply:
        pipeline = albumentations.Compose(list(transforms))

        def apply(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
            pipeline.set_random_seed(int(rng.integers(2**31)))
            return Image.fromarray(pipeline(image=np.asarray(picture))["image"])

        return apply

    library = "albumentations"
    return {
        "sensor noise": Edit(
            library, edit_with(albumentations.ISONoise(color_shift=(0.02, 0.1), intensity=(0.2, 0.9), p=1))
        ),
        "motion blur": Edit(library, edit_with(albumentations.MotionBlur(blur_limit=(5, 15), p=1))),
        "local contrast": Edit(library, edit_with(albumentations.CLAHE(clip_limit=(2, 6), p=1))),
        "fog": Edit(library, edit_with(albumentations.RandomFog(alpha_coef=0.2, fog_coef_range=(0.2, 0.6), p=1))),
        "shadow": Edit(library, edit_with(albumentations.RandomShadow(p=1))),
        "elastic": Edit(library, edit_with(albumentations.ElasticTransform(alpha=60, sigma=8, p=1))),
        "holes": Edit(
            library,
            edit_with(
                albumentations.CoarseDropout(
                    num_holes_range=(3, 8), hole_height_range=(0.08, 0.2), hole_width_range=(0.08, 0.2), p=1
                )
            ),
        ),
        "affine + colour + JPEG": Edit(
            library,
            edit_with(
                albumentations.Affine(
                    scale=(0.7, 1.4), translate_percent=(-0.15, 0.15), rotate=(-20, 20), shear=(-12, 12), p=1
                ),
                albumentations.ColorJitter(0.3, 0.3, 0.4, 0.1, p=1),
                albumentations.ImageCompression(quality_range=(10, 50), p=1),
            ),
        ),
    }
