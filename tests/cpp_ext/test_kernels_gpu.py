"""The kernels on a GPU against their NumPy twins on the CPU: `make gpu` runs these.

Small arrays of all kinds, made, copied and compared on the host, so that nearly all that runs on the GPU is ours: `make
gpu` runs this file under compute-sanitizer too.
"""

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
SIZES = [(7, 7), (11, 11), (12, 37), (33, 20), (80, 80), (64, 131), (97, 256)]
PARTS = (204, 204, 204, 204, 208)


# --- values ---


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize("window", ["gaussian", "uniform"])
@pytest.mark.parametrize("size", SIZES)
def test_ssim(size, window, dtype):
    if min(size) < (11 if window == "gaussian" else 7):
        pytest.skip("smaller than the window")
    for channels in (1, 3):
        a, b = (pictures((3, *size, channels), dtype, seed) for seed in (0, 1))
        options = {"window": window, "data_range": range_of(dtype)}
        for layout in ("NHWC", "NCHW"):
            x, y = (a, b) if layout == "NHWC" else (np.ascontiguousarray(p.transpose(0, 3, 1, 2)) for p in (a, b))
            for per in ("image", "channel", "pixel"):
                result = cpp_ext.ssim(there(x), there(y), layout=layout, per=per, **options)
                assert result.device.type == DEVICE
                expected = exact_ssim(x, y, layout=layout, per=per, **options)
                error = np.abs(back(result) - expected).max()
                assert error <= (1e-6 if per != "pixel" else 2e-5), (layout, per)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_of_strided_images(window):
    a, b = (pictures((4, 40, 50, 3), "float32", seed) for seed in (0, 1))
    expected = exact_ssim(a, b, window=window, data_range=1)
    x, y = torch.from_numpy(np.repeat(np.repeat(a, 2, axis=1), 3, axis=2)).to(DEVICE)[:, ::2, ::3], there(b)
    assert np.abs(back(cpp_ext.ssim(x, y, window=window, data_range=1)) - expected).max() <= 1e-6
    x = torch.from_numpy(np.ascontiguousarray(a.transpose(2, 0, 3, 1))).to(DEVICE).permute(1, 3, 0, 2)
    assert np.abs(back(cpp_ext.ssim(x, y, window=window, data_range=1)) - expected).max() <= 1e-6
    same = torch.from_numpy(a[:1]).to(DEVICE).expand(4, -1, -1, -1)
    expected = exact_ssim(np.repeat(a[:1], 4, axis=0), b, window=window, data_range=1)
    assert np.abs(back(cpp_ext.ssim(same, y, window=window, data_range=1)) - expected).max() <= 1e-6


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_of_flat_and_equal_and_step_images(window, dtype):
    top = 255 if dtype == "uint8" else 1
    options = {"window": window, "data_range": top}
    a = pictures((2, 48, 48, 3), dtype)
    assert (back(cpp_ext.ssim(there(a), there(a), **options)) == 1).all()
    flat = (np.ones((5, 48, 48, 3)) * np.linspace(0, top, 5)[:, None, None, None]).astype(dtype)
    for p, q in ((flat, flat[::-1].copy()), (flat, np.repeat(a[:1], 5, axis=0))):
        assert np.abs(back(cpp_ext.ssim(there(p), there(q), **options)) - exact_ssim(p, q, **options)).max() <= 1e-6
    step = np.full((1, 48, 48, 3), 0.9 * top).astype(dtype)
    step[:, :, :24] = np.array(0.1 * top).astype(dtype)
    mirrored = np.ascontiguousarray(step[:, :, ::-1])
    expected = exact_ssim(step, mirrored, **options)
    assert np.abs(back(cpp_ext.ssim(there(step), there(mirrored), **options)) - expected).max() <= 1e-6


