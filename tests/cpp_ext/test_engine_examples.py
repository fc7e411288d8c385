"""The two example programs, built on the installed library, do with the shipped bundle what Python does."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import engine_library
import numpy as np
import pytest

import cpp_ext
import runtime
from runtime.bundle import PRETRAINED

pytestmark = [
    pytest.mark.skipif(not engine_library.available(), reason="the engine was not built here"),
    pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake"),
]
EXAMPLES = Path(__file__).parents[2] / "cpp_ext" / "examples"
BUNDLE = PRETRAINED / "mgan-robot"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    engine_library.load()  # tells programs where this Python's ONNX Runtime is, if they cannot know
    folder = tmp_path_factory.mktemp("examples")
    for command in (
        ["cmake", "-S", EXAMPLES, "-B", folder, f"-Dawase_DIR={cpp_ext.cmake_dir()}", "-DCMAKE_BUILD_TYPE=Debug"],
        ["cmake", "--build", folder, "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(program, *options):
    return subprocess.run([program, BUNDLE, *map(str, options)], capture_output=True, timeout=100)


# ---- the robot loop ----


def test_the_robot_loop_takes_pythons_samples_and_reports(built):
    done = run(built / "robot_loop", "--rate", 200, "--seconds", 0.5, "--seed", 3)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["bundle"], report["rate_hz"], report["ticks"]) == ("mgan-robot", 200, 100)
    assert report["missed"] >= 0
    for times in (report["woke_late_us"], report["pair_ready_us"]):
        assert 0 <= times["p50"] <= times["p95"] <= times["max"]
    assert report["pair_ready_us"]["max"] >= report["woke_late_us"]["p50"]

    model = runtime.load(BUNDLE, device="cpu")
    port = model.modalities[1]
    last = report["last"]
    assert (last["sample"], last["unit"], tuple(last["joints"])) == (99, "rad", port.names)
    joints = np.array(list(last["joints"].values()))
    np.testing.assert_array_equal(joints.astype(np.float32), model.generate(1, seed=3, first=99).joints[0])
    low, high = np.array(port.limits).T
    assert (low <= joints).all() and (joints <= high).all()
    talk = done.stderr.decode()
    assert talk.startswith("joints [rad]: LShoulderPitch ") and "mean of image:" in talk


def test_ctrl_c_ends_the_robot_loop_with_its_report(built):
    command = [built / "robot_loop", BUNDLE, "--seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert "rad" in program.stderr.readline()  # it runs
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=30)
    assert program.returncode == 0
    assert 1 <= json.loads(out)["ticks"] < 6000


# ---- the graphics loop ----

KEYS, STEPS, FRAMES = 3, 5, 20
OPTIONS = ("--frames", FRAMES, "--keys", KEYS, "--steps", STEPS, "--seed", 9)


@pytest.fixture(scope="module")
def expected():
    """The frames by Python: uint8 [20, 80, 80, 4]."""
    model = runtime.load(BUNDLE, device="cpu")
    keys = cpp_ext.noise(9, 0, KEYS, 16)
    frames = np.arange(FRAMES)
    key, t = frames // STEPS % KEYS, (frames % STEPS) / STEPS
    weights = (1 - t * t * (3 - 2 * t)).astype(np.float32)[:, None]
    za, zb = (keys[index].reshape(FRAMES, 16, 1, 1) for index in (key, (key + 1) % KEYS))
    image = model.from_noise(cpp_ext.blend(za, zb, weights, [16]).reshape(FRAMES, 16)).image
    return np.concatenate([image, np.full((*image.shape[:3], 1), 255, np.uint8)], axis=-1)


@pytest.mark.parametrize("batch", [1, 8, 64])
def test_the_graphics_loop_writes_pythons_frames(built, expected, batch):
    done = run(built / "graphics_loop", *OPTIONS, "--batch", batch, "--raw", "-")
    assert done.returncode == 0, done.stderr
    frames = np.frombuffer(done.stdout, np.uint8).reshape(FRAMES, 80, 80, 4)
    np.testing.assert_array_equal(frames, expected)
    np.testing.assert_array_equal(frames[KEYS * STEPS], frames[0])  # it ends where it began
    assert (frames[1] != frames[0]).any()
    report = json.loads(done.stderr)
    assert (report["frames"], report["width"], report["height"]) == (FRAMES, 80, 80)
    assert report["frames_per_second"] > 0


def test_the_graphics_loop_writes_files(built, expected, tmp_path):
    done = run(built / "graphics_loop", *OPTIONS, "--out", tmp_path)
    assert json.loads(done.stdout)["frames"] == FRAMES
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [f"{number:06d}.pam" for number in range(FRAMES)]
    for path, frame in zip(files, expected, strict=True):
        header, _, pixels = path.read_bytes().partition(b"ENDHDR\n")
        assert header.split() == b"P7 WIDTH 80 HEIGHT 80 DEPTH 4 MAXVAL 255 TUPLTYPE RGB_ALPHA".split()
        assert pixels == frame.tobytes()
    raw = tmp_path / "frames.rgba"
    run(built / "graphics_loop", *OPTIONS, "--raw", raw)
    assert raw.read_bytes() == expected.tobytes()


# ---- programs of one's own ----


def compile_with(compiler, source, program, *options):
    lib = engine_library.installed().parent
    include = lib.parent / "include"
    command = [compiler, *options, "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{include}", source, f"-L{lib}"]
    command += ["-lawase_engine", "-lawase", f"-Wl,-rpath,{lib}", "-o", program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readmes_program(built, tmp_path):
    text = (EXAMPLES.parent / "README.md").read_text().partition("## The engine")[2]
    include, _, code = text.partition("```cpp\n")[2].partition("```")[0].partition("\n")
    code = code.replace("bundles/first", str(BUNDLE))
    body, brace, _ = code.rpartition("}")
    say = 'std::printf("%d %d %.9g\\n", int(batch.count), images[0], double(joints[0]));'
    (tmp_path / "program.cpp").write_text(f"#include <cstdio>\n{include}\nint main() {{{body}{say}\n{brace}}}\n")
    compile_with("c++", tmp_path / "program.cpp", tmp_path / "program", "-std=c++17")
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    samples = runtime.load(BUNDLE, device="cpu").generate(200)
    expected = [(min(64, 200 - k), samples.image[k, 0, 0, 0], samples.joints[k, 0]) for k in range(0, 200, 64)]
    assert [(int(n), int(pixel), np.float32(joint)) for n, pixel, joint in rows] == expected


def test_the_c_header_is_c(tmp_path, built):
    (tmp_path / "program.c").write_text(
        "#include <awase/engine.h>\n"
        "int main(void) {\n"
        "  awase_bundle *bundle = 0;\n"
        "  if (awase_engine_version() != AWASE_ENGINE_VERSION) return 2;\n"
        '  return awase_bundle_open("/nowhere", &bundle) == AWASE_INVALID && !bundle ? 0 : 1;\n'
        "}\n"
    )
    compile_with("cc", tmp_path / "program.c", tmp_path / "program", "-std=c99")
    assert subprocess.run([tmp_path / "program"]).returncode == 0


# ---- what they refuse ----


@pytest.mark.parametrize(
    "program, options, expected",
    [
        ("robot_loop", ["--rate", "fast"], "--rate is fast, expected a number from 0.1 to 10000"),
        ("robot_loop", ["--seconds", "0"], "--seconds is less than one period"),
        ("robot_loop", ["--speed", "1"], "--speed is not known; usage:"),
        ("robot_loop", ["--rate"], "--rate without a value"),
        ("robot_loop", ["another"], "a second bundle"),
        ("robot_loop", ["--device", "tpu"], "device: got tpu"),
        ("graphics_loop", ["--frames", "1.5"], "--frames must be a whole number"),
        ("graphics_loop", ["--raw", "/nowhere/frames"], "/nowhere/frames cannot be written"),
        ("graphics_loop", ["--raw", "-", "--out", "."], "give one of them"),
    ],
)
def test_bad_options_are_one_line_and_2(built, program, options, expected):
    done = run(built / program, *options)
    assert done.returncode == 2 and done.stdout == b""
    text = done.stderr.decode()
    assert text.startswith("error: ") and expected in text and text.count("\n") == 1


def test_no_bundle_and_no_onnxruntime(built):
    done = subprocess.run([built / "robot_loop"], capture_output=True, text=True)
    assert done.returncode == 2 and "no bundle; usage:" in done.stderr
    environment = os.environ | {"AWASE_ONNXRUNTIME": "/nowhere.so"}
    done = subprocess.run([built / "robot_loop", BUNDLE], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: AWASE_ONNXRUNTIME: ONNX Runtime's library cannot be opened: /nowhere.so")
