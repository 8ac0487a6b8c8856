"""The fonts that the machine has, by what they look like; Pillow's own font is always there."""

import importlib.util
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import ImageFont

from .dice import Rng, pick
from .words import SCRIPTS, Script

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_UNUSABLE = re.compile(
    r"math|symbol|nonuni|siz|display|lastresort|glyphicon|cmex|cmsy|cmmi|icon|emoji|extralight", re.I
)
_STYLE = re.compile(r"[-_ ]?(bold|bol|italic|oblique|ita|regular)+$", re.I)
# Styles of one family under names of their own.
_SAME = {"cmb10": ("cmr10", "bold"), "cmti10": ("cmr10", "italic")}


class Family(NamedTuple):
    """Paths of the styles of a family; an empty one stands for Pillow's own font."""

    regular: str = ""
    bold: str = ""
    italic: str = ""


@lru_cache(maxsize=4096)
def font(path: str, size: int) -> Font:
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


@cache
def families() -> Mapping[str, tuple[Family, ...]]:
    """Families with and without serifs and of equal widths, each at least one."""
    styles: dict[str, dict[str, str]] = {}
    for path in _files():
        stem, style = _SAME.get(path.stem, (_STYLE.sub("", path.stem), _style(path.stem)))
        if not _UNUSABLE.search(path.stem) and _covers(str(path), "AaBbgz059.,"):
            styles.setdefault(stem, {}).setdefault(style, str(path))
    found: dict[str, list[Family]] = {"sans": [Family()], "serif": [], "mono": []}
    for stem, paths in sorted(styles.items()):
        if regular := paths.get("regular"):
            family = Family(regular, paths.get("bold", regular), paths.get("italic", regular))
            found[_look(stem)].append(family)
    return {look: tuple(made) or (Family(),) for look, made in found.items()}


def choose(rng: Rng, look: str) -> Family:
    return pick(rng, families()[look])


@cache
def scripts(family: Family) -> frozenset[str]:
    """The scripts of which a family has the letters."""
    return frozenset(
        script
        for script, letters in SCRIPTS.items()
        if script == "latin" or all(_covers(path, _both_cases(letters)) for path in family)
    )


def _both_cases(letters: Script) -> str:
    text = "".join("".join(letters).split())
    return text + text.upper()


def _files() -> list[Path]:
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts"]
    plotting = importlib.util.find_spec("matplotlib")
    places = (plotting.submodule_search_locations or []) if plotting else []
    folders += [Path(place) / "mpl-data" / "fonts" / "ttf" for place in places]
    return [path for folder in folders for path in sorted(folder.rglob("*.[to]tf"))]


def _style(stem: str) -> str:
    slanted = bool(re.search("italic|oblique|ita$", stem, re.I))
    if re.search("bold|bol", stem, re.I):
        return "bold italic" if slanted else "bold"
    return "italic" if slanted else "regular"


def _look(stem: str) -> str:
    if re.search("mono|courier|cmtt|consol|typewriter", stem, re.I):
        return "mono"
    return "serif" if re.search("serif|stix|cmr|times|roman|garamond|georgia", stem, re.I) else "sans"


def _covers(path: str, letters: str) -> bool:
    """Whether a font has a glyph of its own for each of the letters, told by the one for letters it lacks."""
    try:
        face = font(path, 24)
        lacking = bytes(face.getmask("\U000effff"))
        return all(bytes(face.getmask(letter)) != lacking for letter in sorted(set(letters)))
    except OSError:
        return False
