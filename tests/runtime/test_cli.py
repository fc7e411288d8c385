"""python -m runtime: results on stdout as JSON, errors as one line on stderr with exit status 2."""

import csv
import json
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import runtime
import runtime.errors
from runtime.__main__ import main
from runtime.bundle import MANIFEST, Port, sha256_of
from runtime.models.multimodal import Multimodal
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
        (["--count", 0], "error: --count is 0, expected a whole number from 1 to 1000000000"),
        (["--count", "1e99"], "error: argument --count: invalid int value: '1e99'; see python -m runtime generate"),
        (["--count", 10**30], "error: --count is 1000000000"),
        (["--seed", -1], "error: --seed is -1, expected a whole number from 0 to 18446744073709551615"),
        (["--seed", 2**64], "error: --seed is 18446744073709551616"),
        (["--batch", 0], "error: --batch is 0"),
        (["--batch", 2**31 - 1], "error: --batch is 2147483647, expected a whole number from 1 to 4096"),
        (["--first", -1], "error: --first is -1"),
        (
            ["--first", 2**64 - 1],
            "error: --first is 18446744073709551615, expected at most 18446744073709551552: samples",
        ),
        (["--threads", 0], "error: --threads is 0"),
        (["--threads", 10**12], "error: --threads is 1000000000000"),
        (["--precision", "fp4"], "error: argument --precision: invalid choice: 'fp4'"),
        (["--precision", "int8"], "error: BUNDLE: graph generator is there in fp32, not in int8"),
        (["--device", "tpu"], "error: device is 'tpu', expected auto, cpu, openvino, cuda"),
    ],
)
def test_generate_refuses(cli: Cli, bundle: Path, tmp_path: Path, words: list[object], message: str) -> None:
    message = message.replace("BUNDLE", str(bundle))
    assert refused(cli("generate", bundle, "--out", tmp_path / "out", *words)).startswith(message)
    assert not (tmp_path / "out").exists()


def test_out_is_a_file(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file, expected a folder" in refused(cli("generate", bundle, "--out", tmp_path / "file"))
    assert "cannot be written" in refused(cli("generate", bundle, "--out", tmp_path / "file" / "below"))


def test_a_folder_where_a_file_should_be(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "joints.csv").mkdir(parents=True)
    line = refused(cli("generate", bundle, "--count", 2, "--out", tmp_path / "out", "--overwrite"))
    assert line.startswith(f"error: {tmp_path / 'out' / 'joints.csv'} is a folder, expected a file to write")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["joints.csv"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.txt"), "error: a.txt: No such file or directory"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (OSError("odd\nerror"), "error: odd error"),
        (
            MemoryError("Unable to allocate 9 TiB"),
            "error: out of memory (Unable to allocate 9 TiB); ask for less at a time",
        ),
        (MemoryError(), "error: out of memory (MemoryError); ask for less at a time"),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str], error: Exception, line: str) -> None:
    @runtime.errors.cli
    def command(argv: Sequence[str]) -> int:
        raise error

    assert command([]) == 2
    assert capsys.readouterr() == ("", f"{line}\n")


@pytest.mark.parametrize("command", ["generate", "evaluate", "info", "bench"])
def test_bad_bundle(cli: Cli, bundle: Path, tmp_path: Path, command: str) -> None:
    words = ["--out", tmp_path / "out"] if command == "generate" else []
    assert "no bundle 'nowhere'" in refused(cli(command, "nowhere", *words))
    (bundle / "generator.onnx").write_bytes(b"")
    assert "generator.onnx is truncated: 0 bytes" in refused(cli(command, bundle, *words))


def test_info(cli: Cli, bundle: Path) -> None:
    status, stdout, _ = cli("info", bundle)
    result = json.loads(stdout)
    assert status == 0 and result["verified"] and result["graphs"][0]["outputs"][1]["names"] == ["pan", "tilt"]
    here = {row["device"]: row for row in result["here"]}
    assert list(here) == ["tensorrt", "cuda", "openvino", "cpu"]
    assert here["cpu"] == {"graph": "generator", "precision": "fp32", "device": "cpu", "runs": True}
    assert not here["tensorrt"]["runs"] and here["tensorrt"]["reason"]  # the bundle has no engine


