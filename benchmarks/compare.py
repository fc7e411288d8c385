"""Times two ways of doing the same work in turns, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One comparison. `peer` is None where the peer is not installed: then ours is timed alone."""

    name: str
    ours: Callable[[], Any]
    peer_name: str
    peer: Callable[[], Any] | None
    units_per_call: int
    """Images, frames or pairs that one call does; rates are in these a second."""


class Result(NamedTuple):
    """Medians over the rounds."""

    name: str
    peer_name: str
    ours_per_second: float
    peer_per_second: float | None
    ratio: float | None
    """How many times as fast as the peer: the median over the rounds, each round's two timings being neighbours."""
    rounds: int


def compare(case: Case, rounds: int = 9, seconds: float = 0.2) -> Result:
    """Time one case.

    Args:
        case: what to compare.
        rounds: timings of each side.
        seconds: how long one timing is, at least: a call that takes less is repeated.

    Returns:
        Rates in units a second and the ratio of the two, by the wall clock.
    """
    sides = [case.ours] if case.peer is None else [case.ours, case.peer]
    repeats = [_repeats(side, seconds) for side in sides]
    timings: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for index in order:
            timings[index].append(_time(sides[index], repeats[index]))
    rates = [case.units_per_call / statistics.median(times) for times in timings]
    ratio = statistics.median(peer / ours for ours, peer in zip(*timings, strict=True)) if case.peer else None
    return Result(case.name, case.peer_name, rates[0], rates[1] if case.peer else None, ratio, rounds)


def _time(call: Callable[[], Any], repeats: int) -> float:
    """Seconds a call takes."""
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def _repeats(call: Callable[[], Any], seconds: float) -> int:
    call()  # the first call pays for allocations and caches
    return max(1, round(seconds / max(_time(call, 1), 1e-9)))
