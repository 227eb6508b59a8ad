"""Exceptions come out of process pools as they were raised there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, wait

import pytest

from ..exceptions import EXCEPTIONS, example, raise_example, state_of


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def test_pool_of_processes_returns_them_all(pool: Executor) -> None:
    futures = {pool.submit(raise_example, kind): kind for kind in EXCEPTIONS}
    assert not wait(futures, timeout=120).not_done
    for future, kind in futures.items():
        error = future.exception(0)
        assert error is not None
        assert state_of(error) == state_of(example(kind))
        assert "raise_example" in str(error.__cause__)  # the traceback in the other process


def test_multiprocessing_returns_them_all() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        # What is no Exception ends a process of this kind of pool, as it ends any other.
        kinds = [kind for kind in EXCEPTIONS if issubclass(kind, Exception)]
        results = {kind: pool.apply_async(raise_example, [kind]) for kind in kinds}
        for kind, result in results.items():
            with pytest.raises(kind) as caught:
                result.get(120)
            assert state_of(caught.value) == state_of(example(kind))
