"""Gram, blend, noise and frames in the compiled library against their NumPy twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cpp_ext
from cpp_ext import reference

pytestmark = pytest.mark.skipif(not cpp_ext.compiled(), reason="the compiled kernels were not built here")


def floats(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def relative(value, expected):
    """Largest error, in units of the largest value of each matrix."""
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True)
    return (np.abs(value - expected) / np.where(scale == 0, 1, scale)).max(initial=0)


# --- Gram matrices ---

SHAPES = [
    (1, 1, 1),
    (2, 3, 5),
    (4, 64, 400),
    (1, 128, 4096),
    (3, 33, 17),
    (2, 100, 1031),
    (1, 256, 36),
    (1, 512, 256),
    (2, 130, 77),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_gram_and_its_gradient_equal_float64(shape, isa):
    f, g = floats(shape), floats((shape[0], shape[1], shape[1]), 1)
    exact = np.float64(f)
    out = cpp_ext.gram(f)
    assert relative(out, reference.gram(exact)) <= 1e-5
    np.testing.assert_array_equal(out, out.transpose(0, 2, 1))
    back = cpp_ext.gram_backward(f, g)
    assert back.shape == f.shape and relative(back, reference.gram_backward(exact, np.float64(g))) <= 1e-5


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 3), c=st.integers(1, 70), h=st.integers(1, 20), w=st.integers(1, 20), how=st.integers(0, 3))
def test_gram_of_any_shape_and_layout(n, c, h, w, how):
    f = floats((n, c, h, w))
    strided = [f, np.ascontiguousarray(f.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), f[:, ::-1], f[::-1]][how]
    exact = np.float64(strided)
    assert relative(cpp_ext.gram(strided), reference.gram(exact)) <= 1e-5
    g = floats((n, c, c), 1).transpose(0, 2, 1)
    back = cpp_ext.gram_backward(strided, g)
    assert back.shape == f.shape
    expected = reference.gram_backward(exact, np.float64(g))
    assert relative(back.reshape(n, c, h * w), expected.reshape(n, c, h * w)) <= 1e-5


def test_gram_keeps_nan_to_its_matrix():
    f = floats((3, 20, 50))
    f[1, 7, 3] = np.nan
    out = cpp_ext.gram(f)
    assert np.isnan(out[1, 7]).all() and np.isnan(out[1, :, 7]).all() and np.isnan(out).sum() == 39


# --- blend ---


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_blend_of_any_shape(data):
    parts = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    h, w = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    rows = data.draw(st.integers(1, 5))
    grid = data.draw(st.booleans())
    n = 1 if grid else rows
    za, zb = floats((n, sum(parts), h, w)), floats((n, sum(parts), h, w), 1)
    if data.draw(st.booleans()):
        za = za[:, :, ::-1]
    weights = np.random.default_rng(2).random((data.draw(st.sampled_from([rows, 1])), len(parts)), np.float32)
    expected = reference.blend(za, zb, weights, parts)
    result = cpp_ext.blend(za, zb, weights, parts)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=2e-6, atol=2e-6)


def test_blend_with_whole_weights_copies_bit_for_bit(isa):
    za, zb = floats((3, 10, 4, 4)), floats((3, 10, 4, 4), 1) * 1e6
    result = cpp_ext.blend(za, zb, [1, 0, 1], [3, 3, 4])
    np.testing.assert_array_equal(result[:, :3], za[:, :3])
    np.testing.assert_array_equal(result[:, 3:6], zb[:, 3:6])
    np.testing.assert_array_equal(result[:, 6:], za[:, 6:])


def test_blend_writes_where_it_is_told(isa):
    parts, weights = [204, 204, 204, 204, 208], np.linspace(0, 1, 10, dtype=np.float32).reshape(2, 5)
    za, zb = floats((2, 1024, 4, 4)), floats((2, 1024, 4, 4), 1)
    expected = cpp_ext.blend(za, zb, weights, parts)
    out = np.empty_like(za)
    assert cpp_ext.blend(za, zb, weights, parts, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert cpp_ext.blend(za, zb, weights, parts, out=za) is za
    np.testing.assert_array_equal(za, expected)
    pair = floats((1024, 4, 4)), floats((1024, 4, 4), 1)
    assert cpp_ext.blend(*pair, [1, 0.8, 0.5, 0.2, 0], parts).shape == (1, 1024, 4, 4)
    assert cpp_ext.blend(*pair, np.ones((7, 5)), parts).shape == (7, 1024, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: cpp_ext.blend(z, z, [1, 0], [5, 4]), "parts: got parts of 9 channels in all, expected za's 10"),
        (lambda z: cpp_ext.blend(z, z, [1, 0], [10, 0]), "parts: got a part of 0 channels"),
        (lambda z: cpp_ext.blend(z, z, [1, 0, 0], [5, 5]), r"weights: got float32 \[1, 3\].*expected \[2 or 1, 2\]"),
        (lambda z: cpp_ext.blend(z, z, np.ones((3, 2)), [5, 5]), r"weights: got float32 \[3, 2\]"),
        (lambda z: cpp_ext.blend(z, z[:, :, :2], [1, 0], [5, 5]), "zb: got .* expected the shape of za"),
        (lambda z: cpp_ext.blend(z, z.astype(float), [1, 0], [5, 5]), "zb: got float64"),
        (
            lambda z: cpp_ext.blend(z, z, [1, 0], [5, 5], out=np.empty((1, 10, 3, 3), np.float32)),
            "out: got .*expected float32",
        ),
        (lambda z: cpp_ext.blend(z[:1], z[:1], np.ones((2, 2)), [5, 5], out=z), "out: got memory shared with za"),
        (lambda z: cpp_ext.gram(z.astype(int)), "f: got int64"),
        (lambda z: cpp_ext.gram(z[0, 0]), r"f: got float32 \[3, 3\].*\[N, C, K\]"),
        (lambda z: cpp_ext.gram(z[:, :, :, :2]), "f: got rows 3 elements apart, expected rows that follow each other"),
        (lambda z: cpp_ext.gram_backward(z, np.ones((2, 9, 9), np.float32)), "g: got float32"),
        (lambda z: cpp_ext.pack(z.astype(float)), "x: got float64"),
        (
            lambda z: cpp_ext.pack(z, out=np.empty((2, 3, 3, 9), np.uint8)),
            r"out: got uint8 .*expected uint8 \[2, 3, 3, 10\]",
        ),
        (
            lambda z: cpp_ext.pack(z, alpha=True),
            r"x: got float32 \[2, 10, 3, 3\], expected float32 \[N, 3, H, W\] with alpha",
        ),
        (
            lambda z: cpp_ext.pack(z[:, :3], alpha=True, out=np.empty((2, 3, 3, 3), np.uint8)),
            r"out: got uint8 \[2, 3, 3, 3\], expected uint8 \[2, 3, 3, 4\] with alpha=True",
        ),
        (
            lambda z: cpp_ext.pack(z[:, :3], out=np.empty((2, 3, 3, 4), np.uint8)),
            r"out: got uint8 \[2, 3, 3, 4\], expected uint8 \[2, 3, 3, 3\] with alpha=False",
        ),
        (
            lambda z: cpp_ext.pack(z[:, :3], alpha=True, out=np.empty((2, 3, 3, 4), np.int64)),
            r"out: got int64 \[2, 3, 3, 4\].*expected uint8 \[2, 3, 3, 4\]",
        ),
        (lambda z: cpp_ext.unpack(z), "u: got float32"),
        (lambda z: cpp_ext.noise(-1, 0, 1, 1), "seed: got -1"),
        (lambda z: cpp_ext.noise(0, 2**64 - 1, 2, 1), "count: got 2, expected 0 to 1"),
        (lambda z: cpp_ext.noise(0, 0, 2, 1, out=np.empty((2, 2), np.float32)), r"out: got shape \[2, 2\]"),
        (lambda z: cpp_ext.noise(0, 0, 2, 2, out=np.broadcast_to(np.float32(0), (2, 2))), "out: got a read-only array"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(floats((2, 10, 3, 3)))


# --- noise ---


def ulps(a, b):
    """Distance in representable float32 values (of one sign)."""
    return np.abs(a.view(np.int32).astype(np.int64) - b.view(np.int32)).max(initial=0)


@pytest.mark.parametrize(
    ("seed", "first", "count", "dim"),
    [
        (0, 0, 100, 64),
        (7, 2**32 - 3, 9, 5),
        (2**64 - 1, 2**64 - 40, 40, 1),
        (5, 3, 1, 1000),
        (1, 0, 20000, 10),
        (2, 9, 0, 4),
        (2, 9, 4, 0),
    ],
)
def test_noise_is_within_one_ulp_of_its_twin(seed, first, count, dim, isa):
    z = cpp_ext.noise(seed, first, count, dim)
    assert z.shape == (count, dim) and z.dtype == np.float32
    assert ulps(z, reference.noise(seed, first, count, dim)) <= 1


def test_noise_has_the_same_bits_on_every_instruction_set_split_and_thread(isa, threads):
    whole = cpp_ext.noise(3, 0, 5000, 33)
    cpp_ext.set_isa("")
    np.testing.assert_array_equal(cpp_ext.noise(3, 0, 5000, 33), whole)
    threads(1)
    np.testing.assert_array_equal(cpp_ext.noise(3, 0, 5000, 33), whole)
    parts = [cpp_ext.noise(3, first, count, 33) for first, count in ((0, 1), (1, 6), (7, 4000), (4007, 993))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    wide = np.zeros((5000, 40), np.float32)
    cpp_ext.noise(3, 0, 5000, 33, out=wide[:, 3:36])
    np.testing.assert_array_equal(wide[:, 3:36], whole)
    assert not wide[:, :3].any() and not wide[:, 36:].any()


# --- frames ---


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 3), c=st.integers(1, 6), h=st.integers(0, 30), w=st.integers(0, 70), how=st.integers(0, 2))
def test_pack_and_unpack_have_their_twins_bits(n, c, h, w, how):
    x = floats((n, c, h, w)) * 0.8
    x = [x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), x[:, ::-1, :, ::-1]][how]
    frames = cpp_ext.pack(x)
    assert frames.dtype == np.uint8 and frames.shape == (n, h, w, c)
    np.testing.assert_array_equal(frames, reference.pack(x))
    np.testing.assert_array_equal(cpp_ext.unpack(frames), reference.unpack(frames))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 3), h=st.integers(0, 30), w=st.integers(0, 70), how=st.integers(0, 2), gaps=st.booleans())
def test_pack_with_alpha_has_its_twins_bits(n, h, w, how, gaps):
    x = floats((n, 3, h, w)) * 0.8
    x = [x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), x[:, ::-1, :, ::-1]][how]
    expected = reference.pack(x, alpha=True)
    np.testing.assert_array_equal(cpp_ext.pack(x, alpha=True), expected)
    whole = np.full((n, h, w + 2, 5 if gaps else 4), 7, np.uint8)
    out = whole[:, :, 1:-1, -4:]
    assert cpp_ext.pack(x, alpha=True, out=out) is out
    np.testing.assert_array_equal(out, expected)
    out[...] = 7
    assert (whole == 7).all()  # nothing beside it was touched


def test_pack_rounds_and_saturates_as_its_twin(isa):
    edges = (np.arange(-3, 260, 0.5, dtype=np.float32) / np.float32(127.5)) - 1
    near = np.concatenate([np.nextafter(edges, np.float32(k)) for k in (-9, 9)])
    odd = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, -0.0], np.float32)
    values = np.concatenate([edges, near, odd])
    for channels in (1, 3, 4):
        x = np.resize(values, (1, channels, 5, len(values) // 5 * 2))
        np.testing.assert_array_equal(cpp_ext.pack(x), reference.pack(x))
        if channels == 3:
            np.testing.assert_array_equal(cpp_ext.pack(x, alpha=True), reference.pack(x, alpha=True))
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    np.testing.assert_array_equal(cpp_ext.pack(cpp_ext.unpack(every)), every)
