import numpy as np
import pytest

pytest.importorskip("pybullet")

from runtime.errors import InputError
from runtime.robot import Camera, Robot
from trainer.data import simulated
from trainer.data.recording import Recording
from trainer.data.simulated import simulate


@pytest.fixture(scope="module")
def robot():
    with Robot(camera=Camera(width=16, height=12), supersample=1) as robot:
        yield robot


@pytest.fixture
def renders(monkeypatch):
    """The counts of frames that were truly rendered."""
    counts = []
    render = simulated._render
    monkeypatch.setattr(simulated, "_render", lambda *given: counts.append(given[1]) or render(*given))
    return counts


def equal(one, other):
    assert one.modalities == other.modalities and one.robot == other.robot
    for name in ("image", "joints"):
        np.testing.assert_array_equal(one.arrays[name], other.arrays[name])


def test_random_poses_and_their_frames(robot, tmp_path, capsys):
    recording = simulate(robot, 20, 3, tmp_path)
    np.testing.assert_array_equal(recording.arrays["joints"], robot.sample(20, 3))
    np.testing.assert_array_equal(recording.arrays["image"], robot.render(robot.sample(20, 3)))
    image, joints = recording.modalities
    assert image.shape == (3, 12, 16) and joints.names == robot.joints and joints.limits_from == "robot"
    assert joints.limits[1] == (-0.3, 0.45) and recording.robot == robot.description()
    talk = capsys.readouterr()
    assert talk.out == "" and "simulating" in talk.err


def test_the_cache_knows_robot_count_and_seed(robot, tmp_path, renders):
    first = simulate(robot, 8, 0, tmp_path)
    equal(simulate(robot, 8, 0, tmp_path), first)
    assert renders == [8]
    simulate(robot, 9, 0, tmp_path)
    simulate(robot, 8, 1, tmp_path)
    with Robot(camera=Camera(width=16, height=12, fov=60), supersample=1) as other:
        simulate(other, 8, 0, tmp_path)
    assert renders == [8, 9, 8, 8] and len(list(tmp_path.iterdir())) == 4


def test_a_broken_cache_is_made_again(robot, tmp_path, renders):
    first = simulate(robot, 8, 0, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[2000] ^= 1  # among the pixels: the archive's checksum finds it
    for broken in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], bytes(flipped)):
        path.write_bytes(broken)
        equal(simulate(robot, 8, 0, tmp_path), first)
        assert path.read_bytes() == whole
    Recording(first.modalities, {k: v[:5] for k, v in first.arrays.items()}, first.robot).save(path)
    equal(simulate(robot, 8, 0, tmp_path), first)
    assert renders == [8] * 7


def test_too_few_frames(robot, tmp_path):
    with pytest.raises(InputError, match="simulate: got 1 frames, expected at least 2"):
        simulate(robot, 1, 0, tmp_path)
