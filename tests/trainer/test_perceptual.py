import numpy as np
import pytest
import torch

from trainer.losses.perceptual import content, style

SHAPES = {"shallow": (3, 4, 5, 6), "deep": (3, 6, 2, 3)}
SHARE = torch.tensor([1.0, 0.0, 0.3])


def features(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for k, s in SHAPES.items()}


def plain(blend, a, b, share, describe):
    """Equations 4 and 5, with both targets weighed by the share of A."""
    total = 0.0
    for layer in blend:
        c, to_a, to_b = (describe(x[layer].detach().double().numpy()) for x in (blend, a, b))
        for n, s in enumerate(share.double().numpy()):
            total += (s * ((c[n] - to_a[n]) ** 2).sum() + (1 - s) * ((c[n] - to_b[n]) ** 2).sum()) / len(share)
    return total


def plain_gram(x):
    n, c, h, w = x.shape
    return np.einsum("nchw,ndhw->ncd", x, x) / (c * h * w)


CASES = [(content, lambda x: x), (style, plain_gram)]


@pytest.mark.parametrize("loss, describe", CASES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-5)])
@pytest.mark.parametrize("share", [SHARE, torch.rand(3, generator=torch.Generator().manual_seed(0))])
def test_value_is_the_equation_in_numpy(loss, describe, dtype, tolerance, share):
    c, a, b = (features(seed, dtype) for seed in range(3))
    value = loss(c, a, b, share)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32) and value.shape == ()
    assert value.item() == pytest.approx(plain(c, a, b, share, describe), rel=tolerance)


@pytest.mark.parametrize("loss, describe", CASES)
def test_gradient_by_finite_differences_with_mixed_shares(loss, describe):
    c, a, b = (features(seed) for seed in range(3))
    leaf = c["deep"].requires_grad_()
    loss(c, a, b, SHARE).backward()
    step = 1e-6
    for index in [(0, 0, 0, 0), (1, 5, 1, 2), (2, 3, 0, 1), (2, 0, 1, 0)]:
        sides = []
        for sign in (1, -1):
            moved = leaf.detach().clone()
            moved[index] += sign * step
            sides.append(plain(c | {"deep": moved}, a, b, SHARE, describe))
        assert leaf.grad[index].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("loss", [content, style])
def test_every_component_of_the_gradient(loss):
    a, b = features(1), features(2)

    def of(shallow, deep):
        return loss({"shallow": shallow, "deep": deep}, a, b, SHARE)

    c = [x.requires_grad_() for x in features(0).values()]
    assert torch.autograd.gradcheck(of, c)


@pytest.mark.parametrize("loss", [content, style])
def test_targets_carry_no_gradient_and_ends_know_one_target(loss):
    c, a, b = ({k: v.requires_grad_() for k, v in features(seed, torch.float32).items()} for seed in range(3))
    loss(c, a, b, SHARE).backward()
    assert all(x.grad is None for target in (a, b) for x in target.values())
    assert all(x.grad.abs().sum() > 0 for x in c.values())
    ones, zeros = torch.ones(3), torch.zeros(3)
    assert loss(c, a, b, ones) == loss(c, a, features(7, torch.float32), ones)
    assert loss(c, a, b, zeros) == loss(c, features(7, torch.float32), b, zeros) == loss(c, b, a, ones)
    assert loss(c, c, b, ones) == 0


@pytest.mark.parametrize("loss", [content, style])
def test_counts_only_the_layers_asked_for(loss):
    c, a, b = (features(seed) for seed in range(3))
    parts = [loss(c, a, b, SHARE, [layer]) for layer in SHAPES]
    torch.testing.assert_close(loss(c, a, b, SHARE, list(SHAPES)), parts[0] + parts[1])
    torch.testing.assert_close(loss(c, a, b, SHARE), parts[0] + parts[1])
    assert parts[0] != parts[1]


@pytest.mark.parametrize("loss", [content, style])
def test_is_computed_in_float32_under_autocast(loss):
    c, a, b = (features(seed, torch.float32) for seed in range(3))
    expected = loss(c, a, b, SHARE)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(c, a, b, SHARE), expected)