def test_nan_stays_in_its_image():
    a, b = (pictures((3, 40, 40, 3), "float32", seed) for seed in (0, 1))
    a[1, 20, 20, 2] = np.nan
    for window in ("gaussian", "uniform"):
        result = back(cpp_ext.ssim(there(a), there(b), window=window, data_range=1))
        expected = exact_ssim(a[::2], b[::2], window=window, data_range=1)
        assert np.isnan(result[1]) and np.abs(result[::2] - expected).max() <= 1e-6
        result = back(cpp_ext.ssim(there(a), there(b), window=window, data_range=1, per="channel"))
        assert np.isnan(result).sum() == 1 and np.isnan(result[1, 2])
        pairs = back(cpp_ext.ssim_pairs(there(a), there(b), [1, 0, 2], [0, 1, 1], window=window, data_range=1))
        assert np.isnan(pairs).tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_pairs(window, dtype):
    a, b = pictures((6, 44, 37, 3), dtype), pictures((9, 44, 37, 3), dtype, 1)
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, 6, 40), rng.integers(0, 9, 40)
    options = {"window": window, "data_range": range_of(dtype)}
    result = back(cpp_ext.ssim_pairs(there(a), there(b), i, j, **options))
    assert np.abs(result - exact_ssim(a[i], b[j], **options)).max() <= 1e-6
    x, y = (there(np.ascontiguousarray(p.transpose(0, 3, 1, 2))) for p in (a, b))
    result = back(cpp_ext.ssim_pairs(x, y, list(i), torch.from_numpy(j), layout="NCHW", **options))
    assert np.abs(result - exact_ssim(a[i], b[j], **options)).max() <= 1e-6


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (2, 3, 5), (3, 33, 17), (4, 64, 400), (2, 130, 77), (2, 100, 1031), (1, 256, 3000), (1, 512, 64)],
)
def test_gram_and_its_gradient(shape):
    f, g = floats(shape), floats((shape[0], shape[1], shape[1]), 1)
    result = back(cpp_ext.gram(there(f)))
    assert relative(result, reference.gram(f.astype(np.float64))) <= 1e-5
    np.testing.assert_array_equal(result, result.transpose(0, 2, 1))
    expected = reference.gram_backward(f.astype(np.float64), g.astype(np.float64))
    assert relative(back(cpp_ext.gram_backward(there(f), there(g))), expected) <= 1e-5


def test_gram_of_any_layout():
    f, g = floats((2, 20, 6, 7)), floats((2, 20, 20), 1)
    expected = reference.gram(f.astype(np.float64))
    gradient = reference.gram_backward(f.astype(np.float64), g.astype(np.float64))
    last = torch.from_numpy(np.ascontiguousarray(f.transpose(0, 2, 3, 1))).to(DEVICE).permute(0, 3, 1, 2)
    for given in (there(f), last, torch.from_numpy(np.repeat(f, 2, axis=3)).to(DEVICE)[..., ::2]):
        assert relative(back(cpp_ext.gram(given)), expected) <= 1e-5
        out = torch.empty(f.shape, device=DEVICE)
        assert relative(back(cpp_ext.gram_backward(given, there(g), out=out)), gradient) <= 1e-5


def test_blend():
    for n, side in ((1, 4), (5, 4), (3, 7)):
        za, zb = floats((n, 1024, side, side)), floats((n, 1024, side, side), 1)
        rows = np.random.default_rng(2).random((n, 5), np.float32)
        rows[0] = 1, 0, 0.5, -0.5, 1.5
        for weights in (rows, there(rows), rows[0], there(rows[0]), [1, 0, 0.2, 0.7, 0.5]):
            given = back(weights) if isinstance(weights, torch.Tensor) else weights
            expected = reference.blend(za, zb, given, PARTS)
            result = back(cpp_ext.blend(there(za), there(zb), weights, PARTS))
            np.testing.assert_allclose(result, expected, rtol=2e-6, atol=2e-6)
        result = back(cpp_ext.blend(there(za), there(zb), [1, 0, 1, 0, 1], PARTS))
        np.testing.assert_array_equal(result[:, :204], za[:, :204])
        np.testing.assert_array_equal(result[:, 204:408], zb[:, 204:408])


