import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet")

from runtime.errors import InputError
from runtime.robot import Camera, Robot

SMALL = Camera(width=40, height=30)


@pytest.fixture(scope="module")
def robot():
    with Robot() as robot:
        yield robot


@pytest.fixture(scope="module")
def frames(robot):
    return robot.render(robot.sample(40, 0))


def arm(joint='<limit lower="-1" upper="1"/>', kind="revolute", geometry='<box size="0.3 0.05 0.05"/>'):
    """A URDF of one arm on a pole: joint "Swing" turns it, joint "Fix" is fixed, "Spin" is continuous."""
    return f"""<robot name="arm"><link name="base"/>
      <link name="arm"><visual><origin xyz=".15 0 0"/><geometry>{geometry}</geometry></visual></link>
      <link name="tip"/><link name="wheel"/>
      <joint name="Swing" type="{kind}"><parent link="base"/><child link="arm"/><axis xyz="0 0 1"/>{joint}</joint>
      <joint name="Fix" type="fixed"><parent link="arm"/><child link="tip"/><origin xyz=".3 0 0"/></joint>
      <joint name="Spin" type="continuous"><parent link="arm"/><child link="wheel"/></joint></robot>"""


ABOVE = Camera(position=(0.1, 0, 1), target=(0.1, 0, 0), up=(1, 0, 0), width=32, height=32)


def write(folder, text):
    path = folder / "arm.urdf"
    path.write_text(text)
    return path


def test_our_robot_has_ten_limited_joints(robot):
    assert len(robot.joints) == 10 and robot.joints[0] == "LShoulderPitch" and robot.joints[9] == "RWristYaw"
    assert robot.limits.shape == (10, 2) and robot.limits.dtype == np.float32
    np.testing.assert_array_equal(robot.limits[6], np.float32([-0.45, 0.3]))


def test_frames_are_rgb_of_the_cameras_size(robot, frames):
    assert frames.shape == (40, 80, 80, 3) and frames.dtype == np.uint8
    assert (frames[0] != frames[1]).mean() > 0.01
    assert robot.render(np.empty((0, 10))).shape == (0, 80, 80, 3)
    with Robot(camera=SMALL) as small:
        assert small.render(small.sample(1, 0)).shape == (1, 30, 40, 3)


def test_every_joint_shows(robot):
    middle = robot.limits.mean(axis=1)
    poses = np.repeat(middle[None], 20, axis=0)
    poses[np.arange(20), np.repeat(np.arange(10), 2)] = robot.limits.ravel()
    frames = robot.render(poses).astype(int).reshape(10, 2, -1)
    assert (abs(frames[:, 0] - frames[:, 1]) > 20).sum(axis=1).min() > 40


def test_frames_do_not_depend_on_order_or_process(robot, frames):
    joints = robot.sample(40, 0)
    np.testing.assert_array_equal(robot.render(joints[::-1])[::-1], frames)
    done = []
    np.testing.assert_array_equal(robot.render(joints, workers=2, progress=done.append), frames)
    assert done == [32, 40]


def test_the_table_is_joined_by_depth_as_if_it_stood_in_the_scene(robot, frames):
    with Robot() as other:
        other._scene._table = None  # so that nothing but the background lies behind
        client, bullet = other._scene._client, other._scene._bullet
        box = bullet.createVisualShape(
            bullet.GEOM_BOX, halfExtents=[2.5, 2.5, 0.01], rgbaColor=(0.86, 0.84, 0.8, 1), physicsClientId=client
        )
        bullet.createMultiBody(0, -1, box, [1.0, 0.0, robot.table - 0.01], physicsClientId=client)
        np.testing.assert_array_equal(other.render(robot.sample(40, 0)), frames)


