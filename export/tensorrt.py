"""ONNX → TensorRT engines: TensorRT-RTX ahead of time on any machine, TensorRT where its library and a GPU are.

Networks are strongly typed: the precision is the ONNX file's. `tensorrt_rtx` 1 and `tensorrt` 10 and 11 share one
API; where they differ the code asks the library what it has.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from export.errors import ExportError
from runtime.bundle import Port
from runtime.errors import InputError

Flavour = Literal["tensorrt-rtx", "tensorrt"]
MODULES: dict[Flavour, str] = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
BATCHES = (1, 8, 64)
"""Smallest, best and largest batch of an engine's profile."""
UNFIT_FOR_FP32 = "SM75"
"""Turing has no fp32 matrix product in TensorRT-RTX: graphs with one leave it out unless it is asked for."""


@dataclass(frozen=True)
class Engine:
    """A serialized engine and what it is for."""

    flavour: Flavour
    version: str
    data: bytes
    compute_capabilities: tuple[str, ...]
    profile: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    seconds: float
    notice: str = ""
    """What the user should know, e.g. a GPU generation that was left out."""


def flavours() -> list[Flavour]:
    """The libraries that can build engines here, TensorRT-RTX first.

    Raises:
        InputError: there is none; the message says how to get one.
    """
    found: list[Flavour] = [flavour for flavour in MODULES if _usable(flavour)]
    if not found:
        raise InputError("no TensorRT to build engines with; `pip install awase[trt]` (it needs no GPU)")
    return found


def compute_capabilities(flavour: Flavour = "tensorrt-rtx") -> list[str]:
    """The GPU generations the installed library can build for ahead of time, e.g. ["SM75", "SM80", …]."""
    known = getattr(_library(flavour), "ComputeCapability", None)
    return [name for name in getattr(known, "__members__", {}) if name.startswith("SM")]


def parse_capabilities(text: str) -> list[str]:
    """Read `--sm 80,86,89`.

    Raises:
        InputError: a number the installed library cannot build for.
    """
    known = compute_capabilities()
    chosen = ["SM" + word.strip().upper().removeprefix("SM") for word in text.split(",") if word.strip()]
    for name in chosen:
        if name not in known:
            choices = ",".join(each.removeprefix("SM") for each in known)
            raise InputError(f"--sm: {name} is not among what this TensorRT-RTX builds for: {choices}")
    if not chosen:
        raise InputError(f"--sm is {text!r}, expected GPU generations such as 80,89")
    return list(dict.fromkeys(chosen))


def build(path: Path, inputs: Sequence[Port], flavour: Flavour, capabilities: Sequence[str] | None = None) -> Engine:
    """Build one engine.

    Args:
        path: the ONNX file.
        inputs: the graph's inputs, for the profile.
        flavour: which library.
        capabilities: GPU generations for TensorRT-RTX; None: all it knows, less SM75 where the graph cannot run there.

    Raises:
        ExportError: the library refuses the graph; the message holds its own words.
    """
    if flavour == "tensorrt":
        return _build(path, inputs, flavour, ())
    wanted = list(capabilities or compute_capabilities(flavour))
    try:
        return _build(path, inputs, flavour, wanted)
    except ExportError as error:
        fewer = [name for name in wanted if name != UNFIT_FOR_FP32]
        if capabilities is not None or fewer == wanted:
            raise
        reason = str(error)
    return _build(path, inputs, flavour, fewer, f"{path.name}: left out {UNFIT_FOR_FP32}: {reason}")


def _build(path: Path, inputs: Sequence[Port], flavour: Flavour, targets: Sequence[str], notice: str = "") -> Engine:
    trt = _library(flavour)
    started = time.perf_counter()
    log = _log(trt)
    builder = trt.Builder(log)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # TensorRT may make it the only kind
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise _refusal(
            path, flavour, [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors]
        )
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):
        # On by default; it keeps 10 bits of the mantissa, and an fp32 graph's parity bounds would not hold.
        config.clear_flag(trt.BuilderFlag.TF32)
    if targets:
        config.num_compute_capabilities = len(targets)
        for index, name in enumerate(targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    profile = builder.create_optimization_profile()
    shapes = {}
    for port in inputs:
        smallest, best, largest = ((batch, *port.shape) for batch in BATCHES)
        shapes[port.name] = (smallest, best, largest)
        profile.set_shape(port.name, smallest, best, largest)
    if config.add_optimization_profile(profile) < 0:
        raise _refusal(path, flavour, ["the optimisation profile is invalid", *log.lines])
    engine = builder.build_serialized_network(network, config)
    if engine is None:  # the builder raises nothing: its words went to the log
        raise _refusal(path, flavour, log.lines)
    return Engine(
        flavour=flavour,
        version=trt.__version__,
        data=bytes(engine),
        compute_capabilities=tuple(targets) or _own_capability(),
        profile=shapes,
        seconds=time.perf_counter() - started,
        notice=notice,
    )


def _refusal(path: Path, flavour: Flavour, lines: Sequence[str]) -> ExportError:
    return ExportError(f"{path.name}: {flavour} cannot build it: {'; '.join(lines)[:600] or 'it gave no reason'}")


def _log(trt: ModuleType) -> Any:
    """A logger that keeps errors instead of printing them."""

    class Log(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.lines.append(message)

    return Log()


def _library(flavour: Flavour) -> ModuleType:
    return importlib.import_module(MODULES[flavour])


def _usable(flavour: Flavour) -> bool:
    try:
        trt = _library(flavour)
    except (ImportError, OSError):  # OSError: its shared libraries are not there
        return False
    if flavour == "tensorrt-rtx":
        return True
    try:
        trt.Builder(_log(trt))  # TensorRT's builder needs a GPU: without one its constructor fails
    except (TypeError, RuntimeError):
        return False
    return True


def _own_capability() -> tuple[str, ...]:
    """This machine's GPU generation, for engines that are built on and for it; () if it cannot be told."""
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    text = done.stdout.strip()
    return (f"SM{text.replace('.', '')}",) if done.returncode == 0 and text else ()
