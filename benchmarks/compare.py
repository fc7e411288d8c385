"""Times two ways of doing the same work in turns, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

Setting = Callable[[], AbstractContextManager[Any]]
"""What holds while a side is timed (its threads, its instruction set) and is put back after; not timed itself."""


SETTLE = 0.1
"""Seconds before a timing: the other side's threads wait for more work, busily, before they sleep (ONNX Runtime's for
tens of milliseconds), and would take a core meanwhile."""


class Case(NamedTuple):
    """One comparison. `peer` is None where the peer is not installed: then ours is timed alone."""

    name: str
    ours: Callable[[], Any]
    peer_name: str
    peer: Callable[[], Any] | None
    units_per_call: int
    """Images, frames or pairs that one call does; rates are in these a second."""
    bar: float | None = None
    """The ratio that ours must reach, where one is promised."""
    tolerance: float | None = None
    """Largest difference of the two results, relative to the peer's largest value; None: they are not comparable."""
    ours_setting: Setting = nullcontext
    peer_setting: Setting = nullcontext


class Result(NamedTuple):
    """Medians over the rounds."""

    name: str
    peer_name: str
    ours_per_second: float
    peer_per_second: float | None
    ratio: float | None
    """How many times as fast as the peer: the median over the rounds, each round's two timings being neighbours."""
    rounds: int
    bar: float | None = None
    met: bool | None = None
    """Whether the ratio reached the bar."""
    difference: float | None = None
    """Measured difference of the two results, relative to the peer's largest value."""


class WrongValue(RuntimeError):
    """The two sides do not give the same result, so there is nothing to time."""


class Way(NamedTuple):
    """One way of calling a peer."""

    name: str
    call: Callable[[], Any]
    setting: Setting = nullcontext


def fastest(ways: Sequence[Way], seconds: float = 0.02, rounds: int = 5) -> Way:
    """The way that takes the least time (median of a few turns): a peer is compared at its best."""
    if len(ways) == 1:
        return ways[0]
    repeats = [_repeats(way.call, way.setting, seconds) for way in ways]
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for index, way in enumerate(ways):
            times[index].append(_time(way.call, way.setting, repeats[index]))
    return ways[min(range(len(ways)), key=lambda index: statistics.median(times[index]))]


def compare(case: Case, rounds: int = 9, seconds: float = 0.1) -> Result:
    """Time one case.

    Args:
        case: what to compare.
        rounds: timings of each side.
        seconds: how long one timing is, at least: a call that takes less is repeated.

    Returns:
        Rates in units a second and the ratio of the two, by the wall clock.

    Raises:
        WrongValue: the two do not give the same result.
    """
    sides = [(case.ours, case.ours_setting)]
    if case.peer is not None:
        sides.append((case.peer, case.peer_setting))
    difference = None if case.peer is None or case.tolerance is None else _difference(case)
    repeats = [_repeats(call, setting, seconds) for call, setting in sides]
    timings: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for index in order:
            timings[index].append(_time(*sides[index], repeats[index]))
    rates = [case.units_per_call / statistics.median(times) for times in timings]
    ratio = statistics.median(peer / ours for ours, peer in zip(*timings, strict=True)) if case.peer else None
    return Result(
        case.name,
        case.peer_name,
        rates[0],
        rates[1] if case.peer else None,
        ratio,
        rounds,
        case.bar,
        None if case.bar is None or ratio is None else ratio >= case.bar,
        difference,
    )


def relative_difference(ours: Any, peer: Any) -> float:
    """Largest |ours - peer| by the peer's largest magnitude; infinity for different shapes or where either is NaN."""
    a, b = np.asarray(ours, np.float64), np.asarray(peer, np.float64)
    if a.shape != b.shape:
        return float("inf")
    if not a.size:
        return 0.0
    worst = float(np.abs(a - b).max()) / max(float(np.abs(b).max()), 1e-30)
    return worst if worst == worst else float("inf")


def _difference(case: Case) -> float:
    assert case.peer is not None and case.tolerance is not None
    # Each result is copied before the other side runs: some calls return a buffer that they write again.
    with case.ours_setting():
        ours = np.array(case.ours(), np.float64)
    with case.peer_setting():
        peer = np.array(case.peer(), np.float64)
    difference = relative_difference(ours, peer)
    if difference > case.tolerance:
        raise WrongValue(
            f"{case.name}: differs from {case.peer_name} by {difference:.2g} of its largest value, "
            f"expected at most {case.tolerance:.2g}"
        )
    return difference


def _time(call: Callable[[], Any], setting: Setting, repeats: int) -> float:
    """Seconds a call takes."""
    with setting():
        time.sleep(SETTLE)
        call()  # caches and sleeping threads
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - started) / repeats


def _repeats(call: Callable[[], Any], setting: Setting, seconds: float) -> int:
    with setting():
        call()  # the first call pays for allocations
    return max(1, round(seconds / max(_time(call, setting, 1), 1e-9)))
