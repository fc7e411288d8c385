"""python -m runtime: results on stdout as JSON, errors as one line on stderr with exit status 2."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime
from runtime.__main__ import main
from runtime.bundle import MANIFEST
from runtime.sheet import sheet

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*argv: object) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in argv])
        except SystemExit as stopped:  # argparse's own
            status = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return call


def refused(result: tuple[int, str, str]) -> str:
    """The one line of a refusal."""
    status, out, err = result
    assert status == 2 and out == ""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


def test_generate(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, stdout, _ = cli("generate", bundle, "--count", 70, "--seed", 7, "--batch", 32, "--out", out)
    assert status == 0
    result = json.loads(stdout)
    assert result["count"] == 70 and result["files"] == {"image": "image", "joints": "joints.csv"}
    images, joints = runtime.load(bundle).generate(70, seed=7)
    paths = sorted((out / "image").iterdir())
    assert [path.name for path in paths] == [f"{index:06d}.png" for index in range(70)]
    read = np.stack([cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1] for path in paths])
    assert np.array_equal(read, images)
    header, *rows = csv.reader((out / "joints.csv").open())
    assert header == ["pan", "tilt"]
    assert np.array_equal(np.array(rows, np.float32), joints)
    limits = list(csv.reader((out / "joints.limits.csv").open()))
    assert limits == [["pan", "tilt"], ["-1.2", "-0.1"], ["2.0", "0.7"]]
    assert np.array_equal(cv2.imread(str(out / "sheet.png"))[..., ::-1], sheet(images[:64]))


def test_generated_data_can_be_trained_on(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    recording = pytest.importorskip("trainer.data.recording")
    assert cli("generate", bundle, "--count", 12, "--out", tmp_path / "out")[0] == 0
    read = recording.Recording.read(tmp_path / "out")
    images, joints = runtime.load(bundle).generate(12)
    assert np.array_equal(read.arrays["image"], images) and np.array_equal(read.arrays["joints"], joints)


def test_out_is_not_overwritten(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("generate", bundle, "--count", 5, "--out", out)[0] == 0
    (out / "notes.txt").write_text("mine")
    (out / "image" / "cat.png").write_text("mine too")
    assert "is not empty; give a new folder, or --overwrite" in refused(cli("generate", bundle, "--out", out))
    assert cli("generate", bundle, "--count", 3, "--out", out, "--overwrite")[0] == 0
    names = sorted(path.name for path in (out / "image").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png", "cat.png"]
    assert (out / "notes.txt").read_text() == "mine"


def test_parts_make_the_whole(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    cli("generate", bundle, "--count", 6, "--out", tmp_path / "whole")
    cli("generate", bundle, "--count", 2, "--first", 4, "--out", tmp_path / "part")
    for name in ("000004.png", "000005.png"):
        assert (tmp_path / "whole/image" / name).read_bytes() == (tmp_path / "part/image" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", 0], "error: --count is 0, expected at least 1"),
        (["--seed", -1], "error: seed is -1, expected a whole number from 0"),
        (["--batch", 0], "error: batch is 0"),
        (["--first", -1], "error: first is -1"),
        (["--threads", 0], "error: threads is 0"),
        (["--device", "tpu"], "error: device is 'tpu', expected cpu, cuda or cuda:N"),
    ],
)
def test_generate_refuses(cli: Cli, bundle: Path, tmp_path: Path, words: list[object], message: str) -> None:
    assert refused(cli("generate", bundle, "--out", tmp_path / "out", *words)).startswith(message)
    assert not (tmp_path / "out").exists()


def test_out_is_a_file(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file, expected a folder" in refused(cli("generate", bundle, "--out", tmp_path / "file"))
    assert "cannot be written" in refused(cli("generate", bundle, "--out", tmp_path / "file" / "below"))


@pytest.mark.parametrize("command", ["generate", "evaluate", "info"])
def test_bad_bundle(cli: Cli, bundle: Path, tmp_path: Path, command: str) -> None:
    words = ["--out", tmp_path / "out"] if command == "generate" else []
    assert "no bundle 'nowhere'" in refused(cli(command, "nowhere", *words))
    (bundle / "generator.onnx").write_bytes(b"")
    assert "generator.onnx is truncated: 0 bytes" in refused(cli(command, bundle, *words))


def test_info(cli: Cli, bundle: Path) -> None:
    status, stdout, _ = cli("info", bundle)
    result = json.loads(stdout)
    assert status == 0 and result["verified"] and result["graphs"][0]["outputs"][1]["names"] == ["pan", "tilt"]


def test_evaluate_without_a_robot(cli: Cli, bundle: Path) -> None:
    assert "describes no robot" in refused(cli("evaluate", bundle))
    assert "--random is 0" in refused(cli("evaluate", bundle, "--random", 0))


def test_evaluate_needs_image_and_joints(cli: Cli, bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["graphs"][0]["outputs"][1]["unit"] = "m"
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    assert "replaying needs an image and a vector in rad" in refused(cli("evaluate", bundle))


def test_usage(cli: Cli) -> None:
    assert cli()[0] == 2
    assert cli("generate", "tiny")[0] == 2
    assert "--out" in cli("generate", "--help")[1]


def test_evaluate(cli: Cli, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("pybullet")
    from runtime.robot import Robot

    with Robot() as robot:
        description, names, limits = robot.description(), robot.joints, robot.limits.tolist()
    limits = tuple(map(tuple, limits))
    own = make_bundle(tmp_path / "own", size=80, names=names, limits=limits, robot=description)
    status, stdout, err = cli("evaluate", own, "--count", 8, "--random", 30, "--seed", 1)
    assert status == 0, err
    result = json.loads(stdout)
    assert result["name"] == "own" and abs(result["gap"]) < 0.2  # its images are random textures
    assert result["reachable"] > 0.3 and "joint_error_curve" in result
    wrong = refused(cli("evaluate", own, "--joints", "elbow"))
    assert "elbow" in wrong
    assert "camera" in refused(cli("evaluate", own, "--camera", "zoom=3"))
    assert "images are [80, 80] pixels (H, W), the camera's [40, 60]" in refused(
        cli("evaluate", own, "--camera", "size=60x40")
    )


def test_sheet() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 2, 3, 1), np.uint8)
    made = sheet(images, columns=2)
    assert made.shape == (6, 6, 3)
    assert (
        made[0, 0, 0] == 0 and made[0, 3, 1] == 1 and made[2, 0, 2] == 2 and made[4, 0, 0] == 4 and made[4, 3, 0] == 0
    )
    assert sheet(images).shape == (4, 9, 3)
