"""Whatever a bundle's folder holds, the engine opens it or says in one line why not, and does not crash."""

import copy
import json
import os
import random

import engine_bundle
import engine_library
import numpy as np
import onnx
import pytest
from engine_library import INVALID, OUT_OF_MEMORY, EngineError

from runtime.bundle import Bundle, Manifest
from runtime.errors import InputError

pytestmark = pytest.mark.skipif(not engine_library.available(), reason="the engine was not built here")
DATA = engine_bundle.model()


@pytest.fixture(scope="module")
def engine():
    return engine_library.load()


@pytest.fixture
def folder(tmp_path):
    return engine_bundle.write(tmp_path / "tiny", engine_bundle.manifest(DATA), generator_onnx=DATA)


def reason(engine, folder, run=False):
    """Why the engine does not open the bundle (and, with `run`, its graph); "" if it does."""
    try:
        with engine.bundle(folder) as bundle:
            graphs = engine.graphs(bundle)
            assert graphs and all(graph["outputs"] for graph in graphs)
            if run:
                with engine.session(bundle) as session:
                    engine.generate(session, [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 2), np.float32)])
        return ""
    except EngineError as error:
        assert error.status in (INVALID, OUT_OF_MEMORY), error
        text = str(error)
        assert text and "\n" not in text and len(text) < 2000
        return text


def test_the_bundle_is_good_before_it_is_harmed(engine, folder):
    assert reason(engine, folder, run=True) == ""


# ---- files ----


