"""ONNX → TensorRT engines: TensorRT-RTX ahead of time on any machine, TensorRT where its library and a GPU are.

Networks are strongly typed: the precision is the ONNX file's. `tensorrt_rtx` 1 and `tensorrt` 10 and 11 share one
API; where they differ the code asks the library what it has. The data-centre library has not been run with this code:
it builds only where its GPU is.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Literal, TypedDict, get_args

from export.cache import EngineCache
from export.errors import ExportError
from runtime.backends.tensorrt import MODULES, error_log
from runtime.bundle import Port, Precision, sha256_of
from runtime.errors import InputError

Flavour = Literal["tensorrt-rtx", "tensorrt"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
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
    found: list[Flavour] = [flavour for flavour in FLAVOURS if _usable(flavour)]
    if not found:
        raise InputError("no TensorRT to build engines with; `pip install awase[trt]` (it needs no GPU)")
    return found


def installed_version(flavour: Flavour) -> str:
    """The version of a library that is here, whether or not it can build; "" if it is not here."""
    try:
        return str(getattr(_library(flavour), "__version__", ""))
    except (ImportError, OSError):
        return ""


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
        return _cached(path, _key(path, flavour, (), profile, precision), (), cache)
    wanted = list(capabilities or compute_capabilities(flavour))
    key = _key(path, flavour, wanted, profile, precision)
    fewer = [name for name in wanted if name != UNFIT_FOR_FP32]
    if capabilities is not None or fewer == wanted:
        return _cached(path, key, wanted, cache)
    reason = cache.refusal(key) if cache else ""
    if not reason:
        try:
            return _cached(path, key, wanted, cache)
        except ExportError as error:
            reason = str(error).removeprefix(f"{path.name}: ")
    engine = _cached(path, _key(path, flavour, fewer, profile, precision), fewer, cache)
    if cache:
        cache.put_refusal(key, reason)  # it was that generation: without it the engine can be built
    return replace(engine, notice=f"{path.name}: left out {UNFIT_FOR_FP32}: {reason}")


class _Key(TypedDict):
    """All that an engine depends on."""

    onnx_sha256: str
    flavour: Flavour
    version: str
    compute_capabilities: tuple[str, ...]
    gpu: str
    profile: Profile
    precision: Precision


def _key(path: Path, flavour: Flavour, targets: Sequence[str], profile: Profile, precision: Precision) -> _Key:
    return {
        "onnx_sha256": sha256_of(path),
        "flavour": flavour,
        "version": _library(flavour).__version__,
        "compute_capabilities": tuple(targets) or _own_capability(),
        "gpu": "" if targets else _own_gpu(),
        "profile": profile,
        "precision": precision,
    }


def _cached(path: Path, key: _Key, targets: Sequence[str], cache: EngineCache | None) -> Engine:
    started = time.perf_counter()
    flavour, profile = key["flavour"], key["profile"]
    if not targets and not key["gpu"]:
        cache = None  # it may be of any GPU
    data = cache.get(key) if cache else None
    cached = data is not None
    if data is None:
        data = _build(path, flavour, targets, profile, cache)
        if cache:
            cache.put(key, data)
    seconds = time.perf_counter() - started
    return Engine(flavour, key["version"], data, key["compute_capabilities"], profile, seconds, cached=cached)


def _build(path: Path, flavour: Flavour, targets: Sequence[str], profile: Profile, cache: EngineCache | None) -> bytes:
    trt = _library(flavour)
    log = error_log(trt)
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
        trt.Builder(error_log(trt))  # TensorRT's builder needs a GPU: without one its constructor fails
    except (TypeError, RuntimeError):
        return False
    return True


def _own_capability() -> tuple[str, ...]:
    """The generation of the GPU that engines are built on and for; () if it cannot be told."""
    import torch  # it numbers GPUs as TensorRT does: by CUDA_VISIBLE_DEVICES

    if not torch.cuda.is_available():
        return ()
    major, minor = torch.cuda.get_device_capability(0)
    return (f"SM{major}{minor}",)


def _own_gpu() -> str:
    """That GPU by name; "" if it cannot be told."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
