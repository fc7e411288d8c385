"""The custom operators in ONNX Runtime's CPU sessions: the kernels' own bits, wherever in a graph they stand."""

import shutil
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import cpp_ext
from cpp_ext import reference

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from onnx import TensorProto  # noqa: E402
from ort_graphs import DOUBLE, FLOAT, KERNEL, UINT8, fed, floats, fusion, images, model, op, session  # noqa: E402

try:
    LIBRARY = cpp_ext.ort_ops()
except (RuntimeError, ValueError) as missing:
    pytest.skip(str(missing), allow_module_level=True)

SSIM = {"window": "uniform", "data_range": 255.0, "layout": "NCHW"}


def ssim_session(element_type=UINT8, shape=("N", "C", "H", "W"), **attributes):
    ports = {name: (element_type, shape) for name in "ab"}
    return session([op("SSIM", "a b", "scores", **SSIM | attributes)], ports, {"scores": None})


def gram_session(shape=("N", "C", "H", "W")):
    return session([op("Gram", "f", "g")], {"f": (FLOAT, shape)}, {"g": None})


def blend_session(n, rows, parts):
    """`rows`: of the weights; None: they are one number a part."""
    weights = ("P",) if rows is None else (rows, "P")
    ports = {name: (FLOAT, (n, sum(parts), "H", "W")) for name in ("za", "zb")} | {"w": (FLOAT, weights)}
    return session([op("LatentBlend", "za zb w", "z", parts=parts)], ports, {"z": None})


# --- values ---


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("element_type", [UINT8, FLOAT])
def test_ssim_has_the_kernels_bits(window, layout, element_type):
    a, b = images(6, 3, 24, 31), images(6, 3, 24, 31, seed=1)
    b[2] = a[2]
    if layout == "NHWC":
        a, b = (np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in (a, b))
    data_range = 255.0
    if element_type == FLOAT:
        a, b, data_range = (a / 255).astype(np.float32), (b / 255).astype(np.float32), 1.0
    options = {"window": window, "data_range": data_range, "layout": layout}
    (scores,) = ssim_session(element_type, **options).run(None, {"a": a, "b": b})
    assert scores.dtype == np.float64 and scores[2] == 1
    np.testing.assert_array_equal(scores, cpp_ext.ssim(a, b, **options))
    np.testing.assert_allclose(scores, reference.ssim(a, b, **options), atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 16, 9, 5), (2, 33, 40), (1, 1, 1, 1)])
def test_gram_has_the_kernels_bits(shape):
    f = floats(*shape)
    (g,) = gram_session(list("NCHW")[: len(shape)]).run(None, {"f": f})
    np.testing.assert_array_equal(g, cpp_ext.gram(f))
    np.testing.assert_allclose(g, reference.gram(f.astype(np.float64)), atol=1e-6)


@pytest.mark.parametrize(("n", "rows"), [(4, 4), (4, 1), (1, 4), (1, 1)])
def test_blend_has_the_kernels_bits(n, rows):
    parts = [3, 1, 4]
    za, zb, w = floats(n, 8, 4, 3), floats(n, 8, 4, 3, seed=1), np.random.default_rng(2).random((rows, 3), np.float32)
    (z,) = blend_session("N", "L", parts).run(None, {"za": za, "zb": zb, "w": w})
    np.testing.assert_array_equal(z, cpp_ext.blend(za, zb, w, parts))
    np.testing.assert_allclose(z, reference.blend(za, zb, w, parts), atol=2e-6)


def test_blend_with_one_weight_a_part():
    za, zb, w = floats(3, 4, 2, 2), floats(3, 4, 2, 2, seed=1), np.array([0.25, 1], np.float32)
    (z,) = blend_session("N", None, [1, 3]).run(None, {"za": za, "zb": zb, "w": w})
    np.testing.assert_array_equal(z, cpp_ext.blend(za, zb, w, [1, 3]))


# --- shapes ---


def test_one_session_takes_every_size():
    ssim, gram = ssim_session(), gram_session()
    for n, c, h, w in [(1, 1, 7, 7), (5, 3, 20, 33), (0, 3, 16, 16), (2, 2, 64, 11)]:
        a, b = images(n, c, h, w), images(n, c, h, w, seed=1)
        np.testing.assert_array_equal(ssim.run(None, {"a": a, "b": b})[0], cpp_ext.ssim(a, b, layout="NCHW"))
        f = floats(n, c, h, w)
        np.testing.assert_array_equal(gram.run(None, {"f": f})[0], cpp_ext.gram(f))


