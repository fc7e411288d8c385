"""A tiny recording with three modalities, nothing simulated."""

import numpy as np

from runtime.robot import Camera, Robot
from trainer.data.recording import Modality, Recording


def tiny_recording(count: int = 48) -> Recording:
    """Two cameras of different sizes and three joints; images depend on the joints."""
    rng = np.random.default_rng(0)
    joints = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    image = np.full((count, 20, 24, 3), 90, np.uint8)
    side = np.full((count, 16, 16, 3), 160, np.uint8)
    for k, (a, b, c) in enumerate((joints + 1) / 2):
        image[k, int(a * 14) : int(a * 14) + 6, int(b * 18) : int(b * 18) + 6] = (255, 40, 40)
        side[k, int(c * 11) : int(c * 11) + 5, 4:12] = (40, 40, 255)
    modalities = (
        Modality("image", "image", (3, 20, 24)),
        Modality("side", "image", (3, 16, 16)),
        Modality("joints", "vector", (3,), ("a", "b", "c"), ((-1.0, 1.0),) * 3, "rad", "file"),
    )
    return Recording(modalities, {"image": image, "side": side, "joints": joints})


def tiny_robot_recording(count: int = 48) -> Recording:
    """Our own robot through a camera of 24 × 20 pixels: a recording that can be replayed."""
    robot = Robot(camera=Camera(width=24, height=20), supersample=1)
    joints = robot.sample(count, 0)
    limits = tuple((float(low), float(high)) for low, high in robot.limits)
    modalities = (
        Modality("image", "image", (3, 20, 24)),
        Modality("joints", "vector", (10,), robot.joints, limits, "rad", "robot"),
    )
    return Recording(modalities, {"image": robot.render(joints), "joints": joints}, robot.description())
