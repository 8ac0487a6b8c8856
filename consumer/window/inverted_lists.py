"""The rows of a large window in lists, searched for those that are likely to be near (faiss, on one thread).

What is found is a function of the query and of the rows that it may find, whichever process holds them: lists and words
are frozen (`encoder.codebooks`), all arithmetic is in whole numbers, and rows that tie with the last one are left out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.codebooks import Codebooks
from consumer.window.codes import Codes
from consumer.window.segments import Numbers


class Effort(NamedTuple):
    """How much a search may cost: the share of the lists that it reads, and the rows that it looks at more closely."""

    share: float
    candidates: int


class InvertedLists:
    """Codes of rows, by their numbers, in an inverted file with product quantisation of 36 bytes a row."""

    def __init__(self, codebooks: Codebooks) -> None:
        # Loaded by processes with a large window alone: it takes a second, and 30 MB.
        import faiss  # noqa: PLC0415

        lists, dim = codebooks.centres.shape
        self._faiss: Any = faiss
        self._quantizer = faiss.IndexFlatIP(dim)
        self._quantizer.add(codebooks.centres.astype(np.float32))
        self._index = faiss.IndexIVFPQFastScan(
            self._quantizer, dim, lists, len(codebooks.words), 4, faiss.METRIC_INNER_PRODUCT
        )
        self._index.by_residual = False
        faiss.copy_array_to_vector(codebooks.words.astype(np.float32).ravel(), self._index.pq.centroids)
        self._index.is_trained = True

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def row_bytes(self) -> int:
        """Memory of a row: four bits for each of its words, and its number."""
        return int(self._index.pq.M) // 2 + 8

    def extend(self, codes: Codes, numbers: Numbers) -> None:
        """Add rows, int8 [N, D]."""
        self._stay_in_this_thread()
        self._index.add_with_ids(codes.astype(np.float32), numbers)

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove the codes of rows."""
        self._index.remove_ids(self._faiss.IDSelectorBatch(np.array(numbers, np.int64)))

    def remove_before(self, number: int) -> None:
        """Remove the codes of all rows before one."""
        self._index.remove_ids(self._faiss.IDSelectorRange(0, number))

    def search(self, codes: Codes, first: Numbers, end: Numbers, effort: Effort) -> tuple[NDArray[np.intp], Numbers]:
        """Find likely near rows of each query [Q, D] among rows from number `first` [Q] up to `end` [Q].

        Returns pairs, [P] queries and [P] row numbers. Queries are meant to have about the same bounds: what lies
        within those of some and not of others makes the search longer.
        """
        start, stop = int(first.min()), int(end.max())
        # Enough that each query finds all it would find alone.
        best = effort.candidates + int(first.max()) - start + stop - int(end.min())
        parameters = self._faiss.SearchParametersIVF(
            sel=self._faiss.IDSelectorRange(start, stop), nprobe=max(1, round(effort.share * self._index.nlist))
        )
        count = max(1, min(best, len(self)))  # where all rows were removed, one that is no row is found
        self._stay_in_this_thread()
        products, numbers = self._index.search(codes.astype(np.float32), count, params=parameters)
        eligible = (numbers >= first[:, np.newaxis]) & (numbers < end[:, np.newaxis])
        products = np.where(eligible, products, -np.inf)
        if products.shape[1] >= effort.candidates:
            # Which of several rows with the last one's product is found depends on their order: so none of them is.
            last = np.partition(products, -effort.candidates, axis=1)[:, -effort.candidates, np.newaxis]
            eligible &= products > last
        query, place = np.nonzero(eligible)
        return query, numbers[query, place]

    def _stay_in_this_thread(self) -> None:
        """Begin no threads: OpenMP's setting is one of each thread, and helpers spin while they wait for more."""
        self._faiss.omp_set_num_threads(1)
