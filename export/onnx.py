"""PyTorch module → ONNX file: opset 18, fp32, weights inside, dynamic batch, checked."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

from export.errors import ExportError
from export.fold import fold_batch_norm
from export.surgery import name_nodes
from export.upsampling import rewrite_upsampling
from runtime.errors import InputError

if TYPE_CHECKING:
    from export.references import Declared
    from runtime.bundle import Port
    from trainer.recipe import Graph

OPSET = 18
BATCH = "batch"
_TORCH = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8, "int64": torch.int64}
_ONNX = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "uint8": onnx.TensorProto.UINT8,
    "int64": onnx.TensorProto.INT64,
}


def export_onnx(graph: Graph, path: Path) -> None:
    """Freeze one graph into an ONNX file.

    Args:
        graph: the module with its ports.
        path: the file to write.

    Raises:
        ExportError: the module cannot be traced, its batch axis is not dynamic, its ports are not as declared, a batch
            normalisation is left, or ONNX or ONNX Runtime refuses the file.
    """
    model = onnx.shape_inference.infer_shapes(trace(graph).model_proto)
    fold_batch_norm(model)
    rewrite_upsampling(model)
    name_nodes(model.graph)
    check_model(model, graph)
    onnx.save_model(model, path)
    check_runs(path, graph)


def trace(graph: Graph) -> torch.onnx.ONNXProgram:
    """Run PyTorch's exporter.

    Raises:
        ExportError: it refuses the module; the message holds its own words.
    """
    # Two samples: torch.export takes a batch of one for a constant.
    example = tuple(torch.zeros((2, *port.shape), dtype=_TORCH[port.dtype]) for port in graph.inputs)
    batch = torch.export.Dim(BATCH, min=1)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of torchvision's absence on every export
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.module.eval(),
                example,
                input_names=[port.name for port in graph.inputs],
                output_names=[port.name for port in graph.outputs],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=tuple({0: batch} for _ in graph.inputs),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # torch.export raises many types; what the user needs is the graph's name and the cause
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        detail = " ".join(lines[:4])[:400]
        raise ExportError(
            f"graph {graph.name}: torch.onnx cannot export it with a dynamic batch: {type(cause).__name__}: {detail}"
        ) from error
    finally:
        logger.setLevel(level)
    assert program is not None  # it is None only without dynamo
    return program


def check_file(path: Path, graph: Declared) -> onnx.ModelProto:
    """Open an ONNX file, check that it is the graph that was declared and whole by itself, and run it.

    Returns:
        The model.

    Raises:
        ExportError: it is not, or does not run.
    """
    try:
        model = onnx.load(path, load_external_data=False)  # with them, it would not be seen that weights are outside
    except Exception as error:  # protobuf's exception types are its implementation's
        raise ExportError(f"graph {graph.name}: {path.name} is no ONNX file: {error}") from error
    check_model(model, graph)
    check_runs(path, graph)
    return model


def check_model(model: onnx.ModelProto, graph: Declared) -> None:
    """Check that an ONNX model is the graph that was declared: opset, ports, dynamic batch, nothing left to fold.

    Raises:
        ExportError: it is not.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise ExportError(f"graph {graph.name}: opsets {opsets}, expected {OPSET} and no custom operators")
    _check_ports(graph.name, "input", model.graph.input, graph.inputs)
    _check_ports(graph.name, "output", model.graph.output, graph.outputs)
    left = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    if left:
        raise ExportError(
            f"graph {graph.name}: batch normalisation is left at {', '.join(left)}: its statistics are not constants; "
            "export the module in evaluation mode"
        )
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ExportError(f"graph {graph.name}: weights are outside the file")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ExportError(f"graph {graph.name}: onnx.checker refuses it: {error}") from error


def _check_ports(graph: str, what: str, values: list[onnx.ValueInfoProto], ports: tuple[Port, ...]) -> None:
    got, want = [value.name for value in values], [port.name for port in ports]
    if got != want:
        raise ExportError(f"graph {graph}: {what}s {', '.join(got)}, expected {', '.join(want)}")
    for value, port in zip(values, ports, strict=True):
        tensor = value.type.tensor_type
        first, *rest = tensor.shape.dim or [onnx.TensorShapeProto.Dimension()]
        if not first.dim_param:
            raise ExportError(
                f"graph {graph}: the batch axis of {what} {port.name} is static ({first.dim_value}); "
                "the module must not depend on the batch size it is traced with"
            )
        shape = [axis.dim_param or axis.dim_value for axis in rest]
        if shape != list(port.shape) or tensor.elem_type != _ONNX[port.dtype]:
            dtype = onnx.TensorProto.DataType.Name(tensor.elem_type)
            raise ExportError(
                f"graph {graph}: {what} {port.name} is {dtype} {shape}, expected {port.dtype} {list(port.shape)}"
            )


def check_runs(path: Path, graph: Declared) -> None:
    """Run the file with ONNX Runtime at batch sizes it was not traced with.

    Raises:
        ExportError: it does not open, does not run, or gives another batch size than it was given.
    """
    from runtime.backends.onnxruntime import OnnxRuntimeSession

    try:
        session = OnnxRuntimeSession(path, threads=1)
        for count in (1, 3):
            feeds = {port.name: np.zeros((count, *port.shape), port.dtype) for port in graph.inputs}
            for port, array in zip(graph.outputs, session.run(feeds).values(), strict=True):
                if array.shape != (count, *port.shape):
                    raise ExportError(
                        f"graph {graph.name}: output {port.name} has shape {list(array.shape)} for a batch of {count}, "
                        f"expected {[count, *port.shape]}"
                    )
    except ExportError:
        raise
    except InputError as error:
        raise ExportError(f"graph {graph.name}: {error}") from error
    except Exception as error:  # ONNX Runtime's exception types have no public base but Exception
        raise ExportError(f"graph {graph.name}: onnxruntime cannot run it: {error}") from error
