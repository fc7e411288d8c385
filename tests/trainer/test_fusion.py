"""The fusion recipe: its networks and losses as the paper says, a whole run, its bundle."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_fusion import SIZE, recipe_of, tiny_options, tiny_pictures

import cpp_ext
import runtime
from export.pipeline import export_run
from runtime.errors import InputError
from trainer import checkpoint, loop, run
from trainer.losses.perceptual import content, style
from trainer.losses.reconstruction import absolute, total_variation
from trainer.networks.autoencoder import Critic, Encoder, Generator, blend
from trainer.recipe import Step
from trainer.recipes.fusion import Fusion
from trainer.recipes.fusion_options import PRESETS, FusionOptions


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pictures(tmp_path_factory.mktemp("tiny") / "pictures")


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run."""
    return loop.train(Fusion, tiny_options(pictures, tmp_path_factory.mktemp("runs")))


# --- Networks and options ---


def test_the_papers_networks() -> None:
    paper = PRESETS["paper"]
    assert (paper.size, paper.latent, paper.channels, paper.batch) == (128, 1024, (204, 204, 204, 204, 208), 100)
    assert (paper.adversarial, paper.content, paper.style) == (1, 1e-6, 5e-5)
    assert (paper.reconstruction, paper.total_variation, paper.lr) == (30, 1, 1e-3)
    assert (paper.wasserstein_k, paper.wasserstein_p, paper.perceptual, paper.critic_norm) == (2, 6, "vgg19", "batch")
    beyond = ("structure", "content_reconstruction", "silent", "overlap", "align")
    assert not any(getattr(paper, name) for name in beyond)
    with torch.device("meta"):
        z = Encoder(paper.width, paper.latent)(torch.empty(2, 3, 128, 128))
        assert z.shape == (2, 1024, 4, 4)
        assert Generator(paper.width, paper.latent)(z).shape == (2, 3, 128, 128)
        assert Critic(128, paper.critic_width, "batch")(torch.empty(2, 3, 128, 128)).shape == (2,)


