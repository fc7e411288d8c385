"""A session: one graph of a bundle opened on one backend; and the choice of a backend."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from runtime.devices import HINTS, ORDER, PRECISIONS, parse_device
from runtime.errors import InputError, one_line

if TYPE_CHECKING:
    from runtime.bundle import Bundle, Precision

Hint = Literal["latency", "throughput"]


class Shaped(Protocol):
    """An input or output: a bundle's Port, or what an engine says of its own."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102


class Slot(NamedTuple):
    """One input or output as an engine describes it."""

    name: str
    dtype: str
    """NumPy's name of it, e.g. "float32"."""
    shape: tuple[int, ...]
    """Without the batch axis; 0 where the graph leaves a size open."""


class Session(ABC):
    """One graph, opened. It may be used from several threads at once."""

    backend: str
    """What runs it: "onnxruntime", "openvino", "tensorrt-rtx" or "tensorrt"."""
    device: str
    """Where it truly runs: "cpu" or "cuda:N"."""
    precision: Precision
    overlap: int = 1
    """How many runs are worth having under way at once."""
    inputs: Sequence[Shaped]
    outputs: Sequence[Shaped]

    @abstractmethod
    def pieces(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[slice, Mapping[str, np.ndarray]]]:
        """Run the graph once, giving the results in pieces as they come.

        Args:
            feeds: arrays by input name, batch axis first, any batch size.

        Yields:
            Which samples a piece holds, and its arrays by output name. They are views of the engine's own memory: read
            them before the next piece is asked for, and do not write.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape than the graph's.
        """

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Run the graph once.

        Args:
            feeds: arrays by input name, batch axis first, any batch size.
            outputs: arrays to write the results into, by output name; None: new ones.

        Returns:
            Arrays by output name, batch axis first.

        Raises:
            InputError: an input or output is missing, unknown, or of another type or shape than the graph's.
        """
        results = None if outputs is None else self._checked(feeds, outputs)
        for part, arrays in self.pieces(feeds):
            if results is None:
                count = len(next(iter(feeds.values())))
                results = {name: np.empty((count, *a.shape[1:]), a.dtype) for name, a in arrays.items()}
            for name, array in arrays.items():
                results[name][part] = array
        assert results is not None  # a batch has at least one sample
        return results

    def _checked(self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = check_feeds("this session", self.inputs, feeds)
        if (got := check_feeds("this session", self.outputs, outputs, "output")) != count:
            raise InputError(f"outputs are for {got} samples, the inputs hold {count}")
        return dict(outputs)


def check_feeds(where: str, ports: Sequence[Shaped], feeds: Mapping[str, np.ndarray], what: str = "input") -> int:
    """Check arrays against a graph's inputs (or outputs).

    Args:
        where: what the message names, e.g. the graph's file.
        ports: what the graph has.
        feeds: arrays by name.
        what: "input" or "output".

    Returns:
        The batch size, at least 1.

    Raises:
        InputError: a name is missing or unknown, or an array is of another type or shape.
    """
    if len(feeds) != len(ports) or any(port.name not in feeds for port in ports):
        expected = ", ".join(port.name for port in ports)
        raise InputError(f"{where}: {what}s {', '.join(map(str, feeds)) or 'none'}, expected {expected}")
    count = -1
    for port in ports:
        array = feeds[port.name]
        if not isinstance(array, np.ndarray):
            raise InputError(f"{where}: {what} {port.name} is a {type(array).__name__}, expected a NumPy array")
        shape = array.shape
        fits = len(shape) == len(port.shape) + 1 and (
            shape[1:] == port.shape or all(want in (0, got) for got, want in zip(shape[1:], port.shape, strict=True))
        )
        if not fits or array.dtype != port.dtype:
            axes = ", ".join(["batch", *(str(size or "any") for size in port.shape)])
            raise InputError(
                f"{where}: {what} {port.name} is {array.dtype} {list(shape)}, expected {port.dtype} [{axes}]"
            )
        if shape[0] < 1 or count not in (-1, shape[0]):
            other = "at least 1" if shape[0] < 1 else f"{count} as in {ports[0].name}"
            raise InputError(f"{where}: {what} {port.name} holds a batch of {shape[0]}, expected {other}")
        count = shape[0]
    return count


def open_session(
    bundle: Bundle,
    graph: str,
    device: str = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    hint: Hint = "latency",
) -> tuple[Session, str]:
    """Open one graph of a bundle: `open_sessions` with it alone."""
    (session,), choice = open_sessions(bundle, [graph], device, precision, threads, hint)
    return session, choice


def open_sessions(
    bundle: Bundle,
    graphs: Sequence[str],
    device: str = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    hint: Hint = "latency",
) -> tuple[list[Session], str]:
    """Open graphs of a bundle, all on one backend.

    Args:
        bundle: a verified bundle.
        graphs: the graphs' names.
        device: "cpu" (ONNX Runtime), "openvino" (OpenVINO, on the CPU), "cuda" or "cuda:N" (ONNX Runtime on a GPU),
            "tensorrt" or "tensorrt:N" (an engine of the bundle), or "auto": the first of tensorrt, cuda, openvino and
            cpu that truly works here, for all of the graphs.
        precision: which variant of the graphs: "fp32", "fp16" or "int8".
        threads: CPU threads for one run; None: the engine's own choice.
        hint: for OpenVINO: "latency" (all threads work on one run) or "throughput" (several runs at once on fewer
            threads each, which many cores are best used by: `stream` keeps them busy). Others take no notice.

    Returns:
        The sessions, and one line that says what was picked and, for "auto", why not the others.

    Raises:
        InputError: no such graph or precision, an unknown or absent device, or threads below 1.
    """
    kind, number = parse_device(device)
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads is {threads!r}, expected a whole number of at least 1, or None")
    if hint not in HINTS:
        raise InputError(f"hint is {hint!r}, expected {' or '.join(HINTS)}")
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}, expected {', '.join(PRECISIONS)}")
    for graph in graphs:
        bundle.graph(graph, precision)  # a precision that is not there is not a reason to try another backend
    if kind != "auto":
        sessions = [_open_checked(kind, number, bundle, graph, precision, threads, hint) for graph in graphs]
        return sessions, _picked(sessions[0])
    reasons: dict[str, list[str]] = {}  # which backends each keeps away
    for number, kind in enumerate(ORDER):
        try:
            sessions = [_open_checked(kind, 0, bundle, graph, precision, threads, hint) for graph in graphs]
            for session in sessions:
                _try_out(session)
        except InputError as error:
            reasons.setdefault(str(error), []).append(kind)
        except Exception as error:  # an engine that opens and then fails is not the one to use, whatever it raises
            reasons.setdefault(f"{type(error).__name__}: {one_line(error)}", []).append(kind)
        else:
            rest = {"not needed": list(ORDER[number + 1 :])} if ORDER[number + 1 :] else {}
            return sessions, " | ".join([_picked(sessions[0]), *_said(reasons | rest)])
    named = ("graph " if len(graphs) == 1 else "graphs ") + ", ".join(graphs)
    raise InputError(f"{bundle.path}: nothing here can run {named}: {' | '.join(_said(reasons))}")


def _said(reasons: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{', '.join(kinds)}: {reason}" for reason, kinds in reasons.items()]


def _open_checked(
    kind: str, number: int, bundle: Bundle, graph: str, precision: Precision, threads: int | None, hint: Hint
) -> Session:
    session = _open(kind, number, bundle, graph, precision, threads, hint)
    entry = bundle.graph(graph, precision)
    for what, have, want in (("input", session.inputs, entry.inputs), ("output", session.outputs, entry.outputs)):
        described = {port.name: (port.dtype, port.shape) for port in want}
        if described != {port.name: (port.dtype, port.shape) for port in have}:
            got = ", ".join(f"{port.name} {port.dtype} {list(port.shape)}" for port in have)
            says = ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in described.items())
            raise InputError(f"{bundle.file(entry)}: {what}s {got}, the manifest says {says}; export the bundle again")
    return session


def _open(
    kind: str, number: int, bundle: Bundle, graph: str, precision: Precision, threads: int | None, hint: Hint
) -> Session:
    entry = bundle.graph(graph, precision)
    path = bundle.file(entry)
    if kind in ("cuda", "tensorrt"):
        from runtime.backends.cuda import check_driver

        check_driver()  # before any of the large libraries is loaded
    if kind == "tensorrt":
        from runtime.backends.tensorrt import open_engine

        return open_engine(bundle, graph, precision, number)
    if kind == "openvino":
        from runtime.backends.openvino import OpenVinoSession

        return OpenVinoSession(path, threads, precision, hint)
    if kind == "cuda" and importlib.util.find_spec("pycuda"):  # without it, results are copied by ONNX Runtime itself
        from runtime.backends.onnxruntime_cuda import OnnxRuntimeCudaSession

        return OnnxRuntimeCudaSession(path, entry, number)
    from runtime.backends.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(path, threads, "cpu" if kind == "cpu" else f"cuda:{number}", precision)


def check_results(where: str, ports: Sequence[Shaped], results: Mapping[str, np.ndarray], count: int) -> None:
    """Check what an engine gave for `count` samples against what its graph declares.

    Raises:
        InputError: an output has another shape: the file is wrong about itself.
    """
    for port in ports:
        if results[port.name].shape != (count, *port.shape):
            raise InputError(
                f"{where}: output {port.name} came as {list(results[port.name].shape)}, the graph declares "
                f"{[count, *port.shape]}; export the bundle again"
            )


def _try_out(session: Session) -> None:
    session.run({port.name: np.zeros((1, *(size or 1 for size in port.shape)), port.dtype) for port in session.inputs})


def _picked(session: Session) -> str:
    return f"{session.precision} on {session.device} by {session.backend}"
