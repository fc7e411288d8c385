"""MGAN's evaluation: do the generated joint angles reproduce the generated image?

The generated joints are replayed on the simulator and each replayed frame is compared with its generated image by SSIM
("matched"). The same for pairs that do not belong together ("random") shows how alike any two frames are. The gap,
matched - random, measures what the joints say about their image (Multimodal GAN paper: 0.17 with 100 matched and 1000
random pairs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpp_ext import noise, ssim_pairs, uniform
from runtime.errors import InputError

if TYPE_CHECKING:
    from runtime.robot import Robot

SSIM = (
    "SSIM, uniform 7x7 window, sample covariance, data range 255, mean over RGB and the valid region "
    "(scikit-image's structural_similarity with channel_axis)"
)

ERRORS = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)


def ssim_gap(
    images: ArrayLike, replays: ArrayLike, seed: int = 0, matched: int = 100, random: int = 1000
) -> dict[str, Any]:
    """Mean SSIM of matched pairs, of random pairs, and their difference.

    images, replays: uint8 [N, H, W, C], N >= matched; replay n shows the joints that belong to image n. The first
    `matched` of them are scored; the random pairs (image i, replay j, i != j) are drawn from the same ones by `seed`.
    Standard errors are jackknifed over images, for an image is in many random pairs.
    Returns matched, random, gap, their `_standard_error`s, and the protocol. Raises InputError.
    """
    images, replays = np.asarray(images)[:matched], np.asarray(replays)[:matched]
    if matched < 2 or random < 1:
        raise InputError(f"ssim_gap: got {matched} matched and {random} random pairs, expected at least 2 and 1")
    if len(images) < matched or images.shape != replays.shape:
        raise InputError(
            f"ssim_gap: got images {list(images.shape)} and replays {list(replays.shape)}, "
            f"expected both alike with at least {matched} frames"
        )
    i, j = _random_pairs(matched, random, seed)
    own = np.arange(matched)
    try:
        scores = ssim_pairs(images, replays, np.concatenate([own, i]), np.concatenate([own, j]))
    except ValueError as error:
        raise InputError(f"ssim_gap: {error}") from None
    same, other = scores[:matched], scores[matched:]

    # Each figure without image k: without its matched pair, and without every random pair that it is in.
    left_same = (same.sum() - same) / (matched - 1)
    gone = np.bincount(i, other, matched) + np.bincount(j, other, matched)
    left = random - np.bincount(i, minlength=matched) - np.bincount(j, minlength=matched)
    with np.errstate(invalid="ignore"):
        left_other = np.where(left > 0, (other.sum() - gone) / np.maximum(left, 1), other.mean())
    return {
        "matched": float(same.mean()),
        "random": float(other.mean()),
        "gap": float(same.mean() - other.mean()),
        "matched_standard_error": _jackknife(left_same),
        "random_standard_error": _jackknife(left_other),
        "gap_standard_error": _jackknife(left_same - left_other),
        "matched_count": matched,
        "random_count": random,
        "seed": seed,
        "ssim": SSIM,
        "direction": "higher is better",
    }


def joint_error_curve(
    robot: Robot,
    seed: int = 0,
    count: int = 100,
    random: int = 1000,
    errors: Sequence[float] = ERRORS,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """The gap that true renders get when their joints are off: a yardstick for a model's gap.

    The first point has no error: true renders against themselves, the most that any model can reach on this robot.
    errors: further points, rising; standard deviations as fractions of each joint's range, the normal error being cut
    at the joint's limits.
    progress: called with the number of frames done, of (len(errors) + 1) * count.
    Returns a list of {"error": fraction, "gap": …}. A function of robot.description() and the arguments.
    """
    joints = robot.sample(count, seed)
    frames = robot.render(joints, workers, progress, allow_blank=True)
    lower, upper = robot.limits.T
    # One draw for all steps, so that the curve is smooth.
    shift = noise(seed, 0, count, len(robot.joints)) * (upper - lower)
    curve = [{"error": 0.0, "gap": ssim_gap(frames, frames, seed, count, random)["gap"]}]
    for step, error in enumerate(errors, 1):
        wrong = np.clip(joints + np.float32(error) * shift, lower, upper)
        replays = robot.render(wrong, workers, _offset(progress, step * count), allow_blank=True)
        curve.append({"error": float(error), "gap": ssim_gap(frames, replays, seed, count, random)["gap"]})
    return curve


def equivalent_joint_error(gap: float, curve: Sequence[Mapping[str, float]]) -> float | None:
    """The joint error (fraction of the range) at which true renders get this gap, interpolated on the curve.

    0 when the gap is above the curve, None when it is below.
    """
    gaps = np.minimum.accumulate([point["gap"] for point in curve])
    if gap < gaps[-1]:
        return None
    return float(np.interp(gap, gaps[::-1], [point["error"] for point in curve][::-1]))


def evaluate(
    robot: Robot,
    images: ArrayLike,
    joints: ArrayLike,
    seed: int = 0,
    matched: int = 100,
    random: int = 1000,
    workers: int = 0,
    curve: Sequence[Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Replay generated joints on the robot and score them against the generated images.

    images: uint8 [N, H, W, 3] of the robot's camera size; joints: [N, D] rad within limits; N >= matched.
    curve: the `joint_error_curve(robot)` from earlier; None measures it now (it does not depend on the model, so it can
    be kept).
    Returns `ssim_gap`'s figures with `reachable` (a perfect model's gap), `ratio` (gap / reachable),
    `equivalent_joint_error` (fraction of the range, or None), `joint_error_curve` and the renderer. Raises InputError.
    """
    images, joints = np.asarray(images), np.asarray(joints)
    size = (robot.camera.height, robot.camera.width, 3)
    if images.shape[1:] != size or len(images) != len(joints):
        raise InputError(
            f"evaluate: got images {list(images.shape)} and joints {list(joints.shape)}, expected as many of both "
            f"and images of the robot's camera size {list(size)}"
        )
    replays = robot.render(joints[:matched], workers, allow_blank=True)
    figures = ssim_gap(images[:matched], replays, seed, matched, random)
    curve = joint_error_curve(robot, workers=workers) if curve is None else curve
    description = robot.description()
    return figures | {
        "reachable": curve[0]["gap"],
        "ratio": figures["gap"] / curve[0]["gap"],
        "equivalent_joint_error": equivalent_joint_error(figures["gap"], curve),
        "joint_error_curve": [dict(point) for point in curve],
        "renderer": {key: description[key] for key in ("renderer", "pybullet", "supersample", "urdf_sha256")},
    }


def _random_pairs(count: int, pairs: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (i, j) of different indices below count, drawn evenly; pair k is a function of (seed, k)."""
    try:
        u = uniform(seed, 0, pairs, 2)
    except ValueError as error:
        raise InputError(f"ssim_gap: {error}") from None
    i = (u[:, 0] * count).astype(np.intp)
    return i, (i + 1 + (u[:, 1] * (count - 1)).astype(np.intp)) % count


def _jackknife(left_out: NDArray[np.float64]) -> float:
    """Standard error from a figure's values with each sample left out."""
    count = len(left_out)
    return float(np.sqrt((count - 1) / count * np.square(left_out - left_out.mean()).sum()))


def _offset(progress: Callable[[int], None] | None, start: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress(start + done)
