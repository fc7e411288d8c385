"""The model repository is what Triton's schema says and what the bundle holds."""

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from export import triton
from export.bundle import write_manifest, writing
from export.errors import ExportError
from export.triton import check_repository, ensemble_config, write_repository
from runtime.bundle import EngineEntry, GraphEntry, Manifest, Port, sha256_of
from runtime.errors import InputError

IMAGE = Port(name="image", shape=(3, 16, 16), kind="image", range=(-1, 1))
LATENT = Port(name="z", shape=(8, 4, 4), kind="image")
WEIGHTS = Port(name="weights", shape=(2,), kind="vector", range=(0, 1))


def named(port: Port, name: str) -> Port:
    return port.model_copy(update={"name": name})


GRAPHS: dict[str, tuple[tuple[Port, ...], tuple[Port, ...]]] = {
    "encoder": ((IMAGE,), (LATENT,)),
    "blend": ((named(LATENT, "za"), named(LATENT, "zb"), WEIGHTS), (LATENT,)),
    "generator": ((LATENT,), (IMAGE, Port(name="label", shape=(1,), dtype="int64", kind="vector"))),
}


def entry(name: str, precision: str = "fp32", **fields: Any) -> GraphEntry:
    inputs, outputs = GRAPHS[name]
    what = {"file": f"{name}.{precision}.onnx", "bytes": 1, "sha256": "0" * 64, "opset": 18, **fields}
    return GraphEntry(name=name, precision=precision, **({"inputs": inputs, "outputs": outputs} | what))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def schema() -> Any:
    return pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="pip install awase[triton]")


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    """A bundle that encodes, blends and generates; the generator in int8 too, and as an engine."""
    with writing(tmp_path / "fused") as folder:
        entries = []
        for name, precision in (("encoder", "fp32"), ("blend", "fp32"), ("generator", "fp32"), ("generator", "int8")):
            node = helper.make_node("Relu", ["z"], ["y"])
            value = [helper.make_tensor_value_info(port, TensorProto.FLOAT, ["batch", 1]) for port in ("z", "y")]
            graph = helper.make_graph([node], f"{name} {precision}", value[:1], value[1:])
            path = folder / f"{name}.{precision}.onnx"
            onnx.save_model(helper.make_model(graph), path)
            entries.append(entry(name, precision, bytes=path.stat().st_size, sha256=sha256_of(path)))
        engines = []
        for flavour in ("tensorrt", "tensorrt-rtx"):
            path = folder / f"generator.{flavour}.engine"
            path.write_bytes(f"an engine of {flavour}".encode())
            engines.append(
                EngineEntry(
                    graph="generator",
                    onnx_sha256=entries[2].sha256,
                    flavour=flavour,
                    version="10.13",
                    compute_capabilities=("SM90",),
                    profile={"z": ((1, 8, 4, 4), (4, 8, 4, 4), (16, 8, 4, 4))},
                    file=path.name,
                    bytes=path.stat().st_size,
                    sha256=sha256_of(path),
                )
            )
        manifest = Manifest(name="fused", recipe="fusion", model="fuser", graphs=tuple(entries), engines=tuple(engines))
        write_manifest(folder, manifest)
    return tmp_path / "fused"


def read(folder: Path, schema: Any) -> Any:
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


def test_repository(fused: Path, tmp_path: Path, schema: Any) -> None:
    names = write_repository(fused, tmp_path / "fused.triton", (1, 8, 64))
    expected = ["encoder", "blend", "generator", "generator_int8", "generator_tensorrt", "blended"]
    assert names == [f"fused_{name}" for name in expected]
    assert {path.name for path in (tmp_path / "fused.triton").iterdir()} == {*names, ".awase.json"}
    for name in names:
        config = read(tmp_path / "fused.triton" / name, schema)
        version = tmp_path / "fused.triton" / name / "1"
        assert config.name == name and version.is_dir() and config.version_policy.latest.num_versions == 1
        if name == "fused_blended":
            assert not list(version.iterdir()) and config.platform == "ensemble" and not config.instance_group
            continue
        assert [path.name for path in version.iterdir()] == [config.default_model_filename]
        assert config.backend == ("tensorrt" if name.endswith("tensorrt") else "onnxruntime")
        assert [(group.count, group.kind) for group in config.instance_group] == [
            (1, schema.ModelInstanceGroup.KIND_AUTO)
        ]
    model = tmp_path / "fused.triton" / "fused_generator_int8" / "1" / "model.onnx"
    assert model.read_bytes() == (fused / "generator.int8.onnx").read_bytes()


