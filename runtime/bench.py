"""Times a bundle's graphs on the backends that are here: latency and images a second by batch and precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import cpp_ext
from runtime.errors import InputError, one_line
from runtime.session import Hint, Session, open_session

if TYPE_CHECKING:
    from runtime.bundle import Bundle, Port, Precision

ROUNDS = 5
"""Each case is timed in this many turns, so that what else the machine does slows all cases alike."""


@dataclass
class Way:
    """One way to run a graph, and its times."""

    call: Callable[[], None]
    at_once: int = 1
    """Calls under way at once."""
    seconds: list[float] = field(default_factory=list)
    """What each call took."""
    span: float = 0.0
    """Seconds that all calls together took."""

    def turn(self, seconds: float) -> None:
        """Call for so long, at least once."""
        self.call()  # wakes threads and fills caches; not counted
        started = time.perf_counter()
        end = started + seconds
        if self.at_once == 1:
            self.seconds += _calls(self.call, end)
        else:
            with ThreadPoolExecutor(self.at_once) as pool:
                for times in pool.map(lambda _: _calls(self.call, end), range(self.at_once)):
                    self.seconds += times
        self.span += time.perf_counter() - started


def _calls(call: Callable[[], None], end: float) -> list[float]:
    times = []
    while True:
        started = time.perf_counter()
        call()
        now = time.perf_counter()
        times.append(now - started)
        if now >= end:
            return times


class Case:
    """One graph on one backend in one precision and batch size.

    Args:
        graph: its name.
        session: it, opened.
        batch: samples a call.
        feeds: inputs of a call.
        at_once: calls under way at once.
    """

    def __init__(
        self, graph: str, session: Session, batch: int, feeds: Mapping[str, np.ndarray], at_once: int = 1
    ) -> None:
        self.graph, self.session, self.batch, self.feeds, self.at_once = graph, session, batch, feeds, at_once
        self.ways = [Way(self.call, at_once)]
        if hasattr(session, "lane"):  # a GPU, where inputs and outputs can stay
            self.ways.append(Way(self.resident, at_once))

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

    def row(self) -> dict[str, Any]:
        """Its figures, as they go into the JSON."""
        way, *resident = self.ways
        return {
            "graph": self.graph,
            "backend": self.session.backend,
            "device": self.session.device,
            "precision": self.session.precision,
            "batch": self.batch,
            "at_once": self.at_once,
            "calls": len(way.seconds),
            **figures(way, self.batch),
            "without_copies": figures(resident[0], self.batch) if resident else "same memory",
        }


def figures(way: Way, batch: int) -> dict[str, float]:
    """Median and 95th percentile of the calls' times in ms, and images a second over all of them."""
    p50, p95 = (1e3 * np.percentile(way.seconds, [50, 95])).tolist()
    rate = batch * len(way.seconds) / way.span
    return {"p50_ms": round(p50, 4), "p95_ms": round(p95, 4), "images_per_second": round(rate, 1)}


def feeds_of(ports: Iterable[Port], batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs for a graph, of the kind that each port takes: normal noise, for latents too, else even values within the
    port's range.

    Args:
        ports: the graph's inputs.
        batch: samples.
        seed: of the random numbers.

    Returns:
        Arrays [batch, …] by name, of the ports' dtypes.
    """
    rng, feeds = np.random.default_rng(seed), {}
    for port in ports:
        if port.kind in ("noise", "latent"):
            values = cpp_ext.noise(seed, 0, batch, int(np.prod(port.shape))).reshape(batch, *port.shape)
        else:
            low, high = np.asarray(port.limits or [port.range or (0.0, 1.0)]).T
            values = rng.uniform(low, high, (batch, *port.shape))
        feeds[port.name] = values.astype(port.dtype)
    return feeds


def attempt(
    bundle: Bundle,
    graph: str,
    device: str,
    precision: Precision,
    threads: int | None = None,
    hint: Hint = "latency",
) -> Session | str:
    """A session that has run once, or why there is none."""
    try:
        session = open_session(bundle, graph, device, precision, threads, hint)[0]
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
    hint: Hint = "latency",
) -> list[dict[str, Any]]:
    """Time all cases in turns.

    Args:
        bundle: whose graphs.
        devices, threads: as in `runtime.load`.
        precisions: those to time.
        batches: samples a call.
        seconds: how long to measure in all. Each case is called at least ROUNDS times, whatever that takes.
        progress: called with the share done, 0 … 1.
        hint: as in `runtime.load`; "throughput" also keeps as many calls under way at once as `stream` does.

    Returns:
        A row for each case: graph, backend, device, precision, batch, at_once (calls under way at once), calls, p50_ms,
        p95_ms, images_per_second and, as `without_copies`, the last three without copies between host and GPU ("same
        memory" on a CPU, which has none). For each device and precision that cannot run here: graph, device, precision
        and the reason.

    Raises:
        InputError: none of them can run here.
    """
    cases, missing = [], []
    for graph in dict.fromkeys(entry.name for entry in bundle.manifest.graphs):
        for device in devices:
            for precision in precisions:
                session = attempt(bundle, graph, device, precision, threads, hint)
                if isinstance(session, str):
                    missing.append({"graph": graph, "device": device, "precision": precision, "reason": session})
                    continue
                inputs, at_once = bundle.graph(graph, precision).inputs, session.overlap if hint == "throughput" else 1
                cases += [Case(graph, session, batch, feeds_of(inputs, batch), at_once) for batch in batches]
    if not cases:
        raise InputError("; ".join(dict.fromkeys(row["reason"] for row in missing)))
    ways = [way for case in cases for way in case.ways]
    for way in ways:
        way.call()  # the first call of a batch size compiles and allocates
    for number in range(ROUNDS):
        for index, way in enumerate(ways):
            way.turn(seconds / (len(ways) * ROUNDS))
            progress((number * len(ways) + index + 1) / (ROUNDS * len(ways)))
    return [case.row() for case in cases] + missing
