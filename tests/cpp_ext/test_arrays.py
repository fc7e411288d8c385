"""Arrays of other libraries, threads, processes, and a place without the compiled library."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import cpp_ext
from cpp_ext import reference

ROOT = Path(__file__).parents[2]
compiled = pytest.mark.skipif(not cpp_ext.compiled(), reason="the compiled kernels were not built here")


def run(code, **environment):
    environment = {k: v for k, v in {**os.environ, **environment}.items() if v is not None}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


@compiled
def test_torch_tensors_come_back_as_torch_tensors():
    torch = pytest.importorskip("torch")
    f = torch.randn(2, 16, 5, 5)
    out = cpp_ext.gram(f)
    assert isinstance(out, torch.Tensor)
    torch.testing.assert_close(out, f.flatten(2) @ f.flatten(2).mT / 400)
    channels_last = f.to(memory_format=torch.channels_last)
    assert channels_last.stride() != f.stride()
    torch.testing.assert_close(cpp_ext.gram(channels_last), out)
    images = torch.rand(3, 3, 40, 40), torch.rand(3, 3, 40, 40)
    scores = cpp_ext.ssim(*images, data_range=1, layout="NCHW")
    assert scores.dtype == torch.float64 and scores.shape == (3,)
    np.testing.assert_allclose(scores, reference.ssim(*map(np.asarray, images), data_range=1, layout="NCHW"), atol=1e-6)
    z = torch.empty(4, 8)
    assert cpp_ext.noise(1, 0, 4, 8, out=z) is z
    np.testing.assert_array_equal(z.numpy(), cpp_ext.noise(1, 0, 4, 8))


@compiled
def test_a_tensor_that_requires_grad_is_refused():
    torch = pytest.importorskip("torch")
    f = torch.randn(2, 16, 25, requires_grad=True)
    with pytest.raises(ValueError, match="f: got a tensor that requires grad, expected plain data .*detach"):
        cpp_ext.gram(f)
    with pytest.raises(ValueError, match="out: got a tensor that requires grad"):
        cpp_ext.gram(f.detach(), out=torch.zeros(2, 16, 16, requires_grad=True))
    with pytest.raises(ValueError, match="f: got torch.bfloat16"):
        cpp_ext.gram(f.detach().bfloat16())


@compiled
def test_nothing_is_copied():
    torch = pytest.importorskip("torch")
    memory = np.zeros((2, 16, 16), np.float32)
    cpp_ext.gram(torch.ones(2, 16, 25), out=torch.from_numpy(memory))
    np.testing.assert_allclose(memory, 1 / 16)


class OnDlpack:
    """An array of a library that speaks DLPack alone."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OnCuda:
    """Says it is on a GPU."""

    def __init__(self, array):
        self.shape, self.dtype = array.shape, array.dtype
        self.__cuda_array_interface__ = {
            "data": (array.ctypes.data, False),
            "shape": array.shape,
            "typestr": "<f4",
            "version": 3,
        }


@compiled
def test_any_library_with_dlpack():
    f = np.random.default_rng(0).standard_normal((2, 8, 9), np.float32)
    np.testing.assert_array_equal(cpp_ext.gram(OnDlpack(f)), cpp_ext.gram(f))
    np.testing.assert_array_equal(cpp_ext.gram(OnDlpack(f[:, ::2])), cpp_ext.gram(f[:, ::2]))


@compiled
@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(RuntimeError, match="CUDA"):
        cpp_ext.cuda_devices()
    f = OnCuda(np.zeros((2, 8, 9), np.float32))
    with pytest.raises(ValueError, match="f: got .*CUDA.*expected memory of a CUDA device"):
        cpp_ext.gram(f, out=np.empty((2, 8, 8), np.float32))
    with pytest.raises(ValueError, match="out: got None for an input of .*OnCuda, expected an array to write to"):
        cpp_ext.gram(f)
    with pytest.raises(ValueError, match="i: got an array on CUDA, expected indices in host memory"):
        cpp_ext.ssim_pairs(np.zeros((1, 9, 9, 1), np.uint8), np.zeros((1, 9, 9, 1), np.uint8), f, [0])


