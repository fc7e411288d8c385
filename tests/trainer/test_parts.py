"""The terms on a latent's parts, and the blend they are about."""

import numpy as np
import pytest
import torch

import cpp_ext
from trainer.losses.parts import change, part_terms
from trainer.losses.structure import structure
from trainer.networks.autoencoder import blend, part_sizes
from trainer.recipes.fusion import moved_weights

RNG = np.random.default_rng(0)


def test_terms_against_numpy() -> None:
    count, parts = 7, 3
    first, second, whole = RNG.random((3, count, 4, 5))
    moved = np.stack([np.arange(count) % parts, (np.arange(count) + 1) % parts])
    sums, possible = np.zeros(parts), np.zeros(parts)
    for maps, numbers in zip((first, second), moved, strict=True):
        for n, part in enumerate(numbers):
            sums[part] += maps[n].mean()
            possible[part] += whole[n].mean()
    effects = sums / possible
    silent = np.mean(np.maximum(0, 1 - parts * effects) ** 2)
    cosines = [np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)) for a, b in zip(first, second, strict=True)]

    found = part_terms(*(torch.from_numpy(x) for x in (first, second, whole, moved)), parts)
    np.testing.assert_allclose(found.effects, effects, rtol=1e-12)
    np.testing.assert_allclose(found.silent, silent, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.overlap, np.mean(cosines), rtol=1e-12)


def test_gradients_of_the_terms() -> None:
    maps = torch.from_numpy(0.05 + 0.1 * RNG.random((2, 6, 3, 3))).requires_grad_()
    whole = torch.from_numpy(RNG.random((6, 3, 3)) + 0.5)
    moved = torch.stack([torch.arange(6) % 3, (torch.arange(6) + 1) % 3])

    def terms(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = part_terms(maps[0], maps[1], whole, moved, 3)
        return found.silent, found.overlap

    assert terms(maps)[0] > 0  # the hinge is open, so there is a gradient to check
    assert torch.autograd.gradcheck(terms, (maps,))


def test_a_silent_part_costs_and_shared_places_cost() -> None:
    whole = torch.ones(4, 2, 2)
    moved = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    left, right, nothing = torch.zeros(4, 2, 2), torch.zeros(4, 2, 2), torch.zeros(4, 2, 2)
    left[..., 0], right[..., 1] = 1, 1
    apart = part_terms(left, right, whole, moved, 2)
    assert apart.silent == 0 and apart.overlap == 0
    assert part_terms(left, left, whole, moved, 2).overlap == pytest.approx(1)
    assert part_terms(left, nothing, whole, moved, 2).silent == pytest.approx(0.5)  # one of two parts, (1 - 0)²


def test_change_is_the_mean_over_channels() -> None:
    before, after = torch.zeros(1, 3, 1, 2), torch.tensor([[[[1.0, 0]], [[-2.0, 0]], [[0.0, 0]]]])
    assert change(before, after).tolist() == [[[1.0, 0.0]]]


@pytest.mark.parametrize("parts", [(3, 5), (1, 1, 6), (8,)])
def test_blend_is_the_runtimes(parts: tuple[int, ...]) -> None:
    za, zb = (torch.from_numpy(RNG.standard_normal((6, 8, 2, 2)).astype(np.float32)) for _ in range(2))
    weights = torch.from_numpy(RNG.random((6, len(parts))).astype(np.float32))
    weights[0], weights[1] = 1, 0
    made = blend(za, zb, weights, parts)
    np.testing.assert_allclose(made, cpp_ext.blend(za.numpy(), zb.numpy(), weights.numpy(), parts), atol=1e-6)
    assert torch.equal(made[0], za[0]) and torch.equal(made[1], zb[1])


def test_part_sizes_are_the_papers() -> None:
    assert part_sizes(1024, 5) == (204, 204, 204, 204, 208)


def test_moved_weights_go_to_the_farther_end() -> None:
    weights = torch.tensor([[0.0, 0.25, 1.0], [0.5, 0.75, 0.1]])
    moved, by = moved_weights(weights, torch.tensor([[0, 1], [2, 2]]))
    assert moved[0].tolist() == [[1.0, 0.25, 1.0], [0.5, 0.0, pytest.approx(0.1)]]
    assert moved[1].tolist() == [[0.0, 0.25, 0.0], [0.5, 0.75, 1.0]]
    np.testing.assert_allclose(by, [[1, 0.75], [1, 0.9]])


def test_structure_is_the_metric() -> None:
    images = RNG.integers(0, 256, (3, 20, 17, 3), np.uint8)
    others = np.clip(images + RNG.normal(0, 20, images.shape), 0, 255).astype(np.uint8)
    x, y = (torch.from_numpy(cpp_ext.unpack(i)).double() for i in (images, others))
    expected = 1 - cpp_ext.ssim(images, others, window="gaussian").mean()
    assert structure(x, y).item() == pytest.approx(expected, abs=1e-6)
    assert structure(x, x).item() == pytest.approx(0, abs=1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        assert structure(x.float(), y.float()).item() == pytest.approx(expected, abs=1e-5)


def test_gradient_of_structure() -> None:
    x, y = (torch.from_numpy(RNG.uniform(-1, 1, (1, 2, 12, 11))) for _ in range(2))
    assert torch.autograd.gradcheck(structure, (x.requires_grad_(), y), atol=1e-6)
