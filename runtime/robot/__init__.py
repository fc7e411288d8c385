"""A robot in a simulator: joint angles in, camera frames out. Needs numpy and pybullet (`pip install awase[robot]`)."""

from runtime.robot.camera import Camera
from runtime.robot.robot import Robot

__all__ = ["Camera", "Robot"]
