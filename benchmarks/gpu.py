"""Our kernels and engine on a GPU: each kernel against its roofline on this very device, and all against others.

Times of kernels are CUDA events' around one call, medians; before each timed call a buffer larger than the L2 cache is
written, so that inputs come from memory. Values are compared with the CPU kernels' first.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch

import cpp_ext
from benchmarks import gpu_engine, roofline
from benchmarks.compare import relative_difference
from benchmarks.gpu_kernels import Kernel, kernels
from benchmarks.roofline import Roof

CHECKED = 8
"""Samples from either end whose values are compared."""


class Clock(Protocol):
    """Times calls on a device."""

    def start(self, call: Callable[[], Any]) -> Callable[[], float]:
        """Begin a timed call; the result, asked for later, waits for it and gives seconds."""


class CudaClock:
    """CUDA events around a call, after the L2 cache was filled with something else."""

    def __init__(self, device: torch.device) -> None:
        size = max(2 * torch.cuda.get_device_properties(device).L2_cache_size, 256 << 20)
        self._other = torch.empty(size, dtype=torch.uint8, device=device)

    def start(self, call: Callable[[], Any]) -> Callable[[], float]:
        """Enqueue the call; the filling before it hides what the host needs to launch it."""
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._other.fill_(0)
        before.record()
        call()
        after.record()

        def seconds() -> float:
            after.synchronize()
            return before.elapsed_time(after) / 1e3

        return seconds


class WallClock:
    """The host's clock, for trying this file where there is no GPU."""

    def start(self, call: Callable[[], Any]) -> Callable[[], float]:
        """Make the call."""
        started = time.perf_counter()
        call()
        taken = time.perf_counter() - started
        return lambda: taken


def skipped() -> str | None:
    """Why nothing here can be measured, if so."""
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    if not cpp_ext.compiled():
        return "the compiled kernels are not here (pip install . builds them)"
    try:
        cpp_ext.cuda_devices()
    except RuntimeError as error:
        return str(error)
    return None


def measure(rounds: int, console: Any) -> tuple[str, Any, dict[str, Any], list[dict[str, Any]]]:
    """Measure the current device; returns the file's name, the tables, the device's description and the rows."""
    from rich.console import Group

    device = torch.device("cuda", torch.cuda.current_device())
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32, for the peers too
    torch.backends.cudnn.allow_tf32 = False
    roof, described = limits(device)
    tables, rows = zip(
        run(device, CudaClock(device), roof, rounds, console), engine(device, rounds, console), strict=True
    )
    name = described["name"].replace(" ", "-").replace("/", "-")
    return f"gpu-{name}", Group(*tables), {"gpu": described}, [row for part in rows for row in part]


