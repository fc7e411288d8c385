"""python -m export."""

import json
import re
import sys
from pathlib import Path

import pytest

import runtime
import trainer.run
from export.__main__ import main
from export.errors import ExportError
from export.sources import Finished
from runtime.bundle import Bundle


def test_command_for_every_finished_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    assert main(["--trt"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == ["bundles/first", "bundles/second"]
    assert "generator.onnx: left out SM75" in err and "bundles/first" in err
    for path in json.loads(out):
        assert len(Bundle.open(path).manifest.engines) == 1
        assert runtime.load(path).generate(2).image.shape == (2, 20, 20, 3)


def test_command_with_everything(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("tensorrt_rtx", "tritonclient.grpc", "openvino"):
        pytest.importorskip(module)
    words = ["runs/first", "--to", "onnx,trt,openvino-int8,triton", "--precision", "fp16", "--batch", "1:4:16"]
    assert main([*words, "--sm", "89", "--dry-run"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert not Path("bundles").exists() and said["bundle"] == "bundles/first" and not said["replaces"]
    assert main([*words, "--sm", "89"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == ["bundles/first"]
    # What was promised is what is there.
    assert sorted(said["files"]) == sorted(path.name for path in Path("bundles/first").iterdir())
    bundle = Bundle.open("bundles/first")
    graphs, engines = bundle.manifest.graphs, bundle.manifest.engines
    assert [(g.precision, g.file) for g in graphs] == [(g["precision"], g["file"]) for g in said["graphs"]]
    assert [g.file for g in graphs] == ["generator.onnx", "generator.fp16.onnx", "generator.int8.onnx"]
    assert {(e.file, e.precision) for e in engines} == {(e["file"], e["precision"]) for e in said["engines"]}
    for engine in engines:
        assert engine.onnx_sha256 == bundle.graph("generator", engine.precision).sha256
        assert [shape[0] for shape in engine.profile["z"]] == [1, 4, 16] and engine.compute_capabilities == ("SM89",)
    int8 = bundle.graph("generator", "int8").parity
    assert int8 is not None and "openvino" in int8.against and int8.drift and "openvino" in bundle.manifest.versions
    assert sorted(path.name for path in Path(said["triton"]).iterdir()) == [
        ".awase.json",
        "first_generator",
        "first_generator_fp16",
        "first_generator_int8",
    ]
    # One table: a line for every file of every bundle.
    for word in ("form", "parity", "fp16", "int8", "SSIM", "MB", "SM89"):
        assert word in err
    assert main([*words, "--sm", "89", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["replaces"]


def test_engines_come_from_the_cache(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    words = ["runs/first", "--trt", "--sm", "89"]
    assert main([*words, "--no-cache"]) == 0 and "cached" not in capsys.readouterr().err
    assert main(words) == 0 and "cached" not in capsys.readouterr().err
    assert main(words) == 0 and "cached" in capsys.readouterr().err
    assert main([*words, "--no-cache"]) == 0 and "cached" not in capsys.readouterr().err


def test_a_bundle_in_other_precisions(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = Bundle.open(exported).manifest
    assert main([str(exported), "--precision", "fp16,int8"]) == 0
    assert json.loads(capsys.readouterr().out) == ["bundles/whole"]
    made = Bundle.open("bundles/whole")
    for field in ("name", "recipe", "model", "robot", "training", "noise", "licence"):
        assert getattr(made.manifest, field) == getattr(before, field)
    assert made.manifest.versions["torch"] == before.versions["torch"]
    # The fp32 file needed no rewriting: it and its report stay as they are.
    assert made.graph("generator") == before.graphs[0]
    for precision in ("fp16", "int8"):
        parity = made.graph("generator", precision).parity  # type: ignore[arg-type]
        assert parity is not None and f"against the fp32 ONNX file {before.graphs[0].sha256[:12]} (" in parity.against
    # In place: the bundle is read before it is replaced, and what is lost is said.
    assert main(["bundles/whole", "--precision", "fp16"]) == 0
    assert "dropped the earlier bundle's generator.int8.onnx; --precision makes it anew" in capsys.readouterr().err
    assert [graph.precision for graph in Bundle.open("bundles/whole").manifest.graphs] == ["fp32", "fp16"]


def test_command_for_one_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs/second", "--out", "elsewhere"]) == 0
    assert json.loads(capsys.readouterr().out) == ["elsewhere/second"]
    assert not Bundle.open("elsewhere/second").manifest.engines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/third"], "third: runs/third is no run"),
        (["--runs", "nothing"], "no finished run under nothing; train one with `python -m trainer`"),
        (["runs/first", "--sm", "89"], "--sm is for engines; add --trt"),
        (["runs/first", "--trt", "--sm", "90"], "--sm: SM90 is not among"),
        (
            ["runs/first", "--to", "onnx,tensorflow"],
            "--to: 'tensorflow' is not one of onnx, trt, openvino-int8, triton",
        ),
        (["runs/first", "--precision", "bf16"], "--precision: 'bf16' is not one of fp32, fp16, int8"),
        (["runs/first", "--precision", ","], "--precision is ',', expected some of fp32,fp16,int8"),
        (["runs/first", "--trt", "--batch", "8:1:64"], "--batch is '8:1:64', expected MIN:OPT:MAX"),
        (["runs/first", "--batch", "1:8:64"], "--batch is for engines and Triton; add --trt or --to triton"),
        (["/"], "/ is no run's or bundle's folder"),
        (["runs/first", "./runs/first"], "two runs are called 'first'"),
    ],
)
def test_command_refuses(runs: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    if "--trt" in words:
        pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.strip().splitlines()[-1].startswith(f"error: {message}")
    assert not Path("bundles").exists()


def test_a_bad_run_does_not_stop_the_others(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = trainer.run.open_run
    bad = {"older": KeyError("recipe"), "unreadable": PermissionError(13, "Permission denied", "options.json")}
    bad |= {"drifting": ExportError("output image drifts"), "a_bug": RuntimeError("on two\nlines")}

    def open_run(path: Path) -> Finished:
        if path.name in bad:
            raise bad[path.name]
        return good(path)

    monkeypatch.setattr(trainer.run, "open_run", open_run)
    for name in bad:
        (runs / name).mkdir()
        (runs / name / "summary.json").write_text("{}")
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == ["bundles/first", "bundles/second"]
    assert sorted(path.name for path in Path("bundles").iterdir()) == ["first", "second"]
    assert [line for line in err.splitlines() if "rror" in line] == [
        "error: a_bug: RuntimeError: on two lines",
        "error: drifting: output image drifts",
        "error: older: KeyError: 'recipe'",
        "error: unreadable: options.json: Permission denied",
    ]


def test_command_without_openvino_or_triton(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    assert main(["--to", "openvino-int8"]) == 2 and "pip install awase[cpu]" in capsys.readouterr().err
    assert main(["--to", "triton"]) == 2 and "pip install awase[triton]" in capsys.readouterr().err


def test_command_without_tensorrt(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["--trt"]) == 2
    assert "pip install awase[trt]" in capsys.readouterr().err


def test_the_table_is_legible(
    runs: Path, exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns too, and in a log, whose width nobody sets."""
    assert main([str(exported), "--out", "log"]) == 0
    (engine,) = (line for line in capsys.readouterr().err.splitlines() if "tensorrt-rtx" in line)
    assert engine.split()[:3] == ["generator", "tensorrt-rtx", "fp32"] and engine.rstrip().endswith("SM89; kept")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "80")
    assert main([str(exported), "--out", "terminal"]) == 0
    lines = [re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", line) for line in capsys.readouterr().err.splitlines()]
    (head,) = (line for line in lines if "seconds" in line)
    assert head.split() == ["graph", "form", "precision", "MB", "seconds", "parity"] and "terminal/whole" in lines
    (engine,) = (line for line in lines if "tensorrt-rtx" in line)
    assert engine.split()[:3] == ["generator", "tensorrt-rtx", "fp32"] and len(engine) <= 80