@pytest.mark.parametrize("norm", ["layer", "instance", "none"])
def test_a_critic_of_ours_judges_each_image_by_itself(norm: str) -> None:
    torch.manual_seed(0)
    critic, images = Critic(64, 4, norm), torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(critic(images)[:1], critic(images[:1]))
    mixed = Critic(64, 4, "batch")
    assert not torch.allclose(mixed(images)[:1], mixed(torch.cat([images[:1], images[:3] * 2]))[:1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 50}, "--size is 50, expected a multiple of 32"),
        ({"latent": 4}, "a channel for each of 5 parts"),
        ({"part_sizes": (10, 12)}, "--part-sizes is 10 12, expected 5 numbers"),
        ({"part_sizes": (4, 4, 4, 4, 4)}, "whose sum is 22"),
        ({"parts": 1}, "set both to 0"),
        ({"batch": 4, "parts": 5}, "one image for each of 5 parts"),
        ({"critic_norm": "instance"}, "needs --size 64 or more"),
        ({"style": -1.0}, "--style is -1.0, expected a number ≥ 0"),
        ({"binary": 1.5}, "from 0 to 1"),
        ({"wasserstein_p": 1.5}, "--wasserstein-p is 1.5, expected a number from 2"),
    ],
)
def test_options_that_cannot_work(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny_options(Path("x"), Path("y"), **changes).check()


def test_avatars_are_not_counted_as_files() -> None:
    with pytest.raises(InputError, match="give --avatars 9"):
        dataclasses.replace(tiny_options(Path("x"), Path("y")), data="avatars", count=9).check()


def test_too_few_images(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--held-out is 39, but of 40 images"):
        Fusion.dataset(tiny_options(pictures, tmp_path, held_out=39))


def test_weights_that_are_not_there(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWASE_WEIGHTS", raising=False)
    with pytest.raises(InputError, match="vgg19-dcbb9e9d.pth"):
        loop.train(Fusion, tiny_options(pictures, tmp_path, perceptual="vgg19"))
    assert not (tmp_path / "tiny").exists()
    with pytest.raises(InputError, match="layer 'conv1_1'"):
        loop.train(Fusion, tiny_options(pictures, tmp_path, style_layers=("conv1_1",)))


# --- The step ---


def test_the_step_weighs_the_papers_terms(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equation 11 for a Λ that is given, worked out from the parts again."""
    options = tiny_options(pictures, tmp_path, batch=6, structure=0, content_reconstruction=0, silent=0, overlap=0)
    torch.manual_seed(0)
    recipe = recipe_of(options)
    weights = torch.tensor([[1.0] * 5, [0.0] * 5, [1, 0, 1, 0, 0.5], [0.3] * 5, [0, 1, 0, 0, 0], [0.9] * 5])
    draws = iter([weights, torch.ones(6, 1), torch.rand(6, 1)])  # Λ, none made binary, and the critic's mixture
    monkeypatch.setattr(recipe, "draw", lambda step, columns: next(draws))
    networks = {name: network.train() for name, network in recipe.networks.items()}
    losses: dict[str, torch.Tensor] = {}
    batch = {name: torch.from_numpy(x) for name, x in recipe.data.batch(np.arange(6)).items()}
    step = Step(
        0, 0.9, 6, 0, torch.device("cpu"), torch.Generator(), lambda name, loss: losses.setdefault(name, loss.detach())
    )
    found = recipe.step(batch, step)

    a = batch["images"].permute(0, 3, 1, 2).float() / 127.5 - 1
    b = a.roll(-1, 0)
    z = networks["encoder"](a)
    c_latent = blend(z, z.roll(-1, 0), weights, recipe.parts)
    made, c = networks["generator"](torch.cat([z, c_latent])).chunk(2)
    share = weights.mean(1)
    of_c, of_a, of_b = (recipe.backbone(x, recipe.layers) for x in (c, a, b))
    terms = {
        "adversarial": -networks["critic"](c).mean(),
        "content": content(of_c, of_a, of_b, share, recipe.content_layers),
        "style": style(of_c, of_a, of_b, share, recipe.style_layers),
        # R counts where Λ is all 1 (sample 0, against A) or all 0 (sample 1, against B).
        "reconstruction": 2 * absolute(made, a) + (absolute(c[:1], a[:1]) + absolute(c[1:2], b[1:2])) / 6,
        "total_variation": total_variation(c) + 2 * total_variation(made),
    }
    for name, value in terms.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    total = sum(getattr(options, name) * value for name, value in terms.items())
    torch.testing.assert_close(losses["autoencoder"], total.detach(), rtol=1e-4, atol=1e-5)


def test_every_loss_reaches_what_it_trains(pictures: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_options(pictures, tmp_path))
    before = {name: checkpoint.digest(dict(n.state_dict())) for name, n in recipe.networks.items()}
    stepped = []

    def optimize(name: str, loss: torch.Tensor) -> None:
        stepped.append(name)
        recipe.optimizers[name].zero_grad()
        loss.backward()
        recipe.optimizers[name].step()

    batch = {name: torch.from_numpy(x) for name, x in recipe.data.batch(np.arange(8)).items()}
    recipe.step(batch, Step(0, 0.0, 8, 0, torch.device("cpu"), torch.Generator(), optimize))
    assert stepped == ["autoencoder"]
    assert checkpoint.digest(dict(recipe.networks["critic"].state_dict())) == before["critic"]
    scalars = recipe.step(batch, Step(8, 0.5, 8, 8, torch.device("cpu"), torch.Generator(), optimize))
    assert stepped == ["autoencoder", "critic", "autoencoder"]
    for name, network in recipe.networks.items():
        assert checkpoint.digest(dict(network.state_dict())) != before[name], name
    assert all(torch.isfinite(value) for value in scalars.values())


# --- A whole run ---


def test_a_run_leaves_figures_and_metrics(finished: Path) -> None:
    names = {"sweep", "parts", "effects", "reconstructions", "features", "losses"}
    assert {path.stem for path in (finished / "figures").glob("*.png")} == names
    for name in names:
        assert cv2.imread(str(finished / "figures" / f"{name}.png")).std() > 5, name
    options = json.loads((finished / "options.json").read_text())
    assert options["sources"]["perceptual"]["file"] == "efficientnet-lite0-57934424.pth"
    assert options["sources"]["perceptual"]["sha256"] in (finished / "report.html").read_text()

    metrics = json.loads((finished / "summary.json").read_text())["metrics"]
    assert set(metrics) == {"reconstruction", "sweep", "parts"}
    assert metrics["sweep"]["exact_ends"] == 1
    assert -1 < metrics["reconstruction"]["ssim"] < 1 and metrics["reconstruction"]["count"] == 8
    effects = metrics["parts"]["effects"]["pixels"]
    assert metrics["parts"]["weakest_pixels"] == pytest.approx(min(effects) / np.mean(effects))
    stats = [json.loads(line) for line in (finished / "stats.jsonl").read_text().splitlines()]
    assert "critic" not in stats[0] and {"critic", "silent", "effect_5"} <= set(stats[-1])


def test_resumed_equals_straight(finished: Path, pictures: Path, tmp_path: Path) -> None:
    """Stopped in the second stage; and held-out images and parts' effects are the same again."""
    options = tiny_options(pictures, tmp_path)
    part = loop.train(Fusion, dataclasses.replace(options, total_kimg=0.16))
    newest = sorted((part / "checkpoints").glob("*.safetensors"))
    newest[-1].unlink()
    loop.train(Fusion, options)
    again, straight = (checkpoint.read(sorted((p / "checkpoints").glob("*.safetensors"))[-1]) for p in (part, finished))
    assert checkpoint.digest(again[0]) == checkpoint.digest(straight[0])
    assert again[1]["metrics"] == straight[1]["metrics"]


def test_other_weights_are_another_run(finished: Path, pictures: Path) -> None:
    plain = json.loads((finished / "options.json").read_text())
    plain["sources"]["perceptual"]["sha256"] = "0" * 64
    with pytest.raises(InputError, match="was begun with sources"):
        run.check_same(finished, plain)


def test_files_may_have_moved(finished: Path) -> None:
    plain = json.loads((finished / "options.json").read_text())
    run.check_same(finished, plain | {"cache": "elsewhere", "weights": "the same file elsewhere"})


def test_the_bundle_fuses_as_the_run_does(finished: Path, pictures: Path, tmp_path: Path) -> None:
    opened = run.open_run(finished)
    assert isinstance(opened.options, FusionOptions)
    bundle = export_run(opened, tmp_path / "bundle").path
    recipe = opened.recipe
    a, b = recipe.examples[:2]
    weights = np.array([[1, 0.8, 0.5, 0.2, 0], [0, 0, 0, 0, 0]], np.float32)
    za, zb = (recipe.encode(opened.averaged, x[None]) for x in (a, b))
    expected = recipe.blends(opened.averaged, za, zb, weights)[0]
    fuse = runtime.load(bundle, device="cpu")
    made = fuse(a, b, weights=weights)
    assert made.shape == (2, SIZE, SIZE, 3)
    assert np.abs(made.astype(int) - expected).max() <= 1
    graph = {g.name: g for g in opened.graphs()}["fuse"]
    feeds = graph.examples(3, 4)
    (whole,) = graph.module(*(torch.from_numpy(feeds[port.name]) for port in graph.inputs))
    apart = recipe.networks["generator"](torch.from_numpy(feeds["z"]))
    torch.testing.assert_close(whole, apart, rtol=1e-5, atol=1e-5)


def test_pictures_aligned_before_they_are_fused(pictures: Path, tmp_path: Path) -> None:
    path = loop.train(Fusion, tiny_options(pictures, tmp_path, align=True, metric_kimg=0, total_kimg=0.08))
    assert (path / "figures" / "alignment.png").exists()
    opened = run.open_run(path)
    with torch.no_grad():
        opened.averaged["aligner"].head.weight.mul_(1000)  # hardly trained; as it is it moves next to nothing
    bundle = export_run(opened, tmp_path / "bundle").path
    recipe, fuse = opened.recipe, runtime.load(bundle, device="cpu")
    a, b = recipe.examples[:2]
    rows = np.array([[1] * 5, [0.9, 0.2, 0.5, 0.4, 0.1], [0] * 5], np.float32)
    aligned, plain = (fuse(a, b, rows, align=align, form="float") for align in (True, False))
    assert np.array_equal(aligned[0], plain[0]) and np.array_equal(aligned[2], plain[2])  # the ends stay as they are
    with torch.no_grad():
        x, y = (torch.from_numpy(cpp_ext.unpack(image[None])) for image in (a, b))
        warped = opened.averaged["aligner"](x, y, torch.tensor([[rows[1].mean()]]))
        za, zb = (opened.averaged["encoder"](image) for image in warped)
        z = blend(za, zb, torch.from_numpy(rows[1:2]), recipe.parts)
        expected = opened.averaged["generator"](z)[0].numpy()
    error = np.abs(aligned[1] - expected).max()
    assert error < 1e-4 and np.abs(aligned[1] - plain[1]).max() > 10 * error

    assert np.array_equal(fuse.sweep(a, b, 3, align=True)[1], fuse(a, b, 0.5, align=True))
    frames = list(fuse.animate(a, b, 3, ease="linear", align=True))
    assert np.array_equal(frames[1], fuse(a, b, 0.5, align=True)) and np.array_equal(frames[0], fuse(a, b, 1))
    with pytest.raises(InputError, match="a is a latent map"):
        fuse(fuse.encode(a), b, 0.5, align=True)
    with pytest.raises(InputError, match="do not fit together"):
        fuse([a] * 2, b, rows, align=True)
    for paired in (lambda: fuse.sweep([a] * 3, b, 3, align=True), lambda: fuse.animate(a, [b] * 3, 3, align=True)):
        with pytest.raises(InputError, match="is 3 pictures, expected one"):
            paired()


def test_a_bundle_without_an_aligner_says_so(finished: Path, tmp_path: Path) -> None:
    opened = run.open_run(finished)
    fuse = runtime.load(export_run(opened, tmp_path / "bundle").path, device="cpu")
    with pytest.raises(InputError, match="train with --align"):
        fuse(*opened.recipe.examples[:2], 0.5, align=True)
