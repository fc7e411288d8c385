"""Graphs of the custom operators, for their tests."""

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import cpp_ext

FLOAT, DOUBLE, UINT8 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.UINT8


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def op(name, inputs, output, **attributes):
    return helper.make_node(name, inputs.split(), [output], domain="awase", **attributes)


def model(nodes, inputs, outputs, constants=None):
    """`inputs` and `outputs`: name → (element type, shape), or None for an output whose type ONNX Runtime must find."""
    values = [
        [
            helper.make_tensor_value_info(name, *kind) if kind else helper.make_empty_tensor_value_info(name)
            for name, kind in ports.items()
        ]
        for ports in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", *values, initializers)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("awase", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def session(*description, constants=None, provider="CPUExecutionProvider"):
    """All of whose nodes are the provider's."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    on_cpu = provider == "CPUExecutionProvider"
    options.add_session_config_entry("session.disable_cpu_ep_fallback", str(int(not on_cpu)))
    options.register_custom_ops_library(cpp_ext.ort_ops())
    return ort.InferenceSession(
        model(*description, constants), options, providers=[(provider, {} if on_cpu else {"use_tf32": "0"})]
    )


def fusion():
    """Two latents are blended and decoded; the pictures' SSIM to a target and their style distance come out."""
    nodes = [
        op("LatentBlend", "za zb weights", "z", parts=[2, 2]),
        helper.make_node("ConvTranspose", ["z", "kernel"], ["made"], strides=[4, 4]),
        helper.make_node("Tanh", ["made"], ["pictures"]),
        op("SSIM", "pictures target", "scores", window="uniform", data_range=2.0, layout="NCHW"),
        helper.make_node("ReduceMean", ["scores"], ["score"], keepdims=0),
        op("Gram", "pictures", "style"),
        op("Gram", "target", "wanted"),
        helper.make_node("Sub", ["style", "wanted"], ["distance"]),
    ]
    inputs = {"za": (FLOAT, ["N", 4, 4, 4]), "zb": (FLOAT, ["N", 4, 4, 4]), "weights": (FLOAT, ["L", 2])}
    outputs = dict.fromkeys(["pictures", "scores", "score", "distance"])
    return nodes, inputs | {"target": (FLOAT, ["T", 3, 16, 16])}, outputs


def fed(seed=0, count=5):
    weights = np.random.default_rng(seed).random((count, 2), np.float32)
    target = np.tanh(floats(count, 3, 16, 16, seed=seed + 2))
    return {
        "za": floats(1, 4, 4, 4, seed=seed),
        "zb": floats(1, 4, 4, 4, seed=seed + 1),
        "weights": weights,
        "target": target,
    }


KERNEL = {"kernel": floats(4, 3, 4, 4, seed=9)}
