import os

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


def test_an_edited_mesh_is_rendered_anew(tmp_path, renders):
    cube = "\n".join(f"v {x} {y} {z}" for x in (0, 0.2) for y in (0, 0.05) for z in (0, 0.05)) + (
        "\nf 1 2 4\nf 1 4 3\nf 5 7 8\nf 5 8 6\nf 1 5 6\nf 1 6 2\nf 3 4 8\nf 3 8 7\nf 1 3 7\nf 1 7 5\nf 2 6 8\nf 2 8 4\n"
    )
    (tmp_path / "meshes").mkdir()
    (tmp_path / "arm.urdf").write_text(
        """<robot name="arm"><link name="base"/><link name="arm"><visual><geometry>
        <mesh filename="package://meshes/cube.obj"/></geometry></visual></link><joint name="Swing" type="revolute">
        <parent link="base"/><child link="arm"/><axis xyz="0 0 1"/><limit lower="-1" upper="1"/></joint></robot>"""
    )
    above = Camera(position=(0.1, 0, 1), target=(0.1, 0, 0), up=(1, 0, 0), width=16, height=16)
    frames = []
    for mesh in (cube, cube, cube.replace("v 0.2", "v 0.4")):
        (tmp_path / "meshes" / "cube.obj").write_text(mesh)
        with Robot(tmp_path / "arm.urdf", above) as own:
            frames.append(simulate(own, 4, 0, tmp_path / "cache").arrays["image"])
    assert renders == [4, 4] and (frames[0] == frames[1]).all() and (frames[0] != frames[2]).any()


def test_a_cache_that_cannot_be_written(robot, tmp_path, renders):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot keep simulated frames there: File exists; give another --cache"):
        simulate(robot, 4, 0, tmp_path / "file")
    first = simulate(robot, 4, 0, tmp_path / "cache")
    (tmp_path / "cache").chmod(0o555)
    equal(simulate(robot, 4, 0, tmp_path / "cache"), first)  # reading is enough where the frames are there
    if os.geteuid():  # root writes anywhere
        with pytest.raises(InputError, match="cannot keep simulated frames there: Permission denied"):
            simulate(robot, 5, 0, tmp_path / "cache")
    (tmp_path / "cache").chmod(0o755)
    assert renders == [4]


def test_too_few_frames(robot, tmp_path):
    with pytest.raises(InputError, match="simulate: got 1 frames, expected at least 2"):
        simulate(robot, 1, 0, tmp_path)
