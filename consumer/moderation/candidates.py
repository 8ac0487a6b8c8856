"""Which pictures of banks stand near uploads: the nearest of each view of each upload, which may get a second look."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.views import EncodedViews
from consumer.moderation.shelf import Entry, Shelf
from consumer.verification.looks import MAX_CANDIDATES, Candidate

# The entries that hold a picture, in the order of their names.
Holders = tuple[Entry, ...]


class BankRequest(NamedTuple):
    """Asks which entries an upload shows.

    `views` is None for a picture of too little detail, which matches exactly, and `pdq` where no such hash was made.
    """

    tenant: str
    digest: bytes  # SHA-256
    views: EncodedViews | None
    pdq: str | None = None


class _Search(NamedTuple):
    """The views, by request and view, that are searched for on one shelf at once, and their vectors."""

    shelf: Shelf
    views: list[tuple[int, int]]
    vectors: list[NDArray[np.float32]]


def nearest_pictures(requests: Sequence[BankRequest], shelves: Sequence[Sequence[Shelf]]) -> list[Candidate[Holders]]:
    """List the pictures nearest each view, on the `shelves` of its request, nearest first, but for the same bytes."""
    near: dict[tuple[int, int], dict[str, Candidate[Holders]]] = {}
    for shelf, views, vectors in _searches(requests, shelves):
        for (request, view), pictures in zip(views, shelf.near(vectors), strict=True):
            of_view = near.setdefault((request, view), {})
            for digest, l2, entries in pictures:
                if view == 0 and digest == requests[request].digest.hex():
                    continue
                # A bank of the tenant and one of all tenants may hold the same picture.
                holders = [*entries, *(of_view[digest].picture if digest in of_view else ())]
                by_name = tuple(sorted(holders, key=lambda each: each.name))
                of_view[digest] = Candidate(request, view, l2, by_name)
    return [each for of_view in near.values() for each in _nearest(of_view)]


def _searches(requests: Sequence[BankRequest], shelves: Sequence[Sequence[Shelf]]) -> list[_Search]:
    searches: dict[int, _Search] = {}
    for index, (request, of_request) in enumerate(zip(requests, shelves, strict=True)):
        for shelf in of_request:
            search = searches.setdefault(id(shelf), _Search(shelf, [], []))
            for view, vector in enumerate(() if request.views is None else request.views.embeddings):
                search.views.append((index, view))
                search.vectors.append(vector)
    return list(searches.values())


def _nearest(pictures: Mapping[str, Candidate[Holders]]) -> list[Candidate[Holders]]:
    """Choose the nearest of a view's pictures, by digest: the same whatever order they came in."""
    chosen = sorted(pictures, key=lambda digest: (pictures[digest].l2, digest))[:MAX_CANDIDATES]
    return [pictures[digest] for digest in chosen]