def test_supersampling_averages_and_rounds_half_up(robot):
    joints = robot.sample(2, 1)
    with Robot(camera=Camera(width=160, height=160), supersample=1) as large:
        blocks = large.render(joints).reshape(2, 80, 2, 80, 2, 3).astype(int)
    np.testing.assert_array_equal(robot.render(joints), (blocks.sum(axis=(2, 4)) + 2) // 4)


def test_samples_are_a_function_of_seed_and_index(robot):
    joints = robot.sample(3000, 5)
    assert joints.dtype == np.float32 and joints.shape == (3000, 10)
    np.testing.assert_array_equal(robot.sample(20, 5, first=100), joints[100:120])
    assert (robot.sample(20, 6) != joints[:20]).all()
    span = robot.limits[:, 1] - robot.limits[:, 0]
    assert (joints >= robot.limits[:, 0]).all() and (joints <= robot.limits[:, 1]).all()
    assert abs(joints.mean(axis=0) - robot.limits.mean(axis=1)).max() < 0.03 * span.max()
    assert (np.ptp(joints, axis=0) > 0.99 * span).all()


def test_description_rebuilds_the_robot(robot, frames):
    plain = json.loads(json.dumps(robot.description()))
    assert (
        plain["unit"] == "rad" and plain["renderer"] == "pybullet TinyRenderer" and plain["limits"][1] == [-0.3, 0.45]
    )
    with Robot.from_description(plain) as again:
        assert again.description() == robot.description()
        np.testing.assert_array_equal(again.render(robot.sample(40, 0)[:3]), frames[:3])
    with pytest.raises(InputError, match="lacks 'camera'"):
        Robot.from_description({key: value for key, value in plain.items() if key != "camera"})
    with pytest.raises(InputError, match="not the URDF that was recorded"):
        Robot.from_description(plain | {"urdf": arm()})


def test_a_camera_on_a_link_moves_with_it(robot):
    head = Camera(position=(0.06, 0, 0), target=(0.22, 0, -0.36), link="head")
    hand = Camera(position=(0, 0, 0.1), target=(0.2, 0, 0.05), link="left_lower", width=40, height=40)
    pose = robot.sample(2, 0)
    with Robot(camera=head) as same_view:
        difference = abs(same_view.render(pose).astype(int) - robot.render(pose))
        assert difference.mean() < 0.1
    with Robot(camera=hand, joints=["LShoulderPitch", "LWristYaw"]) as seen_from_arm:
        first, second = seen_from_arm.render([[0.0, 0.5], [0.5, 0.5]])
        assert (first != second).any()
    base = Camera(position=(0.06, 0, 0.36), target=(0.22, 0, 0), link="torso")
    with Robot(camera=base) as from_base:
        np.testing.assert_array_equal(from_base.render(pose), robot.render(pose))


def test_joints_by_name_and_in_their_order(robot):
    with Robot(joints=["RElbowRoll", "LShoulderPitch"], camera=SMALL) as two:
        assert two.joints == ("RElbowRoll", "LShoulderPitch")
        np.testing.assert_array_equal(two.limits, robot.limits[[8, 0]])


def test_a_robot_of_ones_own(tmp_path):
    with Robot(write(tmp_path, arm()), camera=ABOVE) as own:
        assert own.joints == ("Swing",) and own.limits.tolist() == [[-1.0, 1.0]]
        frames = own.render([[-1.0], [1.0]])
        np.testing.assert_allclose(frames[0].mean(), frames[1, :, ::-1].mean(), rtol=0.05)
        with Robot.from_description(own.description()) as again:
            np.testing.assert_array_equal(again.render([[-1.0], [1.0]]), frames)


CUBE = "\n".join(f"v {x} {y} {z}" for x in (0, 0.2) for y in (0, 0.05) for z in (0, 0.05)) + (
    "\nf 1 2 4\nf 1 4 3\nf 5 7 8\nf 5 8 6\nf 1 5 6\nf 1 6 2\nf 3 4 8\nf 3 8 7\nf 1 3 7\nf 1 7 5\nf 2 6 8\nf 2 8 4\n"
)


def test_a_robot_with_meshes_is_rebuilt_from_its_file(tmp_path):
    (tmp_path / "cube.obj").write_text(CUBE)
    path = write(tmp_path, arm(geometry='<mesh filename="cube.obj"/>'))
    with Robot(path, camera=ABOVE) as own:
        description = own.description()
        frames = own.render([[0.0], [0.5]])
        np.testing.assert_array_equal(own.render([[0.0], [0.5]], workers=1), frames)
    assert description["urdf"] is None
    with pytest.raises(InputError, match="give the file: --robot FILE.urdf"):
        Robot.from_description(description)
    with Robot.from_description(description, path) as again:
        np.testing.assert_array_equal(again.render([[0.0], [0.5]]), frames)
    (tmp_path / "cube.obj").unlink()
    with pytest.raises(InputError, match=r"arm.urdf: pybullet cannot load it: .*cannot find 'cube.obj'"):
        Robot(path, camera=ABOVE)


def test_a_changed_mesh_material_or_texture_is_another_robot(tmp_path):
    (tmp_path / "meshes").mkdir()
    mesh, material, texture = (tmp_path / "meshes" / name for name in ("cube.obj", "cube.mtl", "cube.png"))
    mesh.write_text("mtllib cube.mtl\n" + CUBE)
    material.write_text("newmtl skin\nKd 1 0 0\nmap_Kd cube.png\n")
    texture.write_bytes(b"one")
    path = write(tmp_path, arm(geometry='<mesh filename="package://meshes/cube.obj"/>'))
    with Robot(path, camera=ABOVE) as own:
        description, frames = own.description(), own.render([[0.0]])
    for file, text in ((mesh, mesh.read_text().replace("v 0.2", "v 0.3")), (material, "Kd 0 1 0"), (texture, "two")):
        before = file.read_bytes()
        file.write_text(text)
        with Robot(path, camera=ABOVE) as edited:
            assert edited.description()["meshes_sha256"] != description["meshes_sha256"]
            if file is mesh:
                assert (edited.render([[0.0]]) != frames).any()
        with pytest.raises(InputError, match="arm.urdf: its meshes are not those that were recorded"):
            Robot.from_description(description, path)
        file.write_bytes(before)
    with Robot.from_description(description, path) as again:
        assert again.description() == description
    with pytest.raises(InputError, match="lacks 'meshes_sha256'"):
        Robot.from_description({k: v for k, v in description.items() if k != "meshes_sha256"}, path)


def test_only_a_robot_with_meshes_speaks_of_them(robot):
    assert "meshes_sha256" not in robot.description()


RENDERING = """
import signal
from runtime.robot import Camera, Robot

if __name__ == "__main__":
    # Where the tests run in the background, SIGINT is inherited as ignored, and Python leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Robot(camera=Camera(width=16, height=12), supersample=1) as robot:
        robot.render(robot.sample(10**6, 0), workers=2, progress=lambda done: print(done, flush=True))
"""


def group(leader):
    """Numbers of the running processes that `leader` started, itself among them (they are its process group)."""
    alive = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # ended meanwhile
            continue
        if int(number) == leader and state != "Z":
            alive.append(int(entry.parent.name))
    return alive


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, number):
    (tmp_path / "rendering.py").write_text(RENDERING)
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "rendering.py"],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert parent.stdout.readline()  # the first frames have come: the workers work
        assert len(group(parent.pid)) >= 3
        parent.send_signal(number)
        parent.wait(60)
        deadline = time.monotonic() + 60
        while group(parent.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not group(parent.pid)
    finally:
        for process in group(parent.pid):
            os.kill(process, signal.SIGKILL)
        parent.stdout.close()


@pytest.mark.parametrize(
    ("text", "joints", "message"),
    [
        (arm(), ["Elbow"], r"arm.urdf: no joint 'Elbow'; its joints are Swing"),
        (arm(), ["Spin"], r"joint 'Spin' is continuous: it has no limits"),
        (arm(), ["Fix"], r"joint 'Fix' is fixed, expected revolute"),
        (arm(), ["Swing", "Swing"], r"expected each name once"),
        (arm(kind="prismatic"), ["Swing"], r"joint 'Swing' is prismatic, expected revolute"),
        (arm(joint=""), ["Swing"], r"joint 'Swing' has no limits"),
        (arm(joint='<limit lower="1" upper="-1"/>'), ["Swing"], r"lower 1, upper -1 rad; expected lower < upper"),
        (arm(joint='<limit lower="low" upper="1"/>'), ["Swing"], r"joint 'Swing' has no limits"),
        (arm(joint=""), None, r"no joints to move"),
        ("<robot", None, r"arm.urdf: not a readable URDF: .*line 1"),
        ("<sdf/>", None, r"got a <sdf> document"),
        ("<robot name='x'/>", None, r"without links"),
        ("<robot name='x'><link name='a'/><link name='b'/></robot>", None, r"no joints to move"),
    ],
)
def test_a_urdf_that_cannot_be_used(tmp_path, text, joints, message):
    with pytest.raises(InputError, match=message) as caught:
        Robot(write(tmp_path, text), camera=ABOVE, joints=joints)
    assert "\n" not in str(caught.value)


def test_a_urdf_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(InputError, match=r"none.urdf: cannot read the URDF: No such file"):
        Robot(tmp_path / "none.urdf", camera=ABOVE)
    path = tmp_path / "binary.urdf"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"not a text file"):
        Robot(path, camera=ABOVE)


