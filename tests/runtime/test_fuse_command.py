"""python -m runtime fuse: pictures in, a picture, a sheet or a video out, or one line that says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime
from runtime.__main__ import main
from runtime.examples import graphics_loop
from runtime.images import fitted, read_picture
from runtime.sheet import sheet

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*argv: object) -> tuple[int, str, str]:
        status = main([str(word) for word in argv])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of other sizes and formats than the model's."""
    rng, folder = np.random.default_rng(2), tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), rng.integers(0, 256, (30, 21, 3), np.uint8))
    cv2.imwrite(str(folder / "b.jpg"), rng.integers(0, 256, (9, 50, 3), np.uint8))
    cv2.imwrite(str(folder / "c.png"), rng.integers(0, 65536, (16, 16, 4), np.uint16))
    return folder


def fused(cli: Cli, *words: object) -> dict:
    status, out, err = cli("fuse", *words)
    assert status == 0, err
    assert "fp32 on cpu by" in err
    return json.loads(out)


def refused(result: tuple[int, str, str]) -> str:
    status, out, err = result
    assert status == 2 and out == ""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


def test_one_picture(cli: Cli, fusion_bundle: Path, folder: Path, tmp_path: Path) -> None:
    a, b, out = folder / "a.png", folder / "b.jpg", tmp_path / "fused.png"
    fuse = runtime.load(fusion_bundle)
    told = fused(cli, fusion_bundle, a, b, "--weights", "1,0.8,0", "--out", out)
    assert told["weights"] == [1, 0.8, 0] and told["pictures"] == [str(a), str(b)] and told["size"] == "16x16"
    assert told["parts"] == [3, 2, 3] and told["backend"] == fuse.session.backend and told["out"] == str(out)
    assert np.array_equal(read_picture(out), fuse(a, b, [1, 0.8, 0]))
    assert fused(cli, fusion_bundle, a, b, "--weights", "0.5", "--out", out, "--overwrite")["weights"] == 0.5
    assert np.array_equal(read_picture(out), fuse(a, b, 0.5))
    words = (fusion_bundle, a, b, "--weights=-0.5,1,1.25", "--out", tmp_path / "beyond.png")
    assert "weights hold -0.5, expected 0 to 1" in refused(cli("fuse", *words))
    assert not (tmp_path / "beyond.png").exists()
    fused(cli, *words, "--extrapolate")
    assert np.array_equal(read_picture(tmp_path / "beyond.png"), fuse(a, b, [-0.5, 1, 1.25], extrapolate=True))
    told = fused(cli, fusion_bundle, a, b, folder / "c.png", "--weights", "0.5,0.3,0.2", "--out", tmp_path / "c.png")
    assert told["weights"] == [0.5, 0.3, 0.2]
    assert np.array_equal(read_picture(tmp_path / "c.png"), fuse.blend([a, b, folder / "c.png"], [0.5, 0.3, 0.2]))


def test_sheets(cli: Cli, fusion_bundle: Path, folder: Path, tmp_path: Path) -> None:
    a, b = folder / "a.png", folder / "b.jpg"
    fuse, pair = runtime.load(fusion_bundle), fitted([a, b], 16)
    told = fused(cli, fusion_bundle, a, b, "--out", tmp_path / "sweep.png")
    assert told["sheet"] == {"rows": 1, "columns": 8}
    assert told["weights"] == [[w] * 3 for w in (1, 0.8, 0.6, 0.4, 0.2, 0)]
    assert np.array_equal(read_picture(tmp_path / "sweep.png"), sheet(np.concatenate([pair, fuse.sweep(a, b)]), 8))
    told = fused(cli, fusion_bundle, a, b, "--sweep", 3, "--out", tmp_path / "three.png")
    assert told["sheet"]["columns"] == 5
    told = fused(cli, fusion_bundle, a, b, "--per-part", 4, "--out", tmp_path / "parts.png")
    assert told["sheet"] == {"rows": 3, "columns": 6} and len(told["weights"]) == 12
    made, parts = read_picture(tmp_path / "parts.png"), fuse.per_part(a, b, 4)
    assert made.shape == (3 * 16, 6 * 16, 3)
    for part in range(3):
        row = sheet(np.concatenate([pair, parts[part]]), 6)
        assert np.array_equal(made[part * 16 : part * 16 + 16], row)
    assert fused(cli, fusion_bundle, a, b, "--out", tmp_path / "d.png", "--per-part")["sheet"]["columns"] == 8


def test_video(cli: Cli, fusion_bundle: Path, folder: Path, tmp_path: Path) -> None:
    a, b, video = folder / "a.png", folder / "b.jpg", tmp_path / "melt.avi"
    words = (fusion_bundle, a, b, "--video", video, "--frames", 9, "--fps", 12.5)
    told = fused(cli, *words, "--out", tmp_path / "sweep.png")
    assert told["video"] == {"file": str(video), "frames": 9, "fps": 12.5} and (tmp_path / "sweep.png").exists()
    reader = cv2.VideoCapture(str(video))
    assert reader.get(cv2.CAP_PROP_FPS) == 12.5
    frames = []
    while (read := reader.read())[0]:
        frames.append(read[1][..., ::-1].astype(int))
    assert len(frames) == 9
    first = runtime.load(fusion_bundle)(a, b, 1).astype(int)
    assert np.abs(frames[0] - first).mean() < np.abs(frames[-1] - first).mean()
    before = video.read_bytes()
    assert "is there already; give a new name, or --overwrite" in refused(cli("fuse", *words))
    assert video.read_bytes() == before
    fused(cli, *words, "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fusion", "melt.avi", "pictures", "sweep.png"]


