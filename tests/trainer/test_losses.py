import numpy as np
import pytest
import torch
from torch import nn

from trainer.losses.adversarial import wasserstein_divergence, wasserstein_generator
from trainer.losses.reconstruction import absolute, total_variation


def images(seed, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- Wasserstein divergence, with a critic whose slope is known: D(x) = tanh(w·x), ∇D = (1 − tanh²(w·x)) w ---


def plain_divergence(w, real, fake, mix, k, p):
    """The loss and its penalty, in float64 NumPy."""
    score = lambda x: np.tanh(x.reshape(len(x), -1) @ w)  # noqa: E731
    u = mix.reshape(-1, 1, 1, 1)
    slope = (1 - score(u * real + (1 - u) * fake) ** 2)[:, None] * w
    penalty = k * (np.linalg.norm(slope, axis=1) ** p).mean()
    return score(fake).mean() - score(real).mean() + penalty, penalty


@pytest.mark.parametrize("k, p", [(2, 6), (1.5, 3), (0, 6)])
@pytest.mark.parametrize("column", [False, True])
def test_divergence_is_the_equation_and_its_gradient_the_finite_difference(k, p, column):
    real, fake, mix = images(0, 4, 2, 3, 3), images(1, 4, 2, 3, 3), torch.rand(4, dtype=torch.float64)
    w = (0.2 * images(2, 18)).requires_grad_()

    def critic(x):
        scores = torch.tanh(x.flatten(1) @ w)
        return scores[:, None] if column else scores

    loss, penalty = wasserstein_divergence(critic, real, fake, mix, k, p)
    arrays = [x.numpy() for x in (real, fake, mix)]
    expected = plain_divergence(w.detach().numpy(), *arrays, k, p)
    assert loss.item() == pytest.approx(expected[0], rel=1e-10)
    assert penalty.item() == pytest.approx(expected[1], rel=1e-10)
    loss.backward()
    for n in range(18):
        step = np.eye(18)[n] * 1e-6
        sides = [plain_divergence(w.detach().numpy() + sign * step, *arrays, k, p)[0] for sign in (1, -1)]
        assert w.grad[n].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_divergence_defaults_to_k_2_and_p_6():
    real, fake, mix = images(0, 3, 1, 2, 2), images(1, 3, 1, 2, 2), torch.rand(3, dtype=torch.float64)
    critic = lambda x: x.flatten(1).square().sum(1)  # noqa: E731
    assert wasserstein_divergence(critic, real, fake, mix) == wasserstein_divergence(critic, real, fake, mix, 2, 6)
    assert (
        wasserstein_divergence(critic, real, fake, mix)[0] != wasserstein_divergence(critic, real, fake, mix, 2, 2)[0]
    )


def test_divergence_trains_the_critic_and_not_the_images():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(36, 1))
    real, fake = images(0, 5, 3, 8, 8, dtype=torch.float32), images(1, 5, 3, 8, 8, dtype=torch.float32)
    real.requires_grad_(), fake.requires_grad_()
    loss, _ = wasserstein_divergence(critic, real, fake, torch.rand(5))
    loss.backward()
    assert real.grad is None and fake.grad is None
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in critic.parameters())
    # A step against the gradient scores real images higher and fakes lower.
    before = (critic(real).mean() - critic(fake).mean()).item()
    with torch.no_grad():
        for p in critic.parameters():
            p -= 1e-3 * p.grad
    assert (critic(real).mean() - critic(fake).mean()).item() > before


@pytest.mark.parametrize("p", [2, 3, 6])
def test_divergence_of_a_flat_critic_has_a_gradient(p):
    w = torch.zeros(12, requires_grad=True)
    real, fake = images(0, 2, 3, 2, 2, dtype=torch.float32), images(1, 2, 3, 2, 2, dtype=torch.float32)
    loss, penalty = wasserstein_divergence(lambda x: x.flatten(1) @ w, real, fake, torch.rand(2), p=p)
    loss.backward()
    assert penalty == 0 and torch.isfinite(w.grad).all()
    torch.testing.assert_close(w.grad, (fake - real).flatten(1).mean(0))


def test_generator_raises_the_score_of_its_images():
    scores = torch.tensor([[1.0], [-3.0], [0.5]], requires_grad=True)
    loss = wasserstein_generator(scores)
    assert loss.item() == pytest.approx(0.5)
    loss.backward()
    torch.testing.assert_close(scores.grad, torch.full((3, 1), -1 / 3))
    assert wasserstein_generator(scores.detach().half()).dtype == torch.float32


def test_divergence_runs_in_mixed_precision():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(144, 1))
    batch = [images(seed, 4, 3, 8, 8, dtype=torch.float32) for seed in range(2)]
    mix = torch.rand(4)
    full, _ = wasserstein_divergence(critic, *batch, mix)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = wasserstein_divergence(critic, *batch, mix)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, full, rtol=0.05, atol=0.01)


# --- Pixels ---


def plain_variation(x):
    n, _, h, w = x.shape
    across, down = np.diff(x, axis=3) ** 2, np.diff(x, axis=2) ** 2
    return (across.sum() + down.sum()) / (n * h * w)


def test_absolute_is_the_mean_in_numpy():
    x, y = images(0, 2, 3, 4, 5), images(1, 2, 3, 4, 5)
    assert absolute(x, y).item() == pytest.approx(np.abs(x.numpy() - y.numpy()).mean(), rel=1e-12)
    assert absolute(x.bfloat16(), y.bfloat16()).dtype == torch.float32
    x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(absolute, (x, y))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 6), (3, 2, 2, 2)])
def test_total_variation_is_the_equation_in_numpy(shape):
    x = images(0, *shape)
    assert total_variation(x).item() == pytest.approx(plain_variation(x.numpy()), rel=1e-12)
    assert total_variation(x.half()).dtype == torch.float32
    x.requires_grad_()
    assert torch.autograd.gradcheck(total_variation, (x,))


def test_total_variation_does_not_grow_with_the_image():
    stripes = torch.tensor([1.0, -1.0]).repeat(64)
    small, large = (stripes[:n].expand(2, 3, n, n) for n in (32, 128))
    assert total_variation(torch.ones(2, 3, 8, 8)) == 0
    assert total_variation(large) == pytest.approx(4 * 3, rel=0.01)
    assert total_variation(small) == pytest.approx(total_variation(large).item(), rel=0.03)