def test_a_camera_that_sees_nothing(tmp_path):
    path = write(tmp_path, arm())
    away = Camera(position=(0.1, 0, 1), target=(0.1, 0, 2), up=(1, 0, 0))
    with pytest.raises(InputError, match="the camera sees nothing: a blank frame"):
        Robot(path, camera=away)
    torso_only = Camera(position=(-0.5, 0, -0.28), target=(-0.1, 0, -0.29), fov=12)
    with pytest.raises(InputError, match="the camera sees no joint move"):
        Robot(camera=torso_only)
    with pytest.raises(InputError, match="got no camera"):
        Robot(path)
    with pytest.raises(InputError, match="has no link 'eye'; its links are base, arm, tip, wheel"):
        Robot(path, camera=Camera(link="eye"))
    beside = Camera(position=(0.3, 0.3, 1), target=(0.3, 0.3, 0), up=(1, 0, 0), fov=25, width=32, height=32)
    with Robot(write(tmp_path, arm('<limit lower="-1" upper="2.5"/>')), camera=beside) as own:
        assert len(own.render([[0.75]])) == 1
        with pytest.raises(InputError, match="frame 1 is blank"):
            own.render([[0.75], [-1.0]])


def test_joints_that_cannot_be_rendered(robot):
    joints = robot.sample(3, 0)
    with pytest.raises(InputError, match=r"got shape \[3, 9\], expected \[N, 10\]"):
        robot.render(joints[:, :9])
    for value, word in ((np.nan, "nan"), (np.inf, "inf"), (0.46, "0.46")):
        bad = joints.copy()
        bad[2, 1] = value
        with pytest.raises(InputError, match=rf"row 2, LShoulderRoll: got {word} rad, expected -0.3 to 0.45 rad"):
            robot.render(bad)
    joints[0] = robot.limits[:, 1] + 5e-5  # rounding is let through
    assert len(robot.render(joints)) == 3
    with pytest.raises(InputError, match="seed: got -1"):
        robot.sample(2, -1)
    with pytest.raises(InputError, match="supersample: got 7"):
        Robot(supersample=7)
