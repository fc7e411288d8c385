"""What a kernel must at least do, what a device can at most do, and how near a measured time comes to that."""

from __future__ import annotations

from typing import Any, NamedTuple

BEST_OF_PEERS = 1.4
"""How many times as fast as frame_analytics our SSIM must be on a GPU."""


class Roof(NamedTuple):
    """A device's limits, each a second."""

    copy: float
    """Bytes read and written by a large copy within its memory."""
    write: float
    """Bytes written by a large fill."""
    issue: float
    """Float32 instructions of all lanes: a fused multiply-add is one."""

    @property
    def flops(self) -> float:
        """Float32 operations, a fused multiply-add being two."""
        return 2 * self.issue


class Work(NamedTuple):
    """The least that a call must do."""

    read: float
    """Bytes that must come from memory."""
    written: float
    """Bytes that must go to memory."""
    instructions: float = 0
    """Float32 instructions, a fused multiply-add being one; 0: memory alone counts."""

    @property
    def bytes(self) -> float:
        """Bytes moved in all."""
        return self.read + self.written


class Bound(NamedTuple):
    """The least time that a device needs for some work."""

    seconds: float
    by: str
    """"memory", "write" or "FP issue": what takes that long."""


def issue_rate(multiprocessors: int, capability: tuple[int, int], hertz: float) -> float:
    """Float32 instructions a second: multiprocessors x lanes x clock. Generations 7.x and 8.0 have 64 lanes."""
    lanes = 64 if capability < (8, 6) else 128
    return multiprocessors * lanes * hertz


def bound(work: Work, roof: Roof) -> Bound:
    """Memory or arithmetic, whichever takes longer. Work that hardly reads is held to the rate of writing."""
    by = "write" if work.read < 0.02 * work.written else "memory"
    seconds = work.bytes / (roof.write if by == "write" else roof.copy)
    issue = work.instructions / roof.issue
    return Bound(issue, "FP issue") if issue > seconds else Bound(seconds, by)


# --- the least work of each operation; sizes in elements, `size` in bytes an element ---

# Instructions of SSIM, a separable window of `taps` over four planes (S = x + y - s, D = x - y - d, S², D²):
#   a pixel that is read: 2 + 2 for S and D, 2 squares                                                             6
#   a column of it for each row that comes out: four planes, a multiply-add a tap (gaussian: 11; uniform: 4 adds,
#     pairs, then fours, then the seventh)                                                              4 x taps
#   a value that comes out: the other direction, 4 x taps, and the quotient: μ² and v of both planes 4, the two sums and
#     differences 3 + 3, products 2, division 4 (reciprocal, one Newton step, multiplication), the sum 1         17
# Conversions from uint8 and float16 are not counted.
_READ, _QUOTIENT = 6, 17
_TAPS = {"gaussian": 11, "uniform": 4}
_REACH = {"gaussian": 10, "uniform": 6}


def ssim(images: int, channels: int, height: int, width: int, size: int, window: str) -> Work:
    """Both images read once, a score each written."""
    planes, reach, taps = images * channels, _REACH[window], _TAPS[window]
    rows, columns = height - reach, width - reach
    instructions = _READ * height * width + 4 * taps * rows * width + (4 * taps + _QUOTIENT) * rows * columns
    return Work(2.0 * planes * height * width * size, 8.0 * images, float(planes) * instructions)


def ssim_pairs(images: int, pairs: int, channels: int, height: int, width: int, size: int, window: str) -> Work:
    """Moments of 2 x `images`, two planes each (x and x²); then a plane (x y) and a quotient a pair.

    The quotient of a pair: product and sum of the means 2, three more for each factor 6, products, division and sum 7,
    covariance 1: 16. Bytes: the images once; what is kept between the two steps is not counted.
    """
    reach, taps = _REACH[window], _TAPS[window]
    rows, columns = height - reach, width - reach
    moments = 2 * height * width + 2 * taps * rows * width + (2 * taps + 2) * rows * columns
    scoring = height * width + taps * rows * width + (taps + 16) * rows * columns
    instructions = float(channels) * (2 * images * moments + pairs * scoring)
    return Work(2.0 * images * channels * height * width * size, 8.0 * pairs, instructions)


def gram(count: int, channels: int, size: int) -> Work:
    """One triangle with its diagonal, C (C + 1) / 2 dot products of K multiply-adds; the whole matrix written."""
    products = channels * (channels + 1) / 2
    return Work(4.0 * count * channels * size, 4.0 * count * channels**2, count * products * size)


def gram_backward(count: int, channels: int, size: int) -> Work:
    """A symmetric C x C matrix times C x K: C² K multiply-adds."""
    features = 4.0 * count * channels * size
    return Work(features + 4.0 * count * channels**2, features, float(count) * channels**2 * size)


# --- what is shown and kept ---


def row(
    name: str,
    seconds: float,
    work: Work,
    roof: Roof,
    target: float | None,
    peers: dict[str, float | str],
    difference: float,
) -> dict[str, Any]:
    """One kernel's result.

    Args:
        name: the kernel and its sizes.
        seconds: its median time.
        work: the least it had to do.
        roof: the device's limits.
        target: the share of its bound that it should reach, in per cent, where one is promised.
        peers: median seconds of each, or why there are none.
        difference: largest difference from the CPU kernel, relative to its largest value.
    """
    limit = bound(work, roof)
    percent = 100 * limit.seconds / seconds
    ratios = {peer: theirs / seconds for peer, theirs in peers.items() if isinstance(theirs, float)}
    against = ratios.get("frame_analytics")
    return {
        "name": name,
        "ms": seconds * 1e3,
        "GB_per_s": work.bytes / seconds / 1e9,
        "TFLOP_per_s": 2 * work.instructions / seconds / 1e12,
        "bound_ms": limit.seconds * 1e3,
        "bound_by": limit.by,
        "percent_of_bound": percent,
        "target_percent": target,
        "target_met": None if target is None else percent >= target,
        "peers_ms": {peer: theirs * 1e3 if isinstance(theirs, float) else theirs for peer, theirs in peers.items()},
        "ratios": ratios,
        "bar": None if against is None else BEST_OF_PEERS,
        "met": None if against is None else against >= BEST_OF_PEERS,
        "difference": difference,
    }


def cells(result: dict[str, Any]) -> list[str]:
    """A row of the table: kernel, ms, GB/s, TFLOP/s, bound, per cent of it, target, peers."""
    rate = result["TFLOP_per_s"]
    target = ""
    if result["target_percent"] is not None:
        target = f"≥ {result['target_percent']:g} {'met' if result['target_met'] else 'missed'}"
    peers = []
    for name, milliseconds in result["peers_ms"].items():
        text = f"{result['ratios'][name]:.2f}x" if name in result["ratios"] else milliseconds
        if name == "frame_analytics" and result["met"] is not None:
            text += f" (≥ {result['bar']:g} {'met' if result['met'] else 'missed'})"
        peers.append(f"{name} {text}")
    return [
        result["name"],
        f"{result['ms']:.4g}",
        f"{result['GB_per_s']:,.0f}",
        f"{rate:.1f}" if rate else "",
        f"{result['bound_ms']:.4g} {result['bound_by']}",
        f"{result['percent_of_bound']:.0f}",
        target,
        "\n".join(peers),
    ]
