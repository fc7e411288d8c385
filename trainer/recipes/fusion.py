"""Fusion: two images become one, part by part; each part of the latent has a slider of its own.

After the paper on blending two images with explicit latent parts. Encoder and generator are first an autoencoder, then
learn to make blends that a critic takes for real and that look like both images to a perceptual network. What goes
beyond the paper is an option each and off in the preset `paper`; what each is worth stands in fusion.md beside this.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cpp_ext
from trainer.distributed import gather, share, world_size
from trainer.losses.adversarial import wasserstein_divergence, wasserstein_generator
from trainer.losses.alignment import alignment_loss
from trainer.losses.parts import change, part_terms
from trainer.losses.perceptual import content, style
from trainer.losses.reconstruction import absolute, total_variation
from trainer.losses.structure import structure
from trainer.metrics.lpips import Distance, open_lpips
from trainer.networks.aligner import Aligner
from trainer.networks.autoencoder import Critic, Encoder, Generator, blend
from trainer.networks.backbones import DEFAULT_LAYERS, Backbone, open_backbone
from trainer.recipe import Figure, Graph, Recipe, Step
from trainer.recipes import fusion_data, fusion_figures, fusion_graphs, fusion_metrics
from trainer.recipes.fusion_data import FusionData
from trainer.recipes.fusion_options import PRESETS, FusionOptions


class Fusion(Recipe):
    """See the module's text."""

    name = "fusion"
    model = "fuser"
    options_type = FusionOptions
    presets = PRESETS
    networks: dict[str, Any]
    data: FusionData | None

    @classmethod
    def dataset(cls, options: FusionOptions) -> FusionData:
        """Draw avatars or pack a folder's images (once, then cached).

        Raises:
            InputError: they cannot be trained on; the message names the file.
        """
        return fusion_data.load(options)

    @classmethod
    def sources(cls, options: FusionOptions) -> dict[str, Any]:
        """The weights of the networks that images are compared by: file and SHA-256.

        Raises:
            InputError: the perceptual network's are not there, or it has no such layer.
        """
        backbone = open_backbone(options.perceptual, options.weights)
        backbone(torch.zeros(1, 3, backbone.smallest, backbone.smallest), layers_of(options)[2])
        return {"perceptual": backbone.source, "distance": open_lpips(net=options.lpips).source}

    def __init__(self, options: FusionOptions, description: dict[str, Any]) -> None:
        self.options = options
        self.description = description
        self.parts = options.channels
        self.networks = {
            "encoder": Encoder(options.width, options.latent),
            "generator": Generator(options.width, options.latent),
        }
        pair = [*self.networks["encoder"].parameters(), *self.networks["generator"].parameters()]
        betas = (options.beta1, options.beta2)
        self.optimizers = {"autoencoder": torch.optim.Adam(pair, options.lr, betas, fused=True)}
        self.averaged: tuple[str, ...] = ("encoder", "generator")
        if options.adversarial:
            critic = Critic(options.size, options.critic_width, options.critic_norm)
            self.networks["critic"] = critic
            self.optimizers["critic"] = torch.optim.Adam(critic.parameters(), options.lr_critic, betas, fused=True)
        if options.align:
            aligner = Aligner(options.size, options.align_width)
            self.networks["aligner"] = aligner
            self.optimizers["aligner"] = torch.optim.Adam(
                aligner.parameters(), options.lr_aligner, (0.9, options.beta2), fused=True
            )
            self.averaged += ("aligner",)
        self.style_layers, self.content_layers, self.layers = layers_of(options)

    def learning_rate_factor(self, progress: float) -> float:
        """Constant, then linearly to zero from `decay_from` on."""
        start = self.options.decay_from
        return 1.0 if progress <= start else (1 - progress) / (1 - start)

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The perceptual network, on the device of the trained ones."""
        backbone = open_backbone(self.options.perceptual, self.options.weights)
        return backbone.to(next(self.networks["encoder"].parameters()).device)

    @functools.cached_property
    def distance(self) -> Distance:
        """What images are compared by in metrics: LPIPS (alex), or what stands in for it."""
        return open_lpips(net=self.options.lpips).to(next(self.networks["encoder"].parameters()).device)

    # --- Training ---

    def step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """An autoencoder's step in the first stage; then the critic's, and the encoder's and generator's."""
        # Bytes [N, S, S, 3] seen as [N, 3, S, S] are channels-last already.
        images = batch["images"].permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        scalars = self.align(images, step) if self.options.align else {}
        if step.progress < self.options.pretrain:
            return scalars | self.reconstruct(images, step)
        return scalars | self.fuse(images, step)

    def align(self, a: Tensor, step: Step) -> dict[str, Tensor]:
        """The aligner's step, on each image and its partner."""
        with torch.autocast(a.device.type, enabled=False):  # in bf16 it learns nothing: displacements are small
            terms = alignment_loss(self.networks["aligner"].requires_grad_(True), a, partner(a))
        step.optimize("aligner", torch.stack(list(terms.values())).sum())
        self.networks["aligner"].requires_grad_(False)
        return {f"align_{name}": value for name, value in terms.items()}

    def reconstruct(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """The first stage, equation 10: encoder and generator as an autoencoder."""
        made = self.networks["generator"](self.networks["encoder"](images))
        scalars = {"reconstruction": absolute(made, images)} | self.reconstruction_terms(images, made)
        step.optimize("autoencoder", self.weigh(scalars))
        return scalars

    def reconstruction_terms(self, images: Tensor, made: Tensor) -> dict[str, Tensor]:
        """What of a reconstruction is compared beyond the paper."""
        o, scalars = self.options, {}
        if o.structure:
            scalars["structure"] = structure(made, images)
        if o.content_reconstruction:
            with torch.no_grad():
                target = self.backbone(images, self.content_layers)
            every = torch.ones(len(images), device=images.device)
            scalars["content_reconstruction"] = content(self.backbone(made, self.content_layers), target, target, every)
        return scalars

    def fuse(self, a: Tensor, step: Step) -> dict[str, Tensor]:
        """The second stage, equation 11. Every image of the batch is A once and B once: B is the next image."""
        o, net = self.options, self.networks
        count, parts = len(a), len(self.parts)
        b = partner(a)

        # Blends under Λ from {0, 1}ᴺ and [0, 1]ᴺ; their shapes brought together first, if there is an aligner.
        weights = self.draw(step, parts)
        weights = torch.where(self.draw(step, 1) < o.binary, weights.round(), weights)
        share_of_a = weights.mean(1)
        z = net["encoder"](a)
        za, zb = z, partner(z)
        if o.align:
            with torch.no_grad():
                pair = torch.cat(net["aligner"](a, b, share_of_a[:, None]))
            za, zb = net["encoder"](pair).chunk(2)
        latents = [z, blend(za, zb, weights, self.parts)]

        # The same blends with one part moved, and with another.
        moving = bool(o.silent or o.overlap)
        if moving:
            one = (step.first + torch.arange(count, device=a.device)) % parts  # each part is moved in every batch
            further = torch.randint(1, parts, (count * world_size(),), generator=step.shared)
            moved = torch.stack([one, (one + share(further).to(a.device)) % parts])
            to, by = moved_weights(weights, moved)
            latents += [blend(za, zb, weights_to, self.parts) for weights_to in to]
        made, c, *others = net["generator"](torch.cat(latents)).chunk(len(latents))

        # Critic: real images and blends (equation 2, by the Wasserstein divergence).
        scalars: dict[str, Tensor] = {}
        if o.adversarial:
            critic = net["critic"].requires_grad_(True)
            mix = self.draw(step, 1)[:, 0]
            loss, penalty = wasserstein_divergence(critic, a, c, mix, o.wasserstein_k, o.wasserstein_p)
            step.optimize("critic", loss)
            critic.requires_grad_(False)
            scalars |= {"critic": loss, "penalty": penalty}

        # Encoder and generator.
        terms = self.reconstruction_terms(a, made)
        ends = torch.stack([(weights == 1).all(1), (weights == 0).all(1)]).float()
        at_ends = [(c.float() - x).abs().mean((1, 2, 3)) * end for x, end in zip((a, b), ends, strict=True)]
        terms["reconstruction"] = (
            2 * absolute(made, a) + torch.stack(at_ends).sum(0).mean()
        )  # eq. 7; A', B' are one set
        terms["total_variation"] = total_variation(c) + 2 * total_variation(made)  # equation 9
        if o.adversarial:
            terms["adversarial"] = wasserstein_generator(critic(c))
        if o.content or o.style:
            with torch.no_grad():
                of_a = self.backbone(a, self.layers)
                of_b = {layer: partner(x) for layer, x in of_a.items()}
            of_c = self.backbone(c, self.layers)
            terms["content"] = content(of_c, of_a, of_b, share_of_a, self.content_layers)
            terms["style"] = style(of_c, of_a, of_b, share_of_a, self.style_layers)
        if moving:
            one_moved, other_moved = (change(c, x) / by[k][:, None, None] for k, x in enumerate(others))
            found = part_terms(one_moved, other_moved, change(a, b), moved, parts)
            terms |= {"silent": found.silent, "overlap": found.overlap}
            scalars |= {f"effect_{n + 1}": effect for n, effect in enumerate(found.effects)}
        step.optimize("autoencoder", self.weigh(terms))
        return scalars | terms

    def draw(self, step: Step, columns: int) -> Tensor:
        """Uniform numbers in [0, 1) for this process's images, [N, columns], whichever process has them."""
        drawn = torch.rand(step.size * world_size(), columns, generator=step.shared)
        return share(drawn).to(step.device)

    def weigh(self, terms: dict[str, Tensor]) -> Tensor:
        """Σ w · term, each weight the option of the term's name (equation 11): a scalar."""
        return torch.stack([getattr(self.options, name) * term for name, term in terms.items()]).sum()

    # --- What a run shows ---

    def encode(self, averaged: dict[str, nn.Module], images: np.ndarray) -> Tensor:
        """Images uint8 [N, S, S, 3] → latent maps [N, Z, h, w]."""
        return run_in_batches(averaged["encoder"], torch.from_numpy(cpp_ext.unpack(images)))

    def decode(self, averaged: dict[str, nn.Module], z: Tensor) -> np.ndarray:
        """Latent maps [N, Z, h, w] → images uint8 [N, S, S, 3]."""
        return cpp_ext.pack(np.ascontiguousarray(run_in_batches(averaged["generator"], z).numpy()))

    def blends(self, averaged: dict[str, nn.Module], za: Tensor, zb: Tensor, weights: np.ndarray) -> np.ndarray:
        """Latent maps of pairs [N, Z, h, w] under L rows of Λ [L, P] → images uint8 [N, L, S, S, 3]."""
        rows = [
            cpp_ext.blend(x[None].numpy(), y[None].numpy(), weights, self.parts) for x, y in zip(za, zb, strict=True)
        ]
        made = self.decode(averaged, torch.from_numpy(np.concatenate(rows)))
        return made.reshape(len(za), len(weights), *made.shape[1:])

    def metrics(self, averaged: dict[str, nn.Module]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Reconstructions of held-out images, and blends of held-out pairs."""
        assert self.data is not None  # a run that trains has its data
        return fusion_metrics.metrics(self, averaged, self.data.held_out)

    def headline(self, metrics: dict[str, dict[str, Any]]) -> str:
        """The newest reconstruction's score and the weakest part's effect in a few words."""
        if not {"reconstruction", "parts"} <= metrics.keys():
            return ""
        return f"SSIM {metrics['reconstruction']['ssim']:.3f}  weakest part {metrics['parts']['weakest']:.2f}"

    @functools.cached_property
    def examples(self) -> np.ndarray:
        """Held-out images that travel with the run, uint8 [K, S, S, 3]."""
        return fusion_data.decode_examples(self.description)

    def snapshot(self, averaged: dict[str, nn.Module]) -> np.ndarray:
        """The paper's row for a few held-out pairs, uint8 [H, W, 3]."""
        return fusion_figures.sweeps(self, averaged, 8)

    def figures(self, averaged: dict[str, nn.Module], history: dict[str, list[dict[str, Any]]]) -> Iterator[Figure]:
        """The paper's rows, one part at a time, the parts' effects, reconstructions, feature maps, losses."""
        return fusion_figures.figures(self, averaged, history)

    # --- Export ---

    def graphs(self, averaged: dict[str, nn.Module]) -> list[Graph]:
        """encoder, generator, blend, all three in one as `fuse`; and the aligner, if there is one."""
        return fusion_graphs.graphs(self, averaged)


def layers_of(options: FusionOptions) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Layers of the perceptual network: for style, for content, and all of them."""
    shallow, deep = DEFAULT_LAYERS[options.perceptual]
    of_style, of_content = options.style_layers or shallow, options.content_layers or deep
    return of_style, of_content, tuple(dict.fromkeys((*of_style, *of_content)))


def partner(x: Tensor) -> Tensor:
    """Of each image of the global batch the next one's row of `x` [N, ...]: B beside A."""
    return share(gather(x).roll(-1, 0))


def moved_weights(weights: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Λ with one part moved to its farther end.

    weights: [N, P]. moved: the part to move, int64 [K, N]: K choices for each sample.
    Returns Λ [K, N, P], and by how much λ was moved, [K, N] in [0.5, 1].
    """
    old = weights.expand(len(moved), -1, -1).gather(2, moved[..., None])
    new = (old < 0.5).to(weights.dtype)
    return weights.expand(len(moved), -1, -1).scatter(2, moved[..., None], new), (new - old).abs().squeeze(2)


def run_in_batches(network: nn.Module, x: Tensor, size: int = 64) -> Tensor:
    """A network's results for `x` [N, ...] without gradients, in float32 on the CPU."""
    device = next(network.parameters()).device
    with torch.no_grad():
        return torch.cat([network(part.to(device)).float().cpu() for part in x.split(size)])
