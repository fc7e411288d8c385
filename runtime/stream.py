"""Work ahead of its use: the next batches are made while one is looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Buffer = TypeVar("Buffer")
Item = TypeVar("Item")


def ahead(
    make: Callable[[Buffer, int], Item], count: int, new_buffer: Callable[[], Buffer], overlap: int = 1
) -> Iterator[Item]:
    """Items 0 … count - 1 in order, made in other threads while the consumer has the one before.

    Args:
        make: writes item `number` into a buffer and returns it; called in up to `overlap` threads at once.
        count: how many items.
        new_buffer: gives the memory for one item.
        overlap: how many items are in the making at once.

    Yields:
        The items. One is valid until the next but one is asked for: then its buffer is used again.
    """
    waiting = overlap + 1  # one is ready, or nearly, while the others are made
    buffers = [new_buffer() for _ in range(min(count, waiting + 1))]
    pending: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(overlap, thread_name_prefix="awase-stream") as pool:
        try:
            for number in range(count + waiting):
                if number < count:
                    pending.append(pool.submit(make, buffers[number % len(buffers)], number))
                if number >= waiting - 1 and pending:
                    yield pending.popleft().result()
        finally:
            for future in pending:  # the consumer stopped early, or making one failed
                future.cancel()
