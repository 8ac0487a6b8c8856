"""Keeps libraries of linear algebra to the thread that calls them.

Pictures are worked on in many threads already. The helpers that OpenBLAS begins, one for each further core, spin
between two products: on two cores they took an eighth of the service's processor time, and made nothing faster.
"""

import os

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def begin_no_helpers() -> None:
    """Set what is not set otherwise. Counts for libraries that are not loaded yet, and for child processes."""
    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
