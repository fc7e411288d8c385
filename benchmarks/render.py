"""Rendering: frames of our robot per second, against the plain pybullet script that one would write."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare import Case
from runtime.robot import Robot
from runtime.robot.robot import OWN_URDF
from runtime.robot.scene import LIGHT

_FRAMES = 32


def cases() -> list[Case]:
    """80 x 80 pixels, averaged from 160 x 160."""
    robot = Robot()
    joints = robot.sample(_FRAMES, 0)
    plain = _plain(robot)
    if not np.array_equal(robot.render(joints), plain(joints)):
        raise RuntimeError("the two ways of rendering do not give the same frames")
    name = "render 80x80, 2x supersampled"
    return [Case(name, lambda: robot.render(joints), "plain pybullet", lambda: plain(joints), _FRAMES)]


def _plain(robot: Robot) -> Callable[[NDArray[np.float32]], NDArray[np.uint8]]:
    """Robot and table in one client, all of it rendered for every frame."""
    import pybullet as p

    client = p.connect(p.DIRECT)
    body = p.loadURDF(str(OWN_URDF), useFixedBase=True, physicsClientId=client)
    box = p.createVisualShape(
        p.GEOM_BOX, halfExtents=[2.5, 2.5, 0.01], rgbaColor=(0.86, 0.84, 0.8, 1), physicsClientId=client
    )
    p.createMultiBody(0, -1, box, [1.0, 0.0, float(robot.table or 0) - 0.01], physicsClientId=client)
    count = p.getNumJoints(body, physicsClientId=client)
    index = {p.getJointInfo(body, k, physicsClientId=client)[1].decode(): k for k in range(count)}
    columns = [index[name] for name in robot.joints]
    camera = robot.camera
    view = p.computeViewMatrix(camera.position, camera.target, camera.up)
    projection = p.computeProjectionMatrixFOV(camera.fov, 1.0, camera.near, camera.far)

    def frame(pose: list[float]) -> NDArray[np.uint8]:
        p.resetJointStatesMultiDof(body, columns, [[angle] for angle in pose], physicsClientId=client)
        image = p.getCameraImage(
            160,
            160,
            view,
            projection,
            shadow=0,
            lightDirection=LIGHT["direction"],
            lightColor=LIGHT["color"],
            lightAmbientCoeff=LIGHT["ambient"],
            lightDiffuseCoeff=LIGHT["diffuse"],
            lightSpecularCoeff=LIGHT["specular"],
            renderer=p.ER_TINY_RENDERER,
            flags=p.ER_NO_SEGMENTATION_MASK,
            physicsClientId=client,
        )
        blocks = np.asarray(image[2], np.uint8).reshape(80, 2, 80, 2, 4)[..., :3].astype(np.uint16)
        return ((blocks.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)

    return lambda joints: np.stack([frame(pose) for pose in joints.tolist()])
