"""The recipe's parts: networks of any size, losses as written in the paper, options that do what they say."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_data import tiny_recording

from trainer.data.recording import Modality
from trainer.losses.adversarial import cross_entropy
from trainer.losses.feature_matching import feature_matching, moment_matching
from trainer.networks.multimodal import Discriminator, Generator, ImageBranch, VectorReader
from trainer.recipe import Step
from trainer.recipes.mgan import PRESETS, Frozen, Mgan, MganData

SMALL = dataclasses.replace(PRESETS["demo"], name="t", width=4, d_width=4, hidden=16, batch=8)


@pytest.mark.parametrize("size", [(80, 80), (20, 24), (17, 33), (9, 9), (48, 64), (128, 128)])
def test_images_of_any_size(size):
    branch = ImageBranch(5, (3, *size), 4, 8, 1)
    assert branch(torch.randn(2, 5)).shape == (2, 3, *size)
    reader = VectorReader((3, *size), 7, 4, 8)
    assert reader(torch.randn(2, 3, *size)).shape == (2, 7)


def test_the_head_sees_the_tuple_and_not_a_sum():
    modalities = (Modality("a", "vector", (2,)), Modality("b", "vector", (2,)))
    torch.manual_seed(0)
    d = Discriminator(modalities, 4, 16).eval()
    x, y = ({"a": torch.randn(1, 2) * 3, "b": torch.randn(1, 2) * 3} for _ in range(2))
    score = lambda a, b: d.score(d.features({"a": a["a"], "b": b["b"]})).item()  # noqa: E731
    mixed = score(x, x) + score(y, y) - score(x, y) - score(y, x)
    assert abs(mixed) > 1e-5  # zero for any sum of one score a modality


def test_generator_shares_its_first_layer():
    recording = tiny_recording(4)
    g = Generator(recording.modalities, 4, 4, 16)
    made = g(torch.randn(3, 4))
    assert {name: tuple(x.shape) for name, x in made.items()} == {
        "image": (3, 3, 20, 24),
        "side": (3, 3, 16, 16),
        "joints": (3, 3),
    }
    for name, x in made.items():
        (gradient,) = torch.autograd.grad(x.square().sum(), g.shared[0].weight, retain_graph=True)
        assert gradient.abs().sum() > 0, name


def test_losses_against_hand_worked_values():
    logits = torch.tensor([0.0, 2.0])
    probability = torch.sigmoid(logits)
    expected = -(0.9 * probability.log() + 0.1 * (1 - probability).log()).mean()
    assert torch.allclose(cross_entropy(logits, 0.9), expected)

    real = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([[1.0], [1.0]])}
    fake = {"a": torch.tensor([[0.0, 0.0], [0.0, 1.0]]), "b": torch.tensor([[3.0], [3.0]])}
    # ‖(2, 3) − (0, .5)‖² = 10.25 and ‖1 − 3‖² = 4
    assert feature_matching(real, fake, {"a": 2.0, "b": 0.5}).item() == pytest.approx(2 * 10.25 + 0.5 * 4)

    x = torch.tensor([[1.0], [3.0]])
    assert moment_matching(x, torch.tensor([2.0]), torch.tensor([1.0])).item() == pytest.approx(0, abs=1e-7)
    assert moment_matching(x, torch.tensor([0.0]), torch.tensor([3.0])).item() == pytest.approx(4 + 4)


def recipe(**changes) -> tuple[Mgan, MganData]:
    torch.manual_seed(0)
    data = MganData(tiny_recording())
    return Mgan(dataclasses.replace(SMALL, **changes), data.description), data


def one_step(mgan: Mgan, data: MganData):
    def optimize(name, loss):
        mgan.optimizers[name].zero_grad()
        loss.backward()
        mgan.optimizers[name].step()

    batch = {name: torch.from_numpy(x) for name, x in data.batch(np.arange(8)).items()}
    return mgan.step(batch, Step(0, 0.0, 8, 0, torch.device("cpu"), torch.Generator(), optimize))


def test_every_option_adds_its_term_and_nothing_else():
    mgan, data = recipe(read=1.0)
    assert set(one_step(mgan, data)) == {"D", "reader", "artist", "read", "draw", "moments", "G", "matching"}
    paper, data = recipe(**{k: getattr(PRESETS["paper"], k) for k in ("read", "draw", "mismatch", "moments")})
    assert set(one_step(paper, data)) == {"D", "G", "matching"}
    assert set(paper.networks) == {"generator", "discriminator"}


def test_consistency_networks_learn_from_real_pairs_only():
    # With the generator's learning rate at zero its output stays; what the artist and the reader become must not
    # depend on it at all.
    after = []
    for seed in (0, 1):
        mgan, data = recipe(read=1.0)
        torch.manual_seed(seed)
        for parameter in mgan.networks["generator"].parameters():
            torch.nn.init.normal_(parameter, 0, 0.1)
        before = [p.clone() for p in mgan.networks["artist"].parameters()]
        one_step(mgan, data)
        now = [p.detach().clone() for name in ("artist", "reader") for p in mgan.networks[name].parameters()]
        assert any(not torch.equal(p, q) for p, q in zip(before, now, strict=False))
        after.append(now)
    assert all(torch.equal(p, q) for p, q in zip(*after, strict=True))


def test_a_larger_weight_favours_its_modality():
    mgan, _ = recipe(modality_weights={"joints": 3.0})
    assert mgan.weights == {"image": SMALL.feature_matching, "side": SMALL.feature_matching, "joints": 3.0}


def test_frozen_vectors_stay_within_limits():
    modality = Modality(
        "joints", "vector", (3,), ("a", "b", "c"), ((-0.3, 0.1), (0.2, 0.9), (-2.0, 1.5)), "rad", "file"
    )

    class Far(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def forward(self, z):
            return {"joints": torch.tanh(z * 100)}

    (out,) = Frozen(Far(), (modality,), 0.9)(torch.randn(64, 3))
    low, high = np.float32(np.array(modality.limits)).T
    assert (out.numpy() >= low).all()
    assert (out.numpy() <= high).all()
    assert (out.numpy() == low).any() and (out.numpy() == high).any()


def test_normalise_and_freeze_are_inverse():
    mgan, data = recipe()
    batch = {name: torch.from_numpy(x) for name, x in data.batch(np.arange(5)).items()}
    real = mgan.normalise(batch)

    class Echo(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def forward(self, z):
            return real

    *_, joints = Frozen(Echo(), mgan.modalities, mgan.options.margin)(None)
    assert torch.allclose(joints, batch["joints"], atol=1e-6)
