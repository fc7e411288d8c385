"""The examples run headless and write videos that can be read."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from redrawn import redraw

import cpp_ext
import runtime
from runtime.errors import InputError
from runtime.examples import graphics_loop, robot_loop
from runtime.examples.screen import Screen
from runtime.robot.urdf import Urdf

Line = Callable[[Any], str]


def frames_of(video: Path) -> np.ndarray:
    """uint8 [N, H, W, 3] RGB."""
    reader, frames = cv2.VideoCapture(str(video)), []
    while True:
        read, frame = reader.read()
        if not read:
            return np.stack(frames)
        frames.append(frame[..., ::-1])


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(main: Callable[[list[str]], int], *words: object) -> str:
        assert main([str(word) for word in words]) == 2
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert out == "" and len(lines) == 1
        return lines[0]

    return call


# --- the robot loop ---


def test_robot_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pybullet")
    from runtime.robot import Robot

    poses: list[np.ndarray] = []
    render = Robot.render
    monkeypatch.setattr(Robot, "render", lambda self, joints: poses.append(joints[0]) or render(self, joints))
    video = tmp_path / "arms.mp4"
    words = ["--rate", "12", "--seconds", "1", "--velocity", "2", "--out", str(video)]
    assert robot_loop.main(words) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["ticks"] == 12 and 0 < result["rate"] <= 12 and result["video"] == str(video)
    for figures in (result["lateness_ms"], result["work_ms"]):
        assert 0 <= figures["p50"] <= figures["p95"] <= figures["max"]
    assert 0.3 < result["ssim"] <= 1 and "fp32" in err
    moves = np.abs(np.diff(poses, axis=0))
    with Robot() as robot:
        assert (poses >= robot.limits[:, 0]).all() and (poses <= robot.limits[:, 1]).all()
    assert 0 < moves.max() <= 2 / 12 + 1e-6  # no joint faster than asked for
    frames = frames_of(video)
    assert frames.shape == (12, 320, 640, 3)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1  # it moves
    assert list(tmp_path.iterdir()) == [video]


def test_robot_loop_keeps_its_rate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a clock of our own: ticks are due at multiples of the period; one that takes long costs the next, no more."""
    pytest.importorskip("pybullet")
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    def render(self: Any, joints: np.ndarray) -> np.ndarray:
        now[0] += 0.3 if len(slept) == 3 else 0.05  # the third tick is slow
        return np.zeros((1, 80, 80, 3), np.uint8)

    from runtime.robot import Robot

    monkeypatch.setattr(Robot, "render", render)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    assert robot_loop.main(["--rate", "5", "--seconds", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert np.allclose(slept, [0, 0.15, 0.15, 0.1, *[0.15] * 5])
    assert result["lateness_ms"]["max"] == 0 and result["work_ms"]["max"] == 300
    assert (result["ticks"], result["missed"], result["rate"]) == (9, 1, 4.5)


def test_the_first_calls_are_not_jitter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a clock of our own, that only the first call of each part moves."""
    pytest.importorskip("pybullet")
    from runtime.models.multimodal import Multimodal
    from runtime.robot import Robot

    now, seen = [0.0], set()

    def slow_at_first(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            now[0] += 0 if name in seen else 1
            seen.add(name)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(Multimodal, "from_noise", slow_at_first("from_noise", Multimodal.from_noise))
    monkeypatch.setattr(Robot, "render", slow_at_first("render", Robot.render))
    monkeypatch.setattr(cpp_ext, "ssim", slow_at_first("ssim", cpp_ext.ssim))
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert robot_loop.main(["--rate", "10", "--seconds", ".3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert seen == {"from_noise", "render", "ssim"} and now[0] > 3
    assert result["lateness_ms"]["max"] == 0 and result["work_ms"]["max"] == 0


def test_walk_passes_through_the_samples() -> None:
    samples = cpp_ext.noise(7, 0, 4, 64)
    for number in range(3):
        assert np.array_equal(robot_loop.walk(7, number, 64)[0], samples[number])
    assert np.allclose(robot_loop.walk(7, 2 - 1e-6, 64)[0], samples[2], atol=1e-3)
    half = robot_loop.walk(7, 0.5, 64)
    assert half.dtype == np.float32 and np.allclose(half[0], (samples[0] + samples[1]) / np.sqrt(2), atol=1e-6)
    assert abs(robot_loop.walk(1, 5.3, 4096).std() - 1) < 0.05


def test_velocities() -> None:
    joint = '<joint name="{}" type="revolute"><parent link="a"/><child link="a"/><limit upper="1" {}/></joint>'
    joints = joint.format("fast", 'velocity="9"') + joint.format("slow", 'velocity=".5"') + joint.format("untold", "")
    urdf = Urdf(f'<robot><link name="a"/>{joints}</robot>', "test")
    assert robot_loop.velocities(urdf, ["slow", "fast", "untold"], 2).tolist() == [0.5, 2, 2]


def test_robot_loop_refuses(
    refused: Callable[..., str], bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    assert "--rate is 0, expected 0.001 to 100000" in refused(robot_loop.main, "--rate", 0)
    assert "--pause is 1e-20, expected 0.001 to 100000" in refused(robot_loop.main, "--pause", 1e-20)
    for seed in (-1, 10**23):
        assert f"--seed is {seed}, expected a whole number from 0 to 1844" in refused(robot_loop.main, "--seed", seed)
    assert "invalid int value: '1e23'" in refused(robot_loop.main, "--seed", "1e23")
    missing = tmp_path / "nope.urdf"
    assert f"--robot {missing} is no file, expected the robot's URDF" in refused(
        robot_loop.main, "--robot", missing, "--seconds", 0.1
    )
    assert "--seconds is nan" in refused(robot_loop.main, "--seconds", "nan")
    assert "describes no robot" in refused(robot_loop.main, bundle)
    assert "arms.gif, expected a name that ends in .mp4 or .avi" in refused(robot_loop.main, "--out", "arms.gif")
    pytest.importorskip("pybullet")
    description = runtime.load("mgan-robot").bundle.manifest.robot
    other = make_bundle(tmp_path / "other", robot=description)
    assert "expected an image [3, 80, 80] and joints LShoulderPitch, " in refused(robot_loop.main, other)


# --- the graphics loop ---


def test_graphics_loop(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "melt.avi"
    words = ["--frames", "25", "--melt", "10", "--size", "64", "--seed", "3", "--rate", "20", "--out", str(video)]
    assert graphics_loop.main([str(bundle), *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["frames"] == 25 and result["frames_per_second"] > 0 and result["video"] == str(video)
    frames = frames_of(video)
    assert frames.shape == (25, 64, 64, 3) and cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS) == 20
    expected = runtime.load(bundle).generate(3, seed=3).image
    for number in range(3):  # sample k is frame 10 k; JPEG's loss is small
        large = cv2.resize(expected[number], (64, 64), interpolation=cv2.INTER_CUBIC)
        assert np.abs(frames[10 * number].astype(int) - large).mean() < 12
        assert np.abs(frames[10 * number].astype(int) - frames[(10 * number + 12) % 25]).mean() > 12


def test_frames_melt(bundle: Path) -> None:
    model = runtime.load(bundle)
    made = np.stack(list(graphics_loop.frames(model, "image", 13, 6, seed=9)))
    samples = model.generate(3, seed=9).image
    assert made.shape == (13, 16, 16, 3)
    assert all(np.array_equal(made[6 * number], samples[number]) for number in range(3))
    z = graphics_loop.blends(*cpp_ext.noise(9, 0, 2, 4096), 6, 6)
    assert z.shape == (6, 4096) and z.dtype == np.float32 and np.allclose(z.std(axis=1), 1, atol=0.05)


def test_graphics_loop_refuses(
    refused: Callable[..., str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--frames is 0, expected a whole number from 1 to" in refused(graphics_loop.main, "--frames", 0)
    assert "--melt is 0, expected 1 to" in refused(graphics_loop.main, "--melt", 0)
    for seed in (-1, 2**64):
        assert f"--seed is {seed}, expected a whole number" in refused(graphics_loop.main, "--seed", seed)
    assert "no bundle 'nowhere'" in refused(graphics_loop.main, "nowhere")
    missing = tmp_path / "nowhere" / "a.mp4"
    assert f"{missing} cannot be written" in refused(graphics_loop.main, bundle, "--out", missing)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "no display to open a window on; give --out" in refused(graphics_loop.main, bundle)

    def headless(*_: Any) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", headless)
    line = refused(graphics_loop.main, bundle)
    assert line.startswith("error: this OpenCV has no windows (opencv-python-headless); give --out FILE.mp4")


@pytest.mark.parametrize(("channels", "have"), [(0, ""), (2, "image [2, 16, 16], "), (4, "image [4, 16, 16], ")])
def test_graphics_loop_needs_an_image(
    refused: Callable[..., str], bundle: Path, tmp_path: Path, channels: int, have: str
) -> None:
    line = refused(graphics_loop.main, redraw(bundle, channels), "--out", tmp_path / "a.mp4")
    assert line.endswith(f"expected an image of 1 or 3 channels to show, the bundle has {have}joints [2]")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_grey_images_melt(bundle: Path) -> None:
    model = runtime.load(redraw(bundle, 1))
    made = np.stack(list(graphics_loop.frames(model, graphics_loop.first_image(model), 3, 2, seed=1)))
    assert made.shape == (3, 16, 16, 3) and np.array_equal(made[0], model.generate(1, seed=1).image[0].repeat(3, -1))


def test_a_window(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With OpenCV's window functions replaced: q ends it, and it keeps time."""
    now, shown, keys = [0.0], [], iter([-1, -1, -1, ord("q")])
    monkeypatch.setenv("DISPLAY", ":0")
    for name in ("namedWindow", "destroyWindow"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, frame: shown.append((now[0], frame)))
    monkeypatch.setattr(cv2, "waitKey", lambda _: next(keys))
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert graphics_loop.main([str(bundle), "--size", "16", "--rate", "10"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 4
    assert np.allclose([when for when, _ in shown], [0, 0.1, 0.2, 0.3])
    first = runtime.load(bundle).generate(1).image[0]
    assert np.array_equal(shown[0][1][..., ::-1], first)  # OpenCV shows BGR


@pytest.mark.parametrize(("end", "kept"), [(KeyboardInterrupt(), True), (RuntimeError(), False)])
def test_a_video_is_whole_or_not_there(tmp_path: Path, end: BaseException, kept: bool) -> None:
    video = tmp_path / "a.mp4"
    with pytest.raises(type(end)), Screen(10, video) as screen:
        for shade in range(5):
            assert screen.show(np.full((32, 32, 3), 40 * shade, np.uint8))
        assert not video.exists()
        raise end
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"] * kept
    assert not kept or len(frames_of(video)) == 5


def test_a_video_at_a_link_or_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "a.mp4").symlink_to(tmp_path / "far" / "b.mp4")
    with Screen(10, tmp_path / "a.mp4") as screen:
        screen.show(np.zeros((32, 32, 3), np.uint8))
    assert (tmp_path / "a.mp4").is_symlink() and len(frames_of(tmp_path / "far" / "b.mp4")) == 1
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="pipe.mp4 cannot be written: expected a file"):
        Screen(10, tmp_path / "pipe.mp4")
