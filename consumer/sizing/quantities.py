"""Quantities as people write them (24h, 300k, 10G), read and written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from consumer.errors import Misconfigured

_FORM = re.compile(r"(?P<number>[0-9]{1,12}(\.[0-9]{1,6})?) ?(?P<unit>[a-zA-Z]*)", re.ASCII)
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
# In small letters: people also write 300K and 10g.
_READ = {unit.lower(): size for unit, size in _DECIMAL.items()}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is measured: the units that it may be given in, and from where to where it makes sense."""

    units: Mapping[str, float]
    least: float
    most: float
    example: str

    def parse(self, text: str, name: str) -> float:
        """Read a quantity. Raises Misconfigured, which names what was given as `name`."""
        form = _FORM.fullmatch(text.strip()[:40])
        if form is None or form["unit"].lower() not in self.units:
            known = ", ".join(unit for unit in self.units if unit)
            raise Misconfigured(f"{name} is {text[:40]!r}: give a number and a unit ({known}), as {self.example}")
        value = float(form["number"]) * self.units[form["unit"].lower()]
        if not self.least <= value <= self.most:
            raise Misconfigured(f"{name} is {text[:40]!r}: that has to be from {self.least:g} to {self.most:g}")
        return value


RATE = Kind(_READ, 0.01, 1e6, "1000 or 20k")
DURATION = Kind({"s": 1, "m": 60, "h": 3600, "d": 86_400}, 1, 3650 * 86_400, "24h")
PICTURE = Kind(_READ, 100, 1e9, "300k")
MEMORY = Kind(_READ, 1e9, 1e14, "64G")
NETWORK = Kind(_READ, 1e6, 1e13, "25G")


def in_words(value: float, unit: str) -> str:
    """Write a quantity of bytes or bits with three digits: 24.3 GB."""
    prefix, size = next(
        ((prefix, size) for prefix, size in reversed(_DECIMAL.items()) if prefix and value >= size), ("", 1)
    )
    number = value / size
    return f"{number:.{0 if number >= 100 else 1}f} {prefix}{unit}"
