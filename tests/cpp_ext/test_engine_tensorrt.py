"""The engine on bundles' TensorRT engines, with stand-ins for NVIDIA's headers and libraries (`tensorrt_app`).

They show that batches, memory and refusals are right, and nothing about what a GPU would do.
"""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import engine_bundle
import engine_library
import numpy as np
import pytest
from engine_library import INVALID, OUT_OF_MEMORY, UNAVAILABLE, EngineError, tensor
from tensorrt_stand import APP, DATA, TEXT, OnGpu, Stand, check, expected, new

import cpp_ext

pytestmark = [
    pytest.mark.skipif(not engine_library.available(), reason="the engine was not built here"),
    pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake"),
    pytest.mark.skipif(not shutil.which("nvcc"), reason="needs the CUDA toolkit's headers"),
]
CUDA_FAILED = 4


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorrt_app")
    library = engine_library.installed().parent / "libawase.so"
    for command in (
        ["cmake", "-S", APP, "-B", folder, f"-DAWASE_LIBRARY={library}", f"-DPython_EXECUTABLE={sys.executable}"],
        ["cmake", "--build", folder, "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        _, missing, what = done.stderr.partition("missing: ")
        if missing:
            pytest.skip(f"the engine cannot be compiled without {what.split()[0]}; `pip install nlohmann-json`")
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def stand(built, request):
    if request.param == "tensorrt":
        return Stand(built, "libawase_engine.so", "libstand_in_nvinfer.so", request.param, "10.13.0.35")
    return Stand(built, "libawase_engine_rtx.so", "libstand_in_rtx.so", request.param, "1.7.1.116")


@pytest.fixture
def session(stand, tmp_path):
    before = stand.alive()
    with stand.engine.bundle(stand.bundle(tmp_path)) as bundle:
        with stand.engine.session(bundle, device="tensorrt:1", tensorrt=stand.tensorrt) as session:
            stand.batches()
            yield session
    assert stand.alive() == before  # all of it was given back
    device = ctypes.c_int(-1)
    stand.cuda.cudaGetDevice(ctypes.byref(device))
    assert device.value == 0  # the caller's own


# ---- runs ----


@pytest.mark.parametrize(
    "count, batches", [(1, [1]), (2, [2]), (3, [4]), (5, [8]), (8, [8]), (9, [8, 1]), (21, [8, 8, 8])]
)
def test_batches_are_padded_and_split(stand, session, rng, count, batches):
    z, outputs = rng.standard_normal((count, 4)).astype(np.float32), new(count)
    stand.engine.run(session, [z], outputs)
    check(z, outputs)
    assert stand.batches() == batches


def test_a_profile_without_small_or_even_batches(stand, tmp_path, rng):
    text = TEXT.replace(b"1 8", b"3 11")
    folder = stand.bundle(tmp_path, text, profile={"z": [[3, 4], [5, 4], [11, 4]]})
    with stand.engine.bundle(folder) as bundle:
        with stand.engine.session(bundle, device="tensorrt", tensorrt=stand.tensorrt) as session:
            stand.batches()
            z, outputs = rng.standard_normal((25, 4)).astype(np.float32), new(25)
            for count in (1, 3, 4, 9, 11, 25):
                parts = [part[:count] for part in outputs]
                stand.engine.run(session, [z[:count]], parts)
                check(z[:count], parts)
            assert stand.batches() == [3, 3, 4, 11, 11, 11, 11, 3]


def test_samples_are_the_seeds(stand, session):
    outputs = [np.zeros((20, 8, 8, 3), np.uint8), np.zeros((20, 2), np.float32)]
    stand.engine.generate(session, outputs, seed=3, first=7)
    image, joints = expected(cpp_ext.noise(3, 7, 20, 4))
    np.testing.assert_array_equal(outputs[0], cpp_ext.pack(image))
    low, high = np.array(engine_bundle.LIMITS).T
    np.testing.assert_allclose(outputs[1], np.clip(joints, low, high), atol=1e-6)
    with stand.engine.stream(session, seed=3, first=7, count=20, batch=6) as stream:
        streamed = [part[0] for part in iter(lambda: stand.engine.next(stream), [])]
    np.testing.assert_array_equal(np.concatenate(streamed), outputs[0])


@pytest.mark.parametrize("count", [1, 3, 8, 20])
@pytest.mark.parametrize("offset", [0, 4])
def test_memory_of_the_gpu(stand, session, rng, count, offset):
    z, host = rng.standard_normal((count, 4)).astype(np.float32), new(count)
    given = [OnGpu(stand, array, offset) for array in (z, *host)]
    stand.engine.run(session, [given[0].tensor()], [part.tensor() for part in given[1:]])
    check(z, [part.array() for part in given[1:]])
    np.testing.assert_array_equal(given[0].array(), z)
    stand.engine.run(session, [z], [given[1].tensor(), host[1]])  # mixed with the host's
    check(z, [given[1].array(), host[1]])
    for part in given:
        part.free()


def test_memory_of_another_gpu_is_refused(stand, session):
    z = np.zeros((1, 4), np.float32)
    with pytest.raises(EngineError, match="host memory or the session's device"):
        stand.engine.run(session, [tensor(z, device=0)], new(1))


def test_threads_share_a_session(stand, session, rng):
    def one(count):
        z, outputs = np.full((count, 4), count, np.float32), new(count)
        for _ in range(20):
            stand.engine.run(session, [z], outputs)
            check(z, outputs)
        return count

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, [1, 5, 8, 19])) == [1, 5, 8, 19]


