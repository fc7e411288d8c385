"""A bundle is used whole and unchanged, or refused by the name of the file that is wrong."""

import json
import shutil
from pathlib import Path

import pytest

import runtime.bundle
from runtime.bundle import MANIFEST, Bundle, Port
from runtime.errors import InputError


def edit(bundle: Path, **fields: object) -> None:
    path = bundle / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_open(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    graph = opened.graph("generator")
    assert opened.file(graph) == bundle / "generator.onnx"
    assert graph.outputs[1].limits == ((-1.2, 2.0), (-0.1, 0.7))
    assert Bundle.open(str(bundle)).manifest == opened.manifest


@pytest.mark.parametrize("file", [MANIFEST, "generator.onnx"])
@pytest.mark.parametrize("keep", [0, 1, 0.1, 0.5, 0.9, -2, -1])
def test_truncated_anywhere(bundle: Path, file: str, keep: float) -> None:
    path = bundle / file
    data = path.read_bytes()
    size = int(len(data) * keep) if 0 < keep < 1 else int(keep)
    path.write_bytes(data[:size])
    with pytest.raises(InputError, match=f"{file} is truncated"):
        Bundle.open(bundle)


@pytest.mark.parametrize("file", [MANIFEST, "generator.onnx"])
def test_missing(bundle: Path, file: str) -> None:
    (bundle / file).unlink()
    with pytest.raises(InputError, match=f"{file} is missing|holds no {file}"):
        Bundle.open(bundle)


def test_changed(bundle: Path) -> None:
    path = bundle / "generator.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="generator.onnx has changed: SHA-256"):
        Bundle.open(bundle)
    path.write_bytes(data + b"x")
    with pytest.raises(InputError, match="generator.onnx is too long"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this awase reads up to 1; upgrade awase"),
        ({"schema_version": "1"}, "no schema_version"),
        ({"graphs": []}, "graphs: Tuple should have at least 1 item"),
        ({"recipe": 3}, "recipe: Input should be a valid string"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"noise": {"generator": "mersenne"}}, "noise.generator: Input should be 'philox4x32-10'"),
    ],
)
def test_malformed_manifest(bundle: Path, fields: dict[str, object], message: str) -> None:
    edit(bundle, **fields)
    with pytest.raises(InputError, match="bundle.json") as raised:
        Bundle.open(bundle)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/passwd", "..", "a/b.onnx", "a\\b.onnx", MANIFEST, ""])
def test_no_file_outside_the_folder(bundle: Path, name: str) -> None:
    graph = json.loads((bundle / MANIFEST).read_text())["graphs"][0]
    edit(bundle, graphs=[graph | {"file": name}])
    with pytest.raises(InputError, match="is not a plain file name"):
        Bundle.open(bundle)


def test_names_are_unique(bundle: Path) -> None:
    graph = json.loads((bundle / MANIFEST).read_text())["graphs"][0]
    edit(bundle, graphs=[graph, graph])
    with pytest.raises(InputError, match="a graph is named twice"):
        Bundle.open(bundle)
    edit(bundle, graphs=[graph, graph | {"name": "other"}])
    with pytest.raises(InputError, match="a file is named twice"):
        Bundle.open(bundle)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle 'nowhere': neither a folder nor a shipped bundle"):
        Bundle.open("nowhere")
    with pytest.raises(InputError, match="holds no bundle.json"):
        Bundle.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, expected a bundle's folder"):
        Bundle.open(tmp_path / "file")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / MANIFEST).write_text("[1]")
    with pytest.raises(InputError, match="no schema_version"):
        Bundle.open(tmp_path / "list")


def test_shipped_by_name(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.bundle, "PRETRAINED", tmp_path / "pretrained")
    shutil.copytree(bundle, tmp_path / "pretrained" / "shipped-one")
    assert runtime.bundle.shipped() == ["shipped-one"]
    assert Bundle.open("shipped-one").path == tmp_path / "pretrained" / "shipped-one"
    with pytest.raises(InputError, match="shipped bundles: shipped-one"):
        Bundle.open("another")


def test_unknown_graph(bundle: Path) -> None:
    with pytest.raises(InputError, match="no graph 'encoder', only generator"):
        Bundle.open(bundle).graph("encoder")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "image", "shape": (3,)},
        {"kind": "vector", "shape": (2,), "names": ("a",)},
        {"kind": "vector", "shape": (1,), "limits": ((1.0, 1.0),)},
        {"kind": "vector", "shape": (1,), "limits": ()},
        {"kind": "vector", "shape": (0,)},
        {"kind": "vector", "shape": (1,), "range": (1.0, -1.0)},
        {"kind": "vector", "shape": (1,), "name": "two words"},
    ],
)
def test_bad_port(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Port(**{"name": "port", **fields})
