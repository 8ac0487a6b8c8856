"""The batches of a run: which pictures meet in a step, whole or as halves, and the views that are made of them."""

from collections.abc import Iterator
from typing import NamedTuple, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from triton_models.training.augment import Pixels, Rng, light_view, strong_view
from triton_models.training.data import Pictures
from triton_models.training.loss import WHOLE, Subjects
from triton_models.training.recipe import Recipe

FIRST_HALF, SECOND_HALF = 1, 2  # left and right, or upper and lower
LOOK_ALIKES = 12  # nearest pictures of which a picture's group is drawn


class Draw(NamedTuple):
    """What a pair of views is made of, and its randomness."""

    picture: int
    part: int  # `WHOLE`, `FIRST_HALF` or `SECOND_HALF`
    seed: int
    size: int


class Pairs(NamedTuple):
    """Two views of a picture or of a half, or, once collated, of each of a batch."""

    pictures: Tensor  # [B]
    parts: Tensor  # [B]
    first: Tensor  # uint8 [B, S, S, 3]
    second: Tensor  # uint8 [B, S, S, 3]
    first_to_source: Tensor  # [B, 3, 3], see `augment.View`
    second_to_source: Tensor  # [B, 3, 3]

    @property
    def subjects(self) -> Subjects:
        return Subjects(self.pictures, self.parts)

    def to(self, device: torch.device) -> Self:
        """Copy to a device; from pinned memory while other work goes on."""
        return type(self)(*(each.to(device, non_blocking=True) for each in self))


def cut(picture: Pixels, aspect: float, part: int, *, upright: bool) -> tuple[Pixels, float]:
    """Cut a half out of a picture, with an upright cut or one across. Return it with its width over its height."""
    axis = 1 if upright else 0
    middle = picture.shape[axis] // 2
    first, second = np.split(picture, [middle], axis)
    half = np.ascontiguousarray(first if part == FIRST_HALF else second)
    return half, aspect / 2 if upright else aspect * 2


class Views(Dataset[Pairs]):
    """Pairs of views, each a pure function of its draw."""

    def __init__(self, pictures: Pictures, members: NDArray[np.intp]) -> None:
        """`members` are the pictures that may show up in views of others."""
        self.pictures, self.members = pictures, members

    def __getitem__(self, draw: Draw) -> Pairs:
        picture, aspect = self.pictures.pixels[draw.picture], float(self.pictures.aspects[draw.picture])
        rng = np.random.default_rng((draw.seed, draw.picture))
        if draw.part != WHOLE:
            picture, aspect = cut(picture, aspect, draw.part, upright=bool((draw.seed + draw.picture) % 2))
            rng = np.random.default_rng((draw.seed, draw.picture, draw.part))

        def other(rng: Rng) -> Pixels:
            return self.pictures.pixels[int(rng.choice(self.members))]

        first, second = (make(rng, picture, aspect, other, draw.size) for make in (light_view, strong_view))
        return Pairs(
            torch.tensor(draw.picture),
            torch.tensor(draw.part),
            torch.from_numpy(first.pixels),
            torch.from_numpy(second.pixels),
            torch.from_numpy(first.to_source).float(),
            torch.from_numpy(second.to_source).float(),
        )


class Batches:
    """Draws the pictures of each batch: groups of look-alikes, by the vectors of the last passes, some cut in two.

    Two halves of one picture share light, colours and subject, and are no copies of each other: negatives as hard as
    re-uploads of details make them. A picture that is cut is not in the same batch as a whole.
    """

    def __init__(self, members: NDArray[np.intp], vectors: Tensor, recipe: Recipe, seed: int) -> None:
        self.members, self.vectors, self.recipe, self.seed = members, vectors, recipe, seed
        self.step, self.size = 0, recipe.size

    def __iter__(self) -> Iterator[list[Draw]]:
        recipe, count = self.recipe, min(self.recipe.batch, len(self.members))
        while True:
            rng = np.random.default_rng((self.seed, self.step, 1))
            chosen: dict[int, None] = {}
            heads = rng.choice(self.members, count, replace=False)
            look_alikes = self._look_alikes(heads) if recipe.group > 1 else heads[:, None]
            for head, alike in zip(heads, look_alikes, strict=True):
                picked = rng.choice(alike, min(recipe.group - 1, len(alike)), replace=False)
                for index in (head, *picked):
                    chosen.setdefault(int(index))
            self.step += 1
            yield [Draw(*each, self.seed + self.step, self.size) for each in self._parts(list(chosen)[:count])]

    def _look_alikes(self, heads: NDArray[np.intp]) -> NDArray[np.intp]:
        """Find the nearest training pictures of each head, nearest first."""
        members = torch.from_numpy(self.members).to(self.vectors.device)
        cosines = self.vectors[torch.from_numpy(heads).to(self.vectors.device)] @ self.vectors[members].T
        nearest = cosines.topk(min(LOOK_ALIKES + 1, len(members)), dim=1).indices
        return self.members[nearest[:, 1:].cpu().numpy()]

    def _parts(self, pictures: list[int]) -> list[tuple[int, int]]:
        """Cut some pictures in two, and leave out as many, so that the batch keeps its size."""
        count = int(len(pictures) * self.recipe.halves / 2)
        halves = [(picture, part) for picture in pictures[:count] for part in (FIRST_HALF, SECOND_HALF)]
        return halves + [(picture, WHOLE) for picture in pictures[count : len(pictures) - count]]


class Queue:
    """Holds the vectors of the last batches. With frozen BatchNorm they age slowly enough to serve as negatives.

    Only those of whole pictures: halves that were cut differently overlap in part.
    """

    def __init__(self, length: int, dim: int, device: torch.device) -> None:
        self.length = length
        self.vectors = torch.zeros(0, dim, device=device)
        self.pictures = torch.zeros(0, dtype=torch.long, device=device)

    def push(self, vectors: Tensor, pictures: Tensor) -> None:
        self.vectors = torch.cat((vectors, self.vectors))[: self.length]
        self.pictures = torch.cat((pictures, self.pictures))[: self.length]


def make_loader(views: Views, batches: Batches, workers: int, device: torch.device) -> DataLoader[Pairs]:
    """Make what runs `views` in processes of their own, a few batches ahead of the steps."""
    return DataLoader(
        views,
        batch_sampler=batches,  # type: ignore[arg-type]  # endless, so without a length
        num_workers=workers,
        prefetch_factor=4 if workers == 1 else 2,
        pin_memory=device.type == "cuda",
    )


def resized(pictures: Pictures, chosen: NDArray[np.intp], size: int) -> Pixels:
    """Resize some pictures: uint8 [len(chosen), size, size, 3]."""
    return np.stack([cv2.resize(pictures.pixels[i], (size, size), interpolation=cv2.INTER_AREA) for i in chosen])