@pytest.mark.parametrize(
    ("made", "shape", "element_type"),
    [
        (lambda: ssim_session(), ["N"], "tensor(double)"),
        (lambda: ssim_session(shape=(4, 3, "H", "W")), [4], "tensor(double)"),
        (lambda: gram_session(), ["N", "C", "C"], "tensor(float)"),
        (lambda: gram_session((2, 7, "K")), [2, 7, 7], "tensor(float)"),
        (lambda: gram_session(None), [], "tensor(float)"),
        (lambda: gram_session((None, 7, "K")), [], "tensor(float)"),
        (lambda: blend_session("N", 1, [2, 3]), ["N", 5, "H", "W"], "tensor(float)"),
        (lambda: blend_session("N", "N", [2, 3]), ["N", 5, "H", "W"], "tensor(float)"),
        (lambda: blend_session("N", "L", [2, 3]), [], "tensor(float)"),  # N or L
        (lambda: blend_session(1, "L", [2, 3]), ["L", 5, "H", "W"], "tensor(float)"),
        (lambda: blend_session(6, "L", [2, 3]), [6, 5, "H", "W"], "tensor(float)"),
        (lambda: blend_session("N", None, [2, 3]), ["N", 5, "H", "W"], "tensor(float)"),
    ],
)
def test_the_outputs_type_and_shape_are_known_before_a_run(made, shape, element_type):
    (output,) = made().get_outputs()
    assert output.shape == shape and output.type == element_type


# --- errors ---


@pytest.mark.parametrize(
    ("made", "feeds", "message"),
    [
        (
            lambda: ssim_session(),
            lambda: {"a": images(2, 3, 20, 20), "b": images(2, 3, 20, 21)},
            r"SSIM: b: got uint8 \[2, 3, 20, 21\] in host memory, expected images like a's, uint8 \[2, 3, 20, 20\]",
        ),
        (
            lambda: ssim_session(window="gaussian"),
            lambda: {"a": images(2, 3, 9, 20), "b": images(2, 3, 9, 20)},
            r"SSIM: a: got uint8 \[2, 3, 9, 20\].* expected at least one channel and 11 x 11 pixels",
        ),
        (
            lambda: ssim_session(shape=None),
            lambda: {"a": images(3, 20, 20), "b": images(3, 20, 20)},
            r"SSIM: a: got uint8 \[3, 20, 20\].* expected .* images \[N, C, H, W\]",
        ),
        (
            lambda: ssim_session(TensorProto.FLOAT16, data_range=1.0),
            lambda: {name: np.ones((1, 1, 9, 9), np.float16) for name in "ab"},
            r"SSIM: a: got float16 .* expected uint8 or float32 images in host memory",
        ),
        (
            lambda: ssim_session(TensorProto.INT32),
            lambda: {name: np.ones((1, 1, 9, 9), np.int32) for name in "ab"},
            r"SSIM: a: got ONNX element type 6, expected uint8",
        ),
        (
            lambda: ssim_session(data_range=-1.0),
            lambda: {"a": images(1, 1, 9, 9), "b": images(1, 1, 9, 9)},
            "SSIM: data_range: got -1.0.*, expected a positive number",
        ),
        (lambda: gram_session(None), lambda: {"f": floats(4, 5)}, r"Gram: f: got float32 \[4, 5\].*\[N, C, K\]"),
        (lambda: gram_session(None), lambda: {"f": floats(1, 1, 1, 1, 1)}, "Gram: f: got rank 5, expected"),
        (
            lambda: gram_session(),
            lambda: {"f": floats(2, 3, 0, 4)},
            r"Gram: f: got float32 \[2, 3, 0\].* K of at least 1",
        ),
        (
            lambda: blend_session("N", "L", [2, 3]),
            lambda: {"za": floats(2, 5, 2, 2), "zb": floats(3, 5, 2, 2), "w": floats(2, 2)},
            r"LatentBlend: zb: got float32 \[3, 5, 2, 2\].* expected the shape of za",
        ),
        (
            lambda: blend_session("N", "L", [2, 3]),
            lambda: {"za": floats(4, 5, 2, 2), "zb": floats(4, 5, 2, 2), "w": floats(3, 2)},
            r"LatentBlend: weights: got float32 \[3, 2\].* expected \[4 or 1, 2\]",
        ),
    ],
)
def test_what_cannot_be_used_is_an_error_of_onnx_runtime_that_names_it(made, feeds, message):
    runs = made()
    for _ in range(2):
        with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match=message):
            runs.run(None, feeds())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: ssim_session(window="box"), "SSIM: window: got 'box', expected 'uniform' or 'gaussian'"),
        (lambda: ssim_session(layout="CHW"), "SSIM: layout: got 'CHW', expected 'NCHW' or 'NHWC'"),
        (lambda: ssim_session(data_range=255), "SSIM: data_range: got no such attribute, expected .* a float"),
        (
            lambda: session([op("LatentBlend", "a a w", "z")], {"a": (FLOAT, None), "w": (FLOAT, None)}, {"z": None}),
            "LatentBlend: parts: got no such attribute, expected the channels of each part",
        ),
    ],
)
def test_attributes_are_checked_when_the_session_is_made(made, message):
    with pytest.raises(Exception, match=message):
        made()


