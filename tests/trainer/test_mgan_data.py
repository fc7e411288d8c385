"""Which robot a recording can be replayed on, and what is refused before anything is trained on."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_data import tiny_robot_recording

from runtime.errors import InputError
from runtime.robot import Camera, Robot
from trainer import loop
from trainer.data.recording import Recording
from trainer.recipes.mgan import Mgan
from trainer.recipes.mgan_data import MganData
from trainer.recipes.mgan_options import PRESETS

SMALL = dataclasses.replace(
    PRESETS["demo"], name="small", width=4, d_width=4, hidden=16, batch=8, total_kimg=0.016, device="cpu",
    matched=8, random=16, frames=32,
)  # fmt: skip
URDF = """<robot name="arm"><link name="base"/>
<link name="upper"><visual><origin xyz="0 0 .15"/><geometry>{shape}</geometry></visual></link>
<link name="lower"><visual><origin xyz="0 0 .1"/><geometry><box size=".08 .08 .2"/></geometry></visual></link>
<joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="1 0 0"/>
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint>
<joint name="elbow" type="revolute"><parent link="upper"/><child link="lower"/><origin xyz="0 0 .3"/><axis xyz="1 0 0"/>
<limit lower="0.2" upper="1.5" effort="1" velocity="1"/></joint></robot>"""
CAMERA = ("position=.8,0,.3", "target=0,0,.3", "size=24x20")


@pytest.fixture
def arm(tmp_path) -> Path:
    path = tmp_path / "arm.urdf"
    path.write_text(URDF.format(shape='<box size=".1 .1 .3"/>'))
    return path


def recorded(tmp_path, columns, extra=None, size=(20, 24)) -> Path:
    rng = np.random.default_rng(0)
    limits = {"shoulder": (-1, 1), "elbow": (0.2, 1.5)}
    joints = np.stack([rng.uniform(*limits[name], 32) for name in columns], 1).astype(np.float32)
    content = {
        "joints": joints,
        "joints_names": np.array(columns),
        "image": rng.integers(0, 255, (32, *size, 3), np.uint8),
    }
    np.savez(tmp_path / "recorded.npz", **content | (extra or {}))
    return tmp_path / "recorded.npz"


def test_columns_belong_to_joints_by_name(tmp_path, arm):
    data = recorded(tmp_path, ["elbow", "shoulder"], {"effort": np.random.rand(32, 2).astype(np.float32),
                                                     "effort_names": np.array(["a", "b"])})  # fmt: skip
    options = dataclasses.replace(SMALL, data=data, robot=arm, camera=CAMERA, runs=tmp_path)
    description = Mgan.dataset(options).description
    assert description["replay"] == ("image", "joints")
    assert description["robot"]["joints"] == ["elbow", "shoulder"]
    assert np.allclose(description["robot"]["limits"], [[0.2, 1.5], [-1, 1]])
    path = loop.train(Mgan, options)
    assert json.loads((path / "metric-ssim_gap.jsonl").read_text())["matched_count"] == 8


def test_some_of_the_joints_may_be_recorded(tmp_path, arm):
    options = dataclasses.replace(
        SMALL, data=recorded(tmp_path, ["elbow"]), robot=arm, camera=CAMERA, runs=tmp_path, joints=()
    )
    assert (loop.train(Mgan, options) / "summary.json").exists()


@pytest.mark.parametrize("what", ["joints", "size"])
def test_another_robot_is_refused_before_training(tmp_path, arm, what):
    data = recorded(tmp_path, ["elbow", "shoulder"], size=(20, 24) if what == "joints" else (24, 24))
    if what == "joints":
        content = dict(np.load(data)) | {"joints_names": np.array(["a", "b"])}
        np.savez(data, **content)
    options = dataclasses.replace(SMALL, data=data, robot=arm, camera=CAMERA, runs=tmp_path)
    with pytest.raises(InputError, match="does not fit the robot"):
        loop.train(Mgan, options)
    assert not (tmp_path / "small").exists()


def test_a_robot_with_meshes_trains_to_the_end(tmp_path):
    triangles = "".join(f"v {x} {y} {z}\n" for x, y, z in ((-0.05, -0.05, 0), (0.05, 0.05, 0), (0, 0.08, 0.3)))
    (tmp_path / "upper.obj").write_text(triangles + "f 1 2 3\nf 3 2 1\n")
    path = tmp_path / "mesh.urdf"
    path.write_text(URDF.format(shape='<mesh filename="upper.obj"/>'))
    options = dataclasses.replace(SMALL, robot=path, camera=CAMERA, runs=tmp_path, cache=tmp_path / "cache")
    assert (loop.train(Mgan, options) / "summary.json").exists()


def test_a_simulated_recording_brings_its_robot(tmp_path):
    tiny_robot_recording(16).save(tmp_path / "own.npz")
    description = Mgan.dataset(dataclasses.replace(SMALL, data=tmp_path / "own.npz")).description
    assert description["replay"] == ("image", "joints") and len(description["robot"]["joints"]) == 10


def test_resuming_on_other_data_is_refused(tmp_path, tiny):
    content = dict(np.load(tiny))
    np.savez(tmp_path / "data.npz", **content)
    options = dataclasses.replace(SMALL, data=tmp_path / "data.npz", runs=tmp_path)
    loop.train(Mgan, options)
    content["joints"] = content["joints"] * np.float32(0.5)
    np.savez(tmp_path / "data.npz", **content)
    with pytest.raises(InputError, match=r"begun on other data \(its .*sha256"):
        loop.train(Mgan, dataclasses.replace(options, total_kimg=0.032))


def test_vectors_alone_are_refused(tmp_path, tiny):
    recording = Recording.read(tiny)
    np.savez(tmp_path / "v.npz", joints=recording.arrays["joints"], joints_names=np.array(["a", "b", "c"]))
    with pytest.raises(InputError, match="holds no images"):
        Mgan.dataset(dataclasses.replace(SMALL, data=tmp_path / "v.npz"))


def test_images_alone_train(tmp_path, tiny):
    recording = Recording.read(tiny)
    np.savez(tmp_path / "i.npz", image=recording.arrays["image"], side=recording.arrays["side"])
    assert (
        loop.train(Mgan, dataclasses.replace(SMALL, data=tmp_path / "i.npz", runs=tmp_path)) / "report.html"
    ).exists()


def test_a_killed_run_no_longer_counts_as_finished(tmp_path, tiny):
    from trainer import run

    options = dataclasses.replace(SMALL, data=tiny, runs=tmp_path)
    path = loop.train(Mgan, options)
    assert run.finished_runs(tmp_path) == [path]
    with pytest.raises(ZeroDivisionError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mgan, "step", lambda *_: 1 / 0)
        loop.train(Mgan, dataclasses.replace(options, total_kimg=1))
    assert run.finished_runs(tmp_path) == []
    assert run.open_run(path).summary["kimg"] == 0.016


def test_sigterm_while_simulating_ends_well_and_leaves_nothing(tmp_path):
    command = f"-m trainer mgan --frames 20000 --cache {tmp_path}/cache --runs {tmp_path}/runs --name early"
    process = subprocess.Popen([sys.executable, *command.split()], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # the options are printed before work begins
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert not list(tmp_path.rglob("*.npz"))
    assert b"Traceback" not in err


def test_dry_run_leaves_nothing(tmp_path):
    options = dataclasses.replace(SMALL, cache=tmp_path / "cache", runs=tmp_path / "runs", dry_run=True)
    loop.train(Mgan, options)
    assert not list(tmp_path.iterdir())


def test_a_camera_of_another_robot_is_given_whole(tmp_path, arm):
    options = dataclasses.replace(SMALL, robot=arm, camera=("position=.8,0,.3",), runs=tmp_path, cache=tmp_path / "c")
    with pytest.raises(InputError, match="got no target"):
        Mgan.dataset(options)


def test_degrees_are_refused(tmp_path):
    data = recorded(tmp_path, ["elbow", "shoulder"])
    content = dict(np.load(data))
    np.savez(data, **content | {"joints": np.degrees(content["joints"])})
    with pytest.raises(InputError, match="look like degrees"):
        Mgan.dataset(dataclasses.replace(SMALL, data=data))


def test_a_generated_pose_in_which_the_camera_sees_nothing_does_not_end_the_training(tmp_path, arm):
    options = dataclasses.replace(SMALL, robot=arm, camera=CAMERA, cache=tmp_path / "cache", runs=tmp_path)
    with Robot(arm, Camera.parse(["position=.3,0,.42", "target=0,0,.42", "fov=12", "size=24x20"])) as robot:
        grid = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(0.2, 1.5, 9)), -1).reshape(-1, 2)
        frames = robot.render(grid, allow_blank=True)
        blank = (frames == frames[:, :1, :1]).all((1, 2, 3))
        assert 0 < blank.sum() < len(blank)  # in some poses only
        with pytest.raises(InputError, match="is blank"):
            robot.render(grid)
        data = MganData(
            Recording.read(recorded(tmp_path, ["shoulder", "elbow"]), robot.description()), ("image", "joints")
        )
        mgan = Mgan(options, data.description)
        assert mgan.replay({"joints": grid[blank].astype(np.float32)}).shape == (blank.sum(), 20, 24, 3)