@pytest.mark.parametrize(
    "fail, status, why",
    [
        ("setInputShape", UNAVAILABLE, "generator.tensorrt.engine does not take a batch of 4: not this shape"),
        ("enqueueV3", UNAVAILABLE, "generator.tensorrt.engine failed to run: a kernel  failed"),
        ("cudaMemcpyAsync", CUDA_FAILED, "CUDA failed copying a tensor: failed"),
        ("cudaStreamSynchronize", CUDA_FAILED, "CUDA failed running: failed"),
    ],
)
def test_a_run_that_fails_says_so_and_the_next_works(stand, session, monkeypatch, rng, fail, status, why):
    z, outputs = rng.standard_normal((3, 4)).astype(np.float32), new(3)
    monkeypatch.setenv("STAND_IN_FAIL", fail)
    with pytest.raises(EngineError) as caught:
        stand.engine.run(session, [z], outputs)
    assert caught.value.status == status and why in str(caught.value)
    assert stand.cuda.stand_in_pending(0) == 0  # nothing that still uses the caller's memory
    monkeypatch.delenv("STAND_IN_FAIL")
    stand.engine.run(session, [z], outputs)
    check(z, outputs)


# ---- engines that may not run here ----


@pytest.mark.parametrize(
    "fields, why",
    [
        ({"onnx_sha256": "0" * 64}, "is stale: built from another generator.onnx (SHA-256 000000000000..., the bundle"),
        (
            {"version": "9.1\n"},
            "was built by FLAVOUR 9.1 , here is VERSION, and engines run on their own version alone",
        ),
        ({"compute_capabilities": ["SM75", "SM120"]}, "is for SM75, SM120, and GPU 0 is SM89; `python -m export"),
        ({"profile": {}}, "its profile does not fit the graph's inputs; `python -m export RUN --trt`"),
        ({"profile": {"z": [[1, 5], [4, 5], [8, 5]]}}, "its profile does not fit"),
        ({"profile": {"z": [[4, 4], [1, 4], [8, 4]]}}, "its profile does not fit"),
        ({"profile": {"z": [[1], [4], [8]]}}, "its profile does not fit"),
        ({"profile": {"z": [[], [], []]}}, "its profile does not fit"),
        ({"profile": {"x": [[1, 4], [4, 4], [8, 4]]}}, "its profile does not fit"),
        ({"profile": {"z": [[1, 4], [4, 4], [16, 4]]}}, "input z takes other batches than bundle.json says"),
    ],
)
def test_what_the_manifest_rules_out(stand, tmp_path, fields, why):
    text = stand.refusal(stand.bundle(tmp_path, **fields))
    assert why.replace("FLAVOUR", stand.flavour).replace("VERSION", stand.version) in text
    assert "python -m export" in text and "generator.tensorrt.engine" in text


def test_the_way_out_names_precision_and_generation(stand, tmp_path):
    raw = engine_bundle.manifest(DATA)
    raw["graphs"].append(engine_bundle.entry(DATA, "generator.fp16.onnx", precision="fp16"))
    raw["engines"] = [stand.entry(TEXT, precision="fp16", compute_capabilities=["SM90"])]
    engine_bundle.write(tmp_path, raw, generator_onnx=DATA)
    (tmp_path / "generator.fp16.onnx").write_bytes(DATA)
    (tmp_path / raw["engines"][0]["file"]).write_bytes(TEXT)
    assert "no engine of graph generator in fp32; `python -m export RUN --trt` builds one" in stand.refusal(tmp_path)
    mend = " --sm 89`" if stand.flavour == "tensorrt-rtx" else "` on this machine"
    assert f"--trt --precision fp16{mend} builds one" in stand.refusal(tmp_path, precision="fp16")


