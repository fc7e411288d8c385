"""What `python -m runtime generate` writes: .npz files, raw frames, shards; and that no file is there in part."""

import contextlib
import csv
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from redrawn import redraw

import runtime
from runtime.__main__ import main
from runtime.bundle import Bundle, Port
from runtime.commands import sinks
from runtime.errors import InputError
from runtime.models.multimodal import Multimodal
from runtime.sheet import encode_png, sheet, write_png

Generate = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def generate(bundle: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Generate:
    def call(*words: object, of: Path | str = bundle) -> tuple[int, bytes, str]:
        status = main(["generate", str(of), *map(str, words)])
        out, err = capsysbinary.readouterr()
        return status, out, err.decode()

    return call


def test_npz_equals_generate(generate: Generate, bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "made.npz"
    status, out, _ = generate("--count", 21, "--batch", 8, "--seed", 3, "--first", 5, "--npz", file)
    assert status == 0 and json.loads(out)["npz"] == str(file)
    images, joints = runtime.load(bundle).generate(21, seed=3, first=5)
    with np.load(file, allow_pickle=False) as made:
        assert np.array_equal(made["image"], images) and made["image"].dtype == np.uint8
        assert np.array_equal(made["joints"], joints) and made["joints"].dtype == np.float32
        assert made["joints_names"].tolist() == ["pan", "tilt"] and made["joints_unit"] == "rad"
        assert made["joints_limits"].tolist() == [[-1.2, 2.0], [-0.1, 0.7]]
        assert (made["seed"], made["first"]) == (3, 5)
    assert [path.name for path in file.parent.iterdir()] == ["made.npz"]


def test_npz_is_the_same_each_time(generate: Generate, tmp_path: Path) -> None:
    words = ["--count", 5, "--npz"]
    assert generate(*words, tmp_path / "a.npz")[0] == 0
    assert generate(*words, tmp_path / "b.npz", "--batch", 2)[0] == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert {member.date_time[0] for member in zipfile.ZipFile(tmp_path / "a.npz").infolist()} == {1980}


def test_npz_holds_the_robot(generate: Generate, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    robot = {"joints": ["pan", "tilt"]}
    bundle = make_bundle(tmp_path / "own", robot=robot)
    assert generate("--count", 2, "--npz", tmp_path / "a.npz", of=bundle)[0] == 0
    with np.load(tmp_path / "a.npz", allow_pickle=False) as made:
        assert json.loads(str(made["robot"])) == robot


def test_raw_equals_generate(generate: Generate, bundle: Path, tmp_path: Path) -> None:
    status, out, err = generate("--count", 21, "--batch", 8, "--seed", 3, "--raw", "-")
    images = runtime.load(bundle).generate(21, seed=3).image
    assert status == 0 and out == images.tobytes()
    result = json.loads(err[err.index("{") :])  # stdout is the frames'
    assert result["raw"] == {"file": "-", "modality": "image", "pixels": "rgb24", "size": "16x16"}
    words = ["--count", 21, "--seed", 3, "--raw", tmp_path / "frames.rgb", "--modality", "image"]
    status, out, _ = generate(*words)
    assert status == 0 and json.loads(out)["count"] == 21
    assert (tmp_path / "frames.rgb").read_bytes() == images.tobytes()


def test_raw_of_grey_images(tmp_path: Path) -> None:
    port = Port(name="depth", kind="image", shape=(1, 2, 3), range=(-1, 1))
    with sinks.raw(str(tmp_path / "grey"), port) as write:
        write(0, SimpleNamespace(depth=np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)))
    assert (tmp_path / "grey").read_bytes() == bytes(np.arange(6).repeat(3).tolist())


def test_raw_into_a_named_pipe(generate: Generate, bundle: Path, tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert generate("--count", 9, "--raw", pipe)[0] == 0
    reader.join(10)
    assert read == [runtime.load(bundle).generate(9).image.tobytes()] and pipe.is_fifo()


def test_the_reader_of_raw_frames_goes_away(bundle: Path) -> None:
    words = [sys.executable, "-m", "runtime", "generate", str(bundle), "--count", "100000", "--raw", "-"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False)
    assert process.stdout is not None and process.stderr is not None
    assert len(process.stdout.read(1000)) == 1000
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0 and "Traceback" not in err and "error" not in err


def test_the_rest_goes_on_without_the_reader(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    words = [sys.executable, "-m", "runtime", "generate", str(bundle), "--count", "3000", "--raw", "-"]
    process = subprocess.Popen([*words, "--npz", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0 and "Traceback" not in err and "error" not in err
    assert err.count("--raw - ended early: its reader went away; all else is whole\n") == 1
    with np.load(file) as made:
        assert np.array_equal(made["image"], runtime.load(bundle).generate(3000).image)


def test_the_reader_of_a_pipe_goes_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe, port = tmp_path / "pipe", Port(name="image", kind="image", shape=(3, 64, 64), range=(-1, 1))
    sample = SimpleNamespace(image=np.zeros((40, 64, 64, 3), np.uint8))  # more than a pipe holds
    for alone in (False, True):
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)

        def reads() -> None:
            with pipe.open("rb") as file:
                file.read(10)

        threading.Thread(target=reads, daemon=True).start()
        with contextlib.ExitStack() as stack:
            if alone:
                stack.enter_context(pytest.raises(BrokenPipeError))
            write = stack.enter_context(sinks.raw(str(pipe), port, alone))
            for number in range(3):
                write(40 * number, sample)
    assert capsys.readouterr().err == f"--raw {pipe} ended early: its reader went away; all else is whole\n"


def test_frames_to_a_closed_stdout() -> None:
    words = ["sh", "-c", '"$0" -m runtime generate mgan-robot --raw - >&-', sys.executable]
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: --raw - writes to stdout, which is closed; give a file, or leave stdout open\n"


@pytest.mark.parametrize("channels", [2, 4])
def test_images_that_no_png_shows(generate: Generate, bundle: Path, tmp_path: Path, channels: int) -> None:
    redraw(bundle, channels)
    status, out, err = generate("--count", 2, "--out", tmp_path / "out")
    assert (status, out) == (2, b"") and not (tmp_path / "out").exists()
    assert f"takes images of 1 or 3 channels, image has {channels}; give --npz FILE for it" in err
    assert generate("--count", 2, "--npz", tmp_path / "a.npz")[0] == 0
    with np.load(tmp_path / "a.npz") as made:
        assert made["image"].shape == (2, 16, 16, channels)
    with pytest.raises(InputError, match="cannot be PNG, expected uint8"):
        encode_png(np.zeros((4, 4, channels), np.uint8))


def test_overwriting_a_link_keeps_it(generate: Generate, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "b.rgb").write_bytes(b"before")
    (tmp_path / "a.rgb").symlink_to(tmp_path / "far" / "b.rgb")
    assert generate("--count", 3, "--raw", tmp_path / "a.rgb", "--overwrite")[0] == 0
    assert (tmp_path / "a.rgb").is_symlink()
    assert (tmp_path / "far" / "b.rgb").read_bytes() == runtime.load(bundle).generate(3).image.tobytes()


def test_files_beside_those_of_the_folder(generate: Generate, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert generate("--count", 3, "--out", out, "--npz", out / "all.npz", "--raw", out / "all.rgb")[0] == 0
    names = ["all.npz", "all.rgb", "image", "joints.csv", "joints.limits.csv", "sheet.png"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_everything_at_once(generate: Generate, bundle: Path, tmp_path: Path) -> None:
    words = ["--out", tmp_path / "out", "--npz", tmp_path / "a.npz", "--raw", tmp_path / "a.rgb"]
    assert generate("--count", 12, "--batch", 5, *words)[0] == 0
    images = runtime.load(bundle).generate(12).image
    with np.load(tmp_path / "a.npz") as made:
        assert np.array_equal(made["image"], images)
    assert (tmp_path / "a.rgb").read_bytes() == images.tobytes()
    read = [cv2.imread(str(path))[..., ::-1] for path in sorted((tmp_path / "out" / "image").iterdir())]
    assert np.array_equal(np.stack(read), images)


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_shards_make_the_whole(generate: Generate, bundle: Path, tmp_path: Path, shards: int) -> None:
    model = runtime.load(bundle)
    images, joints = model.generate(11, seed=2, first=90)
    frames, rows, names, counts = b"", [], [], []
    for index in range(1, shards + 1):
        part = tmp_path / str(index)
        words = ["--count", 11, "--seed", 2, "--first", 90, "--batch", 2, "--shard", f"{index}/{shards}"]
        status, out, _ = generate(*words, "--out", part, "--raw", tmp_path / f"{index}.rgb")
        result = json.loads(out)
        assert status == 0 and result["shard"] == f"{index}/{shards}" and result["first"] == 90 + sum(counts)
        counts.append(result["count"])
        frames += (tmp_path / f"{index}.rgb").read_bytes()
        rows += list(csv.reader((part / "joints.csv").open()))[1:]
        names += sorted(path.name for path in (part / "image").iterdir())
    assert frames == images.tobytes() and np.array_equal(np.array(rows, np.float32), joints)
    assert names == [f"{number:06d}.png" for number in range(90, 101)]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error: nothing to write to; give --out "),
        (["--npz", "DIR/a.zip"], "error: --npz DIR/a.zip, expected a name that ends in .npz"),
        (["--npz", "DIR/there.npz"], "error: --npz DIR/there.npz is there already; give a new name, or --overwrite"),
        (["--npz", "DIR/folder.npz"], "error: --npz DIR/folder.npz is a folder, expected a file to write"),
        (["--npz", "DIR/there.npz/a.npz"], "error: --npz DIR/there.npz/a.npz cannot be written: File exists"),
        (["--raw", "DIR"], "error: --raw DIR is a folder, expected a file to write"),
        (["--raw", "DIR/there.npz"], "error: --raw DIR/there.npz is there already"),
        (["--npz", "DIR/a.npz", "--raw", "DIR/./a.npz"], "error: --npz and --raw are both DIR/a.npz; give each a file"),
        (["--npz", "DIR/link.npz", "--raw", "DIR/a.rgb"], "error: --npz and --raw are both DIR/link.npz"),
        (["--out", "DIR/a.npz", "--npz", "DIR/a.npz"], "error: --npz DIR/a.npz is where --out DIR/a.npz puts its own"),
        (["--out", "DIR/a.npz/b", "--npz", "DIR/a.npz"], "error: --npz DIR/a.npz is where --out DIR/a.npz/b puts"),
        (["--out", "DIR/b", "--raw", "DIR/b/joints.csv"], "error: --raw DIR/b/joints.csv is where --out DIR/b puts"),
        (["--out", "DIR/b", "--raw", "DIR/b/joints.limits.csv"], "error: --raw DIR/b/joints.limits.csv is where"),
        (["--out", "DIR/b", "--raw", "DIR/b/image/000001.png"], "error: --raw DIR/b/image/000001.png is where --out"),
        (["--out", "DIR/b", "--raw", "DIR/b/sheet.png"], "error: --raw DIR/b/sheet.png is where --out DIR/b puts"),
        (
            ["--out", "DIR/b", "--shard", "1/2", "--overwrite"],
            "error: --overwrite with --shard would remove the other parts from --out DIR/b; give each part a folder",
        ),
        (["--raw", "-", "--modality", "depth"], "error: --modality is depth, expected an image of 1 or 3 channels: im"),
        (["--npz", "DIR/a.npz", "--modality", "image"], "error: --modality says which images --raw writes; give --raw"),
        (["--raw", "-", "--shard", "0/2"], "error: --shard is 0/2, expected I/N as in 2/8, I from 1 to N, N up to"),
        (["--raw", "-", "--shard", "3/2"], "error: --shard is 3/2"),
        (["--raw", "-", "--shard", "2/65"], "error: --shard is 2/65, expected I/N as in 2/8, I from 1 to N, N up to t"),
        (["--raw", "-", "--shard", "half"], "error: --shard is half"),
    ],
)
def test_refusals(generate: Generate, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "there.npz").write_bytes(b"mine")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.rgb")
    before = sorted(path.name for path in tmp_path.iterdir())
    status, out, err = generate(*(word.replace("DIR", str(tmp_path)) for word in words))
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and out == b"" and len(lines) == 1
    assert lines[0].startswith(message.replace("DIR", str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "there.npz").read_bytes() == b"mine"


def test_no_frames_to_a_terminal(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status, out, err = generate("--raw", "-")
    assert (status, out) == (2, b"") and "would write frames to the terminal" in err


@pytest.mark.parametrize(("end", "expected"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 2)])
def test_what_is_stopped_leaves_no_file_in_part(
    generate: Generate,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: BaseException,
    expected: int,
) -> None:
    whole = Multimodal.stream

    def stream(self: Multimodal, *arguments: Any, **options: Any) -> Iterator[Any]:
        for number, part in enumerate(whole(self, *arguments, **options)):
            if number == 2:
                raise end
            yield part

    monkeypatch.setattr(Multimodal, "stream", stream)
    (tmp_path / "a.npz").write_bytes(b"of before")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "joints.csv").write_text("of before")
    words = ["--out", tmp_path / "out", "--npz", tmp_path / "a.npz", "--raw", tmp_path / "a.rgb", "--overwrite"]
    assert generate("--count", 40, "--batch", 8, *words)[0] == expected
    assert sorted(path.name for path in tmp_path.iterdir() if path != bundle) == ["a.npz", "out"]
    assert (tmp_path / "a.npz").read_bytes() == b"of before"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["image", "joints.csv"]
    assert (tmp_path / "out" / "joints.csv").read_text() == "of before"
    images = runtime.load(bundle).generate(40).image
    made = sorted((tmp_path / "out" / "image").iterdir())
    assert [path.name for path in made] == [f"{number:06d}.png" for number in range(len(made))] and len(made) >= 8
    assert all(np.array_equal(cv2.imread(str(path))[..., ::-1], images[k]) for k, path in enumerate(made))


def test_slow_files_get_their_own_images(
    generate: Generate, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arrays of a part are used again: its files must be written by then, however slow the disk is."""

    def slowly(path: Path, image: np.ndarray) -> None:
        time.sleep(0.002)
        write_png(path, image)

    monkeypatch.setattr(sinks, "write_png", slowly)
    assert generate("--count", 60, "--batch", 4, "--out", tmp_path / "out")[0] == 0
    read = [cv2.imread(str(path))[..., ::-1] for path in sorted((tmp_path / "out" / "image").iterdir())]
    images = runtime.load(bundle).generate(60).image
    assert np.array_equal(np.stack(read), images)
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "sheet.png"))[..., ::-1], sheet(images))


@pytest.mark.parametrize("number", [0, 29])
def test_a_file_that_cannot_be_written_ends_it(
    generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(path: Path, image: np.ndarray) -> None:
        if path.stem == f"{number:06d}":
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(sinks, "write_png", fails)
    status, out, err = generate("--count", 30, "--batch", 8, "--out", tmp_path / "out")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (status, out) == (2, b"") and len(lines) == 1 and lines[0].endswith("No space left on device")


def test_samples_are_never_all_in_memory(make_bundle: Callable[..., Path], generate: Generate, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "large", size=64)
    words = ["--out", tmp_path / "out", "--npz", tmp_path / "a.npz", "--raw", tmp_path / "a.rgb"]
    generate("--count", 8, "--batch", 8, *words, of=bundle)  # imports
    tracemalloc.start()
    status = generate("--count", 800, "--batch", 8, *words, "--overwrite", of=bundle)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = (tmp_path / "a.rgb").stat().st_size
    assert status == 0 and size == 800 * 64 * 64 * 3
    assert peak < size / 2


def test_npz_of_several_modalities(tmp_path: Path) -> None:
    """Images first, or not; more than one of each."""
    ports = (
        Port(name="gaze", kind="vector", shape=(2,)),
        Port(name="left", kind="image", shape=(3, 2, 2), range=(-1, 1)),
        Port(name="right", kind="image", shape=(1, 2, 4), range=(-1, 1)),
    )
    rng = np.random.default_rng(0)
    left, right = (rng.integers(0, 256, (5, *shape), np.uint8) for shape in ((2, 2, 3), (2, 4, 1)))
    gaze = rng.standard_normal((5, 2)).astype(np.float32)
    manifest = Bundle.open("mgan-robot").manifest.model_copy(update={"robot": None})
    with sinks.npz(tmp_path / "a.npz", manifest, ports, 5, 2**64 - 1, 0) as write:
        for part in (slice(0, 3), slice(3, 5)):
            write(part.start, SimpleNamespace(left=left[part], right=right[part], gaze=gaze[part]))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as made:
        assert np.array_equal(made["left"], left) and np.array_equal(made["right"], right)
        assert np.array_equal(made["gaze"], gaze) and made["gaze_names"].tolist() == ["gaze_0", "gaze_1"]
        assert made["seed"] == 2**64 - 1 and "robot" not in made.files and "gaze_limits" not in made.files