def test_blend_grid():
    za, zb = floats((1024, 4, 4)), floats((1024, 4, 4), 1)
    weights = np.random.default_rng(2).random((37, 5), np.float32)
    expected = reference.blend(za, zb, weights, PARTS)
    for given in (weights, there(weights)):
        result = cpp_ext.blend(there(za), there(zb), given, PARTS)
        assert result.shape == (37, 1024, 4, 4)
        np.testing.assert_allclose(back(result), expected, rtol=2e-6, atol=2e-6)
    odd = reference.blend(za[:11, :3, :3], zb[:11, :3, :3], weights[:, :2], [4, 7])
    x, y = there(za)[:11, :3, :3], there(zb)[:11, :3, :3]  # strided
    np.testing.assert_allclose(back(cpp_ext.blend(x, y, weights[:, :2], [4, 7])), odd, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7, 64, 1024])
def test_noise_has_the_cpus_bits(dim):
    for seed, first, count in ((0, 0, 5), (2**64 - 1, 2**32 - 2, 33), (7, 2**64 - 9, 9)):
        out = torch.empty(count, dim, device=DEVICE)
        assert cpp_ext.noise(seed, first, count, dim, out=out) is out
        np.testing.assert_array_equal(back(out), cpp_ext.noise(seed, first, count, dim))
    wide = torch.zeros(4, dim + 3, device=DEVICE)
    cpp_ext.noise(1, 2, 4, dim, out=wide[:, :dim])
    np.testing.assert_array_equal(back(wide)[:, :dim], cpp_ext.noise(1, 2, 4, dim))
    assert (back(wide)[:, dim:] == 0).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_pack_and_unpack(channels):
    x = np.random.default_rng(0).uniform(-1.2, 1.2, (3, channels, 13, 18)).astype(np.float32)
    x[0, 0, 0, :5] = np.nan, np.inf, -np.inf, -1 + 1 / 255, 1 - 1 / 255
    half = x.astype(np.float16)
    expected = reference.pack(x)
    np.testing.assert_array_equal(back(cpp_ext.pack(there(x))), expected)
    np.testing.assert_array_equal(back(cpp_ext.pack(there(half))), reference.pack(half.astype(np.float32)))
    last = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).to(DEVICE).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(back(cpp_ext.pack(last)), expected)
    if channels == 3:
        with_alpha = reference.pack(x, alpha=True)
        for layout in (there(x), last, there(x)[:, :, :8, :16].contiguous()):
            got = back(cpp_ext.pack(layout, alpha=True))
            np.testing.assert_array_equal(got, with_alpha[:, : got.shape[1], : got.shape[2]])
    every = np.arange(256, dtype=np.uint8).repeat(channels).reshape(1, 16, 16, channels)
    np.testing.assert_array_equal(back(cpp_ext.unpack(there(every))), reference.unpack(every))
    np.testing.assert_array_equal(back(cpp_ext.pack(cpp_ext.unpack(there(every)))), every)
    np.testing.assert_array_equal(back(cpp_ext.unpack(there(every)[:, ::2])), reference.unpack(every[:, ::2]))


def test_nothing_to_do():
    def empty(*shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device=DEVICE)

    images = empty(0, 20, 20, 3, dtype=torch.uint8)
    assert cpp_ext.ssim(images, images).shape == (0,)
    some = there(pictures((2, 20, 20, 3), "uint8"))
    assert cpp_ext.ssim_pairs(some, some, [], []).shape == (0,)
    assert cpp_ext.gram(empty(0, 4, 9)).shape == (0, 4, 4)
    assert cpp_ext.gram_backward(empty(0, 4, 3, 3), empty(0, 4, 4)).shape == (0, 4, 3, 3)
    assert cpp_ext.pack(empty(0, 3, 4, 5)).shape == (0, 4, 5, 3)
    assert cpp_ext.unpack(empty(0, 4, 5, 3, dtype=torch.uint8)).shape == (0, 3, 4, 5)
    assert cpp_ext.noise(0, 0, 0, 5, out=empty(0, 5)).shape == (0, 5)
