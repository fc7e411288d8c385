"""Recordings made on the simulator: random poses and their frames, kept in a cache."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from runtime.errors import InputError
from runtime.robot import Robot
from trainer.data.recording import Modality, Recording


def simulate(robot: Robot, count: int, seed: int, cache: Path, workers: int = 0) -> Recording:
    """`count` random poses of the robot (modality "joints", rad) and their frames (modality "image").

    A function of (robot.description(), count, seed), and so kept in the folder `cache`; a cached file that is broken
    or cut short is made again. workers: render processes, 0 renders in this one. Shows a progress bar on stderr.
    Raises InputError; for a folder that cannot be written to, before anything is rendered.
    """
    if count < 2:
        raise InputError(f"simulate: got {count} frames, expected at least 2")
    description = robot.description()
    key = hashlib.sha256(json.dumps([description, count, seed], sort_keys=True).encode()).hexdigest()
    path = cache / f"simulated-{key[:16]}.npz"
    if path.exists():
        try:
            recording = Recording.read(path)
            if len(recording) == count and recording.robot == description:
                return recording
        except InputError:
            pass  # broken: made again below
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise InputError(
            f"{cache}: cannot keep simulated frames there: {error.strerror}; give another --cache"
        ) from None
    recording = _render(robot, count, seed, workers)
    recording.save(path)
    return recording


def _render(robot: Robot, count: int, seed: int, workers: int) -> Recording:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    description = robot.description()
    joints = robot.sample(count, seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("simulating", total=count)
        frames = robot.render(joints, workers, lambda done: bar.update(task, completed=done))
    limits = tuple((float(lower), float(upper)) for lower, upper in description["limits"])
    modalities = (
        Modality("image", "image", (3, robot.camera.height, robot.camera.width)),
        Modality("joints", "vector", (len(robot.joints),), robot.joints, limits, "rad", "robot"),
    )
    return Recording(modalities, {"image": frames, "joints": joints}, description)