def test_ports_batching_and_warm_up(fused: Path, tmp_path: Path, schema: Any) -> None:
    write_repository(fused, tmp_path / "r", (1, 8, 64))
    config = read(tmp_path / "r" / "fused_generator", schema)
    assert config.max_batch_size == 64 and list(config.dynamic_batching.preferred_batch_size) == [8, 64]
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    ports = [(port.name, port.data_type, list(port.dims)) for port in (*config.input, *config.output)]
    assert ports == [
        ("z", schema.TYPE_FP32, [8, 4, 4]),
        ("image", schema.TYPE_FP32, [3, 16, 16]),
        ("label", schema.TYPE_INT64, [1]),
    ]
    assert [sample.batch_size for sample in config.model_warmup] == [1, 8]
    blend = read(tmp_path / "r" / "fused_blend", schema)
    for sample in blend.model_warmup:
        assert {name: list(data.dims) for name, data in sample.inputs.items()} == {
            "za": [8, 4, 4],
            "zb": [8, 4, 4],
            "weights": [2],
        }
        assert all(data.random_data and data.data_type == schema.TYPE_FP32 for data in sample.inputs.values())
    engine = read(tmp_path / "r" / "fused_generator_tensorrt", schema)  # its batches are its profile's
    assert engine.max_batch_size == 16 and list(engine.dynamic_batching.preferred_batch_size) == [4, 16]
    write_repository(fused, tmp_path / "r", (1, 1, 1))
    config = read(tmp_path / "r" / "fused_generator", schema)
    assert config.max_batch_size == 1 and not config.HasField("dynamic_batching") and len(config.model_warmup) == 1


def test_ensemble_is_wired(fused: Path, tmp_path: Path, schema: Any) -> None:
    write_repository(fused, tmp_path / "r", (1, 8, 64))
    config = read(tmp_path / "r" / "fused_blended", schema)
    assert {port.name: list(port.dims) for port in config.input} == {"a": [3, 16, 16], "b": [3, 16, 16], "weights": [2]}
    assert [port.name for port in config.output] == ["image", "label"]
    steps = list(config.ensemble_scheduling.step)
    models = ["fused_encoder", "fused_encoder", "fused_blend", "fused_generator"]
    assert [step.model_name for step in steps] == models
    # What a step reads is an input of the ensemble or was made before, and each model's ports are all used.
    made = {port.name for port in config.input}
    for step in steps:
        inputs, outputs = GRAPHS[step.model_name.removeprefix("fused_")]
        assert set(step.input_map) == {port.name for port in inputs} and set(step.input_map.values()) <= made
        assert set(step.output_map) == {port.name for port in outputs} and not set(step.output_map.values()) & made
        made |= set(step.output_map.values())
    assert {port.name for port in config.output} <= made
    assert steps[2].input_map["za"] == steps[0].output_map["z"] and steps[0].input_map["image"] == "a"
    assert steps[2].input_map["zb"] == steps[1].output_map["z"] and steps[1].input_map["image"] == "b"


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": None},
        {"generator": {"inputs": (named(LATENT, "z"), WEIGHTS)}},
        {"generator": {"inputs": (LATENT.model_copy(update={"shape": (8, 2, 2)}),)}},
        {"blend": {"inputs": (named(LATENT, "za"), named(LATENT, "zc"), WEIGHTS)}},
        {"encoder": {"precision": "int8"}},
    ],
)
def test_no_ensemble_of_what_does_not_fit(changes: dict[str, Any]) -> None:
    whole = [entry(name) for name in GRAPHS]
    assert ensemble_config("b", whole, (1, 8, 64)) is not None
    graphs = [e.model_copy(update=changes.get(e.name) or {}) for e in whole if changes.get(e.name, {}) is not None]
    assert ensemble_config("b", graphs, (1, 8, 64)) is None


def test_only_repositories_are_replaced(fused: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="photos exists and is no model repository that was exported here, so it s"):
        write_repository(fused, tmp_path / "photos", (1, 8, 64))
    write_repository(fused, tmp_path / "r", (1, 8, 64))
    check_repository(tmp_path / "r")
    (fused / "blend.fp32.onnx").write_bytes(b"damaged")
    with pytest.raises(InputError, match="blend.fp32.onnx is truncated"):
        write_repository(fused, tmp_path / "r", (1, 8, 64))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused", "photos", "r"]


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("own", "own, which was not exported"),
        ("fused_blend/1/labels.txt", "fused_blend/1/labels.txt, which was not exported"),
        ("fused_blend/config.pbtxt", "fused_blend/config.pbtxt, which has changed since it was exported"),
    ],
)
def test_what_a_user_added_or_changed_stays(fused: Path, tmp_path: Path, file: str, why: str) -> None:
    write_repository(fused, tmp_path / "r", (1, 8, 64))
    write_repository(fused, tmp_path / "r", (1, 4, 8))
    path = tmp_path / "r" / file
    if file == "own":
        path.mkdir()
    else:
        path.write_text("of the user")
    with pytest.raises(InputError, match=f"r holds {why}, so it stays; move it away"):
        write_repository(fused, tmp_path / "r", (1, 8, 64))
    assert path.is_dir() or path.read_text() == "of the user"


def test_without_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(InputError, match=r"--to triton needs Triton's schema; `pip install awase\[triton\]`") as caught:
        triton.require()
    assert not isinstance(caught.value, ExportError)
