"""Exporting from bundles and over them: what is there is kept, or it is said what goes."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from export import tensorrt
from export.__main__ import main
from export.bundle import write_manifest, writing
from export.errors import ExportError
from export.pipeline import Plan, export_bundle
from export.references import OnnxReference
from export.sources import source_of_bundle
from runtime.bundle import MANIFEST, Bundle, sha256_of

FILES = [
    "generator.fp16.onnx",
    "generator.fp16.tensorrt-rtx.engine",
    "generator.int8.onnx",
    "generator.int8.tensorrt-rtx.engine",
    "generator.onnx",
    "generator.tensorrt-rtx.engine",
]


@pytest.fixture(scope="module")
def full(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in every precision, with engines; do not change it."""
    path = tmp_path_factory.mktemp("full") / "first"
    plan = Plan(("fp32", "fp16", "int8"), ("tensorrt-rtx",), ("SM89",))
    export_bundle(source_of_bundle(exported), path, plan)
    return path


@pytest.fixture
def first(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as bundles/first, to be changed; the working directory holds it."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(full, "bundles/first"))


def files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def test_triton_beside_a_bundle_leaves_it(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tritonclient.grpc")
    before = files(first)
    assert sorted(before) == [MANIFEST, *FILES]
    assert main(["bundles/first", "--to", "triton", "--dry-run"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert not said["replaces"] and said["files"] == said["drops"] == [] and not Path("bundles/first.triton").exists()
    for _ in range(2):
        assert main(["bundles/first", "--to", "triton"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out) == ["bundles/first"] and "dropped" not in err
        names = ["first_generator", "first_generator_fp16", "first_generator_int8"]
        assert f"Triton model repository bundles/first.triton: {', '.join(names)}" in err
        assert files(first) == before
        assert sorted(path.name for path in Path(said["triton"]).iterdir()) == [".awase.json", *names]


def test_what_triton_loses_is_said(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tritonclient.grpc")
    assert main(["bundles/first", "--to", "triton"]) == 0
    assert main(["bundles/first", "--to", "triton", "--precision", "fp16"]) == 0
    assert "dropped the earlier one's first_generator_int8" in capsys.readouterr().err
    # The bundle is written although the repository, being the user's by now, is not.
    (Path("bundles/first.triton") / "own").mkdir()
    before = files(first)
    assert main(["bundles/first", "--to", "triton", "--precision", "fp32"]) == 2
    assert "bundles/first.triton holds own, which was not exported" in capsys.readouterr().err
    assert files(first) == before  # refused before anything was done


def test_a_bundle_is_told_of_though_its_repository_fails(
    first: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = pytest.importorskip("export.triton")
    pytest.importorskip("tritonclient.grpc")

    def fails(*_: Any) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton, "write_repository", fails)
    assert main(["bundles/first", "--to", "triton", "--out", "new"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == ["new/first"] and "No space left on device" in err and "seconds" in err


def test_a_bundle_keeps_what_it_holds(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Bundle.open(first).manifest
    for out in ("new", "bundles"):  # elsewhere, and in place
        assert main(["bundles/first", "--out", out, "--dry-run"]) == 0
        (said,) = json.loads(capsys.readouterr().out)
        assert sorted(said["files"]) == [MANIFEST, *FILES] and said["drops"] == []
        assert all(entry["kept"] for entry in said["graphs"] + said["engines"])
        assert main(["bundles/first", "--out", out]) == 0
        assert "dropped" not in capsys.readouterr().err
        made = Bundle.open(f"{out}/first").manifest
        assert (made.graphs, made.engines) == (before.graphs, before.engines)


def test_what_would_go_is_said_before_and_after(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bundles/first", "--precision", "fp16"]
    gone = ["generator.int8.onnx", "generator.int8.tensorrt-rtx.engine"]
    assert main([*words, "--dry-run"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["replaces"] and set(gone) <= set(said["drops"])
    assert main(words) == 0
    err = capsys.readouterr().err
    assert "dropped the earlier bundle's generator.int8.onnx; --precision makes it anew" in err
    assert (
        "generator.int8.tensorrt-rtx.engine is not kept: its graph is not there in int8 any more; --trt builds it"
        in err
    )
    assert set(FILES) - set(gone) <= set(files(first)) and not set(gone) & set(files(first))


def test_a_run_over_a_bundle_says_what_goes(runs: Path, full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(full, "bundles/first")
    assert main(["runs/first", "--dry-run"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["replaces"] and said["drops"] == [file for file in FILES if file != "generator.onnx"]
    assert main(["runs/first"]) == 0
    err = capsys.readouterr().err
    for file in said["drops"]:
        assert f"dropped the earlier bundle's {file}" in err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "0.1"}, "it was built by tensorrt-rtx 0.1, here is 1.2"),
        ({"onnx_sha256": "0" * 64}, "it was built from another generator.onnx"),
        ({"profile": {"z": ((1, 17), (8, 17), (64, 17))}}, "its profile does not fit the graph's inputs"),
        ({"profile": {"y": ((1, 16), (8, 16), (64, 16))}}, "its profile does not fit the graph's inputs"),
    ],
)
def test_engines_that_no_longer_fit_go(
    first: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    reason: str,
) -> None:
    manifest = Bundle.open(first).manifest
    if "version" in change:
        monkeypatch.setattr(tensorrt, "installed_version", lambda flavour: "1.2")
        engines = tuple(engine.model_copy(update={"version": "1.2"}) for engine in manifest.engines)
    else:
        engines = manifest.engines
    engines = (engines[0].model_copy(update=change), *engines[1:])
    write_manifest(first, manifest.model_copy(update={"engines": engines}))
    assert main(["bundles/first"]) == 0
    file = "generator.tensorrt-rtx.engine"
    assert f"{file} is not kept: {reason}; --trt builds it anew" in capsys.readouterr().err
    assert set(FILES) - set(files(first)) == {file}


def test_engines_asked_for_are_built_anew(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundles/first", "--trt", "--sm", "80", "--batch", "1:2:4"]) == 0
    made = Bundle.open(first)
    assert len(made.manifest.graphs) == len(made.manifest.engines) == 3
    for engine in made.manifest.engines:
        assert engine.compute_capabilities == ("SM80",) and engine.profile["z"] == ((1, 16), (2, 16), (4, 16))


def with_static_batch(path: Path) -> None:
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save_model(model, path)


def with_weights_outside(path: Path) -> None:
    model = onnx.load(path)
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save_model(model, path)


def with_nothing_of_onnx(path: Path) -> None:
    path.write_bytes(b"\xff" * 100)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_static_batch, "graph generator: the batch axis of input z is static"),
        (with_weights_outside, "graph generator: weights are outside the file"),
        (with_nothing_of_onnx, "graph generator: generator.onnx is no ONNX file"),
    ],
)
def test_a_bundle_s_file_passes_the_gate_too(
    exported: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    """Though nothing of it is rewritten, and its report says that it was compared."""
    entry = Bundle.open(exported).graph("generator")
    old = Path(shutil.copy(exported / "generator.onnx", tmp_path))
    (tmp_path / "new").mkdir()
    reference = OnnxReference(entry.name, entry.inputs, entry.outputs, old, "a file", entry.parity)
    reference.freeze(tmp_path / "new" / "generator.onnx")
    assert reference.known_parity(tmp_path / "new" / "generator.onnx") == entry.parity
    spoil(old)
    with pytest.raises(ExportError, match=message):
        reference.freeze(tmp_path / "new" / "generator.onnx")


def test_a_kept_precision_passes_the_gate_too(first: Path) -> None:
    with_static_batch(first / "generator.fp16.onnx")
    raw = json.loads((first / MANIFEST).read_text())
    raw["graphs"][1] |= {
        "bytes": (first / "generator.fp16.onnx").stat().st_size,
        "sha256": sha256_of(first / "generator.fp16.onnx"),
    }
    (first / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(ExportError, match="the batch axis of input z is static"):
        export_bundle(source_of_bundle(first), Path("new"))


def test_without_fp32(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Bundle.open(first).manifest
    write_manifest(first, manifest.model_copy(update={"graphs": manifest.graphs[2:], "engines": ()}))
    for words in ([], ["--dry-run"], ["--precision", "int8"]):
        assert main(["bundles/first", *words]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.splitlines()[-1] == (
            "error: first: bundles/first holds graph generator in int8 but not in fp32, which the others are made "
            "from; export the run it came from"
        )


def test_a_linked_bundle_stays_linked(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("disk").mkdir()
    first.rename("disk/far")
    first.symlink_to(Path("disk/far").resolve())
    assert main(["bundles/first", "--precision", "fp32"]) == 0
    assert json.loads(capsys.readouterr().out) == ["bundles/first"]
    assert first.is_symlink() and first.resolve() == Path("disk/far").resolve()
    made = Bundle.open("disk/far").manifest
    assert made.name == "first" and len(made.graphs) == 1
    assert [path.name for folder in ("bundles", "disk") for path in Path(folder).iterdir()] == ["first", "far"]


def test_two_exports_to_one_place(tmp_path: Path) -> None:
    """The later one stands, and neither leaves anything behind."""
    errors: list[Exception] = []

    def export(name: str) -> None:
        try:
            for _ in range(100):
                with writing(tmp_path / "out" / "bundle") as folder:
                    (folder / MANIFEST).write_text(name)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=export, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bundle"]
    assert (tmp_path / "out" / "bundle" / MANIFEST).read_text() in "0123"