def test_the_path_says_how_to_get_what_was_not_built(monkeypatch, tmp_path):
    monkeypatch.setattr(cpp_ext.kernels, "_kernels", types.SimpleNamespace(__file__=str(tmp_path / "_kernels.so")))
    with pytest.raises(ValueError, match=r"^ort_ops: got no .*, expected .*ONNXRUNTIME_ROOT.*pip install"):
        cpp_ext.ort_ops()


# --- whole graphs ---


def test_a_fusion_graph_with_its_metrics_runs_in_one_session():
    feeds = fed()
    pictures, scores, score, distance = session(*fusion(), constants=KERNEL).run(None, feeds)
    z = cpp_ext.blend(feeds["za"], feeds["zb"], feeds["weights"], [2, 2])
    decoded = np.einsum("nchw,cdkl->ndhkwl", z, KERNEL["kernel"]).reshape(5, 3, 16, 16)
    np.testing.assert_allclose(pictures, np.tanh(decoded), atol=1e-5)
    np.testing.assert_array_equal(scores, cpp_ext.ssim(pictures, feeds["target"], data_range=2.0, layout="NCHW"))
    np.testing.assert_allclose(score, scores.mean(), rtol=1e-12)
    np.testing.assert_array_equal(distance, cpp_ext.gram(pictures) - cpp_ext.gram(feeds["target"]))


def test_one_session_runs_in_several_threads():
    shared = session(*fusion(), constants=KERNEL)
    feeds = [fed(seed, count) for seed, count in ((0, 1), (10, 4), (20, 9), (30, 2))]
    expected = [shared.run(None, given) for given in feeds]
    wrong = []

    def work(number):
        for k in range(20):
            which = (number + k) % len(feeds)
            got = shared.run(None, feeds[which])
            if any(not np.array_equal(x, y) for x, y in zip(got, expected[which], strict=True)):
                wrong.append((number, k))

    workers = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_process_without_cpp_ext_opens_and_closes_sessions(tmp_path):
    ports = {name: (UINT8, ["N", 3, "H", "W"]) for name in "ab"}
    path = tmp_path / "ssim.onnx"
    path.write_bytes(model([op("SSIM", "a b", "scores", **SSIM)], ports, {"scores": (DOUBLE, ["N"])}))
    code = f"""
        import gc, sys, numpy, onnxruntime
        a, b = numpy.random.default_rng(0).integers(0, 256, (2, 40, 3, 64, 64), numpy.uint8)
        for _ in range(4):  # the kernels' threads outlive each session, and its hold on the library
            options = onnxruntime.SessionOptions()
            options.register_custom_ops_library({LIBRARY!r})
            session = onnxruntime.InferenceSession({str(path)!r}, options, providers=["CPUExecutionProvider"])
            scores = session.run(None, {{"a": a, "b": b}})[0]
            del session, options
            gc.collect()
        assert not any(name.startswith("cpp_ext") for name in sys.modules)
        sys.stdout.buffer.write(scores.tobytes())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    a, b = np.random.default_rng(0).integers(0, 256, (2, 40, 3, 64, 64), np.uint8)
    np.testing.assert_array_equal(np.frombuffer(done.stdout), cpp_ext.ssim(a, b, layout="NCHW"))


# --- with a GPU, as far as it can be seen without one ---


def test_on_cuda_the_kernels_are_given_the_device_and_the_stream(tmp_path):
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    source = Path(__file__).parent / "ort_ops_app"
    for command in (["cmake", "-S", source, "-B", tmp_path], ["cmake", "--build", tmp_path]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    if not (tmp_path / "app").exists():
        pytest.skip("needs ONNX Runtime's headers: set ONNXRUNTIME_ROOT, or install npm")
    done = subprocess.run([tmp_path / "app"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    old, domain, *lines = done.stdout.splitlines()
    assert old == "9 awase_ort_ops: got ONNX Runtime 1.19.2, expected 1.20 or later"
    assert domain == "domain awase"  # made once
    at = iter(lines)
    for provider, device in (("CPUExecutionProvider", -1), ("CUDAExecutionProvider", 3)):
        z, blended = f"2@{device}[1:80,5:16,4:4,4:1]", f"2@{device}[6:80,5:16,4:4,4:1]"
        image = f"1@{device}[2:816,3:1,16:51,17:3]"  # NHWC, seen as NCHW
        for name, inputs, call in (
            ("LatentBlend", 3, f"blend za={z} zb={z} weights=2@-1[6:2,2:1] parts=4@-1[2:1] out={blended} stream=abc"),
            ("Gram", 1, f"gram f=2@{device}[2:60,3:20,20:1] out=2@{device}[2:9,3:3,3:1] stream=abc"),
            ("SSIM", 2, f"ssim a={image} b={image} scores=3@{device}[2:1] window=1 data_range=2 stream=abc"),
        ):
            assert next(at) == f"{name} {provider} inputs={inputs} api=20" + " memory=0" * inputs
            message = f"{name}: what: got this, expected that"
            assert [next(at) for _ in range(5)] == [call, call, f"2 {message}", call, f"6 {message}"]
    assert not list(at)
