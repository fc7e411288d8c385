"""The kernels on a GPU as programs use them: large arrays, `out`, streams, graphs, other libraries, mistakes."""

import os

import numpy as np
import pytest

import cpp_ext
from cpp_ext import reference

torch = pytest.importorskip("torch")
from on_gpu import DEVICE, back, exact_ssim, floats, pictures, range_of, relative, there  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that works with PyTorch"),
    pytest.mark.skipif(not cpp_ext.compiled(), reason="the compiled kernels were not built here"),
]
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
needs_allocator = pytest.mark.skipif(
    bool(os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING")), reason="CUDA graphs need PyTorch's caching allocator"
)


# --- size, and the same bits every time ---


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_ssim_of_a_thousand_images(dtype):
    a, b = (pictures((50, 80, 80, 3), dtype, seed) for seed in (0, 1))
    expected = exact_ssim(a, b, data_range=range_of(dtype))
    x, y = (there(p).repeat(20, 1, 1, 1) for p in (a, b))
    result = cpp_ext.ssim(x, y, data_range=range_of(dtype))
    assert np.abs(back(result) - np.tile(expected, 20)).max() <= 1e-6
    assert torch.equal(result, cpp_ext.ssim(x, y, data_range=range_of(dtype)))
    assert torch.equal(result[:7], cpp_ext.ssim(x[:7], y[:7], data_range=range_of(dtype)))  # whatever the batch


def test_ssim_of_large_images():
    a, b = (pictures((2, 512, 777, 3), "float32", seed) for seed in (0, 1))
    for window in ("gaussian", "uniform"):
        result = back(cpp_ext.ssim(there(a), there(b), window=window, data_range=1))
        assert np.abs(result - exact_ssim(a, b, window=window, data_range=1)).max() <= 1e-6


def test_more_samples_than_a_grid_has_rows():
    x = torch.rand(70000, 1, 2, 2, device=DEVICE) * 2 - 1
    np.testing.assert_array_equal(back(cpp_ext.pack(x)), reference.pack(back(x)))
    f = torch.randn(70000, 2, 3, device=DEVICE)
    assert relative(back(cpp_ext.gram(f)), reference.gram(back(f))) <= 1e-5
    a, b = torch.rand(2, 70000, 7, 7, 1, device=DEVICE)
    assert np.abs(back(cpp_ext.ssim(a, b, data_range=1)) - exact_ssim(back(a), back(b), data_range=1)).max() <= 1e-6


def test_large_gram_repeats_bit_for_bit():
    f = torch.randn(1, 192, 1 << 16, device=DEVICE)
    first = cpp_ext.gram(f)
    assert relative(back(first), reference.gram(back(f).astype(np.float64))) <= 1e-5
    assert all(torch.equal(first, cpp_ext.gram(f)) for _ in range(3))


# --- out, streams, graphs ---


def test_out_is_written_and_returned():
    a = there(pictures((3, 30, 30, 3), "uint8"))
    out = torch.full((3,), -7.0, dtype=torch.float64, device=DEVICE)
    assert cpp_ext.ssim(a, a, out=out) is out and (out == 1).all()
    za, zb = there(floats((3, 8, 4, 4))), there(floats((3, 8, 4, 4), 1))
    expected = back(cpp_ext.blend(za, zb, [0.3, 0.6], [3, 5]))
    assert cpp_ext.blend(za, zb, [0.3, 0.6], [3, 5], out=za) is za
    np.testing.assert_array_equal(back(za), expected)
    x = there(floats((2, 3, 8, 9)))
    frames = torch.zeros(2, 8, 9, 5, dtype=torch.uint8, device=DEVICE)
    cpp_ext.pack(x, out=frames[..., 1:4])
    np.testing.assert_array_equal(back(frames)[..., 1:4], reference.pack(back(x)))
    assert (frames[..., 0] == 0).all() and (frames[..., 4] == 0).all()


def test_work_is_put_on_the_current_stream():
    stream = torch.cuda.Stream()
    a = torch.zeros(64, 3, 256, 256, device=DEVICE)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # tens of milliseconds: work on another stream would not wait for it
        a.fill_(1)
        frames = cpp_ext.pack(a)
        scores = cpp_ext.ssim(a, torch.ones_like(a), window="gaussian", data_range=1, layout="NCHW")
        grams = cpp_ext.gram(a.flatten(2))
    stream.synchronize()
    assert (frames == 255).all() and (scores == 1).all()
    assert torch.allclose(grams, torch.full_like(grams, 1 / 3))


def test_work_is_put_on_the_given_stream():
    stream = torch.cuda.Stream()
    a, out = torch.zeros(32, 3, 256, 256, device=DEVICE), torch.zeros(32, 256, 256, 3, dtype=torch.uint8, device=DEVICE)
    torch.cuda.synchronize()
    for given in (stream, stream.cuda_stream):
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            a.fill_(1)
        cpp_ext.pack(a, out=out, stream=given)
        stream.synchronize()
        assert (out == 255).all()
        a.zero_()
        out.zero_()
        torch.cuda.synchronize()


@needs_allocator
def test_cuda_graphs_hold_every_operation():
    a, b = (there(pictures((4, 32, 32, 3), "float32", seed)) for seed in (0, 1))
    f, g = there(floats((2, 8, 50))), there(floats((2, 8, 8), 1))
    za, zb, weights = there(floats((3, 10, 4, 4))), there(floats((3, 10, 4, 4), 1)), there(floats((3, 2)))
    x, out = there(floats((2, 3, 8, 8))), torch.empty(5, 9, device=DEVICE)
    i, j = np.array([0, 3, 1]), np.array([2, 2, 0])

    def everything():
        return (
            cpp_ext.ssim(a, b, window="gaussian", data_range=1),
            cpp_ext.ssim(a, b, data_range=1, per="pixel"),
            cpp_ext.ssim_pairs(a, b, i, j, data_range=1),
            cpp_ext.gram(f),
            cpp_ext.gram_backward(f, g),
            cpp_ext.blend(za, zb, weights, [4, 6]),
            cpp_ext.unpack(cpp_ext.pack(x)),
            cpp_ext.noise(1, 2, 5, 9, out=out),
        )

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        everything()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = everything()
    a.copy_(b)  # new inputs in the captured buffers
    f.mul_(2)
    x.neg_()
    graph.replay()
    torch.cuda.synchronize()
    kept = [tensor.clone() for tensor in captured]
    for got, expected in zip(kept, everything(), strict=True):
        assert torch.equal(got, expected)
    assert (kept[0] == 1).all()


def test_gradients_through_the_trainers_gram():
    from trainer.losses.gram import gram

    f = there(floats((2, 16, 9, 9))).requires_grad_()
    weights = there(floats((2, 16, 16), 1))
    (gram(f) * weights).sum().backward()
    twin = f.detach().double().requires_grad_()
    rows = twin.flatten(2)
    ((rows @ rows.mT / (16 * 81)) * weights.double()).sum().backward()
    assert relative(back(f.grad), back(twin.grad)) <= 1e-5
    assert gram(f.detach().half()).dtype == torch.float32


# --- who is refused, and other libraries ---


def test_mixed_devices_are_refused():
    here = torch.zeros(2, 20, 20, 3, dtype=torch.uint8)
    for a, b in ((here, here.to(DEVICE)), (here.to(DEVICE), here), (here.to(DEVICE), here.numpy())):
        with pytest.raises(ValueError, match=r"^b: "):
            cpp_ext.ssim(a, b)
    with pytest.raises(ValueError, match=r"^out: "):
        cpp_ext.ssim(here.to(DEVICE), here.to(DEVICE), out=torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^g: "):
        cpp_ext.gram_backward(torch.zeros(1, 2, 3, device=DEVICE), torch.zeros(1, 2, 2))
    indices = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    with pytest.raises(ValueError, match="^i: got an array on CUDA, expected indices in host memory"):
        cpp_ext.ssim_pairs(here.to(DEVICE), here.to(DEVICE), indices, [0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: cpp_ext.gram(z(1, 2, 3).requires_grad_()), "^f: got a tensor that requires grad"),
        (lambda z: cpp_ext.gram(z(1, 2, 3).double()), "^f: "),
        (lambda z: cpp_ext.gram(z(2, 3)), "^f: "),
        (lambda z: cpp_ext.pack(z(2, 3, 4)), "^x: "),
        (lambda z: cpp_ext.pack(z(1, 2, 3, 4), out=z(1, 3, 4, 2)), "^out: "),
        (lambda z: cpp_ext.ssim(z(1, 9, 9, 3), z(1, 9, 9, 3), window="gaussian", data_range=1), "^a: "),
        (lambda z: cpp_ext.ssim(z(1, 9, 9, 3), z(2, 9, 9, 3), data_range=1), "^b: "),
        (lambda z: cpp_ext.ssim(z(1, 9, 9, 3), z(1, 9, 9, 3)), "^data_range: "),
        (lambda z: cpp_ext.blend(z(1, 9, 2, 2), z(1, 9, 2, 2), [0.5, 0.5], [4, 4]), "^parts: "),
        (lambda z: cpp_ext.noise(0, 0, 2, 3, out=z(2, 4)), "^out: "),
    ],
)
def test_what_cannot_be_taken_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(lambda *shape: torch.zeros(shape, device=DEVICE))


def test_cupy_arrays_go_in_and_come_out():
    cupy = pytest.importorskip("cupy")
    a, b = (pictures((3, 24, 24, 3), "uint8", seed) for seed in (0, 1))
    result = cpp_ext.ssim(cupy.asarray(a), cupy.asarray(b))
    assert isinstance(result, cupy.ndarray)
    assert np.abs(cupy.asnumpy(result) - exact_ssim(a, b)).max() <= 1e-6
    x = floats((2, 3, 6, 7))
    out = cupy.zeros((2, 6, 7, 3), "uint8")
    assert cpp_ext.pack(cupy.asarray(x), out=out) is out
    np.testing.assert_array_equal(cupy.asnumpy(out), reference.pack(x))
    assert isinstance(cpp_ext.pack(there(x), out=out), cupy.ndarray)  # libraries may be mixed on one device
    with cupy.cuda.Stream(non_blocking=True) as stream:
        strided = cupy.asarray(x)[:, :, ::2, ::-1]
        packed = cpp_ext.pack(strided)
        stream.synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(packed), reference.pack(x[:, :, ::2, ::-1]))


@needs_two
def test_the_second_gpu():
    first, second = (torch.device(DEVICE, index) for index in (0, 1))
    a, b = (pictures((3, 40, 40, 3), "uint8", seed) for seed in (0, 1))
    result = cpp_ext.ssim(torch.from_numpy(a).to(second), torch.from_numpy(b).to(second))
    assert result.device == second and torch.cuda.current_device() == 0
    assert np.abs(back(result) - exact_ssim(a, b)).max() <= 1e-6
    with pytest.raises(ValueError, match="^b: "):
        cpp_ext.ssim(torch.from_numpy(a).to(first), torch.from_numpy(b).to(second))


def test_devices_are_counted():
    assert cpp_ext.cuda_devices() == torch.cuda.device_count()
