"""The generators that engines are compared on, with random weights: how fast they are does not depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from runtime.bundle import Port
from trainer.data.recording import Modality
from trainer.networks.multimodal import Generator
from trainer.recipe import Graph


@dataclass(frozen=True)
class Case:
    """One generator."""

    name: str
    module: nn.Module
    """z float32 [N, noise] → image float32 [N, 3, side, side] in [-1, 1]; in evaluation mode, its statistics set."""
    noise: int
    side: int

    def graph(self) -> Graph:
        """What export takes."""
        return Graph(
            name="generator",
            module=_Outputs(self.module),
            inputs=(Port(name="z", shape=(self.noise,), kind="noise"),),
            outputs=(Port(name="image", shape=(3, self.side, self.side), kind="image", range=(-1, 1)),),
        )

    def export(self, path: Path) -> Path:
        """The ONNX file as PyTorch's exporter gives it: the peer's, without what `export` makes of it."""
        batch = torch.export.Dim("batch", min=1)
        with torch.no_grad():
            torch.onnx.export(
                self.module,
                (torch.zeros(2, self.noise),),
                path,
                input_names=["z"],
                output_names=["image"],
                opset_version=18,
                dynamo=True,
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
        return path


def generators() -> Iterator[Case]:
    """MGAN's image generator as shipped (80×80) and at 128×128, and a wide one of 0.33 GFLOP an image."""
    torch.manual_seed(0)
    yield Case("mgan 80x80", _settled(_Mgan(80), 16), 16, 80)
    yield Case("mgan 128x128", _settled(_Mgan(128), 16), 16, 128)
    yield Case("wide 80x80", _settled(_wide(), 128), 128, 80)


class _Outputs(nn.Module):
    """The module as a graph is: it returns its outputs, in order."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> tuple[Tensor]:
        return (self.module(z),)


class _Mgan(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.inner = Generator((Modality(name="image", kind="image", shape=(3, side, side)),), 16, width=16, hidden=128)

    def forward(self, z: Tensor) -> Tensor:
        return self.inner(z)["image"]


def _wide() -> nn.Module:
    """z [N, 128] → [N, 3, 80, 80]: a DCGAN of 512, 256, 128, 64 channels."""
    layers: list[nn.Module] = [nn.Linear(128, 512 * 25), nn.Unflatten(1, (512, 5, 5)), nn.BatchNorm2d(512), nn.ReLU()]
    for low, high in ((512, 256), (256, 128), (128, 64)):
        layers += [nn.ConvTranspose2d(low, high, 4, 2, 1, bias=False), nn.BatchNorm2d(high), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1), nn.Tanh())


def _settled(module: nn.Module, noise: int) -> nn.Module:
    """With the statistics of its batch norms measured, in evaluation mode."""
    with torch.no_grad():
        for _ in range(20):
            module.train()(torch.randn(32, noise))
    return module.eval().requires_grad_(False)
