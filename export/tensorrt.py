"""ONNX → TensorRT engines: TensorRT-RTX ahead of time on any machine, TensorRT where its library and a GPU are.

Networks are strongly typed: the precision is the ONNX file's. `tensorrt_rtx` 1 and `tensorrt` 10 and 11 share one
API; where they differ the code asks the library what it has. The data-centre library has not been run with this code:
it builds only where its GPU is.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from export.cache import EngineCache
from export.errors import ExportError
from runtime.bundle import Port, Precision, sha256_of
from runtime.errors import InputError

Flavour = Literal["tensorrt-rtx", "tensorrt"]
MODULES: dict[Flavour, str] = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
Profile = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Smallest, best and largest shape of each input, batch first."""
Batches = tuple[int, int, int]
"""Smallest, best and largest batch of an engine's profile."""
BATCHES: Batches = (1, 8, 64)
LARGEST_BATCH = 65536
UNFIT_FOR_FP32 = "SM75"
"""Turing has no fp32 matrix product in TensorRT-RTX: graphs with one leave it out unless it is asked for."""


@dataclass(frozen=True)
class Engine:
    """A serialized engine and what it is for."""

    flavour: Flavour
    version: str
    data: bytes
    compute_capabilities: tuple[str, ...]
    profile: Profile
    seconds: float
    notice: str = ""
    """What the user should know, e.g. a GPU generation that was left out."""
    cached: bool = False
    """It was built earlier, from the same file by the same library for the same GPUs and batches."""


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


def parse_batches(text: str) -> Batches:
    """Read `--batch MIN:OPT:MAX`.

    Raises:
        InputError: it is not three whole numbers, each at least 1 and no smaller than the one before.
    """
    words = text.split(":")
    numbers = [int(word) for word in words if re.fullmatch(r"\s*\d{1,6}\s*", word)]
    if len(words) != 3 or len(numbers) != 3 or not 1 <= numbers[0] <= numbers[1] <= numbers[2] <= LARGEST_BATCH:
        raise InputError(
            f"--batch is {text!r}, expected MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX <= {LARGEST_BATCH}, "
            f"such as {':'.join(map(str, BATCHES))}"
        )
    return numbers[0], numbers[1], numbers[2]


def build(
    path: Path,
    inputs: Sequence[Port],
    flavour: Flavour,
    capabilities: Sequence[str] | None = None,
    batches: Batches = BATCHES,
    cache: EngineCache | None = None,
    precision: Precision = "fp32",
) -> Engine:
    """Build one engine, or take it from the cache.

    Args:
        path: the ONNX file.
        inputs: the graph's inputs, for the profile.
        flavour: which library.
        capabilities: GPU generations for TensorRT-RTX; None: all it knows, less SM75 where the graph cannot run there.
        batches: the profile.
        cache: where engines are kept; None: nowhere.
        precision: the file's.

    Raises:
        ExportError: the library refuses the graph; the message holds its own words.
    """
    profile: Profile = {}
    for port in inputs:
        smallest, best, largest = ((batch, *port.shape) for batch in batches)
        profile[port.name] = (smallest, best, largest)
    if flavour == "tensorrt":
        return _cached(path, flavour, (), profile, cache, precision)
    wanted = list(capabilities or compute_capabilities(flavour))
    try:
        return _cached(path, flavour, wanted, profile, cache, precision)
    except ExportError as error:
        fewer = [name for name in wanted if name != UNFIT_FOR_FP32]
        if capabilities is not None or fewer == wanted:
            raise
        reason = str(error)
    engine = _cached(path, flavour, fewer, profile, cache, precision)
    return replace(engine, notice=f"{path.name}: left out {UNFIT_FOR_FP32}: {reason}")


def _cached(
    path: Path,
    flavour: Flavour,
    targets: Sequence[str],
    profile: Profile,
    cache: EngineCache | None,
    precision: Precision,
) -> Engine:
    started = time.perf_counter()
    version = _library(flavour).__version__
    made_for = tuple(targets) or _own_capability()
    key = {
        "onnx_sha256": sha256_of(path),
        "flavour": flavour,
        "version": version,
        "compute_capabilities": made_for,
        "gpu": "" if targets else _own_gpu(),
        "profile": profile,
        "precision": precision,
    }
    data = cache.get(key) if cache else None
    cached = data is not None
    if data is None:
        data = _build(path, flavour, targets, profile, cache)
        if cache:
            cache.put(key, data)
    return Engine(flavour, version, data, made_for, profile, time.perf_counter() - started, cached=cached)


def _build(path: Path, flavour: Flavour, targets: Sequence[str], profile: Profile, cache: EngineCache | None) -> bytes:
    trt = _library(flavour)
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
    shapes = builder.create_optimization_profile()
    for name, (smallest, best, largest) in profile.items():
        shapes.set_shape(name, smallest, best, largest)
    if config.add_optimization_profile(shapes) < 0:
        raise _refusal(path, flavour, ["the optimisation profile is invalid", *log.lines])
    timings = cache if flavour == "tensorrt" else None  # ahead of time nothing is timed
    if timings:
        gpu = _own_gpu()
        known = config.create_timing_cache(timings.timings(trt.__version__, gpu))
        if not config.set_timing_cache(known, False):  # those kept are damaged
            config.set_timing_cache(config.create_timing_cache(b""), False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:  # the builder raises nothing: its words went to the log
        raise _refusal(path, flavour, log.lines)
    if timings:
        timings.put_timings(trt.__version__, gpu, bytes(config.get_timing_cache().serialize()))
    return bytes(engine)


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
    if not hasattr(trt, "Builder"):  # a folder of type stubs imports as an empty namespace
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
    text = _nvidia_smi("compute_cap")
    return (f"SM{text.replace('.', '')}",) if text else ()


def _own_gpu() -> str:
    """This machine's GPU by name; "" if it cannot be told."""
    return _nvidia_smi("name")


def _nvidia_smi(field: str) -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else ""