def test_info_names_the_engines(cli: Cli, bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    engine = bundle / "generator.tensorrt-rtx.engine"
    engine.write_bytes(b"no engine")
    graph = manifest["graphs"][0]
    manifest["engines"] = [
        {
            "graph": "generator",
            "onnx_sha256": graph["sha256"],
            "flavour": "tensorrt-rtx",
            "version": "1.7.1.116",
            "compute_capabilities": ["SM86", "SM89"],
            "profile": {"z": [[1, 32], [8, 32], [64, 32]]},
            "file": engine.name,
            "bytes": 9,
            "sha256": sha256_of(engine),
        }
    ]
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    row = json.loads(cli("info", bundle)[1])["here"][0]
    assert row["device"] == "tensorrt" and row["compute_capabilities"] == {engine.name: ["SM86", "SM89"]}
    assert not row["runs"] and row["reason"]


def test_what_runs_it_is_said(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    _, stdout, err = cli("generate", bundle, "--count", 1, "--out", tmp_path / "out", "--device", "cpu")
    assert "fp32 on cpu by onnxruntime" in err.splitlines()[0]
    result = json.loads(stdout)
    assert (result["backend"], result["device"], result["precision"]) == ("onnxruntime", "cpu", "fp32")
    _, _, err = cli("generate", bundle, "--count", 1, "--out", tmp_path / "auto")
    assert " | tensorrt, cuda: " in err.splitlines()[0]


def test_evaluate_without_a_robot(cli: Cli, bundle: Path) -> None:
    assert "describes no robot" in refused(cli("evaluate", bundle))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--random", 0], "error: --random is 0, expected a whole number from 1"),
        (["--random", 10**12], "error: --random is 1000000000000"),
        (["--count", 2**63 - 1], "error: --count is 9223372036854775807"),
        (["--seed", -1], "error: --seed is -1"),
        (["--batch", 0], "error: --batch is 0"),
        (["--threads", 0], "error: --threads is 0"),
    ],
)
def test_evaluate_refuses(cli: Cli, bundle: Path, words: list[object], message: str) -> None:
    assert refused(cli("evaluate", bundle, *words)).startswith(message)


def test_evaluate_needs_the_robots_joints(cli: Cli, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny", robot={"joints": ["pan", "roll"]})
    wanted = "replaying needs a vector in rad of the robot's joints pan, roll; the bundle has "
    assert wanted + "joints (pan, tilt); give --joints" in refused(cli("evaluate", bundle))
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["graphs"][0]["outputs"][1]["unit"] = "m"
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    assert wanted + "none" in refused(cli("evaluate", bundle))


def test_usage(cli: Cli) -> None:
    assert cli()[0] == 2
    assert cli("generate", "tiny")[0] == 2
    assert "--out" in cli("generate", "--help")[1]
    assert all(name in cli("--help")[1] for name in ("generate", "evaluate", "bench", "info"))


def test_help_waits_for_nothing_heavy() -> None:
    code = "import runtime.__main__, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "pydantic", "cv2", "rich", "onnxruntime", "openvino", "pybullet", "torch"}
    assert not heavy & set(done.stdout.split()) and "runtime.commands.bench" in done.stdout


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
    assert "the robot's joints elbow; the bundle has joints (LShoulderPitch, " in refused(
        cli("evaluate", own, "--joints", "elbow")
    )
    assert "no joint 'j0'" in refused(cli("evaluate", own, "--joints", *(f"j{index}" for index in range(10))))
    assert "camera" in refused(cli("evaluate", own, "--camera", "zoom=3"))
    wrong = refused(cli("evaluate", own, "--camera", "size=60x40"))
    assert "an image of the camera's [40, 60] pixels (H, W), the bundle has image [80, 80]; give --camera" in wrong


SWING = """<robot name="arms"><link name="base"/>
  <link name="a"><visual><origin xyz=".15 0 0"/><geometry><box size=".3 .05 .05"/></geometry></visual></link>
  <link name="b"><visual><origin xyz=".15 0 .1"/><geometry><box size=".3 .05 .05"/></geometry></visual></link>
  <joint name="A" type="revolute"><parent link="base"/><child link="a"/><axis xyz="0 0 1"/>
    <limit lower="-1" upper="1"/></joint>
  <joint name="B" type="revolute"><parent link="a"/><child link="b"/><axis xyz="0 0 1"/>
    <limit lower="-2" upper="2"/></joint></robot>"""


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, np.ndarray, np.ndarray]]:
    """What `evaluate` hands to the score: the robot's joints, images, and the angles replayed."""
    from runtime.metrics import ssim_gap

    calls: list[tuple[Any, np.ndarray, np.ndarray]] = []

    def evaluate(robot: Any, images: np.ndarray, joints: np.ndarray, **options: Any) -> dict[str, Any]:
        calls.append((robot.joints, images, joints))
        return {}

    monkeypatch.setattr(ssim_gap, "evaluate", evaluate)
    monkeypatch.setattr(ssim_gap, "joint_error_curve", lambda robot, progress: [{"gap": 0.5, "error": 0.0}])
    return calls


