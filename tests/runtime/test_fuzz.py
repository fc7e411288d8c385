"""Damaged and hostile bundles: one clear line each, never a crash and never a file outside the folder."""

import copy
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from runtime import load
from runtime.bundle import LARGEST_MANIFEST, MANIFEST, Bundle, Manifest, read_manifest, sha256_of
from runtime.errors import InputError
from runtime.onnx_file import weights_outside

MANIFESTS = 10_000
FILES = 200
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    0.5,
    "",
    "x" * 5000,
    "../../etc/passwd",
    "/etc/passwd",
    "a\x00b",
    "\ud800",
    "line\nbreak",
    [],
    {},
    [[]],
    {"": None},
    [1, "2", None],
]


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something can be changed: the path of every value below the root."""
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in below for found in ((*path, key), *places(value, (*path, key)))]


def mutated(text: str, rng: random.Random) -> bytes:
    """The manifest with one to three things changed: in its tree, or in its bytes."""
    if rng.random() < 0.4:
        data = bytearray(text.encode())
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            change = rng.randrange(4)
            if change == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif change == 1:
                del data[at : at + rng.randint(1, 40)]
            elif change == 2:
                data[at:at] = rng.choice([b"{", b"]", b'"', b"\\u0000", b"NaN", b"1e999", b"-", b"\xff", b"\x00"])
            else:
                data = data[:at] or data
        return bytes(data)
    tree = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        *path, last = rng.choice(places(tree))
        parent = tree
        for key in path:
            parent = parent[key]
        change = rng.randrange(4)
        if change == 0:
            parent[last] = copy.deepcopy(rng.choice(ODD))  # a second change may fall into it
        elif change == 1:
            del parent[last]
        elif change == 2 and isinstance(parent, dict):
            parent[rng.choice(["extra", "file", "sha256", "graph"])] = copy.deepcopy(rng.choice(ODD))
        else:
            parent[last] = [parent[last], copy.deepcopy(parent[last])]
    return json.dumps(tree).encode()


def one_line(error: InputError) -> bool:
    return "\n" not in str(error) and 10 < len(str(error)) < 2000


def test_mutated_manifests(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    rng, refused, accepted = random.Random(0), 0, 0
    for _ in range(MANIFESTS):
        (bundle / MANIFEST).write_bytes(mutated(text, rng))
        try:
            opened = Bundle.open(bundle)
        except InputError as error:
            assert one_line(error), str(error)[:300]
            refused += 1
        else:
            assert all(entry.file == Path(entry.file).name for entry in opened.manifest.files)
            accepted += 1
            if accepted <= 50:  # what opens can be used, or is refused in one line then
                try:
                    assert json.dumps(opened.manifest.model_dump(mode="json"), allow_nan=False)
                    load(opened, "cpu").generate(2)
                except InputError as error:
                    assert one_line(error), str(error)[:300]
    assert refused > MANIFESTS // 2 and refused + accepted == MANIFESTS and accepted > 50


def test_mutated_files(bundle: Path) -> None:
    path = bundle / "generator.onnx"
    data, rng = path.read_bytes(), random.Random(1)
    for number in range(FILES):
        changed = bytearray(data)
        at = rng.randrange(len(data))
        if number % 3:
            changed[at] ^= 1 << rng.randrange(8)
        else:
            del changed[at:]
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"generator\.onnx (has changed|is truncated)") as raised:
            Bundle.open(bundle)
        assert one_line(raised.value)


ENGINES = """
import json, sys
from pathlib import Path
import runtime
from runtime.errors import InputError
for folder in Path(sys.argv[1]).iterdir():
    for device in ("cpu", "openvino"):
        try:
            runtime.load(folder, device).generate(2)
            print("ran")
        except InputError as error:
            assert "\\n" not in str(error)
            print("refused")
"""


def test_engines_given_files_that_are_wrong_from_the_start(bundle: Path, tmp_path: Path) -> None:
    """A manifest can be right about a file that no engine can use: that is one line too."""
    data, rng = (bundle / "generator.onnx").read_bytes(), random.Random(2)
    for number in range(FILES):
        folder = tmp_path / "many" / str(number)
        folder.mkdir(parents=True)
        changed = bytearray(data)
        for _ in range(rng.randint(1, 8)):  # in the graph's text, not in the weights
            at = rng.choice([rng.randrange(len(data)), rng.randrange(600), -rng.randrange(1, 400)])
            changed[at] = rng.randrange(256)
        (folder / "generator.onnx").write_bytes(changed)
        manifest = json.loads((bundle / MANIFEST).read_text())
        manifest["graphs"][0] |= {"sha256": hashlib.sha256(changed).hexdigest(), "bytes": len(changed)}
        (folder / MANIFEST).write_text(json.dumps(manifest))
    command = [sys.executable, "-c", ENGINES, str(tmp_path / "many")]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = done.stdout.split()  # nothing else: stdout belongs to the program
    assert results.count("ran") + results.count("refused") == len(results) == 2 * FILES
    assert results.count("refused") > FILES // 2


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def outside(folder: Path) -> None:
    """Keep the graph's largest weights in a file beside it, as ONNX allows and the manifest does not say."""
    path = folder / "generator.onnx"
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=5000)
    data = path.read_bytes()
    assert (folder / "weights.bin").stat().st_size > 5000
    named = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    rewrite(folder, lambda manifest: manifest["graphs"][0].update(named))


