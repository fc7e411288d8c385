"""Transposed convolutions rewritten as convolution + depth to space give what they gave."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.surgery import constants
from export.upsampling import FEW, rewrite_upsampling


def upsampler(
    kernel: tuple[int, int] = (4, 4),
    strides: tuple[int, int] = (2, 2),
    pads: tuple[int, ...] = (1, 1, 1, 1),
    extra: tuple[int, int] = (0, 0),
    c_in: int = 3,
    c_out: int = 2,
    bias: bool = True,
    activation: str = "",
    size: tuple[int, int] = (4, 5),
    crop: tuple[tuple[int, int], ...] = (),
    **fields: object,
) -> onnx.ModelProto:
    """x [N, c_in, *size] → ConvTranspose → activation → a Slice for each (start, end) of rows → y"""
    rng = np.random.default_rng(0)
    made = [("w", rng.standard_normal((c_in, c_out, *kernel)))] + [("b", rng.standard_normal(c_out))] * bias
    tensors = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in made]
    ops: list[tuple[str, list[str], dict[str, object]]] = [
        (
            "ConvTranspose",
            [name for name, _ in made],
            {"strides": strides, "pads": pads, "output_padding": extra, "kernel_shape": kernel} | fields,
        )
    ]
    if activation:
        ops.append((activation, [], {}))
    for index, (start, end) in enumerate(crop):
        names = [f"{what}{index}" for what in ("starts", "ends", "axes")]
        tensors += [
            numpy_helper.from_array(np.array([v]), n) for n, v in zip(names, (start, end, 2 + index % 2), strict=True)
        ]
        ops.append(("Slice", names, {}))
    nodes, name = [], "x"
    for index, (operator, rest, attributes) in enumerate(ops):
        output = "y" if index == len(ops) - 1 else f"t{index}"
        attributes = {key: value for key, value in attributes.items() if value is not None}
        nodes.append(helper.make_node(operator, [name, *rest], [output], name=f"n{index}", **attributes))
        name = output
    graph = helper.make_graph(
        nodes,
        "upsampler",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", c_in, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    _, *shape = session.get_inputs()[0].shape
    return session.run(None, {"x": np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)})[0]


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, object]:
    stride = draw(st.integers(1, 4))
    kernel = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    extra = draw(st.tuples(st.integers(0, stride - 1), st.integers(0, stride - 1)))
    pads = [0] * 4
    for axis in (0, 1):  # any that leave an output
        whole = (size[axis] - 1) * stride + kernel[axis] + extra[axis]
        pads[axis] = draw(st.integers(0, min(kernel[axis], whole - 1)))
        pads[2 + axis] = draw(st.integers(0, min(kernel[axis], whole - 1 - pads[axis])))
    return {
        "kernel": kernel,
        "strides": (stride, stride),
        "pads": tuple(pads),
        "extra": extra,
        "size": size,
        "bias": draw(st.booleans()),
        "activation": draw(st.sampled_from(["", "Tanh", "LeakyRelu"])),
    }


@settings(max_examples=200, deadline=None, derandomize=True)
@given(geometries())
def test_any_geometry(geometry: dict[str, object]) -> None:
    model = upsampler(**geometry)  # type: ignore[arg-type]
    want = run(model)
    assert rewrite_upsampling(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert "ConvTranspose" not in operators(model)
    got = run(model)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_activation_goes_before_the_interleaving() -> None:
    model = upsampler(activation="Tanh")
    rewrite_upsampling(model)
    assert operators(model) == ["Conv", "Tanh", "DepthToSpace", "Slice"]
    assert [node.name for node in model.graph.node] == ["n0", "n1", "n0_interleave", "n0_crop"]


def test_whole_blocks_are_not_computed_to_be_cut() -> None:
    """Kernel 6, stride 2, padding 2: one block at each end is never made and nothing is left to cut."""
    model = upsampler(kernel=(6, 6), pads=(2, 2, 2, 2))
    rewrite_upsampling(model)
    assert operators(model) == ["Conv", "DepthToSpace"]
    assert next(a.ints for a in model.graph.node[0].attribute if a.name == "pads") == [1, 1, 1, 1]
    stride_one = upsampler(kernel=(3, 3), strides=(1, 1), activation="Relu")
    rewrite_upsampling(stride_one)
    assert operators(stride_one) == ["Conv", "Relu"]


@pytest.mark.parametrize("crop", [((1, 6), (2, 7)), ((0, 7), (0, 2**63 - 1)), ((1, 100), (0, 4)), ((-5, 7), (1, 3))])
def test_a_crop_behind_it_is_merged_where_that_is_right(crop: tuple[tuple[int, int], ...]) -> None:
    model = upsampler(activation="Tanh", crop=crop)
    want = run(model)
    rewrite_upsampling(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model), want, rtol=1e-5, atol=1e-6)
    certain = crop[0][0] >= 0 and crop[0][1] != 100
    assert operators(model).count("Slice") == (1 if certain else 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"c_out": FEW},
        {"strides": (2, 1)},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "pads": None},
        {"output_shape": [7, 9], "pads": None},
        {"group": 3, "c_in": 3, "c_out": 1},
    ],
)
def test_what_does_not_fit_is_left_alone(fields: dict[str, object]) -> None:
    model = upsampler(**fields)  # type: ignore[arg-type]
    before = model.SerializeToString()
    assert rewrite_upsampling(model) == 0 and model.SerializeToString() == before
    assert operators(model) == ["ConvTranspose"]


def test_the_transposed_result_may_be_read_twice() -> None:
    """The activation stays behind the interleaving then: another node wants what comes before it."""
    model = upsampler(activation="Tanh")
    model.graph.output.append(helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["batch", 2, 8, 10]))
    want = run(model)
    assert rewrite_upsampling(model) == 1
    assert operators(model) == ["Conv", "DepthToSpace", "Slice", "Tanh"]
    np.testing.assert_allclose(run(model), want, rtol=1e-5, atol=1e-6)
    assert set(constants(model.graph)) == {name for node in model.graph.node for name in node.input[1:]}