@pytest.mark.parametrize(
    "tensors, why",
    [
        ("input z 0 1 8 5\noutput image 0 3 8 8\noutput joints 0 2\n", "input z has another dtype or shape"),
        ("input z 1 1 8 4\noutput image 0 3 8 8\noutput joints 0 2\n", "input z has another dtype or shape"),
        ("input z 0 1 8 4\noutput image 0 3 8\noutput joints 0 2\n", "output image has another dtype or shape"),
        ("input z 0 1 8 4\noutput image 0 3 8 8\n", "2 inputs and outputs, bundle.json has 3"),
        ("input z 0 1 8 4\noutput image 0 3 8 8\noutput hands 0 2\n", "no output joints"),
        ("input z 0 1 8 4\noutput image 0 3 8 8\ninput joints 0 1 8 2\n", "no output joints"),
    ],
)
def test_an_engine_of_another_graph(stand, tmp_path, tensors, why):
    assert why in stand.refusal(stand.bundle(tmp_path, b"stand-in engine\n" + tensors.encode()))


def test_a_damaged_engine_in_the_librarys_words(stand, tmp_path):
    text = stand.refusal(stand.bundle(tmp_path, b"\x00\xffnonsense"))
    words = "Serialization assertion failed; magic tag does not match"
    assert text == f"{tmp_path}/generator.tensorrt.engine cannot be loaded: {words}"


def test_an_engine_that_changes_after_the_bundle_was_opened(stand, tmp_path):
    with stand.engine.bundle(stand.bundle(tmp_path)) as bundle:
        path = tmp_path / "generator.tensorrt.engine"
        path.write_bytes(path.read_bytes().replace(b"joints", b"hjoint"))
        with pytest.raises(EngineError, match="has changed: SHA-256") as caught:
            with stand.engine.session(bundle, device="tensorrt", tensorrt=stand.tensorrt):
                pass
        assert caught.value.status == INVALID


def test_the_first_engine_that_fits_is_taken_and_all_reasons_are_said(stand, tmp_path):
    other = "tensorrt" if stand.flavour == "tensorrt-rtx" else "tensorrt-rtx"
    unfit = [
        stand.entry(TEXT, "other.engine", flavour=other),
        stand.entry(TEXT, "old.engine", onnx_sha256="1" * 64),
    ]
    reasons = stand.refusal(stand.bundle(tmp_path / "a", engines=unfit))
    assert f"other.engine is for {other}, and this awase was built with the headers of {stand.flavour}" in reasons
    assert "old.engine is stale" in reasons
    folder = stand.bundle(tmp_path / "b", engines=[*unfit, stand.entry(TEXT)])
    with stand.engine.bundle(folder) as bundle:
        with stand.engine.session(bundle, device="tensorrt", tensorrt=stand.tensorrt) as session:
            outputs = new(2)
            stand.engine.run(session, [np.ones((2, 4), np.float32)], outputs)
    check(np.ones((2, 4), np.float32), outputs)


# ---- GPUs and libraries that are not there ----


@pytest.mark.parametrize(
    "variables, options, status, why",
    [
        ({"GPUS": "0"}, {}, UNAVAILABLE, "device tensorrt:0: CUDA finds no GPU: no device"),
        ({}, {"device": "tensorrt:2"}, UNAVAILABLE, "device tensorrt:2: this machine has 2 GPU(s), numbered from 0"),
        ({"CAPABILITY": "12.0"}, {}, UNAVAILABLE, "and GPU 0 is SM120"),
        ({"FAIL": "cudaMalloc"}, {}, OUT_OF_MEMORY, "CUDA failed making room for a batch: out of memory"),
        ({"FAIL": "createInferRuntime"}, {}, UNAVAILABLE, "cannot be loaded: CUDA initialization failure"),
        ({}, {"tensorrt": "/nowhere.so"}, UNAVAILABLE, "library cannot be opened: /nowhere.so"),
        ({}, {"device": "tensorrt:-1"}, INVALID, "device: got tensorrt:-1, expected cpu, cuda, cuda:N, tensorrt or"),
        ({}, {"precision": "int8"}, INVALID, "graph generator is there in fp32, not in int8"),
    ],
)
def test_what_is_not_there(stand, tmp_path, monkeypatch, variables, options, status, why):
    for name, value in variables.items():
        monkeypatch.setenv(f"STAND_IN_{name}", value)
    assert why in stand.refusal(stand.bundle(tmp_path), status, **options)


