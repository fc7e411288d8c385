"""MGAN: one noise vector becomes an image and the joint angles that go with it, at once.

After the paper "Multimodal Generative Adversarial Networks". G and D have one branch a modality, a shared first layer
in G and a shared head in D. What goes beyond the paper is an option each and off in the preset `paper`; what each is
worth stands in mgan.md beside this.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

import cpp_ext
from runtime.bundle import Port
from runtime.errors import InputError
from runtime.metrics import ssim_gap
from runtime.robot import Robot
from trainer.data.recording import Modality
from trainer.distributed import gather, share
from trainer.losses.adversarial import cross_entropy
from trainer.losses.feature_matching import feature_matching, moment_matching
from trainer.networks.multimodal import Discriminator, Generator, ImageDrawer, VectorReader
from trainer.recipe import Figure, Graph, Recipe, Step
from trainer.recipes import mgan_figures
from trainer.recipes.mgan_data import MganData, recorded, simulated
from trainer.recipes.mgan_options import METRIC_SEED, PRESETS, MganOptions


class Mgan(Recipe):
    """See the module's text."""

    name = "mgan"
    model = "multimodal"
    options_type = MganOptions
    presets = PRESETS
    averaged = ("generator",)
    networks: dict[str, Any]

    @classmethod
    def dataset(cls, options: MganOptions) -> MganData:
        """Simulate the robot (once, then cached) or read and check a recording.

        Raises:
            InputError: robot or recording cannot be trained on; the message names file and row.
        """
        return simulated(options) if options.data is None else recorded(options)

    def __init__(self, options: MganOptions, description: dict[str, Any]) -> None:
        self.options = options
        self.description = description
        self.modalities = tuple(Modality.from_json(m) for m in description["modalities"])
        self.images = tuple(m for m in self.modalities if m.kind == "image")
        self.vectors = tuple(m for m in self.modalities if m.kind == "vector")
        names = [m.name for m in self.modalities]
        if unknown := set(options.modality_weights) - set(names):
            raise InputError(
                f"--modality-weights names {', '.join(sorted(unknown))}, expected modalities of: {', '.join(names)}"
            )
        self.weights = {name: options.modality_weights.get(name, options.feature_matching) for name in names}

        components = sum(m.shape[0] for m in self.vectors)
        small = {"width": options.d_width, "hidden": options.hidden}
        large = {"width": options.width, "hidden": options.hidden}
        self.networks = {
            "generator": Generator(self.modalities, options.z_dim, **large),
            "discriminator": Discriminator(self.modalities, **small),
        }
        # Consistency needs both kinds of modality.
        both = components > 0 and bool(self.images)
        if options.read and both:
            readers = {m.name: VectorReader(m.shape, components, **small) for m in self.images}
            self.networks["reader"] = nn.ModuleDict(readers)
        if options.draw and both:
            artists = {m.name: ImageDrawer(components, m.shape, **large) for m in self.images}
            self.networks["artist"] = nn.ModuleDict(artists)
        self.moments = self.data_moments()
        self.optimizers = {}
        for name, network in self.networks.items():
            adversarial = name in ("generator", "discriminator")
            rate = {"generator": options.lr, "discriminator": options.lr_d}.get(name, options.lr_consistency)
            self.optimizers[name] = torch.optim.Adam(
                network.parameters(), rate, (options.beta1 if adversarial else 0.9, options.beta2), fused=True
            )

    def learning_rate_factor(self, progress: float) -> float:
        """Constant, then linearly to zero from `decay_from` on."""
        start = self.options.decay_from
        return 1.0 if progress <= start else (1 - progress) / (1 - start)

    def robot(self) -> dict[str, Any] | None:
        """Description of the robot the data came from, if any."""
        return self.description["robot"]

    # --- Data to networks and back ---

    def normalise(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Samples as the networks see them: images uint8 [N,H,W,C] → [-1, 1] [N,C,H,W], vectors to ±margin."""
        real = {}
        for m in self.modalities:
            x = batch[m.name]
            if m.kind == "image":
                # NHWC bytes seen as NCHW are channels-last already.
                real[m.name] = x.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
            else:
                low, high = limits(m, x.device)
                real[m.name] = self.options.margin * (2 * (x - low) / (high - low) - 1)
        return real

    def data_moments(self) -> Tensor:
        """Mean and standard deviation of the data's joined vectors as the networks see them, [2, ΣD]."""
        means, deviations = [torch.zeros(0)], [torch.zeros(0)]
        for m in self.vectors:
            low, high = limits(m)
            scale = 2 * self.options.margin / (high - low)
            means.append((torch.tensor(self.description["mean"][m.name]) - low) * scale - self.options.margin)
            deviations.append(torch.tensor(self.description["spread"][m.name]) * scale)
        return torch.stack([torch.cat(means), torch.cat(deviations)])

    def join(self, x: dict[str, Tensor]) -> Tensor:
        """All vector modalities' components in one vector [N, ΣD]."""
        return torch.cat([x[m.name].float() for m in self.vectors], 1)

    def noise(self, first: int, count: int, device: torch.device | str = "cpu", seed: int | None = None) -> Tensor:
        """z of samples first … first+count−1, [count, Z]."""
        seed = self.options.seed if seed is None else seed
        return torch.from_numpy(cpp_ext.noise(seed, first, count, self.options.z_dim)).to(device)

    # --- Training ---

    def step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Discriminator, reader and artist on real data, then the generator."""
        o, net = self.options, self.networks
        d = net["discriminator"]
        real = self.normalise(batch)
        fake = net["generator"](self.noise(step.first, step.size, step.device))
        scalars = {}

        # Discriminator: real tuples, generated ones, and real ones that do not belong together (equation 1).
        d.requires_grad_(True)
        real_features = d.features(real)
        fake_features = d.features({name: x.detach() for name, x in fake.items()})
        loss = cross_entropy(d.score(real_features), o.real_target) + cross_entropy(d.score(fake_features), 0.0)
        if o.mismatch and len(self.modalities) > 1:
            loss = loss + o.mismatch * cross_entropy(d.score(self.mismatched(real_features)), 0.0)
        step.optimize("discriminator", loss)
        d.requires_grad_(False)
        scalars["D"] = loss

        # Reader and artist learn on real pairs how the modalities hang together.
        for name, distance in (("reader", self.reading), ("artist", self.drawing)):
            if name in net:
                net[name].requires_grad_(True).train()
                loss = distance(real)
                step.optimize(name, loss)
                net[name].requires_grad_(False).eval()
                scalars[name] = loss

        # Generator: fool D, match the data's mean features, be consistent.
        features = d.features(fake)
        adversarial = cross_entropy(d.score(features), 1.0)
        matching = feature_matching(real_features, features, self.weights)
        loss = adversarial + matching
        if "reader" in net:
            scalars["read"] = self.reading(fake)
            loss = loss + o.read * scalars["read"]
        if "artist" in net:
            # Only the image should yield: through the vectors, poses would move to where drawing is easy.
            still = fake | {m.name: fake[m.name].detach() for m in self.vectors}
            scalars["draw"] = self.drawing(still)
            loss = loss + o.draw * scalars["draw"]
        if o.moments and self.vectors:
            mean, deviation = self.moments.to(step.device)
            scalars["moments"] = moment_matching(self.join(fake), mean, deviation)
            loss = loss + o.moments * scalars["moments"]
        step.optimize("generator", loss)
        return scalars | {"G": adversarial, "matching": matching}

    def mismatched(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features of real tuples that do not belong together: the vectors (all but the first modality, where there are
        none or nothing else) are the next sample's."""
        kinds = {m.kind for m in self.modalities}
        moved = {m.name for m in (self.vectors if len(kinds) == 2 else self.modalities[1:])}
        return {name: share(gather(x).roll(1, 0)) if name in moved else x for name, x in features.items()}

    def reading(self, pairs: dict[str, Tensor]) -> Tensor:
        """Mean squared error of the vectors read off the images, a scalar."""
        vectors = self.join(pairs)
        errors = [mse_loss(reader(pairs[name]).float(), vectors) for name, reader in self.networks["reader"].items()]
        return torch.stack(errors).mean()

    def drawing(self, pairs: dict[str, Tensor]) -> Tensor:
        """Mean absolute difference of the images from those drawn from the vectors, a scalar."""
        vectors = self.join(pairs)
        errors = [
            l1_loss(artist(vectors).float(), pairs[name].float()) for name, artist in self.networks["artist"].items()
        ]
        return torch.stack(errors).mean()

    # --- What a run shows ---

    def generate(self, averaged: dict[str, nn.Module], count: int, first: int = 0) -> dict[str, np.ndarray]:
        """Samples of the averaged generator: images uint8 [N,H,W,C], vectors float32 [N,D] in their unit."""
        return self.decode(averaged, self.noise(first, count, seed=METRIC_SEED))

    def decode(self, averaged: dict[str, nn.Module], z: Tensor) -> dict[str, np.ndarray]:
        """z [N, Z] → images uint8 [N,H,W,C], vectors float32 [N,D] in their unit."""
        network = averaged["generator"]
        device = next(network.parameters()).device
        frozen = Frozen(network, self.modalities, self.options.margin)
        with torch.no_grad():
            pieces = [[x.float().cpu().numpy() for x in frozen(part.to(device))] for part in z.split(64)]
        out = {}
        for m, arrays in zip(self.modalities, zip(*pieces, strict=True), strict=True):
            array = np.concatenate(arrays)
            out[m.name] = cpp_ext.pack(array) if m.kind == "image" else array
        return out

    @functools.cached_property
    def simulator(self) -> Robot | None:
        """The robot to replay joints on; None where the data came without one."""
        robot = self.description["robot"]
        return Robot.from_description(robot, self.options.robot) if robot else None

    def replay(self, samples: dict[str, np.ndarray]) -> np.ndarray | None:
        """What the robot's camera sees in generated poses, uint8 [N, H, W, 3]; None without a robot."""
        if self.simulator is None:
            return None
        return self.simulator.render(samples[self.description["replay"][1]], allow_blank=True)

    @functools.cached_property
    def yardstick(self) -> list[dict[str, float]]:
        """What the gap is measured against: a function of the robot alone, so worked out once a session."""
        assert self.simulator is not None
        return ssim_gap.joint_error_curve(self.simulator)

    def metrics(self, averaged: dict[str, nn.Module]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The paper's evaluation: replay the generated joints, compare with the generated images."""
        o = self.options
        if self.simulator is None:
            return
        image, joints = self.description["replay"]
        samples = self.generate(averaged, max(o.matched, 1000))
        figures = ssim_gap.evaluate(
            self.simulator, samples[image], samples[joints], 0, o.matched, o.random, curve=self.yardstick
        )
        spread = samples[joints].std(0) / np.asarray(self.description["spread"][joints])
        yield "ssim_gap", figures | {"spread_min": float(spread.min()), "spread_mean": float(spread.mean())}

    def headline(self, metrics: dict[str, dict[str, Any]]) -> str:
        """The newest gap in a few words."""
        if "ssim_gap" not in metrics:
            return ""
        return "gap {gap:.3f}  spread {spread_min:.2f}".format(**metrics["ssim_gap"])

    def snapshot(self, averaged: dict[str, nn.Module]) -> np.ndarray:
        """Generated images (upper rows) over their reproductions (lower rows), uint8 [H, W, 3]."""
        samples = self.generate(averaged, 32)
        pictures = [samples[m.name] for m in self.images]
        if (replays := self.replay(samples)) is not None:
            pictures.append(replays)
        rows = [picture[start : start + 16] for start in (0, 16) for picture in pictures]
        return mgan_figures.stack(rows, 1)

    def figures(self, averaged: dict[str, nn.Module], history: dict[str, list[dict[str, Any]]]) -> Iterator[Figure]:
        """Pairs over reproductions, SSIM curves, losses, a walk through the latent space, joint histograms."""
        return mgan_figures.figures(self, averaged, history)

    # --- Export ---

    def graphs(self, averaged: dict[str, nn.Module]) -> list[Graph]:
        """One graph: z → every modality."""
        outputs = tuple(
            Port(name=m.name, kind="image", shape=m.shape, range=(-1.0, 1.0))
            if m.kind == "image"
            else Port(name=m.name, kind="vector", shape=m.shape, unit=m.unit, names=m.names, limits=m.limits)
            for m in self.modalities
        )
        z = Port(name="z", kind="noise", shape=(self.options.z_dim,))
        frozen = Frozen(averaged["generator"], self.modalities, self.options.margin).cpu().eval()
        return [Graph("generator", frozen, (z,), outputs)]


def limits(modality: Modality, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """A vector modality's lower and upper limits, float32 [D] each."""
    low, high = torch.tensor(modality.limits, dtype=torch.float32, device=device).unbind(1)
    return low, high


class Frozen(nn.Module):
    """The generator as it leaves the house: z [N, Z] → images in [-1, 1], vectors in their unit within their limits."""

    def __init__(self, generator: nn.Module, modalities: tuple[Modality, ...], margin: float) -> None:
        super().__init__()
        self.generator, self.modalities, self.margin = generator, modalities, margin
        device = next(generator.parameters()).device
        for m in modalities:
            if m.kind == "vector":
                low, high = limits(m, device)
                self.register_buffer(f"{m.name}_low", low)
                self.register_buffer(f"{m.name}_high", high)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """In the modalities' order."""
        out = []
        made = self.generator(z)
        for m in self.modalities:
            x = made[m.name]
            if m.kind == "vector":
                low, high = self.get_buffer(f"{m.name}_low"), self.get_buffer(f"{m.name}_high")
                x = low + (x / self.margin + 1) * 0.5 * (high - low)
                x = torch.minimum(torch.maximum(x, low), high)
            out.append(x)
        return tuple(out)
