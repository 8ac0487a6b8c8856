"""A writer of texts: of those that belong to a template, or of those filled into it."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec

import numpy as np

from . import words
from .dice import Rng, chance, count

Rest = ParamSpec("Rest")

# Of two contents of a template, one pair in five shares half of the fields: each content does with this probability.
_SHARING = 0.45


class Writer:
    """Makes texts, `writer(words.name)`, and generators for what is not text, `writer.rng()`.

    Each call fills one field. Contents that share have half of their fields, the same ones, from the template.
    """

    def __init__(self, template: Rng, content: Rng | None = None, script: str = "latin") -> None:
        self.script = script
        self.kept, self.changed = 0, 0  # words of each kind
        self._base = int(template.integers(2**62))
        self._own = self._base if content is None else int(content.integers(2**62))
        self._sharing = content is not None and chance(content, _SHARING)
        self._fields = 0
        self._wish: bool | None = None

    def __call__(
        self, maker: Callable[Concatenate[Rng, str, Rest], str], *args: Rest.args, **kwargs: Rest.kwargs
    ) -> str:
        self._fields += 1
        if self._chosen():
            text = maker(self._generator(self._base), self.script, *args, **kwargs)
            if self._may_keep(len(text.split())):
                return text
        text = maker(self._generator(self._own), self.script, *args, **kwargs)
        self.changed += len(text.split())
        return text

    def rng(self, weight: int = 1) -> Rng:
        """A generator for a field which weighs as much as `weight` words."""
        self._fields += 1
        if self._chosen() and self._may_keep(weight):
            return self._generator(self._base)
        self.changed += weight
        return self._generator(self._own)

    def prefer(self, keep: bool | None) -> None:
        """Says that a content which shares had best keep the next fields, or change them."""
        self._wish = keep

    def paragraph(self, low: int = 2, high: int = 6) -> str:
        sentences = count(self._generator(self._own), low, high)
        return " ".join(self(words.sentence) for _ in range(sentences))

    def prose(self, least: float) -> str:
        """Sentences of at least so many letters."""
        text = self(words.sentence)
        while len(text) < least:
            text += " " + self(words.sentence)
        return text

    def _generator(self, seed: int) -> Rng:
        return np.random.default_rng((seed, self._fields))

    def _chosen(self) -> bool:
        if not self._sharing or self._wish is not None:
            return self._sharing and bool(self._wish)
        return chance(np.random.default_rng((self._base, self._fields, 1)), 0.6)

    def _may_keep(self, weight: int) -> bool:
        """Counts a field as kept, unless too few of the words before it are changed."""
        if self.kept + weight > 1.2 * self.changed:
            return False
        self.kept += weight
        return True
