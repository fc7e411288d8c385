"""From a run, or another bundle, to a bundle that runs: all of it or nothing."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import cpp_ext
import runtime
from export.bundle import write_manifest, writing
from export.errors import ExportError
from export.fold import fold_batch_norm
from export.onnx import trace
from export.pipeline import export_bundle, export_run
from export.sources import Finished, is_bundle, source_of_bundle, source_of_run
from runtime.bundle import MANIFEST, Bundle, Port, sha256_of
from runtime.errors import InputError
from trainer.recipe import Graph


@pytest.fixture
def whole(exported: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(exported, tmp_path / "whole")


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
    with pytest.raises(
        ExportError, match="output image drifts by .* no layer inside does: the module gives something else"
    ):
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


def test_an_older_bundle_is_rewritten(exported: Path, graph: Graph, tmp_path: Path) -> None:
    """Its narrow transposed convolution becomes a convolution; the new file is compared with the old one."""
    model = onnx.load(exported / "generator.onnx")
    plain = onnx.shape_inference.infer_shapes(trace(graph).model_proto)
    fold_batch_norm(plain)
    old = shutil.copytree(exported, tmp_path / "old")
    onnx.save_model(plain, old / "generator.onnx")
    manifest = Bundle.open(exported).manifest
    file = {"bytes": (old / "generator.onnx").stat().st_size, "sha256": sha256_of(old / "generator.onnx")}
    entry = manifest.graphs[0].model_copy(update=file)
    write_manifest(old, manifest.model_copy(update={"graphs": (entry,)}))
    export_bundle(source_of_bundle(old), tmp_path / "new")
    made = Bundle.open(tmp_path / "new").graph("generator")
    again = onnx.load(tmp_path / "new" / "generator.onnx")
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in model.graph.node]
    assert made.parity is not None and made.parity.against.count(file["sha256"][:12]) == 1
    assert all(output.max_abs <= 5e-4 for output in made.parity.outputs.values())


def test_shipped_bundles_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_bundle(Path("mgan-robot")) and source_of_bundle(Path("mgan-robot")).robot is not None
    Path("mgan-robot").mkdir()
    assert not is_bundle(Path("mgan-robot"))  # a folder of that name is meant, perhaps a run


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


def test_versions_of_what_is_installed(run: Finished) -> None:
    versions = source_of_run(run).versions
    assert {"torch", "onnx", "onnxruntime", "numpy"} <= set(versions) and "tensorflow" not in versions


def test_what_the_user_should_know_is_said(run: Finished, tmp_path: Path) -> None:
    unfinished = dataclasses.replace(run, summary=run.summary | {"finished": False})  # type: ignore[type-var]
    (notice,) = export_run(unfinished, tmp_path / "b").notices
    assert "not finished" in notice and "1.5 kimg" in notice
    (tmp_path / "b" / "generator.tensorrt-rtx.engine").write_bytes(b"of an earlier export")
    (notice,) = export_run(run, tmp_path / "b").notices
    assert "generator.tensorrt-rtx.engine" in notice and "--trt" in notice
