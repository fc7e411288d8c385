"""Work ahead of its use: in order, overlapping, and gone when nobody wants it."""

import threading
import time

import numpy as np
import pytest

from runtime.stream import ahead


def test_in_order_and_valid_until_the_next_but_one() -> None:
    for overlap in (1, 2, 3):
        for count in (0, 1, 2, 3, 7, 20):

            def make(buffer: np.ndarray, number: int) -> np.ndarray:
                buffer[...] = number
                return buffer

            before, seen = None, 0
            for number, item in enumerate(ahead(make, count, lambda: np.empty(4, int), overlap)):
                assert (item == number).all()
                if before is not None:
                    assert (before == number - 1).all()
                before, seen = item, seen + 1
            assert seen == count


def test_the_next_is_made_while_one_is_used() -> None:
    made = threading.Semaphore(0)

    def make(buffer: list[int], number: int) -> int:
        made.release()
        return number

    items = ahead(make, 10, list)
    assert next(items) == 0
    for _ in range(2):
        assert made.acquire(timeout=10)  # item 1 was made although only item 0 was asked for
    assert list(items) == list(range(1, 10))


def test_several_at_once() -> None:
    both = threading.Barrier(2)

    def make(buffer: list[int], number: int) -> int:
        both.wait(timeout=10)  # breaks unless two are in the making
        return number

    assert list(ahead(make, 6, list, overlap=2)) == list(range(6))


def test_an_error_reaches_the_consumer() -> None:
    def make(buffer: list[int], number: int) -> int:
        if number == 3:
            raise ValueError("the third")
        return number

    items = ahead(make, 100, list)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(items)


def test_stopping_early_stops_the_work() -> None:
    made: list[int] = []

    def make(buffer: list[int], number: int) -> int:
        made.append(number)
        return number

    threads = threading.active_count()
    items = ahead(make, 10**9, list)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    done = len(made)
    time.sleep(0.05)
    assert len(made) == done <= 4 and threading.active_count() == threads