def test_another_library_than_the_processs_own(stand, session, tmp_path, built):
    text = stand.refusal(stand.bundle(tmp_path / "b"), INVALID, tensorrt=str(built / "libstand_in_cudart.so"))
    assert "expected the library that this process uses already" in text


ALONE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(APP.parent)!r})
import engine_library
engine = engine_library.Engine(Path(sys.argv[1]))
with engine.bundle(sys.argv[2]) as bundle:
    try:
        with engine.session(bundle, device="tensorrt"):
            print("opened")
    except engine_library.EngineError as error:
        print(error.status, error)
"""


def alone(library, folder):
    """What opening a session says in a process that has opened no other."""
    command = [sys.executable, "-c", ALONE, library, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    return done.stdout


@pytest.mark.parametrize(
    "library, version, why",
    [
        ("", "", "TensorRT's library was not found: neither libnvinfer.so.10 on the loader's paths nor"),
        ("/nowhere.so", "", "AWASE_TENSORRT_LIBRARY: TensorRT's library cannot be opened: /nowhere.so"),
        ("libstand_in_cudart.so", "", "TensorRT is none: it has no createInferRuntime_INTERNAL"),
        ("libstand_in_nvinfer.so", "11.4.0.106", "is 11.4.0.106, and this awase was built with the headers of 10"),
        ("libstand_in_nvinfer.so", "10.9.0.34", "was built by tensorrt 10.13.0.35, here is 10.9.0.34"),
        ("libstand_in_nvinfer.so", "10.13.0.35", "opened"),
    ],
)
def test_how_a_process_finds_the_library(built, tmp_path, monkeypatch, library, version, why):
    stand = Stand(built, "libawase_engine.so", "libstand_in_nvinfer.so", "tensorrt", "10.13.0.35")
    folder = stand.bundle(tmp_path)
    monkeypatch.setenv("AWASE_TENSORRT_LIBRARY", str(built / library) if library else "")
    monkeypatch.setenv("STAND_IN_VERSION", version or "10.13.0.35")
    assert why in alone(built / "engine" / "libawase_engine.so", folder)


def test_pips_package_beside_awase_is_found(built, tmp_path, monkeypatch):
    for source, target in (
        ("engine/libawase_engine.so", "cpp_ext/lib/libawase_engine.so"),
        ("libstand_in_nvinfer.so", "tensorrt_libs/libnvinfer.so.10"),
    ):
        (tmp_path / target).parent.mkdir(parents=True)
        shutil.copy(built / source, tmp_path / target)
    stand = Stand(built, "libawase_engine.so", "libstand_in_nvinfer.so", "tensorrt", "10.13.0.35")
    monkeypatch.setenv("AWASE_TENSORRT_LIBRARY", "")
    assert alone(tmp_path / "cpp_ext/lib/libawase_engine.so", stand.bundle(tmp_path / "b")) == "opened\n"


def test_an_engine_built_without_tensorrt_says_how_to_build_it(built, tmp_path):
    stand = Stand(built, "libawase_engine.so", "libstand_in_nvinfer.so", "tensorrt", "10.13.0.35")
    stand.engine = engine_library.Engine(built / "libawase_engine_none.so")
    assert "-DAWASE_TENSORRT=on -DTENSORRT_ROOT=" in stand.refusal(stand.bundle(tmp_path))


def test_nvidias_own_library_is_opened_and_says_its_version(built, tmp_path, monkeypatch):
    """TensorRT-RTX's real one. No more of it can be used by what the stand-in's headers compiled."""
    rtx = pytest.importorskip("tensorrt_rtx")
    folder = Path(importlib.util.find_spec("tensorrt_rtx_libs").submodule_search_locations[0])
    stand = Stand(built, "libawase_engine_rtx.so", "libstand_in_rtx.so", "tensorrt-rtx", "1.0")
    monkeypatch.setenv("AWASE_TENSORRT_LIBRARY", str(next(folder.glob("libtensorrt_rtx.so.*"))))
    assert f"was built by tensorrt-rtx 1.0, here is {rtx.__version__}, and" in alone(
        built / "libawase_engine_rtx.so", stand.bundle(tmp_path)
    )
