"""What is measured of the engine on a GPU: generators in PyTorch, ONNX Runtime and TensorRT, images a second.

"On the device" leaves noise and images there and enqueues batch after batch; "with copies" takes noise from the host
and brings float32 images back, one batch at a time. What cannot run here has the reason in its row.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import cpp_ext
from benchmarks.compare import relative_difference
from runtime.errors import one_line

BATCHES = (1, 8, 64, 256)
TOLERANCES = {"fp32": 1e-3, "fp16": 5e-2}
"""Largest difference from PyTorch eager in float32, relative to the largest value."""
SECONDS = 0.02
"""A timing repeats a call so long."""
Opener = Callable[[], Any]
"""Gives a session, or raises what says why there is none."""


class Contender(NamedTuple):
    """One engine with one batch."""

    on_device: Callable[[], Any] | None
    """Enqueues a batch."""
    finish: Callable[[], None]
    """Waits for all that was enqueued."""
    with_copies: Callable[[], np.ndarray]
    """From the host and back; done on return."""


def rows(device: torch.device, rounds: int, console: Any, small: bool = False) -> tuple[Any, list[dict[str, Any]]]:
    """Compare the engines; `small` is for trying this file. Returns a table and a row for each engine and batch."""
    from benchmarks.generators import generators

    found: list[dict[str, Any]] = []
    for generator in generators():
        with tempfile.TemporaryDirectory() as folder:
            for precision in TOLERANCES:
                openers = sessions(generator, precision, Path(folder), device)
                for batch in BATCHES[:2] if small else BATCHES:
                    with console.status(f"{generator.name} {precision}, batch {batch}"), ExitStack() as held:
                        found += measure(generator, precision, batch, device, openers, rounds, held, console)
        if small:
            break
    return table(found, console), found


def measure(
    generator: Any,
    precision: str,
    batch: int,
    device: torch.device,
    openers: dict[str, Opener],
    rounds: int,
    held: ExitStack,
    console: Any,
) -> list[dict[str, Any]]:
    """The rows of one generator, precision and batch size."""
    z = cpp_ext.noise(0, 0, batch, generator.noise)
    with torch.inference_mode():
        expected = generator.module.to(device)(torch.from_numpy(z).to(device)).cpu()
    made: dict[str, Callable[[], Contender]] = {
        **torch_contenders(generator.module, precision, z, device),
        **{name: lambda opener=opener: of_session(opener(), z, held) for name, opener in openers.items()},  # type: ignore[misc]
    }
    contenders: dict[str, Contender] = {}
    results: dict[str, dict[str, Any]] = {}
    for name, make in made.items():
        results[name] = {"name": f"{generator.name} {precision}, batch {batch}", "engine": name}
        try:
            contender = make()
            difference = relative_difference(torch.from_numpy(contender.with_copies()), expected)
        except Exception as error:  # whatever a library raises is why it is not measured
            results[name]["why_not"] = one_line(error)[:300]
            continue
        results[name]["difference"] = difference
        if difference > TOLERANCES[precision]:
            limit = f"expected at most {TOLERANCES[precision]:.2g}"
            results[name]["wrong"] = f"differs from PyTorch in float32 by {difference:.2g}, {limit}"
            console.print(f"[bold]wrong:[/bold] {name}: {results[name]['wrong']}", highlight=False)
            continue
        contenders[name] = contender
    for name, rates in in_turns(contenders, batch, rounds).items():
        results[name] |= rates
    return list(results.values())


def in_turns(contenders: dict[str, Contender], batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median images a second of each engine, on the device and with copies, one after the other in each round."""
    calls: list[tuple[str, str, Callable[[], float]]] = []
    for name, contender in contenders.items():
        if contender.on_device is not None:
            calls.append((name, "images_per_s", _timed(contender.on_device, contender.finish)))
        calls.append((name, "images_per_s_with_copies", _timed(contender.with_copies, lambda: None)))
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for name, what, timed in calls if number % 2 == 0 else reversed(calls):
            times.setdefault((name, what), []).append(timed())
    rates: dict[str, dict[str, float]] = {}
    for (name, what), taken in times.items():
        rates.setdefault(name, {})[what] = batch / statistics.median(taken)
    return rates


def _timed(call: Callable[[], Any], finish: Callable[[], None]) -> Callable[[], float]:
    """Seconds of one of several calls in a row, after a warm one."""

    def seconds(repeats: int) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        finish()
        return (time.perf_counter() - started) / repeats

    seconds(2)
    repeats = max(1, min(1000, round(SECONDS / seconds(3))))
    return lambda: seconds(repeats)


def table(found: list[dict[str, Any]], console: Any) -> Any:
    """A line for each generator, precision and batch; a column for each engine. Reasons are printed once."""
    from rich.table import Table

    engines = list(dict.fromkeys(row["engine"] for row in found))
    shown = Table("images/s, on the device / with copies", *engines)
    for case in dict.fromkeys(row["name"] for row in found):
        cells = {row["engine"]: row for row in found if row["name"] == case}
        shown.add_row(case, *(_cell(cells[engine]) if engine in cells else "" for engine in engines))
    reasons = dict.fromkeys((row["engine"], row["why_not"]) for row in found if "why_not" in row)
    for engine, reason in reasons:
        console.print(f"{engine} not measured: {reason}", highlight=False, markup=False, soft_wrap=True)
    return shown


