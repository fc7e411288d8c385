"""Small data for the trainer's tests."""

from pathlib import Path

import pytest
from tiny_data import tiny_recording, tiny_robot_recording


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recording as an .npz file."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.npz"
    tiny_recording().save(path)
    return path


@pytest.fixture(scope="session")
def tiny_robot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recording of our own robot, as an .npz file."""
    path = tmp_path_factory.mktemp("tiny_robot") / "robot.npz"
    tiny_robot_recording().save(path)
    return path
