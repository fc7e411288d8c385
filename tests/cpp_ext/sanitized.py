"""The kernels, compiled with sanitizers, against the reference twins. Run by test_sanitized.py in a process apart.

    python sanitized.py LIBRARY cuda      the CUDA kernels, compiled for the CPU; AWASE_EMULATE_ORDER=reverse in the
                                          environment turns the order of threads round
    python sanitized.py LIBRARY cpu       the CPU's, with the instruction set that AWASE_ISA names

Prints a JSON object: for each operation, how many comparisons were made, what failed, and a digest of all results.
"""

import ctypes
import hashlib
import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
# The reference alone: the package itself would load the compiled kernels.
package = types.ModuleType("cpp_ext")
package.__path__ = [str(ROOT / "cpp_ext")]
sys.modules["cpp_ext"] = package
reference = importlib.import_module("cpp_ext.reference")


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 4),
        ("strides", ctypes.c_int64 * 4),
    ]


DTYPES = [np.uint8, np.float16, np.float32, np.float64, np.int64]
UNIFORM, GAUSSIAN = 0, 1
WINDOWS = {"uniform": UNIFORM, "gaussian": GAUSSIAN}


DEVICE = {"cuda": 0, "cpu": -1}[sys.argv[2]]


def tensor(array, device=DEVICE):
    """A pointer to an awase_tensor over the array's memory; None stays a null pointer."""
    if array is None:
        return None
    strides = [size // array.itemsize for size in array.strides]
    padding = [0] * (4 - array.ndim)
    four = ctypes.c_int64 * 4
    dtype = DTYPES.index(array.dtype.type)
    return ctypes.byref(
        Tensor(array.ctypes.data, dtype, device, array.ndim, four(*array.shape, *padding), four(*strides, *padding))
    )


HALF = np.float16 if DEVICE == 0 else np.float32  # only CUDA takes it
BITS = 0.0 if DEVICE == 0 else 1e-6  # CUDA: the same bits from any strides, and from pairs as from ssim
library = ctypes.CDLL(sys.argv[1])
library.awase_last_error.restype = ctypes.c_char_p


def call(name, *arguments):
    if getattr(library, name)(*arguments, None):
        raise RuntimeError(library.awase_last_error().decode())


class Check:
    """Collects comparisons of one operation."""

    def __init__(self):
        self.count, self.failures, self.digest, self.worst = 0, [], hashlib.sha256(), 0.0

    def near(self, what, got, expected, tolerance, relative_to=1.0):
        self.count += 1
        self.digest.update(np.ascontiguousarray(got).tobytes())
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        if got.shape != expected.shape or not np.array_equal(np.isnan(got), np.isnan(expected)):
            self.failures.append(f"{what}: got {got.tolist()[:4]}, expected {expected.tolist()[:4]}")
            return
        error = np.max(np.abs(np.where(got == expected, 0, got - expected)), initial=0, where=~np.isnan(expected))
        error /= relative_to
        if tolerance:
            self.worst = max(self.worst, float(error / tolerance))
        if not error <= tolerance:
            self.failures.append(f"{what}: off by {error}, expected at most {tolerance}")

    def same(self, what, got, expected):
        self.near(what, got, expected, 0.0)


rng = np.random.default_rng(0)


def strided(array, order, pad=1, flip=()):
    """A copy of the array whose axes lie in memory in the given order, with gaps and some axes backwards."""
    shape = [array.shape[axis] for axis in order]
    big = np.full([*shape[:-1], shape[-1] + pad], 77, array.dtype)
    view = big[..., : shape[-1]].transpose(np.argsort(order))
    view = view[tuple(slice(None, None, -1) if axis in flip else slice(None) for axis in range(array.ndim))]
    view[...] = array
    return view


# ---- SSIM ----


def images(shape, dtype, data_range=1.0, smooth=True):
    x = rng.random(shape)
    if smooth:
        x = (x + np.roll(x, 1, -1) + np.roll(x, 1, -2) + np.roll(x, 2, -1)) / 4
    return (x * data_range).round().astype(dtype) if dtype == np.uint8 else (x * data_range).astype(dtype)


def run_ssim(a, b, window, data_range, per=("scores", "channels", "map")):
    n, c, h, w = a.shape
    reach = 10 if window == "gaussian" else 6
    out = {
        "scores": np.full(n, -7.0),
        "channels": np.full((n, c), -7.0),
        "map": np.full((n, c, h - reach, w - reach), -7, np.float32),
    }
    given = [tensor(out[name]) if name in per else None for name in out]
    call("awase_ssim", tensor(a), tensor(b), WINDOWS[window], ctypes.c_double(data_range), *given)
    return [out[name] for name in per]


def check_ssim(check, what, a, b, window, data_range, tolerance=1e-6, whole=True):
    what = f"{what} {window} {a.dtype} {list(a.shape)}"
    x, y = (image.astype(np.float32) if image.dtype == np.float16 else image for image in (a, b))
    options = {"window": window, "data_range": data_range, "layout": "NCHW"}
    with np.errstate(all="ignore"):
        expected = [reference.ssim(x, y, per=per, **options) for per in ("image", "channel", "pixel")]
    got = run_ssim(a, b, window, data_range) if whole else run_ssim(a, b, window, data_range, ["scores"])
    for name, value, wanted in zip(("scores", "channels", "map"), got, expected, strict=False):
        # A map is float32, and a pixel on its own is not guarded against rounding.
        self_tolerance = 2e-4 if name == "map" else tolerance
        check.near(f"{what} {name}", value, wanted, self_tolerance)
    return got


def test_ssim(check):
    for window, least in (("gaussian", 11), ("uniform", 7)):
        sizes = [(least, least), (least + 1, least + 9), (33, 20), (64, 80), (80, 80), (21, 256), (19, 300)]
        for height, width in sizes:
            dtype, data_range = [(np.float32, 1.0), (np.uint8, 255.0), (HALF, 2.0)][(height + width) % 3]
            a, b = images((2, 3, height, width), dtype, data_range), images((2, 3, height, width), dtype, data_range)
            b[0] = a[0]
            scores, *_ = check_ssim(check, "random", a, b, window, data_range)
            check.same(f"identical {window} {height} {width}", scores[0], 1.0)
        # Two bands and two tiles; alone and in a batch the same bits.
        a, b = images((1, 1, 150, 270), np.float32), images((1, 1, 150, 270), np.float32)
        check_ssim(check, "large", a, b, window, 1.0, whole=False)
        a, b = images((9, 3, 24, 28), np.uint8, 255), images((9, 3, 24, 28), np.uint8, 255)
        all_at_once = check_ssim(check, "batch", a, b, window, 255.0)
        one_by_one = [run_ssim(a[n : n + 1], b[n : n + 1], window, 255.0) for n in range(9)]
        for k, value in enumerate(all_at_once):
            check.same("one by one", np.concatenate([one[k] for one in one_by_one]), value)

        # Layouts.
        for name, dtype, data_range in (("float", np.float32, 1.0), ("bytes", np.uint8, 255.0)):
            a, b = images((2, 3, 30, 27), dtype, data_range), images((2, 3, 30, 27), dtype, data_range)
            plain = check_ssim(check, name, a, b, window, data_range)
            for order, flip in (((0, 2, 3, 1), ()), ((3, 1, 0, 2), (2, 3)), ((0, 1, 2, 3), (0, 1))):
                other = run_ssim(strided(a, order, 2, flip), strided(b, order, 0, flip), window, data_range)
                for value, wanted in zip(other, plain, strict=True):
                    check.same(f"{name} {order}", value, wanted)
            same = np.broadcast_to(a[:1], a.shape)
            check_ssim(check, "broadcast", same, b, window, data_range)

        # Flat regions far from each other: float sums alone are off by more than 1e-6 here.
        step = np.full((1, 1, 64, 64), 0.1, np.float32)
        step[..., 32:] = 0.9
        for name, a, b in (
            ("mirrored step", step, step[..., ::-1]),
            ("step", step, 1 - step),
            ("step and noise", step, images(step.shape, np.float32)),
            ("byte step", (step * 255).astype(np.uint8), (step[..., ::-1] * 255).astype(np.uint8)),
            ("tall step", step.swapaxes(2, 3), step),
            ("ramp", np.linspace(0, 1, 4096, dtype=np.float32).reshape(step.shape), step),
        ):
            check_ssim(check, name, a, b, window, 255.0 if a.dtype == np.uint8 else 1.0)
        mixed = np.concatenate([step, images(step.shape, np.float32), step], axis=1)  # one channel again, one not
        other = np.concatenate([step[..., ::-1], images(step.shape, np.float32), step[..., ::-1]], axis=1)
        check_ssim(check, "mixed", mixed, other, window, 1.0)
        for x, y in ((0.3, 0.7), (0.0, 1.0), (0.1, 0.1), (0.0, 0.0)):
            a, b = (np.full((1, 2, 16, 16), value, np.float32) for value in (x, y))
            check_ssim(check, f"constants {x} {y}", a, b, window, 1.0)
        for data_range in (1e-3, 2.0, 100.0, 65535.0):
            a, b = (images((1, 1, 20, 22), np.float32, data_range) for _ in range(2))
            check_ssim(check, f"range {data_range}", a, b, window, data_range)
        a, b = (images((1, 1, 20, 22), np.uint8, 255) for _ in range(2))
        check_ssim(check, "bytes of range 1", a, b, window, 1.0)
        a, b = (images((1, 1, 20, 22), np.float32) + 1000 for _ in range(2))
        check_ssim(check, "far from 0", a, b, window, 1.0)

        # Not-a-number stays in its image, channel and windows; what overflows floats is scored in binary64.
        a, b = images((3, 2, 20, 40), np.float32), images((3, 2, 20, 40), np.float32)
        a[1, 1, 10, 15] = np.nan
        b[2, 0, 3, 39] = np.nan
        check_ssim(check, "not-a-number", a, b, window, 1.0)
        a, b = images((3, 2, 20, 40), np.float32), images((3, 2, 20, 40), np.float32)
        a[1, 1, 10, 15] = np.inf
        b[2, 0, 3, 3] = 1e25
        scores, channels, values = run_ssim(a, b, window, 1.0)
        with np.errstate(all="ignore"):
            expected = reference.ssim(a, b, window=window, data_range=1.0, layout="NCHW", per="channel")
        check.near("infinity", channels[[0, 0, 1, 2]], expected[[0, 0, 1, 2]], 1e-6)

        # Nothing to do, and outputs on strides of their own.
        check.same("none", run_ssim(a[:0], b[:0], window, 1.0)[0], np.zeros(0))
        a, b = images((2, 3, 20, 21), np.float32), images((2, 3, 20, 21), np.float32)
        plain = run_ssim(a, b, window, 1.0)
        outs = [strided(np.zeros_like(plain[0]), (0,)), strided(np.zeros_like(plain[1]), (1, 0), 1, (1,))]
        outs.append(strided(np.zeros_like(plain[2]), (0, 2, 3, 1), 1, (3,)))
        call("awase_ssim", tensor(a), tensor(b), WINDOWS[window], ctypes.c_double(1), *(tensor(out) for out in outs))
        for out, wanted in zip(outs, plain, strict=True):
            check.same("strided outputs", out, wanted)


def test_ssim_pairs(check):
    for window in WINDOWS:
        for dtype, data_range in ((np.uint8, 255.0), (np.float32, 1.0)):
            a, b = images((4, 3, 20, 23), dtype, data_range), images((6, 3, 20, 23), dtype, data_range)
            b[1] = a[2]
            i, j = rng.integers(0, 4, 17), rng.integers(0, 6, 17)
            i[3], j[3] = 2, 1
            scores = np.full(17, -7.0)
            options = (WINDOWS[window], ctypes.c_double(data_range))
            call("awase_ssim_pairs", tensor(a), tensor(b), tensor(i, -1), tensor(j, -1), *options, tensor(scores))
            wanted = reference.ssim_pairs(a, b, i, j, window=window, data_range=data_range, layout="NCHW")
            check.near(f"pairs {window} {dtype}", scores, wanted, 1e-6)
            check.same(f"identical pair {window}", scores[3], 1.0)
            check.near("like ssim", scores, run_ssim(a[i], b[j], window, data_range, ["scores"])[0], BITS)
    small = images((5, 1, 7, 7), np.uint8, 255)
    i, j = rng.integers(0, 5, 700), rng.integers(0, 5, 700)  # more than one upload
    scores = np.full(700, -7.0)
    options = (UNIFORM, ctypes.c_double(255))
    call("awase_ssim_pairs", tensor(small), tensor(small), tensor(i, -1), tensor(j, -1), *options, tensor(scores))
    wanted = reference.ssim_pairs(small, small, i, j, window="uniform", data_range=255, layout="NCHW")
    check.near("many pairs", scores, wanted, 1e-6)


# ---- Gram matrices ----


def run_gram(f, out=None):
    out = np.full((len(f), f.shape[1], f.shape[1]), -7, np.float32) if out is None else out
    call("awase_gram", tensor(f), tensor(out))
    return out


def test_gram(check):
    shapes = [(2, 1, 1), (3, 5, 7), (1, 16, 16), (2, 32, 33), (1, 64, 1500), (2, 65, 40), (1, 128, 100), (1, 200, 530)]
    for shape in [*shapes, (1, 300, 20), (25, 20, 530), (9, 130, 260)]:  # the last two are not split
        f = rng.standard_normal(shape).astype(np.float32)
        exact = np.einsum("nik,njk->nij", *[f.astype(np.float64)] * 2) / (shape[1] * shape[2])
        scale = np.abs(exact).max()
        plain = run_gram(f)
        check.near(f"gram {shape}", plain, exact, 1e-6, scale)
        check.same(f"symmetric {shape}", plain, plain.swapaxes(1, 2))
        check.same(f"alone {shape}", run_gram(f[:1]), plain[:1])
        for order, flip in (((0, 2, 1), ()), ((2, 1, 0), (1,)), ((0, 1, 2), (2,))):
            out = strided(np.zeros_like(plain), order, 3, flip)
            wanted = plain if 2 not in flip else run_gram(np.ascontiguousarray(f[..., ::-1]))[..., ::1]
            view = strided(f, order, 1, ()) if 2 not in flip else f[..., ::-1]
            check.near(f"gram {shape} {order}", run_gram(view, out), wanted, BITS, scale)
    long = np.abs(rng.standard_normal((1, 2, 70000))).astype(np.float32)
    exact = np.einsum("nik,njk->nij", *[long.astype(np.float64)] * 2) / (2 * 70000)
    check.near("long sums", run_gram(long), exact, 2e-6, exact.max())


def test_gram_backward(check):
    for shape in [(2, 1, 1), (3, 5, 7), (2, 33, 32), (1, 64, 200), (2, 65, 40), (1, 130, 131), (1, 256, 24)]:
        f = rng.standard_normal(shape).astype(np.float32)
        g = rng.standard_normal((shape[0], shape[1], shape[1])).astype(np.float32)
        g64, f64 = g.astype(np.float64), f.astype(np.float64)
        exact = (g64 + g64.swapaxes(1, 2)) @ f64 / (shape[1] * shape[2])
        out = np.full_like(f, -7)
        call("awase_gram_backward", tensor(f), tensor(g), tensor(out))
        check.near(f"gradient {shape}", out, exact, 2e-6, np.abs(exact).max())
        for order, flip in (((0, 2, 1), ()), ((2, 1, 0), (1,))):
            other = strided(np.zeros_like(f), order, 3, flip)
            views = strided(f, order, 1, flip), strided(g, order, 2, flip)
            call("awase_gram_backward", *(tensor(view) for view in views), tensor(other))
            check.same(f"gradient {shape} {order}", other, out)


# ---- latents, noise, frames ----


def run_blend(za, zb, weights, parts, out, place=-1):
    parts = np.array(parts, np.int64)
    call("awase_blend", tensor(za), tensor(zb), tensor(weights, place), tensor(parts, -1), tensor(out))
    return out


def test_blend(check):
    for n, count, (h, w), parts in [
        (1, 7, (4, 4), [3, 5, 8]),
        (5, 5, (4, 4), [1, 1, 1, 13]),
        (1, 1, (1, 1), [1]),
        (1, 40, (3, 3), [2, 3]),
        (3, 3, (1, 1), [10] * 4),
        (2, 2, (64, 33), [2, 1]),
        (1, 40, (64, 4), [4, 28]),
    ]:
        za, zb = (rng.standard_normal((n, sum(parts), h, w)).astype(np.float32) for _ in range(2))
        weights = rng.uniform(-0.5, 1.5, (count, len(parts))).astype(np.float32)
        weights[0, -1] = 1
        weights[-1, 0] = 0
        za[0, 0, 0, 0], zb[-1, -1, -1, -1] = (np.nan, np.inf) if count > 3 else (-0.0, -0.0)
        wanted = reference.blend(za, zb, weights, parts)
        what = f"blend {n} {count} {h} {w}"
        with np.errstate(all="ignore"):
            size = np.max(np.abs(wanted[np.isfinite(wanted)]), initial=1)
        results = [
            run_blend(za, zb, weights, parts, np.full_like(wanted, -7)),
            run_blend(za, zb, weights, parts, np.full_like(wanted, -7), DEVICE),
            run_blend(za, zb, strided(weights, (1, 0), 1, (1,)), parts, np.full_like(wanted, -7)),
            run_blend(za, zb, strided(weights, (1, 0), 1, (1,)), parts, np.full_like(wanted, -7), DEVICE),
            run_blend(strided(za, (2, 3, 0, 1)), strided(zb, (0, 1, 2, 3), 3, (2,)), weights, parts,
                      strided(wanted, (3, 2, 1, 0), 1, (1,))),
        ]  # fmt: skip
        finite = np.isfinite(wanted)
        check.near(what, results[0][finite], wanted[finite], 3e-7, size)
        check.same(what + " not finite", np.isfinite(results[0]), finite)
        for other in results[1:]:
            check.same(what + " again", np.nan_to_num(other), np.nan_to_num(results[0]))
        if n == count:
            for z in (za.copy(), zb.copy()):
                pair = (z, zb) if np.array_equal(z, za, equal_nan=True) else (za, z)
                check.same(what + " in place", np.nan_to_num(run_blend(*pair, weights, parts, z)),
                           np.nan_to_num(results[0]))  # fmt: skip
        one = run_blend(za, zb, weights[:1], parts, np.full((n, *wanted.shape[1:]), -7, np.float32))
        wanted = reference.blend(za, zb, weights[:1], parts)
        check.near(what + " one weight", one[np.isfinite(wanted)], wanted[np.isfinite(wanted)], 3e-7, size)


def run_noise(seed, first, out):
    call("awase_noise", ctypes.c_uint64(seed), ctypes.c_uint64(first), tensor(out))
    return out


def test_noise(check):
    for seed, first, count, dim in [(0, 0, 5, 12), (2**64 - 1, 2**64 - 3, 3, 7), (7, 2**32 - 2, 4, 1), (3, 9, 600, 30)]:
        wanted = reference.noise(seed, first, count, dim)
        got = run_noise(seed, first, np.full((count, dim), -7, np.float32))
        check.same("within 1 ulp", np.abs(got - wanted) <= np.spacing(np.abs(wanted)), np.ones_like(wanted))
        for order, flip in (((1, 0), ()), ((0, 1), (1,))):
            out = strided(np.zeros_like(got), order, 1, flip)
            check.same(f"noise {order}", run_noise(seed, first, out), got)
        check.same("split", run_noise(seed, first + 2, np.zeros((count - 2, dim), np.float32)), got[2:])


def test_frames(check):
    for shape in [(2, 3, 8, 8), (1, 1, 5, 7), (3, 4, 40, 41), (1, 2, 1, 4), (2, 3, 33, 65), (1, 5, 6, 6), (0, 3, 4, 4)]:
        for dtype in (np.float32, HALF):
            x = rng.uniform(-1.3, 1.3, shape).astype(dtype)
            if x.size:
                x[..., 0, 0], x[..., -1, -1] = np.nan, np.inf
            wanted = reference.pack(x.astype(np.float32))
            for view in (x, strided(x, (0, 2, 3, 1), 1), strided(x, (3, 2, 1, 0), 1, (2,))):
                for out in (np.full_like(wanted, 7), strided(np.zeros_like(wanted), (0, 3, 1, 2), 1)):
                    call("awase_pack", tensor(view), tensor(out))
                    check.same(f"pack {shape} {dtype}", out, wanted)
            if shape[1] == 3:
                wanted = reference.pack(x.astype(np.float32), alpha=True)
                for view in (x, strided(x, (0, 2, 3, 1), 0), strided(x, (3, 2, 1, 0), 1, (2,))):
                    for out in (np.full_like(wanted, 7), strided(np.zeros_like(wanted), (0, 3, 1, 2), 1)):
                        call("awase_pack", tensor(view), tensor(out))
                        check.same(f"pack with alpha {shape} {dtype}", out, wanted)
        u = rng.integers(0, 256, (shape[0], *shape[2:], shape[1]), np.uint8)
        wanted = reference.unpack(u)
        for view in (u, strided(u, (0, 3, 1, 2), 1), strided(u, (0, 1, 2, 3), 1, (1,))):
            for out in (np.full_like(wanted, 7), strided(np.zeros_like(wanted), (0, 2, 3, 1), 1)):
                call("awase_unpack", tensor(view), tensor(out))
                check.same(f"unpack {shape}", out, wanted)
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    back = np.empty((1, 1, 16, 16), np.float32)
    call("awase_unpack", tensor(levels), tensor(back))
    again = np.empty_like(levels)
    call("awase_pack", tensor(back), tensor(again))
    check.same("there and back", again, levels)


def test_devices(check):
    count = ctypes.c_int(0)
    check.same("status", library.awase_cuda_devices(ctypes.byref(count)), 0)
    check.same("devices", count.value, 1)  # emulated


if __name__ == "__main__":
    results = {}
    for name, function in list(globals().items()):
        if name.startswith("test_"):
            check = Check()
            try:
                function(check)
            except Exception as error:
                check.failures.append(repr(error))
            results[name.removeprefix("test_")] = {
                "count": check.count,
                "failures": check.failures[:20],
                "worst": check.worst,
                "digest": check.digest.hexdigest(),
            }
    print(json.dumps(results, indent=1))
