"""A robot's control loop: at a fixed rate, imagine a view and the joint angles that give it, and move the arms there.

    python -m runtime.examples.robot_loop --out arms.mp4

Noise wanders from sample to sample; each tick the model turns it into an image and joint angles, the simulated arms
move towards those angles no faster than their joints may, and the robot's camera takes a picture. The video shows the
camera's on the left and what the model imagined on the right. For a robot of your own replace `robot.render`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import cpp_ext
import runtime
from runtime.commands.options import check_numbers
from runtime.errors import InputError, Parser, cli
from runtime.examples.screen import Screen
from runtime.robot import Robot
from runtime.robot.urdf import Urdf


@cli
def main(argv: Sequence[str]) -> int:
    """Run the loop; prints its timing as JSON."""
    parser = Parser(prog="python -m runtime.examples.robot_loop", description=__doc__)
    parser.add_argument("bundle", nargs="?", default="mgan-robot", help="a bundle with a robot (default mgan-robot)")
    parser.add_argument("--rate", type=float, default=20, help="ticks a second (default 20)")
    parser.add_argument("--seconds", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--pause", type=float, default=1.5, help="seconds from one sample to the next (default 1.5)")
    parser.add_argument("--velocity", type=float, default=1.5, help="most rad/s of a joint; the URDF may say less")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, openvino, cuda[:N] or tensorrt[:N]")
    parser.add_argument("--robot", type=Path, metavar="URDF", help="its file, if the bundle does not hold all of it")
    parser.add_argument("--gui", action="store_true", help="show it in a window (q ends it)")
    parser.add_argument("--out", type=Path, metavar="FILE.mp4", help="write it to a video")
    options = parser.parse_args(argv)
    check_numbers(options)
    for name in ("rate", "seconds", "pause", "velocity"):
        if not 1e-3 <= getattr(options, name) <= 1e5:
            raise InputError(f"--{name} is {getattr(options, name):g}, expected 0.001 to 100000")
    if options.robot and not options.robot.is_file():
        raise InputError(f"--robot {options.robot} is no file, expected the robot's URDF")
    print(json.dumps(run(options), indent=1))
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The loop itself; returns its timing."""
    model = runtime.load(options.bundle, options.device)
    print(model.choice, file=sys.stderr)
    description = model.bundle.manifest.robot
    if description is None:
        raise InputError(f"{model.bundle.path} describes no robot; give a bundle of one, as mgan-robot")
    late, work, likeness = [], [], []
    with (
        Robot.from_description(description, options.robot) as robot,
        Screen(options.rate, options.out, "camera and imagination" if options.gui else None) as screen,
    ):
        image, vector, columns = modalities(model, robot)
        low, high = robot.limits.T  # rad
        urdf = Urdf(description["urdf"], "the robot") if description["urdf"] else Urdf.read(options.robot)
        stride = velocities(urdf, robot.joints, options.velocity) / options.rate  # rad a tick
        pose = (low + high) / 2

        def imagine(place: float) -> tuple[np.ndarray, np.ndarray]:
            """An image uint8 [H, W, 3] and its joint angles [D], rad."""
            sample = model.from_noise(walk(options.seed, place, model.noise.shape[0]))
            return getattr(sample, image)[0], np.clip(getattr(sample, vector)[0, columns], low, high)

        # The first call of anything is slow: once before the clock runs.
        cpp_ext.ssim(robot.render(pose[None]), imagine(0)[0][None], window="gaussian")
        started = time.perf_counter()
        tick = missed = 0
        while tick < max(1, round(options.rate * options.seconds)):
            due = started + tick / options.rate
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            imagined, target = imagine(tick / options.rate / options.pause)
            pose = np.clip(pose + np.clip(target - pose, -stride, stride), low, high)
            seen = robot.render(pose[None])[0]
            late.append(began - due)
            work.append(time.perf_counter() - began)
            likeness.append(cpp_ext.ssim(seen[None], imagined[None], window="gaussian")[0])
            tick += 1
            if not screen.show(side_by_side(seen, imagined)):
                break
            # Ticks that are past are left out, not made up for in a rush.
            past = math.ceil((time.perf_counter() - started) * options.rate) - tick
            missed += max(0, past)
            tick += max(0, past)
        took = time.perf_counter() - started
    return {
        "ticks": len(late),
        "missed": missed,  # ticks left out because the one before took too long
        "rate": round(len(late) / max(took, tick / options.rate), 3),  # the last tick lasts its whole period
        "lateness_ms": spread(late),  # how long after it was due a tick began
        "work_ms": spread(work),  # imagining, moving and rendering
        "ssim": round(float(np.mean(likeness)), 4),  # of what was seen to what was imagined
        "video": str(options.out) if options.out else None,
    }


def walk(seed: int, place: float, dim: int) -> np.ndarray:
    """Noise [1, dim] on a path through the samples of a seed: sample k at place k, in between a blend of two."""
    number = int(place)
    part = place - number
    part = part * part * (3 - 2 * part)  # slow at the samples, fast in between
    a, b = cpp_ext.noise(seed, number, 2, dim)
    # Divided so that its variance stays 1, as the network knows it.
    return (((1 - part) * a + part * b) / np.hypot(1 - part, part)).astype(np.float32)[None]


def modalities(model: Any, robot: Robot) -> tuple[str, str, list[int]]:
    """Names of the image that the camera takes and of the joints' vector, and the vector's columns by joint."""
    size = (3, robot.camera.height, robot.camera.width)
    images = [port.name for port in model.modalities if port.kind == "image" and port.shape == size]
    vectors = [port for port in model.modalities if port.kind == "vector" and set(port.names) == set(robot.joints)]
    if not images or not vectors:
        raise InputError(f"{model.bundle.path}: expected an image {list(size)} and joints {', '.join(robot.joints)}")
    return images[0], vectors[0].name, [vectors[0].names.index(name) for name in robot.joints]


def velocities(urdf: Urdf, joints: Sequence[str], most: float) -> np.ndarray:
    """How fast each joint may turn, rad/s [D]: as the URDF limits it, and at most `most`."""
    limits = [urdf.joints[name].find("limit") for name in joints]
    told = [0.0 if limit is None else float(limit.get("velocity", 0)) for limit in limits]
    return np.array([min(most, speed or most) for speed in told], np.float32)


def side_by_side(seen: np.ndarray, imagined: np.ndarray, height: int = 320) -> np.ndarray:
    """Two images of one size next to each other, enlarged to about `height` pixels, with labels: uint8 [h, w, 3]."""
    scale = max(1, height // seen.shape[0])
    frame = cv2.resize(np.hstack([seen, imagined]), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    for text, left in (("camera", 0), ("imagined", frame.shape[1] // 2)):
        cv2.putText(frame, text, (left + 8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return frame


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and largest, in ms."""
    p50, p95, most = (1e3 * np.percentile(seconds, [50, 95, 100])).tolist()
    return {"p50": round(p50, 3), "p95": round(p95, 3), "max": round(most, 3)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
