"""A bundle as a model repository for Triton Inference Server.

REPOSITORY/BUNDLE_GRAPH/config.pbtxt and 1/model.onnx for each graph, `_fp16` and `_int8` behind the name for reduced
precisions, `_tensorrt` for an engine of the data-centre TensorRT (Triton does not run TensorRT-RTX); BUNDLE_blended is
an ensemble where the bundle encodes, blends and generates. `.awase.json` says what of the repository was exported, so
that nothing else is ever replaced. Clients send the noise, as `cpp_ext.noise` makes it. The configurations are made as
Triton's own protobuf messages, so they are what its schema allows. No server has run them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from export.bundle import alone, writing
from export.tensorrt import Batches
from runtime.bundle import Bundle, EngineEntry, GraphEntry, Port, sha256_of
from runtime.errors import InputError

CONFIG = "config.pbtxt"
RECORD = ".awase.json"
"""{file: SHA-256} of a repository; Triton looks at folders only."""
QUEUE_DELAY_US = 200
"""How long a request may wait for others to share its batch, in microseconds: about one small generator's run."""
_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8", "int64": "TYPE_INT64"}


def require() -> None:
    """Check that the protobuf schema is installed.

    Raises:
        InputError: it is not.
    """
    _schema()


def check_repository(target: Path) -> None:
    """Refuse to replace anything but a model repository that is as it was exported.

    Raises:
        InputError: `target` exists and is none, or holds files that were added or changed since.
    """
    with alone(target):
        why = _foreign(target) if target.exists() else ""
    if why:
        raise InputError(f"{target} {why}, so it stays; move it away or choose another --out")


def _foreign(target: Path) -> str:
    """What of a folder was not exported; "" if all was."""
    record = _record(target)
    if record is None:
        return "exists and is no model repository that was exported here"
    models = {Path(file).parts[0] for file in record}
    for path in sorted(target.rglob("*")):
        file = path.relative_to(target)
        if path.is_dir() and not path.is_symlink():
            own = file.parts[0] in models
        else:
            own = str(file) == RECORD or (path.is_file() and record.get(str(file)) == sha256_of(path))
        if not own:
            what = "has changed since it was exported" if str(file) in record else "was not exported"
            return f"holds {file}, which {what}"
    return ""


def models_of(target: Path) -> list[str]:
    """Names of the models of a repository that was exported; none if there is no such repository."""
    return sorted({Path(file).parts[0] for file in _record(target) or ()})


def _record(target: Path) -> dict[str, str] | None:
    """What of a repository was exported: SHA-256 by file."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and all(isinstance(value, str) for value in record.values())
    return record if whole and all(Path(file).parts for file in record) else None


def write_repository(bundle: Path, target: Path, batches: Batches) -> list[str]:
    """Write a bundle as a model repository; an earlier one is replaced once the new one is whole.

    Args:
        bundle: the bundle's folder.
        target: the repository's.
        batches: smallest, best and largest batch; the best and the largest are preferred, the largest is the limit.

    Returns:
        The models' names.

    Raises:
        InputError: the bundle is damaged, `target` is something else, or the schema is not installed.
    """
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    names: list[str] = []
    with writing(target, check_repository) as folder:
        for graph in manifest.graphs:
            name = model_name(manifest.name, graph)
            config = model_config(name, graph, batches)
            _write(folder, config, opened.file(graph))
            names.append(name)
        for engine in manifest.engines:
            if engine.flavour == "tensorrt":
                graph = opened.graph(engine.graph, engine.precision)
                name = f"{model_name(manifest.name, graph)}_tensorrt"
                _write(folder, engine_config(name, graph, engine), opened.file(engine))
                names.append(name)
        ensemble = ensemble_config(manifest.name, manifest.graphs, batches)
        if ensemble is not None:
            _write(folder, ensemble, None)
            names.append(ensemble.name)
        record = {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return names


def model_name(bundle: str, graph: GraphEntry) -> str:
    """What a graph is called in the repository."""
    return f"{bundle}_{graph.name}" + ("" if graph.precision == "fp32" else f"_{graph.precision}")


def model_config(name: str, graph: GraphEntry, batches: Batches) -> Any:
    """The ModelConfig message of a graph that ONNX Runtime runs."""
    config = _config(name, graph.inputs, graph.outputs, batches[2])
    config.backend = "onnxruntime"
    config.default_model_filename = "model.onnx"
    _serve(config, graph.inputs, batches)
    return config


def engine_config(name: str, graph: GraphEntry, engine: EngineEntry) -> Any:
    """The ModelConfig message of a TensorRT engine; its batches are its profile's."""
    shapes = next(iter(engine.profile.values()))
    batches = shapes[0][0], shapes[1][0], shapes[2][0]
    config = _config(name, graph.inputs, graph.outputs, batches[2])
    config.backend = "tensorrt"
    config.default_model_filename = "model.plan"
    _serve(config, graph.inputs, batches)
    return config


