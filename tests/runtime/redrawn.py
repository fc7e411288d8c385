"""Changes what a test bundle's generator gives: images of other channels, or none."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from runtime.bundle import MANIFEST, sha256_of


def redraw(bundle: Path, channels: int) -> Path:
    """Give the images of a bundle made by `make_bundle` so many channels, 0 for no images at all."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    entry = manifest["graphs"][0]
    file = bundle / entry["file"]
    model = onnx.load(file)
    if channels:
        weights = (0.1 * np.random.default_rng(1).standard_normal((channels, 32, 3, 3))).astype(np.float32)
        place = next(place for place, tensor in enumerate(model.graph.initializer) if tensor.name == "w1")
        model.graph.initializer[place].CopyFrom(numpy_helper.from_array(weights, "w1"))
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = channels
        entry["outputs"][0]["shape"][0] = channels
    else:
        del model.graph.output[0], entry["outputs"][0]
    onnx.save_model(model, file)
    entry |= {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return bundle
