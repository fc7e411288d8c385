"""What the README shows is run: its Python as it is, its commands with trainings cut short."""

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROBOT = """<robot name="arm"><link name="base"/>
<link name="upper"><visual><origin xyz="0 0 .15"/><geometry><box size=".05 .05 .3"/></geometry></visual></link>
<link name="lower"><visual><origin xyz="0 0 .1"/><geometry><box size=".04 .04 .2"/></geometry></visual></link>
<joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="1 0 0"/>
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint>
<joint name="elbow" type="revolute"><parent link="upper"/><child link="lower"/><origin xyz="0 0 .3"/><axis xyz="1 0 0"/>
<limit lower="-1.5" upper="1.5" effort="1" velocity="1"/></joint></robot>"""
SHORT = (
    "--total-kimg 0.064 --batch 8 --frames 32 --width 4 --d-width 4 --hidden 16 --matched 8 --random 16 --device cpu"
)


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
    (tmp_path / "my_robot.urdf").write_text(ROBOT)
    (tmp_path / "recordings" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(16):
        cv2.imwrite(f"recordings/images/{k:03}.png", rng.integers(0, 255, (24, 24, 3), np.uint8))
    rows = "\n".join(",".join(f"{x:.3f}" for x in row) for row in rng.uniform(-1, 1, (16, 2)))
    Path("recordings/joints.csv").write_text("shoulder,elbow\n" + rows + "\n")
    return tmp_path


def test_python(folder):
    pytest.importorskip("onnxruntime")
    names: dict = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert names["images"].shape == (64, 80, 80, 3)
    assert names["images"].std() > 10
    assert names["scores"].shape == (100,)


def test_python_of_the_kernels():
    (code,) = blocks("python", (ROOT / "cpp_ext" / "README.md").read_text())
    names: dict = {}
    exec(compile(code, "cpp_ext/README.md", "exec"), names)
    assert names["latents"].shape == (6, 1024, 4, 4)


def test_runtime_commands(folder, capsys):
    from runtime.__main__ import main

    said = commands("runtime")
    assert [line[0] for line in said] == ["generate", "evaluate", "info"]
    for line in said:
        assert main(line) == 0, capsys.readouterr().err
    assert len(list((folder / "made" / "image").glob("*.png"))) == 64
    assert (folder / "made" / "sheet.png").exists()


def test_train_and_export_commands(folder, capsys):
    pytest.importorskip("tensorrt_rtx")
    from export.__main__ import main as export
    from trainer.__main__ import main as train

    trainings, exports = commands("trainer"), commands("export")
    assert len(trainings) == 3 and len(exports) == 2
    for line in trainings:
        assert train([*line, *SHORT.split()]) == 0, capsys.readouterr().err
        assert (folder / "runs" / line[line.index("--name") + 1] / "report.html").exists()
    one, every = exports
    assert export(one) == 0, capsys.readouterr().err
    assert (folder / "bundles" / "first" / "bundle.json").exists()
    assert export([*every, "--out", "all"]) == 0, capsys.readouterr().err
    assert {path.name for path in (folder / "all").iterdir()} == {"first", "mine", "recorded"}


def test_make_targets():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
