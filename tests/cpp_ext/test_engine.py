"""The engine's C interface gives what Python's runtime gives, and refuses what cannot be used."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import engine_bundle
import engine_library
import numpy as np
import pytest
from engine_library import INVALID, UNAVAILABLE, EngineError, tensor

import cpp_ext
import runtime
from runtime.bundle import PRETRAINED

pytestmark = pytest.mark.skipif(not engine_library.available(), reason="the engine was not built here")
SHIPPED = PRETRAINED / "mgan-robot"


@pytest.fixture(scope="module")
def engine():
    return engine_library.load()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    data = engine_bundle.model()
    raw = engine_bundle.manifest(data)
    raw["graphs"].append(engine_bundle.entry(data, "generator.fp16.onnx", precision="fp16"))
    folder = engine_bundle.write(tmp_path_factory.mktemp("tiny"), raw, generator_onnx=data)
    (folder / "generator.fp16.onnx").write_bytes(data)
    return folder


@pytest.fixture
def session(engine, tiny):
    with engine.bundle(tiny) as bundle, engine.session(bundle) as session:
        yield session


def new(count, size=8, joints=2, channels=3):
    return [np.full((count, size, size, channels), 7, np.uint8), np.full((count, joints), 7, np.float32)]


# ---- what a bundle says ----


def test_a_bundle_is_described(engine):
    shipped = runtime.load(SHIPPED, device="cpu").bundle
    graph, precisions = shipped.graph("generator"), [graph.precision for graph in shipped.manifest.graphs]
    fields = ("name", "kind", "dtype", "shape", "unit", "names", "limits", "range", "parts")
    expected = {
        side: [{field: getattr(port, field) for field in fields} for port in ports]
        for side, ports in (("inputs", graph.inputs), ("outputs", graph.outputs))
    }
    with engine.bundle(SHIPPED) as bundle:
        assert engine.c.awase_bundle_name(bundle) == b"mgan-robot"
        (described,) = engine.graphs(bundle)
    assert described == {"name": "generator", "precisions": precisions, **expected}


def test_every_precision_of_a_graph_is_listed_and_opened(engine, tiny):
    with engine.bundle(tiny) as bundle:
        assert [graph["precisions"] for graph in engine.graphs(bundle)] == [["fp32", "fp16"]]
        for options in ({}, {"precision": "fp16"}, {"graph": "generator", "device": "cpu", "threads": 1}):
            with engine.session(bundle, **options) as session:
                engine.generate(session, new(1))


def test_latents_are_described_with_their_parts_and_not_generated(engine, tmp_path):
    data = engine_bundle.model()
    latent = {"name": "image", "shape": [3, 8, 8], "kind": "latent", "parts": [1, 2]}
    ports = engine_bundle.entry(data)["outputs"]
    raw = engine_bundle.manifest(data, graphs=[engine_bundle.entry(data, outputs=[latent, ports[1]])])
    with engine.bundle(engine_bundle.write(tmp_path / "l", raw, generator_onnx=data)) as bundle:
        made, other = engine.graphs(bundle)[0]["outputs"]
        assert (made["kind"], made["shape"], made["parts"]) == ("latent", (3, 8, 8), (1, 2))
        assert (other["kind"], other["parts"]) == ("vector", ())
        with engine.session(bundle) as session:
            outputs = [np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, 2), np.float32)]
            engine.run(session, [np.ones((2, 4), np.float32)], outputs)
            assert outputs[0].any()
            with pytest.raises(EngineError, match="output image must be a float32 image in"):
                engine.generate(session, new(2))


# ---- runs ----


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_run_writes_to_the_callers_memory_what_onnxruntime_gives(engine, tiny, session, batch):
    import onnxruntime

    z = np.random.default_rng(batch).standard_normal((batch, 4)).astype(np.float32)
    outputs = [np.full((batch, 3, 8, 8), 7, np.float32), np.full((batch, 2), 7, np.float32)]
    engine.run(session, [z], outputs)
    expected = onnxruntime.InferenceSession(tiny / "generator.onnx").run(None, {"z": z})
    for got, want in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def bad_runs():
    z, outputs = np.zeros((2, 4), np.float32), [np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, 2), np.float32)]
    wide = np.zeros((2, 8), np.float32)
    return [
        ([], outputs, "0 tensors, expected 1"),
        ([z, z], outputs, "2 tensors, expected 1"),
        ([z], outputs[:1], "1 tensors, expected 2"),
        ([z.astype(np.float64)], outputs, "got float64 [2, 4]"),
        ([z[0]], outputs, "got float32 [4]"),
        ([np.zeros((2, 5), np.float32)], outputs, "got float32 [2, 5] in host memory, expected [batch, 4]"),
        ([z[:0]], outputs, "a batch of at least 1"),
        ([wide[:, ::2]], outputs, "expected a C-contiguous tensor"),
        ([z.T.copy().T], outputs, "expected a C-contiguous tensor"),
        ([tensor(z, data=0)], outputs, "a null pointer"),
        ([tensor(z, dtype=77)], outputs, "dtype number 77"),
        ([tensor(z, rank=9)], outputs, "rank 9"),
        ([tensor(z, rank=-1)], outputs, "rank -1"),
        ([tensor(z, device=0)], outputs, "expected host memory"),
        ([tensor(z, device=-5)], outputs, "device -5"),
        ([z], [outputs[0][:1], outputs[1]], "got float32 [2, 2] in host memory, expected [1, 2]"),
        ([z[:1]], outputs, "expected the inputs' batch of 1"),
        ([z], outputs[::-1], "output image: got float32 [2, 2]"),
        ([z], [outputs[0].astype(np.float16), outputs[1]], "got float16"),
        ([wide[0].reshape(2, 4)], [outputs[0], wide[0, :4].reshape(2, 2)], "memory shared with an input"),
        ([tensor(z, shape=(ctypes.c_int64 * 4)(2**62, 4))], outputs, "expected a batch of at least 1, in memory"),
    ]


@pytest.mark.parametrize("number", range(len(bad_runs())))
def test_tensors_that_cannot_be_used_are_refused(engine, session, number):
    inputs, outputs, expected = bad_runs()[number]
    with pytest.raises(EngineError) as caught:
        engine.run(session, inputs, outputs)
    assert caught.value.status == INVALID
    assert expected in str(caught.value)
    engine.generate(session, new(1))  # and the session is as good as before


# ---- samples ----


@pytest.mark.parametrize("first, seed", [(0, 0), (7, 2**64 - 1), (2**64 - 9, 3)])
def test_generate_gives_the_bytes_that_python_gives(engine, first, seed):
    expected = runtime.load(SHIPPED, device="cpu").generate(9, seed=seed, first=first)
    with engine.bundle(SHIPPED) as bundle, engine.session(bundle) as session:
        outputs = new(9, 80, 10)
        engine.generate(session, outputs, seed, first)
    for got, want in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_generate_with_alpha(engine, session):
    plain, alpha = new(4), new(4, channels=4)
    engine.generate(session, plain)
    engine.generate(session, alpha)
    np.testing.assert_array_equal(alpha[0][..., :3], plain[0])
    assert (alpha[0][..., 3] == 255).all()


def test_vectors_keep_within_their_limits(engine, session):
    images, joints = new(500)
    engine.generate(session, [images, joints])
    low, high = np.array(engine_bundle.LIMITS).T
    assert (joints.astype(np.float64) >= low).all() and (joints.astype(np.float64) <= high).all()
    assert (joints.min(0) - low < 1e-6).all() and (high - joints.max(0) < 1e-6).all()  # the limits were reached


def test_generate_refuses(engine, session):
    images, joints = new(2)
    for outputs, expected in (
        ([images], "1 tensors, expected 2"),
        ([images.astype(np.float32), joints], "output image: got float32"),
        ([images[:1], joints], "output joints: got float32 [2, 2] in host memory, expected float32 [1, 2]"),
        ([images[:0], joints[:0]], "a batch of 0"),
        ([images, tensor(joints, device=0)], "expected host memory"),
        ([images, np.zeros((2, 4), np.float32)[:, ::2]], "expected a C-contiguous tensor"),
    ):
        with pytest.raises(EngineError) as caught:
            engine.generate(session, outputs)
        assert caught.value.status == INVALID and expected in str(caught.value)
    with pytest.raises(EngineError, match="samples below 2"):
        engine.generate(session, [images, joints], first=2**64 - 1)


# ---- streams ----


@pytest.mark.parametrize("batch", [1, 4, 16, 103, 200])
def test_a_stream_gives_the_samples_of_generate(engine, session, batch):
    expected = new(103)
    engine.generate(session, expected, seed=5, first=11)
    parts = []
    with engine.stream(session, seed=5, first=11, count=103, batch=batch) as stream:
        while part := engine.next(stream):
            parts.append(part)
        assert engine.next(stream) == []  # and again
    assert [len(part[0]) for part in parts[:-1]] == [batch] * (len(parts) - 1)
    for k in range(2):
        np.testing.assert_array_equal(np.concatenate([part[k] for part in parts]), expected[k])


def test_a_streamed_batch_is_valid_until_the_next_but_one(engine, session):
    expected = new(40)
    engine.generate(session, expected)
    with engine.stream(session, count=40, batch=4) as stream:
        pointers, count = [], ctypes.c_int64()
        for _ in range(10):
            outputs = ctypes.POINTER(engine_library.Tensor)()
            engine.call("awase_stream_next", stream, ctypes.byref(outputs), ctypes.byref(count))
            pointers.append(outputs)
            for back in (1, 2)[: len(pointers)]:
                k = len(pointers) - back
                held = engine_library.array_of(pointers[k][0])
                np.testing.assert_array_equal(held, expected[0][4 * k : 4 * k + 4])


def test_a_stream_outlives_its_session_and_its_bundle(engine, tiny):
    with engine.bundle(tiny) as bundle, engine.session(bundle) as session:
        handle = engine.stream(session, batch=3)  # without end
        stream = handle.__enter__()
    batches = [engine.next(stream) for _ in range(5)]
    handle.__exit__(None, None, None)
    assert [part[0].shape for part in batches] == [(3, 8, 8, 3)] * 5


def test_streams_refuse(engine, session):
    for options in ({"batch": -1}, {"batch": 2**40}, {"first": 2**64 - 1, "count": 2}):
        with pytest.raises(EngineError) as caught, engine.stream(session, **options):
            pass
        assert caught.value.status == INVALID
    with engine.stream(session, first=2**64 - 2, count=2) as stream:  # the last there are
        assert len(engine.next(stream)[0]) == 2


def test_one_session_in_many_threads(engine, session):
    expected = new(64)
    engine.generate(session, expected, seed=1)

    def one(number):
        outputs = new(8)
        engine.generate(session, outputs, 1, 8 * number)
        with engine.stream(session, seed=1, first=8 * number, count=8, batch=3) as stream:
            streamed = [part[0] for part in iter(lambda: engine.next(stream), [])]
        np.testing.assert_array_equal(np.concatenate(streamed), outputs[0])
        return outputs

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(one, list(range(8)) * 5))
    for number, part in zip(list(range(8)) * 5, parts, strict=True):
        for k in range(2):
            np.testing.assert_array_equal(part[k], expected[k][8 * number : 8 * number + 8])


# ---- what is not there ----


@pytest.mark.parametrize(
    "options, status, expected",
    [
        ({"graph": "decoder"}, INVALID, "no graph decoder, only generator"),
        ({"precision": "int8"}, INVALID, "graph generator is there in fp32, fp16, not in int8"),
        ({"device": "gpu"}, INVALID, "device: got gpu, expected cpu, cuda, cuda:N, tensorrt or"),
        ({"device": "cuda:-1"}, INVALID, "device: got cuda:-1"),
        ({"device": "tensorrt"}, UNAVAILABLE, ""),  # why: there may be a build with TensorRT
        ({"device": "tensorrt:x"}, INVALID, "device: got tensorrt:x"),
        ({"device": "openvino"}, UNAVAILABLE, "that one is of Python's runtime alone"),
        ({"threads": -1}, INVALID, "threads: got -1"),
        ({"onnxruntime": "/nowhere.so"}, UNAVAILABLE, "option onnxruntime: ONNX Runtime's library cannot be opened"),
    ],
)
def test_sessions_refuse(engine, tiny, options, status, expected):
    with engine.bundle(tiny) as bundle:
        with pytest.raises(EngineError) as caught, engine.session(bundle, **options):
            pass
    assert caught.value.status == status
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_cuda_without_a_gpu_is_an_error(engine, tiny):
    try:
        cpp_ext.cuda_devices()
    except RuntimeError:
        with engine.bundle(tiny) as bundle:
            with pytest.raises(EngineError) as caught, engine.session(bundle, device="cuda"):
                pass
        assert caught.value.status == UNAVAILABLE and "on CUDA" in str(caught.value)
    else:
        pytest.skip("there is a GPU here")


def test_null_pointers(engine, session):
    handle = ctypes.c_void_p()
    for name, arguments in (
        ("awase_bundle_open", (None, ctypes.byref(handle))),
        ("awase_bundle_open", (b"x", None)),
        ("awase_session_open", (None, None, ctypes.byref(handle))),
        ("awase_session_run", (None, None, 0, None, 0)),
        ("awase_session_run", (session, None, 1, None, 2)),
        ("awase_session_generate", (session, ctypes.c_uint64(0), ctypes.c_uint64(0), None, 2)),
        ("awase_stream_open", (None, None, ctypes.byref(handle))),
        ("awase_stream_next", (None, None, None)),
    ):
        with pytest.raises(EngineError, match="NULL") as caught:
            engine.call(name, *arguments)
        assert caught.value.status == INVALID
    for kind in ("bundle", "session", "stream"):
        getattr(engine.c, f"awase_{kind}_close")(None)
