"""Fusion's modules as they are frozen: encoder, blend, generator, all three in one, and the aligner."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import cpp_ext
from runtime.bundle import Port
from trainer.networks.autoencoder import DIVISOR, blend
from trainer.recipe import Graph

if TYPE_CHECKING:
    from trainer.recipes.fusion import Fusion


class OneOutput(nn.Module):
    """A network whose single result is given as a tuple of outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Images [N, 3, S, S] → (latent maps,), or latent maps → (images,)."""
        return (self.network(x),)


class Blend(nn.Module):
    """Equation 1 as a graph: `networks.autoencoder.blend` in operators that every engine has, with no index tensor."""

    def __init__(self, parts: tuple[int, ...]) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, za: Tensor, zb: Tensor, weights: Tensor) -> tuple[Tensor]:
        """Latent maps [N, Z, h, w] twice and Λ [N, P] → (latent maps [N, Z, h, w],)."""
        pieces = [
            weights[:, n, None, None, None] * x + (1 - weights[:, n, None, None, None]) * y
            for n, (x, y) in enumerate(zip(za.split(self.parts, 1), zb.split(self.parts, 1), strict=True))
        ]
        return (torch.cat(pieces, 1),)


class Fuse(nn.Module):
    """Encode → blend → generate in one graph."""

    def __init__(self, encoder: nn.Module, mixer: Blend, generator: nn.Module) -> None:
        super().__init__()
        self.encoder, self.mixer, self.generator = encoder, mixer, generator

    def forward(self, a: Tensor, b: Tensor, weights: Tensor) -> tuple[Tensor]:
        """Images [N, 3, S, S] twice and Λ [N, P] → (images [N, 3, S, S],)."""
        return (self.generator(*self.mixer(self.encoder(a), self.encoder(b), weights)),)


def graphs(fusion: Fusion, averaged: dict[str, nn.Module]) -> list[Graph]:
    """encoder, generator, blend and all three in one, `fuse`; and the aligner, if there is one."""
    size, parts = fusion.options.size, fusion.parts
    names = tuple(f"part_{n + 1}" for n in range(len(parts)))

    def image(name: str) -> Port:
        return Port(name=name, kind="image", shape=(3, size, size), range=(-1.0, 1.0))

    def latent(name: str) -> Port:
        side = size // DIVISOR
        return Port(name=name, kind="latent", shape=(sum(parts), side, side), parts=parts)

    def vector(name: str, names: tuple[str, ...]) -> Port:
        return Port(name=name, kind="vector", shape=(len(names),), range=(0.0, 1.0), names=names)

    encoder, generator = averaged["encoder"].cpu().eval(), averaged["generator"].cpu().eval()
    a, b, weights, mixer = image("a"), image("b"), vector("weights", names), Blend(parts)
    feeds = examples(fusion, encoder)
    found = [
        Graph("encoder", OneOutput(encoder), (image("image"),), (latent("z"),), feeds),
        Graph("generator", OneOutput(generator), (latent("z"),), (image("image"),), feeds),
        Graph("blend", mixer, (latent("za"), latent("zb"), weights), (latent("z"),), feeds),
        Graph("fuse", Fuse(encoder, mixer, generator), (a, b, weights), (image("image"),), feeds),
    ]
    if "aligner" in averaged:
        outputs = image("a_aligned"), image("b_aligned")
        found.append(Graph("aligner", averaged["aligner"].cpu().eval(), (a, b, vector("t", ("t",))), outputs, feeds))
    return found


def examples(fusion: Fusion, encoder: nn.Module) -> Callable[[int, int], dict[str, np.ndarray]]:
    """Inputs for the graphs like those they will see: held-out images, their latents and blends, Λ over its range."""

    def feeds(seed: int, count: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        a, b = (cpp_ext.unpack(fusion.examples[rng.integers(len(fusion.examples), size=count)]) for _ in range(2))
        weights = rng.random((count, len(fusion.parts)), np.float32)
        with torch.no_grad():
            za, zb = (encoder(torch.from_numpy(images)) for images in (a, b))
            z = blend(za, zb, torch.from_numpy(weights), fusion.parts)
        values: dict[str, Any] = {"za": za.numpy(), "zb": zb.numpy(), "z": z.numpy()}
        return values | {"image": a, "a": a, "b": b, "weights": weights, "t": weights[:, :1].copy()}

    return feeds