def test_evaluate_pairs_by_name_and_size(
    cli: Cli,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replayed: list[tuple[Any, np.ndarray, np.ndarray]],
) -> None:
    """A bundle whose first image and first vector in rad are not the robot's."""
    pytest.importorskip("pybullet")
    from runtime.robot import Camera, Robot

    (tmp_path / "arms.urdf").write_text(SWING)
    above = Camera(position=(0.1, 0, 1), target=(0.1, 0, 0), up=(1, 0, 0), width=16, height=16)
    with Robot(tmp_path / "arms.urdf", above, joints=["B", "A"]) as robot:
        description = robot.description()
    limits = ((-1.0, 1.0), (-2.0, 2.0))
    own = make_bundle(tmp_path / "own", names=("A", "B"), limits=limits, robot=description)
    images, joints = runtime.load(own).generate(3)
    real = Multimodal.load

    def load(bundle: Any, *options: Any) -> Multimodal:
        model = real(bundle, *options)
        image, vector = model.modalities
        other = Port(name="gaze", kind="vector", shape=(2,), unit="rad", names=("x", "y"))
        wide = Port(name="wide", kind="image", shape=(3, 16, 32), range=(-1, 1))
        model.modalities = (wide, image, other, vector)
        model.generate = lambda count, *_, **more: whole(gaze=joints * 0, joints=joints, wide=None, image=images)  # type: ignore[method-assign]
        return model

    whole = namedtuple("whole", "wide image gaze joints")
    monkeypatch.setattr(Multimodal, "load", load)
    camera = ["--camera", "position=.1,0,1", "target=.1,0,0", "up=1,0,0", "size=16"]
    for words, order in (
        ([], ("B", "A")),  # the bundle's robot
        (["--robot", tmp_path / "arms.urdf"], ("A", "B")),  # another one: the vector's own order
        (["--robot", tmp_path / "arms.urdf", *camera, "--joints", "B", "A"], ("B", "A")),
    ):
        status, _, err = cli("evaluate", own, "--count", 3, *words)
        assert status == 0, err
        used, seen, angles = replayed.pop()
        assert used == order and seen is images
        assert np.array_equal(angles, joints[:, [("A", "B").index(name) for name in order]])


def test_evaluate_by_place(
    cli: Cli,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    replayed: list[tuple[Any, np.ndarray, np.ndarray]],
) -> None:
    """A bundle that calls its joints otherwise than the URDF: --joints says which is which."""
    pytest.importorskip("pybullet")
    (tmp_path / "arms.urdf").write_text(SWING)
    own = make_bundle(tmp_path / "own", names=("first", "second"), limits=((-1.0, 1.0), (-1.0, 1.0)))
    words = ["--robot", tmp_path / "arms.urdf", "--camera", "position=.1,0,1", "target=.1,0,0", "up=1,0,0", "size=16"]
    assert "the robot's joints A, B; the bundle has joints (first, second); give --joints" in refused(
        cli("evaluate", own, *words)
    )
    assert cli("evaluate", own, *words, "--count", 3, "--joints", "B", "A")[0] == 0
    used, _, angles = replayed.pop()
    assert used == ("B", "A") and np.array_equal(angles, runtime.load(own).generate(3).joints)


def test_sheet() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 2, 3, 1), np.uint8)
    made = sheet(images, columns=2)
    assert made.shape == (6, 6, 3)
    assert (
        made[0, 0, 0] == 0 and made[0, 3, 1] == 1 and made[2, 0, 2] == 2 and made[4, 0, 0] == 4 and made[4, 3, 0] == 0
    )
    assert sheet(images).shape == (4, 9, 3)
