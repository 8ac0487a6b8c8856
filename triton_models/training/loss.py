"""The losses that the training minimises."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from triton_models.training.network import MIN_DETAIL

MASKED = -1e4
WHOLE = 0  # the part of a picture that is all of it; other numbers are its halves


class Subjects(NamedTuple):
    """What some views show."""

    pictures: Tensor  # [B]
    parts: Tensor  # [B] `WHOLE`, or which of the two halves

    def related(self, others: "Subjects") -> Tensor:
        """Tell, bool [B, N], which of `others` show the same: these are no negatives.

        A picture and a half of it share what the half shows, and are neither copies nor strangers. Its two halves share
        nothing.
        """
        part, other_part = self.parts[:, None], others.parts[None, :]
        overlapping = (part == other_part) | (part == WHOLE) | (other_part == WHOLE)
        return overlapping & (self.pictures[:, None] == others.pictures[None, :])


class Batch(NamedTuple):
    """Vectors that meet in one step."""

    first: Tensor  # [B, D] unit vectors of one view of each picture
    second: Tensor  # [B, D] of the other view
    subjects: Subjects
    queue: Tensor  # [Q, D] vectors of whole pictures of recent batches: negatives only
    queue_pictures: Tensor  # [Q]

    def cosines(self) -> tuple[Tensor, Tensor, Tensor]:
        """Compute cosines of views with their partners [2B], and with all views and the queue [2B, 2B + Q].

        The third array, bool [2B, 2B + Q], tells which of the latter show the same, see `Subjects`.
        """
        views = torch.cat((self.first, self.second))
        pictures, parts = self.subjects.pictures.repeat(2), self.subjects.parts.repeat(2)
        whole = torch.full_like(self.queue_pictures, WHOLE)
        others = Subjects(torch.cat((pictures, self.queue_pictures)), torch.cat((parts, whole)))
        partners = (self.first * self.second).sum(1).repeat(2)
        return partners, views @ torch.cat((views, self.queue)).T, Subjects(pictures, parts).related(others)


def contrastive(batch: Batch, temperature: float) -> Tensor:
    """Compute InfoNCE over two views of each picture, by row and with the negatives of the whole batch in one pool.

    Plain InfoNCE (van den Oord et al., 2018) only ranks within a row, while one threshold serves all pictures: the
    pooled half asks each pair to be nearer than the hard negatives of any row.
    """
    partners, cosines, same = batch.cosines()
    positives = partners / temperature
    negatives = (cosines / temperature).masked_fill(same, MASKED).logsumexp(1)
    pool = negatives.logsumexp(0) - math.log(len(negatives))
    ranked = functional.softplus(negatives - positives).mean()
    pooled = functional.softplus(pool - positives).mean()
    return (ranked + pooled) / 2


def triplet(batch: Batch, margin: float) -> Tensor:
    """Compute the hinge on each view's hardest negative (Schroff et al., 2015), on L2 distances."""
    partners, cosines, same = batch.cosines()
    return functional.relu(_distance(partners) - _distance(cosines.masked_fill(same, -1).amax(1)) + margin).mean()


def _distance(cosines: Tensor) -> Tensor:
    return (2 - 2 * cosines).clamp(min=1e-6).sqrt()


def spread(vectors: Tensor, subjects: Subjects) -> Tensor:
    """Compute KoLeo (Sablayrolles et al., 2019), SSCD's entropy term: minus the mean log distance to the nearest."""
    cosines = (vectors @ vectors.T).masked_fill(subjects.related(subjects), -1)
    return -_distance(cosines.amax(1)).log().mean()


class LocalView(NamedTuple):
    """Local features of one view of each picture of a batch."""

    tokens: Tensor  # [B, C, G, G] unit vectors along C
    to_source: Tensor  # [B, 3, 3] from the unit square of the view to that of the picture


def local_features(one: LocalView, other: LocalView, detail: Tensor, *, temperature: float, points: int) -> Tensor:
    """Compute InfoNCE over local features that show the same spot of a picture in both of its views.

    `detail` [B, G, G] is the contrast in each cell of the first view. `points` places with detail are drawn in each
    first view, places that the second view does not show are left out, and all other points of the batch are
    negatives, save near neighbours in the same picture.
    """
    (first, to_source), (second, second_to_source) = one, other
    count, channels, grid, _ = first.shape
    chance = detail.flatten(1) + 1e-3
    points = min(points, grid * grid)
    chosen = torch.multinomial(chance.clamp(max=20.0), points)  # [B, K]
    enough = detail.flatten(1).gather(1, chosen) > MIN_DETAIL
    here = torch.stack((chosen % grid, chosen // grid), dim=2).to(first.dtype).add(0.5).div(grid)  # [B, K, 2] x, y
    source = _transform(to_source, here)
    there = _transform(torch.linalg.inv(second_to_source), source)
    valid = enough & ((source > 0) & (source < 1) & (there > 0.02) & (there < 0.98)).all(2)
    ours = first.flatten(2).gather(2, chosen[:, None].expand(-1, channels, -1)).transpose(1, 2)[valid]
    theirs = functional.grid_sample(second, there[:, :, None] * 2 - 1, align_corners=False)[..., 0]
    theirs = functional.normalize(theirs, dim=1).transpose(1, 2)[valid]
    if len(ours) < 2:
        return first.sum() * 0
    owner = torch.arange(count, device=valid.device)[:, None].expand(-1, points)[valid]
    place = source[valid]
    neighbours = (owner[:, None] == owner[None, :]) & ((place[:, None] - place[None, :]).abs().amax(2) < 0.12)
    neighbours.fill_diagonal_(fill_value=False)
    logits = (ours @ theirs.T / temperature).masked_fill(neighbours, MASKED)
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def _transform(matrices: Tensor, points: Tensor) -> Tensor:
    """Apply homographies [B, 3, 3] to points [B, K, 2]."""
    mapped = torch.cat((points, torch.ones_like(points[..., :1])), dim=2) @ matrices.transpose(1, 2)
    return mapped[..., :2] / mapped[..., 2:].clamp(min=1e-4)
