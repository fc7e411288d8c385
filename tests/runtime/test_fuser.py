"""Fusing pictures: the ends are exact, every way to the same λ gives the same bits, and what is wrong is said."""

import inspect
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cpp_ext
import runtime
from runtime.backends import openvino
from runtime.bundle import MANIFEST, Bundle
from runtime.errors import InputError
from runtime.models import Fuser
from runtime.models import weights as lambdas

DEVICES = pytest.mark.parametrize("device", ["cpu", "openvino"])
RNG = np.random.default_rng(5)
A, B, C = RNG.integers(0, 256, (3, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(make_fusion_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fusion_bundle(tmp_path_factory.mktemp("bundles") / "fusion")


@pytest.fixture(scope="module")
def fuse(folder: Path) -> Fuser:
    return runtime.load(folder)


def test_what_a_model_says_of_itself(fuse: Fuser, folder: Path) -> None:
    assert isinstance(fuse, Fuser) and fuse.parts == (3, 2, 3) and fuse.size == 16
    assert fuse.bundle.path == folder and fuse.choice.startswith("fp32 on cpu by ")
    assert fuse.encoder.backend == fuse.generator.backend == fuse.session.backend


def test_a_blend_is_what_the_equation_says(fuse: Fuser) -> None:
    graphs = {name: runtime.session.open_session(fuse.bundle, name, "cpu")[0] for name in ("blend", "fuse")}
    weights = np.array([[1, 0.8, 0.25]], np.float32)
    za, zb = fuse.encode([A]), fuse.encode([B])
    assert za.shape == (1, 8, 4, 4) and za.dtype == np.float32
    plain = np.repeat(weights, fuse.parts, axis=1)[:, :, None, None]
    expected = plain * za + (1 - plain) * zb
    assert np.abs(cpp_ext.blend(za, zb, weights, fuse.parts) - expected).max() < 1e-6
    assert np.abs(graphs["blend"].run({"za": za, "zb": zb, "weights": weights})["z"] - expected).max() < 1e-6
    pair = {"a": cpp_ext.unpack(A[None]), "b": cpp_ext.unpack(B[None]), "weights": weights}
    made = fuse(A, B, weights[0], form="float")
    assert np.abs(graphs["fuse"].run(pair)["image"][0] - made).max() < 1e-5
    assert np.array_equal(cpp_ext.pack(made[None])[0], fuse(A, B, weights[0]))


@DEVICES
@pytest.mark.parametrize("threads", [1, 2])
def test_the_ends_are_the_reconstructions_to_the_bit(
    make_fusion_bundle: Callable[..., Path], tmp_path: Path, device: str, threads: int
) -> None:
    fuse = runtime.load(make_fusion_bundle(tmp_path / "f", size=64, parts=(5, 4, 7)), device, threads=threads)
    a, b = RNG.integers(0, 256, (2, 70, 90, 3), np.uint8)
    for form in ("uint8", "float"):
        ends = fuse.decode(fuse.encode(a), form), fuse.decode(fuse.encode(b), form)
        assert not np.array_equal(*ends)
        grid = fuse.grid(a, b, 3, form=form)
        frames = list(fuse.animate(a, b, 21, form=form))
        swept = fuse.sweep(a, b, 40, form=form)
        for made in (
            (fuse(a, b, 1, form=form), fuse(a, b, [0, 0, 0], form=form)),
            (grid[0, 0, 0], grid[2, 2, 2]),
            (frames[0], frames[-1]),
            (swept[0], swept[-1]),
            (fuse.blend([a, b], [1, 0], form=form), fuse.blend([a, b, a], [0, 1, 0], form=form)),
        ):
            assert np.array_equal(made[0], ends[0]) and np.array_equal(made[1], ends[1])


@DEVICES
def test_every_way_to_a_weight_gives_the_same_bits(folder: Path, device: str) -> None:
    fuse = runtime.load(folder, device)
    weights = RNG.random((77, 3)).astype(np.float32)  # over two batches, and one that is not full
    rows = fuse(A, B, weights)
    assert rows.shape == (77, 16, 16, 3) and rows.dtype == np.uint8
    for k in (0, 31, 32, 76):
        assert np.array_equal(rows[k], fuse(A, B, weights[k]))
        assert np.array_equal(rows[k], fuse.blend([A, B], np.stack([weights[k], 1 - weights[k]])))
    pairs = np.broadcast_to(A, (77, *A.shape)), np.broadcast_to(B, (77, *B.shape))
    assert np.array_equal(rows, fuse(*pairs, weights)) and np.array_equal(rows, fuse(A, pairs[1], weights))
    shares = np.stack([weights.astype(np.float64), 1 - weights.astype(np.float64)], axis=1)
    assert np.array_equal(rows, fuse.blend(fuse.encode([A, B]), shares))
    grid = fuse.grid(A, B, 5)
    assert grid.shape == (5, 5, 5, 16, 16, 3)
    assert np.array_equal(grid[1, 4, 2], fuse(A, B, [0.75, 0, 0.5]))
    parts = fuse.per_part(A, B, 5)
    assert parts.shape == (3, 5, 16, 16, 3)
    for part in range(3):
        index = [0, 0, 0]
        for step in range(5):
            index[part] = step
            assert np.array_equal(parts[part, step], grid[tuple(index)])
    assert np.array_equal(fuse.sweep(A, B, 5), grid[range(5), range(5), range(5)])
    few = fuse.grid(A, B, 5, vary=[2, 0], others=0.5)
    assert np.array_equal(few, grid[:, 2, :].swapaxes(0, 1))


def test_pictures_of_any_kind(fuse: Fuser, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), A[..., ::-1])
    z = fuse.encode(A)
    assert z.shape == (8, 4, 4)
    for same in (tmp_path / "a.png", str(tmp_path / "a.png"), A.astype(np.uint16) * 257):
        assert np.array_equal(fuse.encode(same), z)
    several = fuse.encode([tmp_path / "a.png", np.repeat(np.repeat(B, 3, 0), 3, 1), C[..., 0]])
    assert several.shape == (3, 8, 4, 4) and np.array_equal(several[0], z)
    assert np.array_equal(several[1], fuse.encode(B))  # nine equal pixels have the area's mean
    assert np.array_equal(fuse.encode(np.stack([A, B] * 40))[[0, 79]], fuse.encode((A, B)))
    assert np.array_equal(fuse(tmp_path / "a.png", fuse.encode(B), 0.3), fuse(A, B, 0.3))
    assert fuse(A[None], B, 0.3).shape == (1, 16, 16, 3) and fuse(A, B, [[0.3] * 3]).shape == (1, 16, 16, 3)
    assert fuse.decode(z[None], "float").shape == (1, 3, 16, 16)


def test_many_pictures_share(fuse: Fuser) -> None:
    z = fuse.encode([A, B, C])
    weights = np.array([[0.5, 0.2, 0], [0.3, 0.8, 0.5], [0.2, 0, 0.5]])
    expected = sum(
        np.repeat(w, fuse.parts)[:, None, None] * latent.astype(np.float64)
        for w, latent in zip(weights, z, strict=True)
    )
    whole = fuse.decode(np.asarray(expected, np.float32), "float")
    assert np.abs(fuse.blend(z, weights, form="float") - whole).max() < 1e-6
    assert np.array_equal(fuse.blend([A, B, C], weights), fuse.blend(z, weights))
    sets = fuse.blend(z, np.stack([weights] * 40))
    assert len(sets) == 40 and all(np.array_equal(image, fuse.blend(z, weights)) for image in sets)
    assert np.array_equal(fuse.blend(z, [0.333, 0.333, 0.333]), fuse.blend(z, [1 / 3] * 3))
    # Where a picture has no share, nothing of it is left, whatever it is.
    spoilt = z.copy()
    spoilt[2] = np.nan
    assert np.array_equal(fuse.blend(spoilt, [0.4, 0.6, 0]), fuse(A, B, 0.4))
    assert np.array_equal(fuse.blend(spoilt[[2, 0, 1]], [0, 0.4, 0.6]), fuse(A, B, 0.4))


def test_animations(fuse: Fuser) -> None:
    frames = list(fuse.animate(A, B, 21, ease="linear"))
    assert len(frames) == 21 and all(np.array_equal(f, s) for f, s in zip(frames, fuse.sweep(A, B, 21), strict=True))
    smooth = list(fuse.animate(A, B, 21))
    assert np.array_equal(smooth[10], frames[10]) and not np.array_equal(smooth[3], frames[3])
    assert np.array_equal(smooth[5], fuse(A, B, 1 - 0.25 * 0.25 * 2.5))
    there_and_back = list(fuse.animate(A, B, 41, keys=(1, 0, 1)))
    assert all(np.array_equal(there_and_back[k], there_and_back[40 - k]) for k in range(21))
    assert all(np.array_equal(there_and_back[k], smooth[k]) for k in range(21))
    own_pace = list(fuse.animate(A, B, 3, keys=[[1, 1, 1], [0, 1, 0.5], [0, 0, 0]]))
    assert np.array_equal(own_pace[1], fuse(A, B, [0, 1, 0.5]))
    assert [np.array_equal(frame, fuse(A, B, 1)) for frame in fuse.animate(A, B, 1)] == [True]
    assert next(fuse.animate(A, B, 2, form="float")).shape == (3, 16, 16)
    beyond = list(fuse.animate(A, B, 2, keys=(1.5, -0.5), extrapolate=True))
    assert np.array_equal(beyond[0], fuse(A, B, 1.5, extrapolate=True))


def test_extrapolation_goes_on_beyond_the_pictures(fuse: Fuser) -> None:
    z = fuse.encode([A, B])
    expected = fuse.decode(np.float32(1.25) * z[0] - np.float32(0.25) * z[1], "float")
    assert np.abs(fuse(A, B, 1.25, form="float", extrapolate=True) - expected).max() < 1e-5


@DEVICES
def test_one_model_in_many_threads(folder: Path, device: str) -> None:
    weights = RNG.random((12, 40, 3))
    alone = runtime.load(folder, device, threads=1)
    expected = [alone(A, B, rows) for rows in weights]
    fresh = runtime.load(folder, device, threads=1)  # whose buckets are made by whoever comes first
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda rows: fresh(A, B, rows), weights))
        moving = list(pool.map(lambda _: list(fresh.animate(A, B, 20)), range(4)))
    assert all(np.array_equal(*pair) for pair in zip(expected, made, strict=True))
    assert all(np.array_equal(np.stack(moving[0]), np.stack(frames)) for frames in moving)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 0], "weights are 2 numbers, expected 3, one for each part, or"),
        ([[1, 0]], r"weights have the shape \[1, 2\], expected 3"),
        (np.zeros((2, 2, 3)), r"weights have the shape \[2, 2, 3\]"),
        ([], "weights are 0 numbers"),
        ([0.5, np.nan, 0], "weights hold nan, expected numbers"),
        ([0.5, np.inf, 0], "weights hold inf"),
        ([0.5, 1.2, 0], "weights hold 1.2, expected 0 to 1 .*extrapolate"),
        (-1e-9, "weights hold -1e-09"),
        ("half", "weights are 'half', expected a number, or 3 of them"),
        ([[1, 0, 0], [1]], "weights are .*, expected a number"),
        (None, "weights are None"),
        (1j, "weights are 1j"),
    ],
)
def test_bad_weights(fuse: Fuser, weights: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        fuse(A, B, weights)
    assert "\n" not in str(refused.value)


def test_bad_extrapolation(fuse: Fuser) -> None:
    for weights, message in ((1e300, "hold 1e.300, expected numbers that float32 holds"), (np.nan, "hold nan")):
        with pytest.raises(InputError, match=message):
            fuse(A, B, weights, extrapolate=True)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.5], r"weights are 2 numbers, expected \[3\], \[3, 3\] or \[L, 3, 3\], shares of 3 pictures"),
        ([0.5, 0.2, 0.2], "weights sum to 0.9 over the pictures, expected 1"),
        ([0, 0, 0], "weights sum to 0 "),
        ([1.5, -0.5, 0], "weights hold -0.5, expected shares of at least 0"),
        ([1, np.nan, 0], "weights hold nan"),
        ([[1, 1, 1], [0, 0, 0.5], [0, 0, 0]], "weights sum to 1.5"),
        (np.zeros((0, 3, 3)), "weights have the shape"),
    ],
)
def test_bad_shares(fuse: Fuser, weights: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fuse.blend([A, B, C], weights)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.sweep(A, B, 1), "steps is 1, expected a whole number from 2"),
        (lambda f: f.per_part(A, B, 2.5), "steps is 2.5"),
        (lambda f: f.per_part(A, B, others=2), "others hold 2, expected 0 to 1"),
        (lambda f: f.grid(A, B, 3, vary=[0, 0]), r"vary is \[0, 0\], expected different parts from 0 to 2"),
        (lambda f: f.grid(A, B, 3, vary=[3]), r"vary is \[3\]"),
        (lambda f: f.grid(A, B, 2**16), "images at once do not fit into memory"),
        (lambda f: f.sweep([A, B], B), "a is 2 pictures, expected one"),
        (lambda f: f.animate(A, B, 0), "frames is 0"),
        (lambda f: f.animate(A, B, 9, ease="bouncy"), "ease is 'bouncy', expected smooth or linear"),
        (lambda f: f.animate(A, B, 9, keys=1), r"keys have the shape \[\], expected numbers \[K\] or \[K, 3\]"),
        (lambda f: f.animate(A, B, 9, keys=[[1, 0], [0]]), r"keys are .*, expected numbers \[K\]"),
        (lambda f: f.animate(A, B, 9, keys=(1, 2)), "keys hold 2, expected 0 to 1"),
        (lambda f: f(A, B, 0.5, form="png"), "form is 'png', expected uint8 or float"),
        (lambda f: f([A, B], [A, B, C], 0.5), "numbers that do not fit together: a 2, b 3, weights 1; expected 1 or 3"),
        (lambda f: f.blend([A], [1]), "got 1 picture, expected 2 or more"),
        (lambda f: f.blend(A, [1]), "got 1 picture, expected 2 or more"),
        (lambda f: f.encode(5), "pictures are 5, expected a path"),
        (lambda f: f.encode([]), r"pictures are \[\]"),
        (lambda f: f.encode([A, None]), "picture 2 is a NoneType, expected a file's path or an array"),
        (lambda f: f.encode([A] * 40 + [A[0, 0]]), r"picture 41 is uint8 \[3\], expected uint8"),
        (lambda f: f.encode(A.astype(int)), r"picture 1 is int64 \[16, 16, 3\]"),
        (lambda f: f(A / 255, B, 0.5), r"got float64 \[16, 16, 3\], expected pictures .* or latent maps"),
        (
            lambda f: f.decode(np.zeros((2, 8, 4, 5), np.float32)),
            r"latents are float32 \[2, 8, 4, 5\], expected float32",
        ),
        (lambda f: f.decode("z"), "latents are str"),
    ],
)
def test_bad_arguments(fuse: Fuser, call: Callable[[Fuser], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(fuse)


def test_grids_are_streamed(fuse: Fuser, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many images there are, their latent maps are never in memory at once."""
    seen: list[int] = []
    plain = cpp_ext.blend

    def blend(*arguments: Any, **named: Any) -> Any:
        seen.append(len(named["out"]))
        return plain(*arguments, **named)

    monkeypatch.setattr(cpp_ext, "blend", blend)
    assert fuse.grid(A, B, 5).shape == (5, 5, 5, 16, 16, 3)
    assert sum(seen) == 125 and max(seen) == 32


def test_frames_are_made_ahead_and_only_so_far(fuse: Fuser) -> None:
    made = fuse.animate(A, B, 10**6)
    assert isinstance(made, Iterator) and inspect.isgenerator(made)
    first = [next(made) for _ in range(20)]
    made.close()
    assert np.array_equal(first[0], fuse(A, B, 1))


def test_shares_become_folds() -> None:
    folds = lambdas.folds([0.5, 0.3, 0.2], 3, 2)
    assert folds.shape == (2, 2) and np.allclose(folds, [[0.625] * 2, [0.8] * 2])
    assert lambdas.folds([0, 0, 1], 3, 1).ravel().tolist() == [1, 0]
    lam = np.random.default_rng(0).random(10_000).astype(np.float32)
    assert np.array_equal(lambdas.folds(np.stack([lam, 1 - lam])[:, :, None].swapaxes(0, 1), 2, 1).ravel(), lam)


# ---- bundles ----


def changed(bundle: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    raw = json.loads((bundle / MANIFEST).read_text())
    change({graph["name"]: graph for graph in raw["graphs"]} | {"all": raw})
    (bundle / MANIFEST).write_text(json.dumps(raw))
    return bundle


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g["encoder"]["outputs"][0].update(parts=[4, 4]), "one and the same latent, cut into parts"),
        (
            lambda g: [g["encoder"]["outputs"][0].update(parts=[]), g["generator"]["inputs"][0].update(parts=[])],
            "one and the same latent, cut into parts",
        ),
        (lambda g: g["generator"]["outputs"][0].update(range=[0, 1]), r"image image must be square, .* in \[-1, 1\]"),
        (
            lambda g: g["generator"]["inputs"][0].update(kind="image", parts=[]),
            "z is float32 image, expected float32 la",
        ),
        (lambda g: g["encoder"].update(name="eye"), "no graph 'encoder', only eye, generator"),
        (lambda g: g["encoder"]["inputs"].append(g["fuse"]["inputs"][2]), "encoder"),
    ],
)
def test_bundles_that_are_no_fuser_s(fusion_bundle: Path, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        runtime.load(changed(fusion_bundle, change), "cpu")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parts": [3, 2, 2]}, r"z: parts \[3, 2, 2\], expected a latent's counts of its 8"),
        ({"parts": [0, 8]}, "greater than or equal to 1"),
        ({"shape": [8]}, "shape .* of kind 'latent', expected 3 axes"),
        ({"kind": "image"}, "expected a latent's counts"),
    ],
)
def test_manifests_with_bad_latents(fusion_bundle: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Bundle.open(changed(fusion_bundle, lambda graphs: graphs["encoder"]["outputs"][0].update(fields)))


def test_both_graphs_run_on_one_backend(fusion_bundle: Path) -> None:
    """A graph that a backend cannot run keeps the other one away from it too."""

    class Refusing(openvino.OpenVinoSession):
        def __init__(self, path: Path, *options: Any) -> None:
            super().__init__(path, *options)
            if path.name == "generator.onnx":
                raise InputError("openvino cannot open it")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino, "OpenVinoSession", Refusing)
        fuse = runtime.load(fusion_bundle)
    assert fuse.encoder.backend == fuse.generator.backend == "onnxruntime"
    assert fuse.choice.startswith("fp32 on cpu by onnxruntime | ") and "openvino cannot open it" in fuse.choice