def ensemble_config(bundle: str, graphs: Sequence[GraphEntry], batches: Batches) -> Any | None:
    """The ModelConfig message of encode → blend → generate: images a and b and weights in, the generator's outputs out.

    There is one where the bundle has graphs `encoder` (an image → a latent), `blend` (za, zb and more → a latent) and
    `generator` (a latent → …) in fp32 whose latents have one shape and type. Else None.
    """
    by_name = {graph.name: graph for graph in graphs if graph.precision == "fp32"}
    if not {"encoder", "blend", "generator"} <= by_name.keys():
        return None
    encoder, blend, generator = (by_name[name] for name in ("encoder", "blend", "generator"))
    pair = {port.name: port for port in blend.inputs if port.name in ("za", "zb")}
    weights = [port for port in blend.inputs if port.name not in pair]
    if not (len(encoder.inputs) == len(encoder.outputs) == len(blend.outputs) == len(generator.inputs) == 1):
        return None
    latents = [encoder.outputs[0], *pair.values(), blend.outputs[0], generator.inputs[0]]
    if len(pair) != 2 or len({(port.shape, port.dtype) for port in latents}) > 1:
        return None
    image = encoder.inputs[0]
    ends = [image.model_copy(update={"name": name}) for name in ("a", "b")]
    config = _config(f"{bundle}_blended", [*ends, *weights], generator.outputs, batches[2])
    config.platform = "ensemble"
    between = {"a": "latent_a", "b": "latent_b", "blended": "latent_blended"}  # tensors, named within the ensemble
    for name in ("a", "b"):
        _step(config, model_name(bundle, encoder), {image.name: name}, {encoder.outputs[0].name: between[name]})
    _step(
        config,
        model_name(bundle, blend),
        {"za": between["a"], "zb": between["b"]} | {port.name: port.name for port in weights},
        {blend.outputs[0].name: between["blended"]},
    )
    _step(
        config,
        model_name(bundle, generator),
        {generator.inputs[0].name: between["blended"]},
        {port.name: port.name for port in generator.outputs},
    )
    return config


def _step(config: Any, model: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    step = config.ensemble_scheduling.step.add(model_name=model, model_version=-1)
    step.input_map.update(inputs)
    step.output_map.update(outputs)


def _config(name: str, inputs: Sequence[Port], outputs: Sequence[Port], largest: int) -> Any:
    schema = _schema()
    config = schema.ModelConfig(name=name, max_batch_size=largest)
    for ports, field in ((inputs, config.input), (outputs, config.output)):
        for port in ports:
            field.add(name=port.name, data_type=_type(port), dims=port.shape)
    config.version_policy.latest.num_versions = 1
    return config


def _serve(config: Any, inputs: Sequence[Port], batches: Batches) -> None:
    """Batching, instances and warm-up of a model that runs by itself."""
    _, best, largest = batches
    schema = _schema()
    preferred = sorted({best, largest} - {1})
    if preferred:
        config.dynamic_batching.preferred_batch_size.extend(preferred)
        config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY_US
    config.instance_group.add(count=1, kind=schema.ModelInstanceGroup.KIND_AUTO)
    for size in sorted({batches[0], best}):
        warmup = config.model_warmup.add(name=f"batch {size}", batch_size=size)
        for port in inputs:
            sample = warmup.inputs[port.name]
            sample.data_type = _type(port)
            sample.dims.extend(port.shape)
            sample.random_data = True


def _type(port: Port) -> int:
    return int(_schema().DataType.Value(_TYPES[port.dtype]))


def _write(folder: Path, config: Any, file: Path | None) -> None:
    """One model's folder. Triton wants a version's folder of an ensemble too, an empty one."""
    from google.protobuf import text_format

    version = folder / config.name / "1"
    version.mkdir(parents=True)
    (folder / config.name / CONFIG).write_text(text_format.MessageToString(config), encoding="utf-8")
    if file is not None:
        shutil.copyfile(file, version / config.default_model_filename)


def _schema() -> ModuleType:
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError:
        raise InputError("--to triton needs Triton's schema; `pip install awase[triton]`") from None
    return model_config_pb2
