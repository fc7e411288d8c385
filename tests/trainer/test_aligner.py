from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from runtime.bundle import Port
from trainer.losses import alignment
from trainer.losses.alignment import alignment_loss, local_correlation, luminance, roughness
from trainer.networks.aligner import REACH, Aligner, warp
from trainer.recipe import Graph


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more, and lose much where other processes hold the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(count: int, size: int, seed: int = 0) -> Tensor:
    """Smooth random pictures [N, 3, S, S] in [-1, 1]."""
    noise = torch.randn(count, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    return torch.tanh(1.5 * interpolate(noise, size=size, mode="bicubic"))


def lively(size: int = 32, width: int = 4, strength: float = 20.0) -> Aligner:
    """An untrained aligner that moves things a good deal."""
    torch.manual_seed(0)
    aligner = Aligner(size, width).eval()
    with torch.no_grad():
        aligner.head.weight.mul_(strength)
    return aligner


INSIDE = (slice(None), slice(None), slice(12, -12), slice(12, -12))
"""Where nothing comes from beyond the border."""


def smooth_velocity(size: int) -> Tensor:
    """Velocities [4, 2, S/4, S/4] that bring things several pixels away."""
    nodes = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    return 0.1 * interpolate(nodes, size=size // 4, mode="bicubic")


def folded(field: Tensor) -> float:
    """The share of places where the map p → p + field(p) turns over: where its Jacobian is not positive."""
    pixels = field * (field.shape[-1] / 2)
    right, down = pixels[:, :, :-1, 1:] - pixels[:, :, :-1, :-1], pixels[:, :, 1:, :-1] - pixels[:, :, :-1, :-1]
    determinant = (1 + right[:, 0]) * (1 + down[:, 1]) - right[:, 1] * down[:, 0]
    return (determinant <= 0).float().mean().item()


def test_no_displacement_leaves_an_image() -> None:
    for height, width in ((32, 32), (96, 64)):
        x = torch.randn(2, 3, height, width)
        torch.testing.assert_close(warp(x, torch.zeros(2, 2, height, width)), x)


def test_a_displacement_points_to_where_a_pixel_comes_from() -> None:
    """Two pixels to the right and one down, in a grid_sample's unit; the border goes on."""
    x = torch.randn(1, 2, 16, 32)
    field = torch.tensor([2 * 2 / 32, 1 * 2 / 16])[None, :, None, None].expand(1, 2, 16, 32)
    result = warp(x, field)
    torch.testing.assert_close(result[:, :, :-1, :-2], x[:, :, 1:, 2:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result[:, :, -1, -1], x[:, :, -1, -1], rtol=1e-4, atol=1e-4)


def test_the_ends_of_the_way_leave_one_image_as_it_is() -> None:
    aligner, a, b = lively(96), pictures(3, 96), pictures(3, 96, seed=1)
    with torch.no_grad():
        a_warped, b_warped = aligner(a, b, torch.ones(3, 1))
        assert torch.equal(a_warped, a) and (b_warped - b).abs().max() > 0.1
        torch.testing.assert_close(b_warped, warp(b, aligner.field(a, b)))
        a_warped, b_warped = aligner(a, b, torch.zeros(3, 1))
        assert torch.equal(b_warped, b) and (a_warped - a).abs().max() > 0.1
        torch.testing.assert_close(a_warped, warp(a, aligner.field(b, a)))


def test_an_image_is_not_moved_onto_itself() -> None:
    a = pictures(2, 32)
    with torch.no_grad():
        assert not lively().field(a, a).any()
        for warped in lively()(a, a, torch.tensor([[0.5], [0.2]])):
            torch.testing.assert_close(warped, a)


def test_the_way_back_is_the_way_there_reversed() -> None:
    aligner, a, b = lively(64), pictures(4, 64), pictures(4, 64, seed=1)
    with torch.no_grad():
        assert torch.equal(aligner.velocity(a, b), -aligner.velocity(b, a))
        v = smooth_velocity(64)
        there, back = (aligner.displacement(v, torch.full((4, 1), time)) for time in (1.0, -1.0))
    assert there.abs().max() > 0.2
    assert (warp(back, there) + there)[INSIDE].abs().mean() < 0.05 * there[INSIDE].abs().mean()


def test_hardly_anything_folds() -> None:
    """Where the velocity itself, taken for a field of displacements, would."""
    aligner, v = lively(64), 2 * smooth_velocity(64)
    with torch.no_grad():
        plain = folded(interpolate(v, size=64, mode="bilinear"))
        assert plain > 0.01
        assert folded(aligner.displacement(v, torch.ones(4, 1))) < plain / 20
        assert folded(aligner.displacement(v / 2, torch.ones(4, 1))) == 0


def test_displacements_stay_within_reach() -> None:
    aligner, a, b = lively(strength=1e4), pictures(2, 32), pictures(2, 32, seed=1)
    with torch.no_grad():
        v = aligner.velocity(a, b)
        assert 0.9 * REACH < v.abs().max() <= REACH
        assert aligner.field(a, b).abs().max() <= REACH * (1 + 1e-5)


def test_images_that_meet_at_one_end_meet_all_along_the_way() -> None:
    aligner, b, v = lively(64), pictures(4, 64), smooth_velocity(64)
    with torch.no_grad():
        a = warp(b, aligner.displacement(v, torch.ones(4, 1)))
        for t in (0.25, 0.5, 0.75):
            a_warped = warp(a, aligner.displacement(v, torch.full((4, 1), t - 1)))
            b_warped = warp(b, aligner.displacement(v, torch.full((4, 1), t)))
            assert (a_warped - b_warped)[INSIDE].abs().mean() < 0.2 * (a - b)[INSIDE].abs().mean()


@pytest.mark.parametrize("shape", [(2, 1, 20, 24), (1, 1, 5, 5)])
def test_local_correlation_against_numpy(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, *shape))
    reach, values = alignment.WINDOW // 2, []
    for n in range(shape[0]):
        for i in range(shape[2]):
            for j in range(shape[3]):
                window = (n, 0, slice(max(0, i - reach), i + reach + 1), slice(max(0, j - reach), j + reach + 1))
                p, q = x[window].ravel(), y[window].ravel()
                covariance = np.cov(p, q, ddof=0)
                spread = (covariance[0, 0] + alignment.FLOOR) * (covariance[1, 1] + alignment.FLOOR)
                values.append(covariance[0, 1] / np.sqrt(spread))
    result = local_correlation(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert result == pytest.approx(np.mean(values), rel=1e-9, abs=1e-12)


def test_roughness_against_numpy() -> None:
    v = np.random.default_rng(0).normal(size=(3, 2, 8, 16))
    expected = np.mean((np.diff(v, axis=2) * 4) ** 2) + np.mean((np.diff(v, axis=3) * 8) ** 2)
    assert roughness(torch.from_numpy(v)).item() == pytest.approx(expected, rel=1e-12)


def test_gradients_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, v = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 1, 6, 5), (2, 1, 6, 5), (2, 2, 4, 3))
    )
    assert torch.autograd.gradcheck(local_correlation, (x, y))
    assert torch.autograd.gradcheck(roughness, (v,))
    image = torch.rand(1, 3, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(luminance, (image,))


def test_correlation_does_not_see_colour_and_light() -> None:
    x = luminance(pictures(2, 32))
    other = luminance(pictures(2, 32, seed=1))
    same, darker, strange = (local_correlation(x, y).item() for y in (x, 0.5 * x - 0.4, other))
    assert 0.8 < darker <= same <= 1 and abs(strange) < 0.5
    assert local_correlation(x, -x).item() == pytest.approx(-same, abs=1e-6)
    flat = torch.full_like(x, 0.9)
    assert local_correlation(flat, flat).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("size", [32, 96, 128])
def test_the_loss_prefers_images_that_lie_on_each_other(size: int) -> None:
    torch.manual_seed(0)
    aligner, a = Aligner(size, 4), pictures(4, size)
    apart = alignment_loss(aligner, a, a.roll((2, 3), (2, 3)))
    together = alignment_loss(aligner, a, a)
    assert together["roughness"] == 0 and 0 <= together["mismatch"] < apart["mismatch"] <= 2
    assert all(term.shape == () and term.dtype == torch.float32 for term in apart.values())


def test_the_loss_is_the_same_the_other_way_round() -> None:
    aligner, a, b = lively(), pictures(3, 32), pictures(3, 32, seed=1)
    for name, term in alignment_loss(aligner, a, b).items():
        torch.testing.assert_close(term, alignment_loss(aligner, b, a)[name])


def test_every_weight_gets_a_gradient() -> None:
    torch.manual_seed(0)
    aligner = Aligner(64, 4)
    with torch.autocast("cpu", torch.bfloat16):
        terms = alignment_loss(aligner, pictures(2, 64), pictures(2, 64, seed=1))
    assert all(term.dtype == torch.float32 for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    for name, weight in aligner.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


def test_it_learns_to_undo_a_shift() -> None:
    """Pictures never seen in training, moved by up to three pixels: the shift is found, its sign too."""
    size, margin = 32, 3
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def pairs(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        wide = pictures(count, size + 8, seed)
        shifts = torch.from_numpy(rng.integers(-margin, margin + 1, (count, 2)))
        a, b = (
            torch.stack([
                x[:, 4 + s * dy : 4 + s * dy + size, 4 + s * dx : 4 + s * dx + size]
                for x, (dx, dy) in zip(wide, shifts.tolist(), strict=True)
            ])
            for s in (0, 1)
        )  # fmt: skip
        return a, b, shifts

    aligner = Aligner(size, 8)
    optimizer = torch.optim.Adam(aligner.parameters(), 3e-3)
    for k in range(60):
        a, b, _ = pairs(16, seed=1 + k)
        optimizer.zero_grad()
        torch.stack(list(alignment_loss(aligner, a, b).values())).sum().backward()
        optimizer.step()
    a, b, shifts = pairs(32, seed=0)
    with torch.no_grad():
        field = aligner.field(a, b)
        found = field[:, :, 8:-8, 8:-8].mean((2, 3)) * (size / 2)
        before, after = ((a - x)[:, :, 6:-6, 6:-6].abs().mean() for x in (b, warp(b, field)))
    # b(p) = a(p + shift), so that a's place p is found in b at p - shift.
    assert (found + shifts).abs().mean() < 0.4 * shifts.abs().float().mean()
    assert after < 0.6 * before


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Path]:
    """An aligner as an ONNX file."""
    from export.onnx import export_onnx

    def image(name: str) -> Port:
        return Port(name=name, kind="image", shape=(3, 32, 32), range=(-1.0, 1.0))

    t = Port(name="t", kind="vector", shape=(1,), range=(0.0, 1.0), names=("t",))
    outputs = (image("a_warped"), image("b_warped"))
    graph = Graph("aligner", lively(), (image("a"), image("b"), t), outputs)
    path = tmp_path_factory.mktemp("aligner") / "aligner.onnx"
    export_onnx(graph, path)
    return graph, path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_frozen_it_gives_the_same(frozen: tuple[Graph, Path], engine: str) -> None:
    pytest.importorskip(engine)
    graph, path = frozen
    for count in (1, 3):
        a, b = pictures(count, 32, seed=2), pictures(count, 32, seed=3)
        t = torch.linspace(0, 1, count)[:, None]
        with torch.no_grad():
            expected = [x.numpy() for x in graph.module(a, b, t)]
        assert abs(expected[1] - b.numpy()).max() > 0.1 or count == 1
        results = run(engine, path, {"a": a.numpy(), "b": b.numpy(), "t": t.numpy()})
        for got, want in zip(results, expected, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4)
        # t = 0 leaves b, t = 1 leaves a.
        np.testing.assert_array_equal(results[1][0], b[0].numpy())
        if count > 1:
            np.testing.assert_array_equal(results[0][-1], a[-1].numpy())


def run(engine: str, path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run an ONNX file in float32 on the CPU."""
    if engine == "onnxruntime":
        import onnxruntime

        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", settings)
    return list(compiled(feeds).values())


def test_tensorrt_builds_it(frozen: tuple[Graph, Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    from export import tensorrt

    graph, path = frozen
    engine = tensorrt.build(path, graph.inputs, "tensorrt-rtx", ["SM89"])
    assert engine.profile["t"] == ((1, 1), (8, 1), (64, 1)) and len(engine.data) > 10_000
