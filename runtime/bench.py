"""Times a bundle's graphs on the backends that are here: latency and images a second by batch and precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import cpp_ext
from runtime.errors import InputError, one_line
from runtime.session import Session, open_session

if TYPE_CHECKING:
    from runtime.bundle import Bundle, Port, Precision

ROUNDS = 5
"""Each case is timed in this many turns, so that what else the machine does slows all cases alike."""


@dataclass
class Case:
    """One graph on one backend in one precision and batch size."""

    graph: str
    session: Session
    batch: int
    feeds: Mapping[str, np.ndarray]
    seconds: list[float] = field(default_factory=list)
    """What each call took."""
    resident_seconds: list[float] = field(default_factory=list)
    """What each call took whose inputs and outputs stay on the GPU."""

    def call(self) -> None:
        """Run the graph once: from arrays in host memory to results in host memory."""
        for _ in self.session.pieces(self.feeds):
            pass

    def resident(self) -> None:
        """Run the graph once on what is in the GPU's memory; results stay there.

        Has run with stand-ins for a GPU only.
        """
        session: Any = self.session
        with session.lane() as lane:
            for start in range(0, self.batch, session.largest):
                lane.run(min(session.largest, self.batch - start))
            lane.wait()

    @property
    def ways(self) -> list[tuple[Callable[[], None], list[float]]]:
        """What is timed, and where its times go."""
        on_gpu = hasattr(self.session, "lane")
        return [(self.call, self.seconds)] + ([(self.resident, self.resident_seconds)] if on_gpu else [])

    def row(self) -> dict[str, Any]:
        """Its figures, as they go into the JSON."""
        resident = self.resident_seconds
        return {
            "graph": self.graph,
            "backend": self.session.backend,
            "device": self.session.device,
            "precision": self.session.precision,
            "batch": self.batch,
            "calls": len(self.seconds),
            **figures(self.seconds, self.batch),
            "without_copies": figures(resident, self.batch) if resident else "same memory",
        }


def figures(seconds: Sequence[float], batch: int) -> dict[str, float]:
    """Median and 95th percentile of the calls' times in ms, and images a second over all of them."""
    p50, p95 = (1e3 * np.percentile(seconds, [50, 95])).tolist()
    rate = batch * len(seconds) / sum(seconds)
    return {"p50_ms": round(p50, 4), "p95_ms": round(p95, 4), "images_per_second": round(rate, 1)}


def feeds_of(ports: Iterable[Port], batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs for a graph, of the kind that each port takes: normal noise, else even values within the port's range.

    Args:
        ports: the graph's inputs.
        batch: samples.
        seed: of the random numbers.

    Returns:
        Arrays [batch, …] by name, of the ports' dtypes.
    """
    rng, feeds = np.random.default_rng(seed), {}
    for port in ports:
        if port.kind == "noise":
            values = cpp_ext.noise(seed, 0, batch, port.shape[0])
        else:
            low, high = np.asarray(port.limits or [port.range or (0.0, 1.0)]).T
            values = rng.uniform(low, high, (batch, *port.shape))
        feeds[port.name] = values.astype(port.dtype)
    return feeds


def attempt(bundle: Bundle, graph: str, device: str, precision: Precision, threads: int | None = None) -> Session | str:
    """A session that has run once, or why there is none."""
    try:
        session = open_session(bundle, graph, device, precision, threads)[0]
        session.run(feeds_of(bundle.graph(graph, precision).inputs, 1))
    except InputError as error:
        return str(error)
    except Exception as error:  # whatever an engine raises is the answer to whether it runs here
        return f"{type(error).__name__}: {one_line(error)}"
    return session


def measure(
    bundle: Bundle,
    devices: Sequence[str],
    precisions: Sequence[Precision],
    batches: Sequence[int],
    threads: int | None = None,
    seconds: float = 20.0,
    progress: Callable[[float], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """Time all cases in turns.

    Args:
        bundle: whose graphs.
        devices, threads: as in `runtime.load`.
        precisions: those to time.
        batches: samples a call.
        seconds: how long to measure in all. Each case is called at least ROUNDS times, whatever that takes.
        progress: called with the share done, 0 … 1.

    Returns:
        A row for each case: graph, backend, device, precision, batch, calls, p50_ms, p95_ms, images_per_second and, as
        `without_copies`, the last three without copies between host and GPU ("same memory" on a CPU, which has none).
        For each device and precision that cannot run here: graph, device, precision and the reason.

    Raises:
        InputError: none of them can run here.
    """
    cases, missing = [], []
    for graph in dict.fromkeys(entry.name for entry in bundle.manifest.graphs):
        for device in devices:
            for precision in precisions:
                session = attempt(bundle, graph, device, precision, threads)
                if isinstance(session, str):
                    missing.append({"graph": graph, "device": device, "precision": precision, "reason": session})
                    continue
                inputs = bundle.graph(graph, precision).inputs
                cases += [Case(graph, session, batch, feeds_of(inputs, batch)) for batch in batches]
    if not cases:
        raise InputError("; ".join(dict.fromkeys(row["reason"] for row in missing)))
    ways = [way for case in cases for way in case.ways]
    for call, _ in ways:
        call()  # the first call of a batch size compiles and allocates
    for number in range(ROUNDS):
        for index, (call, times) in enumerate(ways):
            _turn(call, times, seconds / (len(ways) * ROUNDS))
            progress((number * len(ways) + index + 1) / (ROUNDS * len(ways)))
    return [case.row() for case in cases] + missing


def _turn(call: Callable[[], None], times: list[float], seconds: float) -> None:
    call()  # wakes threads and fills caches; not counted
    end = time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        call()
        now = time.perf_counter()
        times.append(now - started)
        if now >= end:
            return
