"""What MGAN trains on: a simulated robot, or a recording."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from runtime.errors import InputError
from runtime.robot import Camera, Robot
from trainer.data.recording import Recording
from trainer.data.simulated import simulate
from trainer.recipes.mgan_options import MganOptions

LEVELS = np.linspace(0, 1, 201)
"""Quantiles of the data kept for histograms."""


class MganData:
    """A recording as the loop wants it.

    replay: the names of the image and the vector modality that the recording's robot can reproduce, if it has one.
    """

    def __init__(self, recording: Recording, replay: tuple[str, str] | None = None) -> None:
        self.recording = recording
        vectors = {m.name: recording.arrays[m.name] for m in recording.modalities if m.kind == "vector"}
        digest = hashlib.sha256()
        for name, array in recording.arrays.items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).data)
        self.description = {
            "modalities": [m.to_json() for m in recording.modalities],
            "samples": len(recording),
            "sha256": digest.hexdigest(),
            "robot": recording.robot if replay else None,
            "replay": replay,
            # What figures and metrics compare generated vectors with, so that they need no data.
            "mean": {name: array.mean(0).tolist() for name, array in vectors.items()},
            "spread": {name: array.std(0).tolist() for name, array in vectors.items()},
            "quantiles": {name: np.quantile(array, LEVELS, axis=0).tolist() for name, array in vectors.items()},
        }

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.recording)

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The samples `indices`: images uint8 [N, H, W, C], vectors float32 [N, D] in their unit."""
        return {name: array[indices] for name, array in self.recording.arrays.items()}


def simulated(options: MganOptions) -> MganData:
    """Frames of our own or the user's robot. The same whatever the training's seed, so that seeds compare trainings."""
    camera = Camera.parse(options.camera, complete=options.robot is not None) if options.camera else None
    frames, workers = options.frames, len(os.sched_getaffinity(0))
    with Robot(options.robot, camera, options.joints or None) as robot, ExitStack() as stack:
        cache = options.cache
        if options.dry_run:  # a look at the robot, not the whole work, and nothing left behind
            frames, cache = min(frames, 32), Path(stack.enter_context(TemporaryDirectory()))
        return MganData(simulate(robot, frames, 0, cache, workers), ("image", "joints"))


def recorded(options: MganOptions) -> MganData:
    """A recording; with --robot, or recorded from a simulator, paired with the robot that can replay it.

    Raises:
        InputError: the recording is broken, or the robot given is not the one it was made with.
    """
    assert options.data is not None
    if options.robot is None:
        recording = Recording.read(options.data)
        robot = recording.robot
    else:
        camera = Camera.parse(options.camera, complete=True) if options.camera else None
        with Robot(options.robot, camera, options.joints or None) as given:
            robot = given.description()
        recording = Recording.read(options.data, robot)
    if not any(m.kind == "image" for m in recording.modalities):
        raise InputError(f"{options.data} holds no images, expected at least one image modality (images/*.png)")
    if robot is None:
        return MganData(recording)

    # Columns belong to joints by name, and images to the camera by size: a wrong pair would be scored all the same.
    limits = dict(zip(robot["joints"], robot["limits"], strict=True))
    vectors = [m for m in recording.modalities if m.kind == "vector" and set(m.names) <= set(limits)]
    size = (3, robot["camera"]["height"], robot["camera"]["width"])
    images = [m for m in recording.modalities if m.kind == "image" and m.shape == size]
    if not vectors or not images:
        have = "; ".join(f"{m.name} {', '.join(m.names) or list(m.shape)}" for m in recording.modalities)
        raise InputError(
            f"{options.data} does not fit the robot: expected a vector of its joints ({', '.join(limits)}) and an "
            f"image of its camera's shape {list(size)}, got {have}; mend the names, or give --camera size=WxH"
        )
    image, joints = images[0].name, vectors[0]
    robot = robot | {"joints": list(joints.names), "limits": [limits[name] for name in joints.names]}
    return MganData(dataclasses.replace(recording, robot=robot), (image, joints.name))