def engine(device: torch.device, rounds: int, console: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Compare the engines, if what their generators need is here: more than the kernels do."""
    try:
        return gpu_engine.rows(device, rounds, console)
    except ImportError as error:
        reason = f"{error.name or error} is not installed"
        return f"the engine was not measured: {reason}", [{"name": "engine", "why_not": reason}]


def run(
    device: torch.device, clock: Clock, roof: Roof, rounds: int, console: Any, small: bool = False
) -> tuple[Any, list[dict[str, Any]]]:
    """Check and time every kernel; `small` sizes are for trying this file."""
    from rich.table import Table

    table = Table("kernel", "ms", "GB/s", "TFLOP/s", "bound, ms", "% of it", "target", "times as fast as")
    rows = []
    for kernel in kernels(device, small):
        with console.status(kernel.name):
            difference = compare_with_cpu(kernel)
            if difference > kernel.tolerance:
                wrong = f"differs from the CPU kernel by {difference:.2g}, expected at most {kernel.tolerance:.2g}"
                console.print(f"[bold]wrong:[/bold] {kernel.name} {wrong}", highlight=False)
                rows.append({"name": kernel.name, "wrong": wrong})
                continue
            seconds, peers = in_turns(kernel, clock, rounds)
        rows.append(roofline.row(kernel.name, seconds, kernel.work, roof, kernel.target, peers, difference))
        table.add_row(*roofline.cells(rows[-1]))
        del kernel  # its arrays, before the next one's are made
        torch.cuda.empty_cache()
    return table, rows


def compare_with_cpu(kernel: Kernel) -> float:
    """Largest difference of the first and last samples from the CPU kernel's, relative to its largest value."""
    result = kernel.ours()
    ends = [slice(0, CHECKED), slice(max(0, len(result) - CHECKED), len(result))]
    return max(relative_difference(result[end].cpu(), kernel.twin(end)) for end in ends)


def in_turns(kernel: Kernel, clock: Clock, rounds: int) -> tuple[float, dict[str, float | str]]:
    """Median seconds of ours, and of each peer (or why there are none), timed one after the other in each round."""
    peers: dict[str, float | str] = {name: peer for name, peer in kernel.peers.items() if isinstance(peer, str)}
    calls: dict[str, Callable[[], Any]] = {"": kernel.ours}
    for name, peer in kernel.peers.items():
        if callable(peer):
            try:
                clock.start(peer)()
                calls[name] = peer
            except torch.cuda.OutOfMemoryError:
                peers[name] = "out of memory"
            except RuntimeError as error:  # a library's limit of size, say
                peers[name] = f"failed ({str(error).splitlines()[0]})"
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        for _ in range(2):  # warm: clocks up, memory of the caching allocator there
            clock.start(call)()
        repeats = max(1, min(10, round(0.01 / max(clock.start(call)(), 1e-6))))
        calls[name] = partial(_several, clock, call, repeats)
    for number in range(rounds):
        order = list(calls) if number % 2 == 0 else list(reversed(calls))
        for name in order:
            times[name] += calls[name]()
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    ours = medians.pop("")
    return ours, {name: medians.get(name, peers.get(name, "")) for name in kernel.peers}


def _several(clock: Clock, call: Callable[[], Any], repeats: int) -> list[float]:
    return [pending() for pending in [clock.start(call) for _ in range(repeats)]]


# --- the device's limits ---


def limits(device: torch.device) -> tuple[Roof, dict[str, Any]]:
    """What the device can at most do, measured on it, and its description."""
    properties = torch.cuda.get_device_properties(device)
    clock = CudaClock(device)
    size = min(2 << 30, properties.total_memory // 8)
    a, b = (torch.empty(size, dtype=torch.uint8, device=device).fill_(1) for _ in range(2))

    def best(call: Callable[[], Any]) -> float:
        return min(clock.start(call)() for _ in range(10))

    copy, write = 2 * size / best(partial(b.copy_, a)), size / best(partial(b.fill_, 2))
    del a, b
    hertz = _query("clocks.max.sm", device) * 1e6 or getattr(properties, "clock_rate", 0) * 1e3
    if not hertz:
        raise RuntimeError("nvidia-smi does not say clocks.max.sm: the arithmetic limit of this GPU is not known")
    capability = (properties.major, properties.minor)
    roof = Roof(copy, write, roofline.issue_rate(properties.multi_processor_count, capability, hertz))
    # A large product shows the clock that the device holds under load and how much of the limit is reachable at all.
    x = torch.randn(8192, 8192, device=device)
    for _ in range(20):
        product = torch.mm(x, x)
    loaded = _query("clocks.sm", device)
    product_rate = 2 * 8192**3 / best(partial(torch.mm, x, x, out=product))
    described = {
        "name": properties.name,
        "capability": f"{capability[0]}.{capability[1]}",
        "multiprocessors": properties.multi_processor_count,
        "memory_GB": properties.total_memory / 1e9,
        "L2_MB": properties.L2_cache_size / 1e6,
        "cuda": torch.version.cuda,
        "copy_GB_per_s": copy / 1e9,
        "write_GB_per_s": write / 1e9,
        "clock_MHz": hertz / 1e6,
        "clock_under_load_MHz": loaded or None,
        "fp32_TFLOP_per_s": roof.flops / 1e12,
        "torch_fp32_product_TFLOP_per_s": product_rate / 1e12,
    }
    return roof, described


def _query(field: str, device: torch.device) -> float:
    """A number from nvidia-smi, 0 if it cannot be had."""
    which = str(getattr(torch.cuda.get_device_properties(device), "uuid", "")).removeprefix("GPU-")
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    for selected in (["-i", f"GPU-{which}"], []):  # the device by its own name; else all, the first being meant
        try:
            return float(
                subprocess.run(command + selected, capture_output=True, text=True, check=True).stdout.split()[0]
            )
        except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
            continue
    return 0.0
