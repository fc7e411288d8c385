"""LPIPS, the learned perceptual distance of images (Zhang et al. 2018, version 0.1), and what stands in for it.

    d(a, b) = Σ_l mean_hw Σ_c w_lc (â_lhwc − b̂_lhwc)²

â_l, b̂_l: the features at layer l, scaled to unit length over the channels at each position; w_l ≥ 0 was fitted to
people's judgements. The distance depends on the size of the images (it was fitted at 64 × 64), so only figures at one
size compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cpp_ext import unpack
from runtime.errors import InputError
from trainer import weights as files
from trainer.networks.backbones import Backbone, open_backbone

LAYERS = {
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    "efficientnet-lite0": ("block1", "block3", "block5", "block11", "block16"),
}
"""The layers compared, by network. EfficientNet's are the last of each resolution."""

_CHUNK = 32
"""Pairs at a time, to bound the memory."""


class Distance(nn.Module):
    """A perceptual distance of two images: 0 for the same image, larger for less alike. A score, without gradients."""

    def __init__(self, name: str, backbone: Backbone, layers: Sequence[str], linear: Sequence[Tensor] | None) -> None:
        """linear: w_l [C_l] for each layer. None: 1 / the number of layers, for the mean over layers."""
        super().__init__()
        self.name = name
        """What the figure is called wherever it is reported."""
        self.source: dict[str, Any] = dict(backbone.source)
        """Where the weights came from."""
        self.backbone = backbone
        self.layers = tuple(layers)
        for k in range(len(self.layers)):
            weight = torch.tensor([1 / len(self.layers)]) if linear is None else linear[k].float().flatten()
            self.register_buffer(f"linear{k}", weight, persistent=False)

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distances of a[n] and b[n], float32 [N], whatever the autocast around.

        a, b: images [N, 3, H, W] RGB in [-1, 1], H and W at least 32, on the module's device.

        Raises:
            InputError: their shapes differ, or they are too small.
        """
        if a.shape != b.shape:
            raise InputError(f"{self.name}: got images {list(a.shape)} and {list(b.shape)}, expected both alike")
        with torch.autocast(a.device.type, enabled=False):
            distances = [self._distance(*pair) for pair in zip(a.split(_CHUNK), b.split(_CHUNK), strict=True)]
        return torch.cat(distances)

    def of_pictures(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The distances of a[n] and b[n], [N]. a, b: pictures uint8 RGB [N, H, W, 3], H and W at least 32.

        Raises:
            InputError: their shapes differ, or they are too small.
        """
        found = []
        for start in range(0, len(a), _CHUNK):
            pair = (torch.from_numpy(unpack(np.ascontiguousarray(x[start : start + _CHUNK]))) for x in (a, b))
            found.append(self(*(x.to(self.backbone.mean.device) for x in pair)).cpu().numpy())
        return np.concatenate(found)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        features = self.backbone(torch.cat([a, b]).float(), self.layers)
        total = torch.zeros(len(a), device=a.device)
        for k, layer in enumerate(self.layers):
            unit = features[layer] / (features[layer].square().sum(1, keepdim=True).sqrt() + 1e-10)
            difference = (unit[: len(a)] - unit[len(a) :]).square()
            total += (difference * self.get_buffer(f"linear{k}").view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total


def open_lpips(weights: Path | None = None, net: Literal["alex", "vgg"] = "alex") -> Distance:
    """LPIPS v0.1 on AlexNet or VGG-16 where its weights can be had; else `efficientnet_lite0_distance`.

    weights: the file (or its folder); None: looked for in the folders of AWASE_WEIGHTS. One file holds all:
    alexnet_lpips.safetensors or vgg16_lpips.safetensors, with torchvision's `features.N.*` and `lin0.weight` …
    `lin4.weight` [1, C, 1, 1]. Or there are two: torchvision's of the network and LPIPS's own alex.pth or vgg.pth.

    What stands in is the distance of EfficientNet-Lite0's features with no fitted weights: ‖â − b̂‖² ∈ [0, 4] at each
    position, averaged over positions and layers. Its figures do not compare with LPIPS's, so it bears its own name.

    Raises:
        InputError: `weights` is given and does not serve, or a file found is damaged or of another network, or not even
            EfficientNet's weights are there.
    """
    if net not in ("alex", "vgg"):
        raise InputError(f"LPIPS network {net!r}: expected alex or vgg")
    network = {"alex": "alexnet", "vgg": "vgg16"}[net]
    whole = f"{network}_lpips.safetensors"
    if (path := files.find([whole, f"{net}.pth"], weights)) is not None:
        state = files.read(path)
        # LPIPS's own file has no features; they are in torchvision's, beside it.
        alone = not any(key.startswith("features.") for key in state)
        backbone = open_backbone(network, (path.parent if weights else None) if alone else path)
        distance = Distance(f"lpips_{net}", backbone, LAYERS[network], _linear(path, state, backbone, network))
        if alone:
            distance.source |= {"linear_file": path.name, "linear_sha256": files.sha256(path)}
        distance.source["version"] = "0.1"
        return distance.eval()
    backbone = open_backbone("efficientnet-lite0")
    return Distance("efficientnet_lite0_distance", backbone, LAYERS["efficientnet-lite0"], None).eval()


def _linear(path: Path, state: dict[str, Tensor], backbone: Backbone, network: str) -> list[Tensor]:
    """w_l of each layer, from the names of either file."""
    layers = LAYERS[network]
    channels = [f.shape[1] for f in backbone(torch.zeros(1, 3, backbone.smallest, backbone.smallest), layers).values()]
    weights = []
    for k, width in enumerate(channels):
        weight = state.get(f"lin{k}.weight", state.get(f"lin{k}.model.1.weight"))
        if weight is None or weight.numel() != width:
            got = "missing" if weight is None else list(weight.shape)
            raise InputError(f"{path}: lin{k}.weight is {got}, expected LPIPS's [1, {width}, 1, 1] for {network}")
        weights.append(weight)
    return weights
