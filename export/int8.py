"""fp32 ONNX → int8: convolutions compute with 8-bit weights and inputs, between QuantizeLinear/DequantizeLinear pairs.

Symmetric, weights by output channel, biases in float32: the form that ONNX Runtime, OpenVINO and TensorRT all take.
Only a convolution's inputs are quantised, not its outputs: the activation behind it melts into it and sees exact values
(SSIM to fp32 of the shipped generator 0.996 instead of 0.981, at the same speed). Fully connected layers stay in float:
a generator spends little time there, and their errors reach every pixel.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

QUANTISED = ("Conv", "ConvTranspose")


def to_int8(path: Path, target: Path, calibration: Sequence[dict[str, np.ndarray]], keep: Collection[str] = ()) -> None:
    """Quantise an ONNX file.

    Args:
        path: the fp32 file.
        target: the file to write; inputs and outputs stay as they are.
        calibration: batches of inputs, from which the ranges of all tensors are taken (the largest magnitude seen).
        keep: names of nodes to leave in float32.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with _quiet():
        quantize_static(
            path,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=list(keep),
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": list(QUANTISED),
            },
        )
    model = onnx.load(target)
    del model.metadata_props[:]
    onnx.save_model(model, target)


def quantised(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that compute in int8."""
    pairs = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [node.name for node in model.graph.node if node.op_type in QUANTISED and set(node.input[:2]) <= pairs]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's advice on pre-processing, meant for other kinds of model, off the terminal; and its warnings
    of what its own passes left behind."""
    import onnxruntime

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        onnxruntime.set_default_logger_severity(2)  # as it is unless somebody says otherwise
