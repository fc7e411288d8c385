"""SSIM in the compiled library against scikit-image and the NumPy twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cpp_ext
from cpp_ext import reference

pytestmark = pytest.mark.skipif(not cpp_ext.compiled(), reason="the compiled kernels were not built here")
EXACT = {"rtol": 0, "atol": 1e-6}
PEER = {"uniform": {}, "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}}
SIZE = {"uniform": 7, "gaussian": 11}
WINDOWS = ["uniform", "gaussian"]


def skimage(a, b, window, data_range):
    """In float64, of NHWC images."""
    metrics = pytest.importorskip("skimage.metrics")
    a, b = a.astype(np.float64), b.astype(np.float64)
    options = {"channel_axis": 2, "data_range": data_range, **PEER[window]}
    return np.array([metrics.structural_similarity(x, y, **options) for x, y in zip(a, b, strict=True)])


def pictures(shape, dtype=np.uint8, seed=0):
    """Two alike: noise, and the same with more noise."""
    generator = np.random.default_rng(seed)
    a = generator.integers(0, 256, shape, np.uint8)
    b = np.clip(a + generator.integers(-60, 60, shape), 0, 255).astype(np.uint8)
    return (a, b) if dtype == np.uint8 else ((a / 255).astype(np.float32), (b / 255).astype(np.float32))


def white(dtype):
    return 255.0 if dtype == np.uint8 else 1.0


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("window", WINDOWS)
def test_equals_skimage_at_every_size(window, dtype, isa):
    least = SIZE[window]
    for height, width, channels in [
        (least, least, 1), (least, least + 1, 3), (11, 64, 3), (64, 11, 2), (17, 33, 4), (80, 80, 3), (81, 79, 3),
        (128, 128, 1), (255, 96, 3), (40, 513, 1), (512, 511, 1), (512, 512, 3),
    ]:  # fmt: skip
        a, b = pictures((2, height, width, channels), dtype, seed=height)
        expected = skimage(a, b, window, white(dtype))
        np.testing.assert_allclose(cpp_ext.ssim(a, b, window=window, data_range=white(dtype)), expected, **EXACT)
        planar = [np.ascontiguousarray(x.transpose(0, 3, 1, 2)) for x in (a, b)]
        scores = cpp_ext.ssim(*planar, window=window, data_range=white(dtype), layout="NCHW")
        np.testing.assert_allclose(scores, expected, **EXACT)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_any_number_of_images(count, window):
    a, b = pictures((count, 16, 13, 3))
    scores = cpp_ext.ssim(a, b, window=window)
    assert scores.shape == (count,) and scores.dtype == np.float64
    np.testing.assert_allclose(scores, reference.ssim(a, b, window=window), **EXACT)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_shapes_layouts_and_strides(data):
    window = data.draw(st.sampled_from(WINDOWS))
    dtype = data.draw(st.sampled_from([np.uint8, np.float32]))
    layout = data.draw(st.sampled_from(["NHWC", "NCHW"]))
    least, n, c = SIZE[window], data.draw(st.integers(0, 4)), data.draw(st.integers(1, 5))
    h, w = data.draw(st.integers(least, 48)), data.draw(st.integers(least, 48))
    a, b = pictures((n, h, w, c), dtype, data.draw(st.integers(0, 99)))
    expected = {
        per: reference.ssim(a, b, window=window, data_range=white(dtype), per=per)
        for per in ("image", "channel", "pixel")
    }
    step = data.draw(st.tuples(*[st.sampled_from([1, 1, 2, -1, -3])] * 4))

    def strided(x):  # the same values, in memory with gaps or backwards
        if layout == "NCHW":
            x = x.transpose(0, 3, 1, 2)
        wide = np.zeros([size * abs(s) for size, s in zip(x.shape, step, strict=True)], dtype)
        view = wide[tuple(slice(None, None, s) for s in step)]
        view[...] = x
        return view

    x, y = strided(a), strided(b)
    options = {"window": window, "data_range": white(dtype), "layout": layout}
    np.testing.assert_allclose(cpp_ext.ssim(x, y, **options), expected["image"], **EXACT)
    np.testing.assert_allclose(cpp_ext.ssim(x, y, per="channel", **options), expected["channel"], **EXACT)
    pixels = cpp_ext.ssim(x, y, per="pixel", **options)
    pixels = pixels if layout == "NHWC" else pixels.transpose(0, 2, 3, 1)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected["pixel"], rtol=0, atol=2e-5)
    if n:
        i, j = (np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=5, max_size=5))) for _ in range(2))
        pairs = cpp_ext.ssim_pairs(x, y, i, j, **options)
        np.testing.assert_allclose(pairs, reference.ssim(a[i], b[j], window=window, data_range=white(dtype)), **EXACT)


def hard_pictures():
    """Float pairs in [0, 1] where float32 sums go wrong: large flat regions far apart."""
    step = np.zeros((64, 64, 1), np.float32) + np.where(np.arange(64) < 32, 0.1, 0.9).astype(np.float32)[None, :, None]
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None, :, None] + np.zeros((64, 1, 1), np.float32)
    board = ((np.arange(64)[:, None] // 16 + np.arange(64)[None] // 16) % 2).astype(np.float32)[:, :, None]
    flat = np.full((64, 64, 1), 0.2, np.float32)
    pairs = [(step, step[:, ::-1]), (step, flat), (ramp, ramp[:, ::-1]), (board, 1 - board), (board * 0.7 + 0.1, board)]
    pairs += [(flat, flat + np.float32(0.6)), (flat * 0, flat * 0 + 1), (ramp, flat), (step.transpose(1, 0, 2), step)]
    return (np.stack(side) for side in zip(*pairs, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window", WINDOWS)
def test_flat_regions_far_apart_keep_their_accuracy(window, channels, isa):
    a, b = (np.repeat(x, channels, axis=3) for x in hard_pictures())
    for scale in (1, 255):
        x, y = a * np.float32(scale), b * np.float32(scale)
        expected = skimage(x, y, window, scale)
        np.testing.assert_allclose(cpp_ext.ssim(x, y, window=window, data_range=scale), expected, **EXACT)
        own = np.arange(len(x))
        pairs = cpp_ext.ssim_pairs(x, y, own, own, window=window, data_range=scale)
        np.testing.assert_allclose(pairs, expected, **EXACT)
        x, y = (np.rint(v * 255 / scale).astype(np.uint8) for v in (x, y))
        np.testing.assert_allclose(cpp_ext.ssim(x, y, window=window), skimage(x, y, window, 255), **EXACT)


@pytest.mark.parametrize("window", WINDOWS)
def test_identical_images_score_exactly_one(window, isa, rng):
    for images in (
        rng.integers(0, 256, (5, 80, 80, 3), np.uint8),
        rng.random((3, 61, 47, 1), np.float32),
        np.full((1, 33, 40, 3), 0.3, np.float32),
        np.zeros((1, 11, 11, 1), np.uint8),
    ):
        assert (cpp_ext.ssim(images, images.copy(), window=window, data_range=white(images.dtype)) == 1).all()
        every = np.arange(len(images))
        pairs = cpp_ext.ssim_pairs(images, images.copy(), every, every, window=window, data_range=white(images.dtype))
        assert (pairs == 1).all()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_pixel_spoils_its_image_alone(window, value, isa):
    a, b = pictures((9, 40, 37, 3), np.float32)
    clean = cpp_ext.ssim(a, b, window=window, data_range=1)
    a[4, 20, 11, 1] = value
    scores = cpp_ext.ssim(a, b, window=window, data_range=1)
    others = np.arange(9) != 4
    assert np.isnan(scores[4])
    np.testing.assert_array_equal(scores[others], clean[others])
    channels = cpp_ext.ssim(a, b, window=window, data_range=1, per="channel")
    assert np.isnan(channels[4]).tolist() == [False, True, False] and np.isfinite(channels[others]).all()
    pixels = cpp_ext.ssim(a, b, window=window, data_range=1, per="pixel")
    reach = SIZE[window] - 1
    assert np.isnan(
        pixels[4, 20 - reach : 21, 11 - reach : 12, 1] if 11 >= reach else pixels[4, 20 - reach : 21, :12, 1]
    ).all()
    assert np.isnan(pixels).sum() == SIZE[window] * min(SIZE[window], 12)
    pairs = cpp_ext.ssim_pairs(a, b, [4, 3, 0, 4], [0, 3, 4, 4], window=window, data_range=1)
    assert np.isnan(pairs).tolist() == [True, False, False, True]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pairs_in_any_order_and_number(window, dtype, isa, rng):
    a, b = pictures((12, 34, 50, 3), dtype)
    i, j = rng.integers(0, 12, 300), rng.integers(0, 5, 300)
    scores = cpp_ext.ssim_pairs(a, b[:5], i, j, window=window, data_range=white(dtype))
    np.testing.assert_allclose(scores, cpp_ext.ssim(a[i], b[j], window=window, data_range=white(dtype)), **EXACT)
    assert cpp_ext.ssim_pairs(a, b, [], [], window=window, data_range=white(dtype)).shape == (0,)


@pytest.mark.parametrize("window", WINDOWS)
def test_the_same_bits_from_any_number_of_threads_and_any_batch(window, threads):
    a, b = pictures((24, 96, 80, 3))
    large = pictures((1, 600, 500, 3))
    i, j = np.arange(24).repeat(4), np.tile(np.arange(24), 4)
    seen = []
    for count in (1, 2, 0):
        threads(count)
        seen.append(
            [
                cpp_ext.ssim(a, b, window=window),
                cpp_ext.ssim(*large, window=window),
                cpp_ext.ssim_pairs(a, b, i, j, window=window),
            ]
        )
    for later in seen[1:]:
        for one, other in zip(seen[0], later, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(seen[0][0][5:7], cpp_ext.ssim(a[5:7], b[5:7], window=window))


def test_out_is_written_and_returned():
    a, b = pictures((3, 20, 24, 3))
    for per, shape, dtype in (
        ("image", (3,), float),
        ("channel", (3, 3), float),
        ("pixel", (3, 14, 18, 3), np.float32),
    ):
        out = np.empty(shape, dtype)
        assert cpp_ext.ssim(a, b, per=per, out=out) is out
        np.testing.assert_allclose(out, reference.ssim(a, b, per=per), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda a, b: cpp_ext.ssim(a, b[:1]),
            r"b: got uint8 \[1, 3, 20, 24\] in host memory, expected 2 images like a",
        ),
        (lambda a, b: cpp_ext.ssim(a, b[:, :19]), "b: got .* expected images like a's"),
        (lambda a, b: cpp_ext.ssim(a, b.astype(np.float32)), "b: got float32 .* expected the dtype of a"),
        (lambda a, b: cpp_ext.ssim(a[0], b[0]), r"a: got uint8 \[20, 24, 3\] .* expected .* \[N, C, H, W\]"),
        (lambda a, b: cpp_ext.ssim(a[:, :6], b[:, :6]), r"a: got .* expected at least one channel and 7 x 7 pixels"),
        (lambda a, b: cpp_ext.ssim(a[:, :10], b[:, :10], window="gaussian"), "11 x 11 pixels"),
        (lambda a, b: cpp_ext.ssim(a.astype(np.int32), b, data_range=9), "a: got int32, expected uint8"),
        (lambda a, b: cpp_ext.ssim(a.astype(np.float16), b.astype(np.float16), data_range=1), "float16 is for CUDA"),
        (lambda a, b: cpp_ext.ssim(a.astype(np.float32), b.astype(np.float32)), "data_range: got None"),
        (lambda a, b: cpp_ext.ssim(a, b, data_range=0), "data_range: got 0"),
        (lambda a, b: cpp_ext.ssim(a, b, data_range=float("nan")), "data_range: got nan"),
        (lambda a, b: cpp_ext.ssim(a, b, window="box"), "window: got 'box'"),
        (lambda a, b: cpp_ext.ssim(a, b, layout="HWC"), "layout: got 'HWC'"),
        (lambda a, b: cpp_ext.ssim(a, b, per="row"), "per: got 'row'"),
        (lambda a, b: cpp_ext.ssim(a, b, out=np.empty(3)), r"scores: got float64 \[3\] .* expected float64 \[2\]"),
        (lambda a, b: cpp_ext.ssim(a, b, out=np.empty(2, np.float32)), "scores: got float32"),
        (lambda a, b: cpp_ext.ssim_pairs(a, b, [0, 2], [0, 1]), "i: got index 2, expected 0 to 1"),
        (lambda a, b: cpp_ext.ssim_pairs(a, b, [0], [-1]), "j: got index -1"),
        (lambda a, b: cpp_ext.ssim_pairs(a, b, [0], [0, 1]), "j: got .* expected 1 indices like i"),
        (lambda a, b: cpp_ext.ssim_pairs(a, b, [0.5], [0]), "i: got float64"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(*pictures((2, 20, 24, 3)))
