"""What all frozen classification networks that give features have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from runtime.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1], as torchvision's networks expect them."""


class Backbone(nn.Module, ABC):
    """A trained classification network as a source of features: frozen, always in evaluation mode.

    Gradients flow through it to the images, never to its weights. It is no part of what a run trains or saves.
    """

    layers: tuple[str, ...]
    """All that can be asked for, shallow to deep."""
    source: dict[str, Any]
    """Where the weights came from: the network's name, the file's name and SHA-256."""
    smallest = 32
    """Height and width an image must have at least, in pixels."""
    mean: Tensor
    deviation: Tensor

    def __init__(self, layers: Sequence[str], mean: Sequence[float], deviation: Sequence[float]) -> None:
        """mean, deviation: of red, green and blue in [0, 1], to normalise by."""
        super().__init__()
        self.layers = tuple(layers)
        self.source = {}
        # For images in [-1, 1]: ((x + 1) / 2 - m) / d = (x - (2 m - 1)) / 2 d.
        for name, values in (("mean", [2 * m - 1 for m in mean]), ("deviation", [2 * d for d in deviation])):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @abstractmethod
    def steps(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """The parts of the network in order, one for each of `layers`; step n's output is layer n."""

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of `images` at `layers`, by name; computes no deeper than the deepest of them.

        images: [N, 3, H, W] RGB in [-1, 1], H and W at least `smallest`. Returns [N, C, h, w] each.

        Raises:
            InputError: a layer is not one of the network's, or the images are too small.
        """
        if unknown := [name for name in layers if name not in self.layers]:
            raise InputError(f"layer {unknown[0]!r}: expected one of {', '.join(self.layers)}")
        if min(images.shape[2:]) < self.smallest:
            size = f"{images.shape[2]}x{images.shape[3]}"
            raise InputError(f"images of {size}: this network's features need {self.smallest}x{self.smallest} at least")
        features = (images - self.mean) / self.deviation
        found: dict[str, Tensor] = {}
        for name, step in zip(self.layers, self.steps(), strict=False):
            if len(found) == len(set(layers)):
                break
            features = step(features)
            if name in layers:
                found[name] = features
        return {name: found[name] for name in layers}

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode, whatever it is part of."""
        super().train(False)
        return self
