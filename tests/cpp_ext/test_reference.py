import numpy as np
import pytest

from cpp_ext.reference import (
    blend,
    gram,
    gram_backward,
    noise,
    pack,
    philox,
    ssim,
    ssim_pairs,
    uniform,
    unpack,
)


def hexadecimal(words):
    return " ".join(f"{word:08x}" for word in words)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123's kat_vectors, philox 4x32 with 10 rounds
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter, key, expected):
    words = np.array([int(word, 16) for word in counter.split()], np.uint32)
    low, high = (int(word, 16) for word in key.split())
    assert hexadecimal(philox(words, (low, high))) == expected


def test_noise_by_its_definition():
    seed, sample = 5 << 32 | 7, 3 << 32 | 11
    bits = philox(np.array([1, 0, 11, 3], np.uint32), (7, 5)).astype(np.float64)
    u = (bits + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(u[[0, 2]])), 2 * np.pi * u[[1, 3]]
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    np.testing.assert_array_equal(noise(seed, sample, 1, 8)[0, 4:], expected.astype(np.float32))


@pytest.mark.parametrize("draw", [noise, uniform])
def test_a_sample_is_a_function_of_seed_and_index(draw):
    whole = draw(3, 0, 50, 33)
    assert whole.shape == (50, 33)
    np.testing.assert_array_equal(draw(3, 17, 9, 33), whole[17:26])
    np.testing.assert_array_equal(draw(3, 0, 50, 5), whole[:, :5])
    assert (draw(4, 0, 50, 33) != whole).mean() > 0.99
    assert draw(3, 0, 0, 33).shape == (0, 33)
    assert draw(3, 2**64 - 1, 1, 2).shape == (1, 2)


def test_noise_is_standard_normal():
    z = noise(1, 0, 20000, 32)
    assert z.dtype == np.float32 and np.isfinite(z).all()
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01 and abs((z.astype(float) ** 4).mean() - 3) < 0.05
    assert abs(np.corrcoef(z, rowvar=False) - np.eye(32)).max() < 0.04


def test_uniform_fills_the_unit_interval_and_is_not_the_noise_stream():
    u = uniform(1, 0, 20000, 4)
    assert 0 < u.min() < 1e-3 and 1 - 1e-3 < u.max() < 1
    assert abs(u.mean(axis=0) - 0.5).max() < 0.01
    assert abs(np.corrcoef(u[:, 0], noise(1, 0, 20000, 1)[:, 0])[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((-1, 0, 1, 1), "seed: got -1"), ((2**64, 0, 1, 1), "seed"), ((0, -1, 1, 1), "first"), ((0, 0, -1, 1), "count")],
)
def test_noise_refuses_what_it_cannot_address(arguments, message):
    with pytest.raises(ValueError, match=message):
        noise(*arguments)


