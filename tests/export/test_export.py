"""From a run to a bundle that runs: all of it or nothing; and the command."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cpp_ext
import export.pipeline
import runtime
import trainer.run
from export.__main__ import main
from export.bundle import write_manifest, writing
from export.errors import ExportError
from export.pipeline import Finished, export_run
from runtime.bundle import MANIFEST, Bundle, Port
from runtime.errors import InputError
from trainer.recipe import Graph


@pytest.fixture
def whole(run: Finished, tmp_path: Path) -> Path:
    """A bundle with an engine."""
    pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    export_run(run, tmp_path / "whole", ["tensorrt-rtx"], ["SM89"])
    return tmp_path / "whole"


def test_bundle(whole: Path, graph: Graph) -> None:
    manifest = Bundle.open(whole).manifest
    assert sorted(path.name for path in whole.iterdir()) == [
        MANIFEST,
        "generator.onnx",
        "generator.tensorrt-rtx.engine",
    ]
    assert (manifest.name, manifest.recipe, manifest.model) == ("whole", "mgan", "multimodal")
    assert manifest.graphs[0].outputs == graph.outputs and manifest.graphs[0].opset == 18
    assert manifest.graphs[0].parity is not None and manifest.graphs[0].parity.seeds >= 64
    engine = manifest.engines[0]
    assert engine.compute_capabilities == ("SM89",) and manifest.versions["tensorrt-rtx"] == engine.version
    assert manifest.training == {"kimg": 1.5, "seed": 0} and "torch" in manifest.versions


def test_runs_as_pytorch_does(whole: Path, graph: Graph) -> None:
    images, joints = runtime.load(whole).generate(10, seed=2)
    with torch.no_grad():
        x, q = graph.module(torch.from_numpy(cpp_ext.noise(2, 0, 10, 16)))
    assert np.abs(joints - q.numpy()).max() < 1e-5
    difference = np.abs(images.astype(int) - cpp_ext.pack(x.numpy()).astype(int))
    assert difference.max() <= 1 and difference.mean() < 1e-3


@pytest.mark.parametrize("file", [MANIFEST, "generator.onnx", "generator.tensorrt-rtx.engine"])
def test_truncated_anywhere(whole: Path, file: str) -> None:
    data = (whole / file).read_bytes()
    for size in (0, 1, len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 1):
        (whole / file).write_bytes(data[:size])
        with pytest.raises(InputError, match=f"{file} is truncated"):
            runtime.load(whole)
    (whole / file).write_bytes(data)
    runtime.load(whole)


class Drifting(nn.Module):
    """Gives something else in PyTorch than what is exported."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        image, joints = self.inner(z)
        return (image if torch.compiler.is_compiling() else image * 0.99), joints


def test_failed_export_leaves_nothing(run: Finished, graph: Graph, tmp_path: Path) -> None:
    drifting = type(run)(Graph("generator", Drifting(graph.module), graph.inputs, graph.outputs))  # type: ignore[call-arg]
    with pytest.raises(ExportError, match="output image drifts from PyTorch"):
        export_run(drifting, tmp_path / "out" / "name")
    assert not list((tmp_path / "out").iterdir())
    export_run(run, tmp_path / "out" / "name")
    before = (tmp_path / "out/name" / MANIFEST).read_bytes()
    with pytest.raises(ExportError):
        export_run(drifting, tmp_path / "out" / "name")
    assert (tmp_path / "out/name" / MANIFEST).read_bytes() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["name"]


def test_only_bundles_are_replaced(run: Finished, tmp_path: Path) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    (target / "cat.png").touch()
    with pytest.raises(InputError, match="photos exists and is no bundle"):
        export_run(run, target)
    assert [path.name for path in target.iterdir()] == ["cat.png"]


def test_replaced_when_whole(whole: Path) -> None:
    manifest = Bundle.open(whole).manifest
    (whole / "leftover").touch()
    with pytest.raises(RuntimeError), writing(whole) as part:
        assert part.parent == whole.parent
        raise RuntimeError
    assert (whole / "leftover").exists()
    with writing(whole) as part:
        for entry in manifest.files:
            (part / entry.file).write_bytes((whole / entry.file).read_bytes())
        write_manifest(part, manifest.model_copy(update={"recipe": "newer"}))
    assert Bundle.open(whole).manifest.recipe == "newer" and not (whole / "leftover").exists()
    assert (whole.stat().st_mode & 0o555) == 0o555
    assert [path.name for path in whole.parent.iterdir()] == ["whole"]


@pytest.fixture
def runs(run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two finished runs; the working directory is its parent."""

    def open_run(path: Path) -> Finished:
        if not (path / "options.json").exists():
            raise InputError(f"{path} is no run")
        return run

    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        for file in ("options.json", "summary.json"):
            (tmp_path / "runs" / name / file).write_text("{}")
    monkeypatch.setattr(trainer.run, "open_run", open_run)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_command_for_every_finished_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    assert main(["--trt"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == ["bundles/first", "bundles/second"]
    assert "notice: generator.onnx: left out SM75" in err and "bundles/first" in err
    for path in json.loads(out):
        assert len(Bundle.open(path).manifest.engines) == 1
        assert runtime.load(path).generate(2).image.shape == (2, 20, 20, 3)


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
        (["runs/first", "./runs/first"], "two runs are called 'first'"),
    ],
)
def test_command_refuses(runs: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    if "90" in words:
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


def test_what_no_manifest_can_say_is_one_line(run: Finished, tmp_path: Path) -> None:
    class Bad(type(run)):  # type: ignore[misc]
        def graphs(self) -> list[Graph]:
            return [Graph("generator", nn.Identity(), (), (Port(name="Camera", shape=(3, 8, 8), kind="image"),))]

    with pytest.raises(ExportError, match="^Port.name is 'Camera': String should match pattern") as caught:
        export_run(Bad(run.graphs()[0]), tmp_path / "bundle")  # type: ignore[attr-defined]
    assert "\n" not in str(caught.value)
    unnamed = type(run)(run.graphs()[0], recipe_name=None)  # type: ignore[call-arg]
    with pytest.raises(ExportError, match="^Manifest.recipe: Input should be a valid string"):
        export_run(unnamed, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_command_without_tensorrt(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["--trt"]) == 2
    assert "pip install awase[trt]" in capsys.readouterr().err


def test_versions_of_what_is_installed() -> None:
    assert {"torch", "onnx", "onnxruntime", "numpy"} <= set(export.pipeline._versions())


def test_what_the_user_should_know_is_said(run: Finished, tmp_path: Path) -> None:
    unfinished = dataclasses.replace(run, summary=run.summary | {"finished": False})  # type: ignore[type-var]
    (notice,) = export_run(unfinished, tmp_path / "b").notices
    assert "not finished" in notice and "1.5 kimg" in notice
    (tmp_path / "b" / "generator.tensorrt-rtx.engine").write_bytes(b"of an earlier export")
    (notice,) = export_run(run, tmp_path / "b").notices
    assert "generator.tensorrt-rtx.engine" in notice and "--trt" in notice