def test_a_codec_that_is_not_there(
    cli: Cli, fusion_bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Writer:
        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, *_: object) -> None: ...

        def isOpened(self) -> bool:
            return False

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoWriter", Writer)
    words = (
        fusion_bundle,
        folder / "a.png",
        folder / "b.jpg",
        "--video",
        tmp_path / "v.mp4",
        "--out",
        tmp_path / "s.png",
    )
    line = refused(cli("fuse", *words))
    assert line == f"error: --video {tmp_path / 'v.mp4'} cannot be written: OpenCV cannot make such a video here"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fusion", "pictures"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "b.jpg"], "nothing to write to; give --out FILE.png or --video FILE.mp4"),
        (["a.png", "--out", "o.png"], "one picture (a.png), expected two or more"),
        (["a.png", "b.jpg", "c.png", "--out", "o.png"], "3 pictures, expected two; more are blended by --weights"),
        (["a.png", "b.jpg", "c.png", "--weights", "0.5,0.5", "--out", "o.png"], "weights are 2 numbers, expected [3]"),
        (["a.png", "b.jpg", "c.png", "--weights", "1,1,1", "--out", "o.png"], "weights sum to 3 over the pictures"),
        (["a.png", "b.jpg", "--weights", "1,0", "--out", "o.png"], "weights are 2 numbers, expected 3, one for each"),
        (["a.png", "b.jpg", "--weights", "1,nan,0", "--out", "o.png"], "weights hold nan, expected numbers"),
        (["a.png", "b.jpg", "--weights", "1,x,0", "--out", "o.png"], "--weights is '1,x,0', expected numbers as in"),
        (["a.png", "b.jpg", "--weights", "1,2,0", "--out", "o.png"], "weights hold 2, expected 0 to 1"),
        (["a.png", "b.jpg", "--sweep", "1", "--out", "o.png"], "--sweep is 1, expected a whole number from 2 to 1024"),
        (["a.png", "b.jpg", "--per-part", "0", "--out", "o.png"], "--per-part is 0, expected"),
        (["a.png", "b.jpg", "--weights", "1", "--sweep", "3", "--out", "o.png"], "not allowed with argument"),
        (["a.png", "b.jpg", "--sweep", "3", "--video", "v.mp4"], "--sweep says what --out shows; give --out FILE.png"),
        (["a.png", "b.jpg", "--extrapolate", "--out", "o.png"], "--extrapolate is about --weights"),
        (["a.png", "b.jpg", "--out", "o.jpg"], "--out o.jpg, expected a name that ends in .png"),
        (["a.png", "b.jpg", "--out", "a.png"], "--out a.png is one of the pictures"),
        (["a.png", "b.jpg", "--out", "none/o.png"], "--out none/o.png cannot be written"),
        (["a.png", "b.jpg", "--video", "v.gif"], "--video v.gif, expected a name that ends in .mp4 or .avi"),
        (["a.png", "b.jpg", "--video", "v.mp4", "--frames", "0"], "--frames is 0"),
        (["a.png", "b.jpg", "--video", "v.mp4", "--fps", "nan"], "--fps is nan"),
        (["a.png", "none.png", "--out", "o.png"], "none.png is missing, expected a picture's file"),
        (["a.png", "notes.txt", "--out", "o.png"], "notes.txt is no whole picture of a format that OpenCV reads"),
        (["a.png", "b.jpg", "--out", "o.png", "--precision", "int8"], "graph encoder is there in fp32, not in int8"),
    ],
)
def test_refusals(
    cli: Cli, fusion_bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "notes.txt").write_text("no picture")
    before = sorted(folder.iterdir())
    assert message in refused(cli("fuse", fusion_bundle, *words))
    assert sorted(folder.iterdir()) == before


def test_each_command_takes_its_own_model(
    cli: Cli, capsys: pytest.CaptureFixture[str], fusion_bundle: Path, bundle: Path, folder: Path
) -> None:
    wanted = f"error: {fusion_bundle} holds a fuser, expected a multimodal; `python -m runtime fuse` is for it"
    assert refused(cli("generate", fusion_bundle, "--raw", folder / "raw")) == wanted
    assert refused(cli("evaluate", fusion_bundle)) == wanted
    assert graphics_loop.main([str(fusion_bundle), "--out", str(folder / "v.mp4")]) == 2
    assert wanted in capsys.readouterr().err
    line = refused(cli("fuse", bundle, folder / "a.png", folder / "b.jpg", "--out", folder / "o.png"))
    assert line == f"error: {bundle} holds a multimodal, expected a fuser; `python -m runtime generate` is for it"


def test_bench_and_info_take_every_graph(cli: Cli, fusion_bundle: Path) -> None:
    graphs = ["encoder", "generator", "blend", "fuse"]
    status, out, _ = cli("bench", fusion_bundle, "--device", "cpu", "--batch", 2, "--seconds", 0.01)
    rows = json.loads(out)["rows"]
    assert status == 0 and [row["graph"] for row in rows] == graphs
    assert all(row["images_per_second"] > 0 for row in rows)
    status, out, _ = cli("info", fusion_bundle)
    told = json.loads(out)
    assert status == 0 and told["model"] == "fuser" and told["graphs"][0]["outputs"][0]["parts"] == [3, 2, 3]
    assert [row["graph"] for row in told["here"] if row["device"] == "cpu" and row["runs"]] == graphs