def test_a_missing_folder_a_file_and_an_empty_folder(engine, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    assert "is no folder" in reason(engine, tmp_path / "nowhere")
    assert "is no folder" in reason(engine, tmp_path / "file")
    assert "is no folder" in reason(engine, "")
    assert "bundle.json is missing" in reason(engine, tmp_path / "empty")


def test_missing_truncated_longer_and_changed_files(engine, folder):
    path = folder / "generator.onnx"
    for data, expected in (
        (DATA[:-1], f"is truncated: {len(DATA) - 1} bytes, bundle.json says {len(DATA)}"),
        (b"", "is truncated: 0 bytes"),
        (DATA + b"\0", "is too long"),
        (bytes([DATA[0] ^ 1]) + DATA[1:], "has changed: SHA-256"),
        (DATA[:-1] + bytes([DATA[-1] ^ 128]), "has changed: SHA-256"),
    ):
        path.write_bytes(data)
        assert expected in reason(engine, folder)
    path.unlink()
    assert "generator.onnx is missing" in reason(engine, folder)


def test_a_file_that_changes_after_the_bundle_was_opened_is_not_run(engine, folder):
    with engine.bundle(folder) as bundle:
        (folder / "generator.onnx").write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
        with pytest.raises(EngineError, match="has changed"), engine.session(bundle):
            pass


def test_links_folders_and_pipes_are_no_files(engine, folder):
    path = folder / "generator.onnx"
    path.rename(folder / "elsewhere")
    path.symlink_to("elsewhere")
    assert "is a link, expected a file of the bundle itself" in reason(engine, folder)
    path.unlink()
    path.mkdir()
    assert "generator.onnx" in reason(engine, folder)
    path.rmdir()
    os.mkfifo(path)
    assert "is no regular file" in reason(engine, folder)  # and does not wait for a writer
    (folder / "bundle.json").unlink()
    os.mkfifo(folder / "bundle.json")
    assert "is no regular file" in reason(engine, folder)


@pytest.mark.parametrize(
    "name", ["../generator.onnx", "/etc/passwd", "a/generator.onnx", "..", ".", "", "a\\b", "bundle.json", "x\0y"]
)
def test_names_that_lead_elsewhere_are_refused(engine, folder, name):
    raw = engine_bundle.manifest(DATA)
    raw["graphs"][0]["file"] = name
    engine_bundle.write(folder, raw)
    (folder.parent / "generator.onnx").write_bytes(DATA)
    assert "graphs.0.file: got" in reason(engine, folder)


def test_an_oversized_manifest_is_not_read(engine, folder):
    text = json.dumps(engine_bundle.manifest(DATA)).encode()
    engine_bundle.write(folder, text + b" " * (2**24 - len(text)))
    assert reason(engine, folder) == ""
    engine_bundle.write(folder, text + b" " * (2**24 - len(text) + 1))
    assert "is too long: 16777217 bytes, expected at most 16777216" in reason(engine, folder)


@pytest.mark.parametrize(
    "text",
    [b"", b"\0", b"[", b"[" * 2**20, b'{"a":' * 2**18, b"null", b"[1]", b"{}", b"\xff\xfe{}", b'"', b"1e999"],
)
def test_what_is_no_manifest(engine, folder, text):
    engine_bundle.write(folder, text)
    assert "bundle.json" in reason(engine, folder)


def test_a_newer_schema_says_upgrade(engine, folder):
    engine_bundle.write(folder, engine_bundle.manifest(DATA, schema_version=2))
    assert "schema version 2, this awase reads up to 1: upgrade awase" in reason(engine, folder)


def test_a_graph_that_is_not_what_the_manifest_says(engine, folder):
    for data, expected in (
        (engine_bundle.model(batch=4), "has a fixed batch of 4"),
        (engine_bundle.model(dim=5), "input z has another dtype or shape"),
        (b"", "ONNX Runtime cannot open it"),
    ):
        engine_bundle.write(folder, engine_bundle.manifest(data), generator_onnx=data)
        assert reason(engine, folder) == ""
        assert expected in reason(engine, folder, run=True)


def test_weights_in_another_file_are_refused(engine, folder):
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    constant = onnx.helper.make_node("Constant", [], ["w"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    chosen = onnx.helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)
    for graph in (
        onnx.helper.make_graph([], "graph", [], [], [tensor]),
        onnx.helper.make_graph([constant], "graph", [], []),
        onnx.helper.make_graph([chosen], "graph", [], []),
    ):
        data = onnx.helper.make_model(graph).SerializeToString()
        engine_bundle.write(folder, engine_bundle.manifest(data), generator_onnx=data)
        assert "generator.onnx keeps weights in another file, which nothing verifies" in reason(engine, folder)
        assert not opens_in_python(folder)
    engine_bundle.write(folder, engine_bundle.manifest(b"not ONNX"), generator_onnx=b"not ONNX")
    assert "generator.onnx is no ONNX file" in reason(engine, folder) and not opens_in_python(folder)


# ---- many mutations ----

JUNK = [
    None,
    True,
    -1,
    0,
    1,
    2,
    2**31,
    2**63,
    2**64,
    2**70,
    1.5,
    -1e308,
    "",
    "x",
    "fp16",
    "é",
    [],
    [[]],
    [0],
    {},
    {"a": 1},
]
UNREAD = {"parity", "robot", "training", "versions", "licence"}
"""Fields that only Python looks into."""
STRICTER = ("2^31", "expected a whole number from", "no schema_version", "without a NUL")
"""What the engine alone refuses: sizes that no memory holds, true for 1, text that C would see the half of."""


def places(value, path=()):
    """Paths of all values in a manifest."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def mutated(rng, raw):
    """A copy of the manifest with one thing changed."""
    raw = copy.deepcopy(raw)
    path = rng.choice([path for path in places(raw) if path])
    holder = raw
    for key in path[:-1]:
        holder = holder[key]
    kind = rng.choice(["replace", "replace", "delete", "add", "copy"])
    if kind == "delete":
        del holder[path[-1]]
    elif kind == "add" and isinstance(holder, dict):
        holder[rng.choice(["extra", "parity", "robot", "precision", "limits"])] = rng.choice(JUNK)
    elif kind == "copy" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[path[-1]]))
    else:
        holder[path[-1]] = rng.choice(JUNK)
    return raw


def opens_in_python(folder):
    try:
        Bundle.open(folder)
        return True
    except InputError:
        return False


def test_the_engine_refuses_what_python_refuses(engine, folder):
    """Hundreds of manifests with one thing wrong: the two readers agree, and what is opened runs or says why not."""
    rng = random.Random(0)
    engine_entry = {
        "file": "generator.engine", "bytes": 3, "sha256": engine_bundle.hashlib.sha256(b"abc").hexdigest(),
        "graph": "generator", "precision": "fp32", "onnx_sha256": "0" * 64, "flavour": "tensorrt", "version": "10",
        "compute_capabilities": ["SM89"], "profile": {"z": [[1, 4], [1, 4], [8, 4]]},
    }  # fmt: skip
    (folder / "generator.engine").write_bytes(b"abc")
    whole = engine_bundle.manifest(DATA, engines=[engine_entry], robot=None, training={"a": 1}, versions={"b": "2"})
    opened = 0
    for number in range(1000):
        raw = mutated(rng, whole)
        engine_bundle.write(folder, raw)
        why, python = reason(engine, folder, run=number % 10 == 0), opens_in_python(folder)
        if (
            python and why
        ):  # what the engine alone refuses: sizes no memory holds, and, run, other ports than the graph's
            assert number % 10 == 0 or any(words in why for words in STRICTER), (raw, why)
        if not python and not why:  # what it does not look into
            assert any(json.dumps(_field(raw, key)) != json.dumps(_field(whole, key)) for key in UNREAD), raw
        opened += python
    assert 15 < opened < 500


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"parts": [1, 2]}, True),
        ({"parts": []}, True),
        ({}, True),
        ({"parts": [1, 1]}, False),
        ({"parts": [4]}, False),
        ({"parts": [0, 3]}, False),
        ({"parts": [5, -2]}, False),
        ({"parts": [1.5, 1.5]}, False),
        ({"parts": [2**62, 2**62]}, False),
        ({"parts": None}, False),
        ({"parts": 3}, False),
        ({"parts": [3], "shape": [3]}, False),
        ({"shape": [192]}, False),
        ({"parts": [1, 2], "kind": "image"}, False),
        ({"parts": [], "kind": "image"}, True),
        ({"parts": [3], "kind": "vector", "shape": [3]}, False),
        ({"kind": "latents"}, False),
    ],
)
def test_parts_of_a_latent(engine, folder, fields, good):
    raw = engine_bundle.manifest(DATA)
    raw["graphs"][0]["outputs"][0] = {"name": "image", "shape": [3, 8, 8], "kind": "latent", **fields}
    engine_bundle.write(folder, raw)
    assert (reason(engine, folder) == "", opens_in_python(folder)) == (good, good)


def _field(raw, name):
    """All values of a field, wherever it is."""
    found = [raw[name]] if isinstance(raw, dict) and name in raw else []
    items = raw.values() if isinstance(raw, dict) else raw if isinstance(raw, list) else ()
    return found + [value for item in items for value in _field(item, name)]


def test_flipped_and_cut_manifests(engine, folder):
    rng = random.Random(1)
    text = json.dumps(engine_bundle.manifest(DATA)).encode()
    for cut in range(0, len(text), 9):
        engine_bundle.write(folder, text[:cut])
        assert "bundle.json" in reason(engine, folder)
    survived = 0
    for _ in range(1000):
        flipped = bytearray(text)
        flipped[rng.randrange(len(text))] ^= 1 << rng.randrange(8)
        engine_bundle.write(folder, bytes(flipped))
        survived += reason(engine, folder) == ""
    assert survived < 500  # a letter of a joint's name, say


def test_graphs_flipped_and_cut_under_a_right_checksum(engine, folder):
    """Whoever makes the manifest can also make the checksum: what ONNX Runtime then reads may be anything."""
    rng = random.Random(2)
    refused = 0
    for number in range(400):
        data = bytearray(DATA)
        if number % 5 == 0:
            data = data[: rng.randrange(len(data))]
        else:  # in the graph's structure: the weights are most of the file
            data[rng.choice([rng.randrange(200), len(data) - 1 - rng.randrange(400)])] ^= 1 << rng.randrange(8)
        engine_bundle.write(folder, engine_bundle.manifest(bytes(data)), generator_onnx=bytes(data))
        refused += reason(engine, folder, run=True) != ""
    assert refused > 50


def test_the_manifest_under_test_is_one_that_python_writes(folder):
    raw = engine_bundle.manifest(DATA)
    assert set(Manifest.model_validate_json(json.dumps(raw), strict=True).model_dump()) >= set(raw)