PEER = {"uniform": {}, "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}}


def peer(a, b, window, data_range):
    metrics = pytest.importorskip("skimage.metrics")
    return np.array(
        [
            metrics.structural_similarity(
                x.astype(float), y.astype(float), channel_axis=2, data_range=data_range, **PEER[window]
            )
            for x, y in zip(a, b, strict=True)
        ]
    )


def pictures(shape, seed=0):
    generator = np.random.default_rng(seed)
    a = generator.integers(0, 256, shape, np.uint8)
    change = generator.integers(-60, 60, shape)
    return a, np.clip(a + change, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
@pytest.mark.parametrize("shape", [(3, 80, 80, 3), (9, 11, 13, 1), (2, 37, 64, 4), (66, 16, 12, 3)])
def test_ssim_equals_skimage(window, shape):
    a, b = pictures(shape)
    a[0] = 255  # flat and saturated: where cancellation would show
    np.testing.assert_allclose(ssim(a, b, window=window), peer(a, b, window, 255), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ssim(a, b, window=window)[:2], ssim(a[:2], b[:2], window=window))
    floats = (a / np.float32(255)).astype(np.float32), (b / np.float32(255)).astype(np.float32)
    expected = peer(*floats, window, 1.0)
    np.testing.assert_allclose(ssim(*floats, window=window, data_range=1.0), expected, rtol=0, atol=1e-6)


def test_ssim_of_strided_and_of_no_images():
    a, b = pictures((4, 30, 30, 3))
    every_other = np.ascontiguousarray(a[::2, ::-1]), np.ascontiguousarray(b[::2, ::-1])
    np.testing.assert_array_equal(ssim(a[::2, ::-1], b[::2, ::-1]), ssim(*every_other))
    assert ssim(a[:0], b[:0]).shape == (0,)
    np.testing.assert_allclose(ssim(a, a), 1.0)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_ssim_pairs_scores_each_pair(window):
    a, b = pictures((6, 24, 20, 3))
    i, j = np.array([5, 0, 0, 3, 5, 2, 2]), np.array([1, 1, 0, 3, 4, 2, 2])
    np.testing.assert_array_equal(ssim_pairs(a, b[:5], i, j, window=window), ssim(a[i], b[j], window=window))
    assert ssim_pairs(a, b, [], []).shape == (0,)


def test_ssim_errors_name_the_argument():
    a, b = pictures((2, 20, 20, 3))
    for call, message in [
        (lambda: ssim(a, b[:1]), "b: got shape"),
        (lambda: ssim(a[0], b[0]), r"a: got uint8 \[20, 20, 3\]"),
        (lambda: ssim(a[:, :6], b[:, :6]), "at least 7 x 7"),
        (lambda: ssim(a.astype(np.int32), b.astype(np.int32)), "a: got int32"),
        (lambda: ssim(a.astype(np.float32), b.astype(np.float32)), "data_range: got None"),
        (lambda: ssim(a, b, data_range=0), "data_range: got 0"),
        (lambda: ssim(a, b, window="box"), "window: got 'box'"),
        (lambda: ssim_pairs(a, b, [0, 2], [0, 1]), "i: got indices 0 to 2, expected 0 to 1"),
        (lambda: ssim_pairs(a, b, [0], [0, 1]), "j: got 2 indices"),
        (lambda: ssim_pairs(a, b, [0.5], [0]), "i: got float64"),
        (lambda: ssim_pairs(a, b[:, :10], [0], [0]), "b: got images of"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_pack_rounds_saturates_and_undoes_unpack():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    np.testing.assert_array_equal(pack(unpack(frames)), frames)
    x = np.array([-1e9, -1.01, -1, -0.9961, -0.996, 0.0039, 0.0118, 1, 1.01, 1e9, np.nan, np.inf], np.float32)
    packed = pack(x.reshape(1, 1, 1, -1))
    assert packed.shape == (1, 1, 12, 1) and packed.dtype == np.uint8
    assert packed.ravel().tolist() == [0, 0, 0, 0, 1, 128, 129, 255, 255, 255, 0, 255]


def test_pack_and_unpack_turn_the_axes():
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 5, 4)).astype(np.float32)
    packed = pack(x)
    assert packed.shape == (2, 5, 4, 3) and packed.flags.c_contiguous
    back = unpack(packed)
    assert back.shape == x.shape and back.dtype == np.float32 and abs(back - x).max() <= 1 / 255 + 1e-6
    rgba = pack(x, alpha=True)
    assert rgba.shape == (2, 5, 4, 4) and rgba.flags.c_contiguous and (rgba[..., 3] == 255).all()
    np.testing.assert_array_equal(rgba[..., :3], packed)
    for call in (lambda: pack(packed), lambda: unpack(x), lambda: pack(x[0]), lambda: pack(x[:, :2], alpha=True)):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_gram_by_its_definition():
    f = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    expected = np.einsum("nchw,ndhw->ncd", np.float64(f), np.float64(f)) / (3 * 20)
    assert gram(f).dtype == np.float32
    np.testing.assert_allclose(gram(f), expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(gram(f.reshape(2, 3, 20)), gram(f))
    np.testing.assert_allclose(gram(f[:, :, ::-1, ::-1]), expected, rtol=1e-6, atol=1e-8)
    assert gram(f[:0]).shape == (0, 3, 3)


def test_gram_backward_is_the_gradient():
    generator = np.random.default_rng(1)
    f, g, step = (generator.standard_normal(shape) for shape in ((2, 3, 4, 5), (2, 3, 3), (2, 3, 4, 5)))
    slope = ((gram(f + 1e-6 * step) - gram(f - 1e-6 * step)) / 2e-6 * g).sum()
    np.testing.assert_allclose((gram_backward(f, g) * step).sum(), slope, rtol=1e-8)
    single = gram_backward(np.float32(f), np.float32(g))
    assert single.dtype == np.float32 and single.shape == f.shape
    np.testing.assert_allclose(single, gram_backward(f, g), atol=1e-6)


def test_blend_gives_each_part_its_weight():
    generator = np.random.default_rng(2)
    za, zb = (generator.standard_normal((3, 6, 2, 2)).astype(np.float32) for _ in range(2))
    za[0, 0], zb[0, 1], zb[0, 5, 0, 0] = -0.0, np.nan, 7
    weights = np.array([[1, 0, 0.25], [0.5, -1, 2], [0, 1, 0]], np.float32)
    out = blend(za, zb, weights, [2, 3, 1])
    assert out.dtype == np.float32
    assert out[0, :2].tobytes() == za[0, :2].tobytes() and out[2, :2].tobytes() == zb[2, :2].tobytes()
    np.testing.assert_array_equal(out[0, 5, 0, 0], np.float32(0.25 * np.float64(za[0, 5, 0, 0]) + 0.75 * 7))
    np.testing.assert_allclose(out[1, 2:5], 2 * zb[1, 2:5] - za[1, 2:5], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(
        blend(za, zb, weights[:1], [2, 3, 1])[1], blend(za[1], zb[1], weights[0], [2, 3, 1])[0]
    )


def test_blend_of_one_pair_and_into_memory_that_is_given():
    za, zb = (np.random.default_rng(seed).standard_normal((5, 2, 3)).astype(np.float32) for seed in (0, 1))
    weights = np.random.default_rng(2).random((4, 2)).astype(np.float32)
    grid = blend(za, zb, weights, [2, 3])
    assert grid.shape == (4, 5, 2, 3)
    for row, result in zip(weights, grid, strict=True):
        np.testing.assert_array_equal(blend(za, zb, row, [2, 3])[0], result)
        np.testing.assert_array_equal(blend(za[None], zb[None], row, np.array([2, 3]))[0], result)
    out = np.empty_like(grid)
    assert blend(za, zb, weights, [2, 3], out=out) is out
    np.testing.assert_array_equal(out, grid)
    za = za[None].copy()
    blend(za, zb[None], weights[1], [2, 3], out=za)
    np.testing.assert_array_equal(za[0], grid[1])


def test_gram_and_blend_errors_name_the_argument():
    z, f = np.zeros((2, 5, 3, 3), np.float32), np.zeros((2, 5, 9), np.float32)
    for call, message in [
        (lambda: gram(f.astype(int)), r"f: got int64 \[2, 5, 9\], expected float32"),
        (lambda: gram(f[0]), r"f: got float32 \[5, 9\]"),
        (lambda: gram(f[:, :, :0]), r"f: got float32 \[2, 5, 0\].*at least one value"),
        (lambda: gram_backward(f, f), r"g: got float32 \[2, 5, 9\], expected float32 \[2, 5, 5\]"),
        (lambda: gram_backward(f, np.zeros((2, 5, 5))), "g: got float64"),
        (
            lambda: blend(z.astype(float), z, [1], [5]),
            r"za: got float64 \[2, 5, 3, 3\], expected float32 \[N, C, h, w\]",
        ),
        (lambda: blend(z, z[0, 0], [1], [5]), r"zb: got float32 \[3, 3\]"),
        (lambda: blend(z, z[:1], [1], [5]), r"zb: got shape \[1, 5, 3, 3\], expected za's \[2, 5, 3, 3\]"),
        (
            lambda: blend(z, z, [1, 1], [2, 2]),
            r"parts: got \[2, 2\], 4 channels in all, expected .* sum is the latents' 5",
        ),
        (lambda: blend(z, z, [1, 1], [5, 0]), r"parts: got \[5, 0\]"),
        (lambda: blend(z, z, [1, 1], [2.5, 2.5]), r"parts: got \[2.5, 2.5\], expected channel counts"),
        (lambda: blend(z, z, [1], [2, 3]), r"weights: got int64 \[1\], expected numbers \[2\] or \[2, 2\]"),
        (
            lambda: blend(z, z, np.ones((3, 2)), [2, 3]),
            r"weights: got float64 \[3, 2\], expected numbers \[2\] or \[2, 2\]",
        ),
        (lambda: blend(z, z, ["a", "b"], [2, 3]), "weights: got <U1"),
        (
            lambda: blend(z, z, [1, 0], [2, 3], out=z[:1]),
            r"out: got float32 \[1, 5, 3, 3\], expected a writable float32",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