def test_weights_in_another_file_are_refused(bundle: Path) -> None:
    outside(bundle)
    with pytest.raises(InputError, match=r"generator\.onnx keeps weights in another file, which nothing verifies"):
        Bundle.open(bundle)


@pytest.mark.parametrize("inside", ["an attribute", "a branch"])
def test_weights_in_another_file_are_found_anywhere(inside: str) -> None:
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = onnx.helper.make_node("Constant", [], ["w"], value=tensor)
    if inside == "a branch":
        branch = onnx.helper.make_graph([node], "branch", [], [])
        node = onnx.helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [], []))
    assert weights_outside(memoryview(model.SerializeToString()))
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT
    harmless = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["w"], value=tensor)], "graph", [], [])
    assert not weights_outside(memoryview(onnx.helper.make_model(harmless).SerializeToString()))


@pytest.mark.parametrize("data", [b"\x3a", b"\x3a\xff", b"\xff" * 40, b"\x3b\x00", b"\x3a\x02\x0a\x05"])
def test_what_is_no_onnx_file(data: bytes) -> None:
    with pytest.raises(ValueError, match="no ONNX model"):
        weights_outside(memoryview(data))


@pytest.mark.parametrize("name", ["class", "seed", "robot", "joints"])
def test_names_that_cannot_be(bundle: Path, name: str) -> None:
    rewrite(bundle, lambda manifest: manifest["graphs"][0]["outputs"][0].update(name=name))
    with pytest.raises(InputError, match=f"called '{name}'"):
        Bundle.open(bundle)


def test_numbers_that_are_none(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    for number in ("Infinity", "-Infinity", "NaN", "1e999"):
        (bundle / MANIFEST).write_text(text.replace("-1.2", number, 1))
        with pytest.raises(InputError, match="finite number"):
            Bundle.open(bundle)


def test_links_are_not_followed(bundle: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.onnx"
    secret.write_bytes((bundle / "generator.onnx").read_bytes())
    (bundle / "generator.onnx").unlink()
    (bundle / "generator.onnx").symlink_to(secret)
    with pytest.raises(InputError, match=r"generator\.onnx is a link, expected a file of the bundle itself"):
        Bundle.open(bundle)


def test_oversized_manifest(bundle: Path) -> None:
    with (bundle / MANIFEST).open("r+b") as file:
        os.truncate(file.fileno(), LARGEST_MANIFEST + 1)
    with pytest.raises(InputError, match=f"has {LARGEST_MANIFEST + 1} bytes, expected at most {LARGEST_MANIFEST}"):
        Bundle.open(bundle)


def test_deeply_nested_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(InputError, match="is truncated or no JSON"):
        Bundle.open(bundle)


@pytest.mark.parametrize("what", ["a pipe", "a folder", "a device"])
def test_not_a_file(bundle: Path, what: str) -> None:
    path = bundle / "generator.onnx"
    path.unlink()
    if what == "a pipe":
        os.mkfifo(path)  # opening one would wait for ever
    elif what == "a folder":
        path.mkdir()
    else:
        rewrite(bundle, lambda manifest: manifest["graphs"][0].update(file="null"))
        (bundle / "null").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="is missing|is a link"):
        Bundle.open(bundle)


def test_wrong_about_its_graph(bundle: Path) -> None:
    """Ports that the ONNX file does not have."""
    for change, message in (
        ({"shape": [31]}, "31"),
        ({"name": "noise"}, "noise"),
        ({"dtype": "float16"}, "float16"),
    ):
        original = (bundle / MANIFEST).read_text()
        rewrite(bundle, lambda manifest, change=change: manifest["graphs"][0]["inputs"][0].update(change))
        for device in ("cpu", "openvino"):
            with pytest.raises(InputError, match=message):
                load(bundle, device)
        (bundle / MANIFEST).write_text(original)


def test_engine_entries_are_of_graphs_that_are_there(bundle: Path) -> None:
    (bundle / "generator.engine").write_bytes(b"engine")
    entry = {
        "graph": "generator",
        "precision": "fp16",
        "onnx_sha256": "0" * 64,
        "file": "generator.engine",
        "bytes": 6,
        "sha256": sha256_of(bundle / "generator.engine"),
        "flavour": "tensorrt",
        "version": "11.0",
        "compute_capabilities": ["SM90"],
        "profile": {"z": [[1, 32], [8, 32], [64, 32]]},
    }
    rewrite(bundle, lambda manifest: manifest.update(engines=[entry]))
    with pytest.raises(
        InputError, match=r"engine generator\.engine is of graph generator fp16, not one of generator fp32"
    ):
        Bundle.open(bundle)
    rewrite(bundle, lambda manifest: manifest.update(engines=[entry | {"precision": "fp32"}]))
    assert isinstance(read_manifest(bundle / MANIFEST), Manifest) and len(Bundle.open(bundle).engines("generator")) == 1