@compiled
def test_what_is_no_array_and_what_cannot_be_written():
    f = np.ones((2, 8, 9), np.float32)
    with pytest.raises(TypeError, match="out: got <class 'str'>, expected an array"):
        cpp_ext.gram(f, out="here")
    out = np.empty((2, 8, 8), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: got a read-only array, expected one that can be written"):
        cpp_ext.gram(f, out=out)
    with pytest.raises(ValueError, match="f: got >f4, expected"):
        cpp_ext.gram(f.astype(">f4"))
    twice = np.lib.stride_tricks.as_strided(np.empty((2, 8, 8), np.float32), (2, 8, 8), (0, 32, 4))
    with pytest.raises(ValueError, match="out: got strides .*expected an output whose elements do not overlap"):
        cpp_ext.gram(f, out=twice)
    with pytest.raises(ValueError, match="out: got memory shared with g"):
        cpp_ext.gram_backward(np.ones((2, 8, 8), np.float32), out := np.ones((2, 8, 8), np.float32), out=out)
    read_only = np.ones((2, 8, 9), np.float32)
    read_only.flags.writeable = False
    np.testing.assert_array_equal(cpp_ext.gram(read_only), cpp_ext.gram(f))


@compiled
def test_other_threads_go_on_meanwhile():
    images = np.random.default_rng(0).integers(0, 256, (400, 128, 128, 3), np.uint8)
    started, steps = threading.Event(), 0

    def score():
        started.set()
        cpp_ext.ssim(images, images[::-1], window="gaussian")

    worker = threading.Thread(target=score)
    worker.start()
    started.wait()
    while worker.is_alive():
        steps += 1
    assert steps > 100  # with the lock held, this loop would have waited for the call to end


@compiled
def test_calls_from_many_threads_at_once():
    a, b = np.random.default_rng(0).integers(0, 256, (2, 16, 64, 64, 3), np.uint8)
    expected = cpp_ext.ssim(a, b)
    wrong = []

    def work():
        for _ in range(50):
            if not (cpp_ext.ssim(a, b) == expected).all():
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@compiled
def test_a_forked_process_has_threads_of_its_own():
    done = run("""
        import os, numpy as np, cpp_ext
        a, b = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 64, 3), np.uint8)
        expected = cpp_ext.ssim(a, b)
        child = os.fork()
        if child == 0:
            os._exit(0 if (cpp_ext.ssim(a, b) == expected).all() else 1)
        print(os.waitpid(child, 0)[1], (cpp_ext.ssim(a, b) == expected).all())
    """)
    assert done.stdout == "0 True\n"


@compiled
def test_environment_sets_threads_and_instructions():
    code = "import cpp_ext; print(cpp_ext.threads(), cpp_ext.isa())"
    usable = len(os.sched_getaffinity(0))
    assert (
        run(code, AWASE_THREADS="1", AWASE_ISA="baseline" if cpp_ext.isa() != "neon" else "neon").stdout.split()[0]
        == "1"
    )
    assert 1 <= int(run(code, AWASE_THREADS="1000").stdout.split()[0]) <= usable
    bad = """
        import cpp_ext, numpy as np
        try:
            cpp_ext.gram(np.ones((1, 2, 3), np.float32))
        except ValueError as error:
            print(error)
    """
    message = run(bad, AWASE_ISA="mmx").stdout
    assert message.startswith("the environment variable AWASE_ISA: got 'mmx', expected one of ")
    with pytest.raises(ValueError, match="threads: got -1"):
        cpp_ext.set_threads(-1)
    with pytest.raises(ValueError, match="isa: got 'sse9'"):
        cpp_ext.set_isa("sse9")


def test_without_the_library_the_twins_work_after_one_warning():
    done = run("""
        import sys, warnings
        sys.modules["cpp_ext._kernels"] = None
        import numpy as np, cpp_ext
        from cpp_ext import reference
        assert not cpp_ext.compiled() and cpp_ext.isa() == "numpy" and cpp_ext.threads() == 1
        a, b = np.random.default_rng(0).integers(0, 256, (2, 2, 20, 20, 3), np.uint8)
        f = np.random.default_rng(0).standard_normal((2, 6, 9), np.float32)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            assert (cpp_ext.ssim(a, b) == reference.ssim(a, b)).all()
            assert (cpp_ext.ssim_pairs(a, b, [0, 1], [1, 1]) == reference.ssim_pairs(a, b, [0, 1], [1, 1])).all()
            out = np.empty((2, 6, 6), np.float32)
            assert cpp_ext.gram(f, out=out) is out and (out == reference.gram(f)).all()
            assert (cpp_ext.noise(1, 2, 3, 4) == reference.noise(1, 2, 3, 4)).all()
            assert (cpp_ext.unpack(cpp_ext.pack(f[None])) == reference.unpack(reference.pack(f[None]))).all()
            x = f[:1, :3].reshape(1, 3, 3, 3)
            assert (cpp_ext.pack(x, alpha=True) == reference.pack(x, alpha=True)).all()
        assert len(seen) == 1 and "compiled kernels are not here" in str(seen[0].message), seen
        try:
            cpp_ext.cuda_devices()
        except RuntimeError as error:
            assert "pip install" in str(error)
        else:
            raise AssertionError
    """)
    assert done.returncode == 0
