"""What the README shows is run: its Python as it is, its commands with trainings cut short."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.bundle import Bundle

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROBOT = """<robot name="arm"><link name="base"/>
<link name="upper"><visual><origin xyz="0 0 .15"/><geometry><box size=".05 .05 .3"/></geometry></visual></link>
<link name="lower"><visual><origin xyz="0 0 .1"/><geometry><box size=".04 .04 .2"/></geometry></visual></link>
<joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="1 0 0"/>
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint>
<joint name="elbow" type="revolute"><parent link="upper"/><child link="lower"/><origin xyz="0 0 .3"/><axis xyz="1 0 0"/>
<limit lower="-1.5" upper="1.5" effort="1" velocity="1"/></joint></robot>"""
COMMON = "--total-kimg 0.064 --batch 8 --width 4 --device cpu"
SHORT = {
    "mgan": f"{COMMON} --frames 32 --d-width 4 --hidden 16 --matched 8 --random 16".split(),
    "fusion": f"{COMMON} --avatars 40 --held-out 8 --critic-width 4 --pairs 4 --precision fp32".split(),
}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(package: str) -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("python -m ")]
    return [line[3:] for line in words if line[2] == package]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what the README's commands name: a robot and recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWASE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "my_robot.urdf").write_text(ROBOT)
    (tmp_path / "recordings" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(16):
        cv2.imwrite(f"recordings/images/{k:03}.png", rng.integers(0, 255, (32, 32, 3), np.uint8))
    rows = "\n".join(",".join(f"{x:.3f}" for x in row) for row in rng.uniform(-1, 1, (16, 2)))
    Path("recordings/joints.csv").write_text("shoulder,elbow\n" + rows + "\n")
    return tmp_path


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """A bundle of faces, as the README trains it but for a moment; in processes of their own, as a user would."""
    path = tmp_path_factory.mktemp("faces")
    (line,) = [line for line in commands("trainer") if line[0] == "fusion"]
    for command in (["trainer", *line, *SHORT["fusion"]], ["export", "runs/faces"]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    return path / "bundles" / "faces"


@pytest.fixture
def pictures(folder, faces):
    """The folder with a bundle of faces, and pictures to fuse."""
    (folder / "bundles").mkdir()
    (folder / "bundles" / "faces").symlink_to(faces)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        cv2.imwrite(f"{name}.png", rng.integers(0, 255, (70, 90, 3), np.uint8))
    return folder


def test_python(pictures):
    pytest.importorskip("onnxruntime")
    names: dict = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert names["images"].shape == (64, 80, 80, 3)
    assert names["images"].std() > 10
    assert names["scores"].shape == (100,)
    assert names["image"].shape == names["mixed"].shape == names["frame"].shape == (64, 64, 3)
    assert names["c"].shape == (512, 2, 2) and names["table"].shape == (5, 5, 64, 64, 3)


def test_python_of_the_kernels():
    kernels, operators = blocks("python", (ROOT / "cpp_ext" / "README.md").read_text())
    names: dict = {}
    exec(compile(kernels, "cpp_ext/README.md", "exec"), names)
    assert names["latents"].shape == (6, 1024, 4, 4)
    try:
        names["cpp_ext"].ort_ops()
    except (RuntimeError, ValueError) as missing:
        pytest.skip(f"the operators for ONNX Runtime: {missing}")
    exec(compile(operators, "cpp_ext/README.md", "exec"), names)
    assert names["scores"].shape == (4,) and names["distance"].shape == (4, 3, 3)


def test_runtime_commands(pictures, capsys):
    from runtime.__main__ import main

    said = commands("runtime")
    mgan = ["generate", "generate", "evaluate", "info", "bench", "bench"]
    assert [line[0] for line in said] == [*mgan, "fuse", "fuse", "fuse"]
    for line in said:
        short = ["--seconds", "1"] if line[0] == "bench" else []
        assert main([*line, *short]) == 0, capsys.readouterr().err
    assert len(list((pictures / "made" / "image").glob("*.png"))) == 64
    assert (pictures / "made" / "sheet.png").exists()
    assert np.load(pictures / "part.npz")["image"].shape == (125, 80, 80, 3)
    shapes = {"fused": (64, 64), "sweep": (64, 8 * 64), "parts": (5 * 64, 8 * 64)}
    assert {name: cv2.imread(f"{name}.png").shape[:2] for name in shapes} == shapes
    assert cv2.VideoCapture("a-to-b.mp4").read()[0]


def test_examples(folder, capsys):
    from runtime.examples import graphics_loop, robot_loop

    (robot,), (graphics,) = commands("runtime.examples.robot_loop"), commands("runtime.examples.graphics_loop")
    assert robot_loop.main([*robot, "--seconds", "0.5"]) == 0, capsys.readouterr().err
    assert graphics_loop.main([*graphics, "--frames", "5"]) == 0, capsys.readouterr().err
    for name in ("arms.mp4", "melt.mp4"):
        assert cv2.VideoCapture(str(folder / name)).read()[0]


def test_train_and_export_commands(folder, capsys):
    pytest.importorskip("tensorrt_rtx")
    from export.__main__ import main as export
    from trainer.__main__ import main as train

    trainings, exports = commands("trainer"), commands("export")
    assert [line[0] for line in trainings] == ["fusion", "data", "mgan", "mgan", "mgan"] and len(exports) == 4
    (folder / "recordings" / "images").rename(folder / "pictures")
    assert train(trainings.pop(1)) == 0, capsys.readouterr().err
    (folder / "pictures").rename(folder / "recordings" / "images")
    for line in trainings:
        assert train([*line, *SHORT[line[0]]]) == 0, capsys.readouterr().err
        assert (folder / "runs" / line[line.index("--name") + 1] / "report.html").exists()
    faces, one, every, served = exports
    assert export(faces) == 0, capsys.readouterr().err
    assert export(one) == 0, capsys.readouterr().err
    assert (folder / "bundles" / "first" / "bundle.json").exists()
    assert export([*every, "--out", "all"]) == 0, capsys.readouterr().err
    pytest.importorskip("tritonclient")
    assert export(served) == 0, capsys.readouterr().err
    bundle, models = Bundle.open("bundles/first").manifest, folder / "bundles" / "first.triton"
    assert [graph.precision for graph in bundle.graphs] == ["fp32", "fp16", "int8"] and len(bundle.engines) == 3
    assert all((models / f"first_generator{end}" / "config.pbtxt").exists() for end in ("", "_fp16", "_int8"))
    assert {path.name for path in (folder / "all").iterdir()} == {"faces", "first", "mine", "recorded"}


def test_make_targets():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