def _cell(row: dict[str, Any]) -> str:
    rates = (row.get("images_per_s"), row.get("images_per_s_with_copies"))
    return " / ".join(f"{rate:,.0f}" if rate else "–" for rate in rates)


# --- PyTorch ---


def torch_contenders(
    module: nn.Module, precision: str, z: np.ndarray, device: torch.device
) -> dict[str, Callable[[], Contender]]:
    """PyTorch as it is, compiled, and replayed as a CUDA graph; float32 in and out in either precision."""
    inner = module.to(device)
    if precision == "fp16":
        inner = copy.deepcopy(inner).half()

    def forward(x: Tensor) -> Tensor:
        return inner(x.half()).float() if precision == "fp16" else inner(x)

    return {
        "torch eager": lambda: of_torch(forward, z, device),
        "torch compile": lambda: of_torch(torch.compile(forward, dynamic=False), z, device),
        "torch CUDA graph": lambda: of_torch(_replayed(forward, z, device), z, device),
    }


def _replayed(forward: Callable[[Tensor], Tensor], z: np.ndarray, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The forward pass captured once for this batch."""
    if device.type != "cuda":
        raise RuntimeError("CUDA graphs need a GPU")
    given = torch.from_numpy(z).to(device)
    aside = torch.cuda.Stream()
    with torch.inference_mode():
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                forward(given)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = forward(given)

    def replay(x: Tensor) -> Tensor:
        given.copy_(x)
        graph.replay()
        return made

    return replay


def of_torch(forward: Callable[[Tensor], Tensor], z: np.ndarray, device: torch.device) -> Contender:
    """A forward pass, called with noise on the device, or from and to page-locked host memory."""
    there, cuda = torch.from_numpy(z).to(device), device.type == "cuda"
    here = torch.from_numpy(z).pin_memory() if cuda else torch.from_numpy(z)
    with torch.inference_mode():
        result = forward(there)
        back = torch.empty(result.shape, pin_memory=cuda)

    def on_device() -> None:
        with torch.inference_mode():
            forward(there)

    def with_copies() -> np.ndarray:
        with torch.inference_mode():
            back.copy_(forward(here.to(device, non_blocking=True)), non_blocking=True)
        finish()
        return back.numpy()

    def finish() -> None:
        if cuda:
            torch.cuda.synchronize(device)

    return Contender(on_device, finish, with_copies)


# --- the runtime's sessions ---


def sessions(generator: Any, precision: str, folder: Path, device: torch.device) -> dict[str, Opener]:
    """How each of the runtime's GPU sessions is opened, once each: the next batch size takes the same."""
    number = device.index or 0

    def cuda_session() -> Any:
        from runtime.session import open_session

        return open_session(_bundle(generator, folder), "generator", f"cuda:{number}", precision)[0]  # type: ignore[arg-type]

    def engine(flavour: str) -> Any:
        from runtime.backends.tensorrt import open_engine

        return open_engine(_with_engines(generator, folder, flavour), "generator", precision, number)  # type: ignore[arg-type]

    openers: dict[str, Opener] = {"onnxruntime": cuda_session}
    for flavour in ("tensorrt", "tensorrt-rtx"):
        openers[flavour] = lambda flavour=flavour: engine(flavour)  # type: ignore[misc]
    return {name: _once(opener) for name, opener in openers.items()}


def _once(opener: Opener) -> Opener:
    """The session opened at the first call, or what was raised then."""
    result: list[Any] = []

    def opened() -> Any:
        if not result:
            try:
                result.append(opener())
            except Exception as error:
                result.append(error)
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    return opened


def _bundle(generator: Any, folder: Path) -> Any:
    """The generator exported in fp32 and fp16, once."""
    from export.pipeline import Plan, export_bundle
    from export.references import TorchReference
    from export.sources import Source
    from runtime.bundle import Bundle

    path = folder / "bundle"
    if not path.exists():
        graph = replace(generator, module=copy.deepcopy(generator.module).cpu()).graph()
        source = Source("benchmark", "multimodal", None, {}, lambda: [TorchReference(graph)])
        export_bundle(source, path, Plan(("fp32", "fp16")))
    return Bundle.open(path)


def _with_engines(generator: Any, folder: Path, flavour: str) -> Any:
    """The same with the engines of one library, for batches up to the largest measured."""
    from export import tensorrt
    from export.pipeline import Plan, export_bundle
    from export.sources import source_of_bundle
    from runtime.bundle import Bundle

    path = folder / flavour
    if not path.exists():
        if flavour not in tensorrt.flavours():
            raise RuntimeError(f"{flavour} cannot build engines here: not installed, or no GPU for it")
        source = source_of_bundle(_bundle(generator, folder).path)
        export_bundle(source, path, Plan(("fp32", "fp16"), (flavour,), batches=(1, 64, BATCHES[-1])))
    return Bundle.open(path)


def of_session(session: Any, z: np.ndarray, held: ExitStack) -> Contender:
    """A session: on the device by a lane of its own, if it has lanes."""
    out = {port.name: np.empty((len(z), *port.shape), port.dtype) for port in session.outputs}

    def with_copies() -> np.ndarray:
        result: np.ndarray = session.run({"z": z}, out)["image"]
        return result

    if not hasattr(session, "lane") or len(z) > session.largest:
        return Contender(None, lambda: None, with_copies)
    lane = held.enter_context(session.lane())
    lane.start({"z": z}, slice(0, len(z)))
    lane.wait()
    return Contender(lambda: lane.run(len(z)), lane.wait, with_copies)
