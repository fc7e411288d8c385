"""Networks of the multimodal GAN: one branch a modality, a shared first layer in G, a shared last part in D.

Tensors by modality name: image [N, C, H, W] in [-1, 1], vector [N, D] in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trainer.data.recording import Modality
from trainer.distributed import BatchNorm


def levels(height: int, width: int) -> int:
    """How often an image is halved or doubled, so that its smallest map is about 5 pixels on the short side."""
    return max(1, round(math.log2(min(height, width) / 5)))


def channels(level: int, width: int) -> int:
    """Feature maps after `level` halvings (level 1 is next to the image): doubling from `width`, at most 8·width."""
    return width * min(2 ** (level - 1), 8)


class ImageBranch(nn.Module):
    """A vector [N, D] → an image [N, C, H, W] in (-1, 1): MLP, a small map, then doubling transposed convolutions.

    4×4 with stride 2, as in DCGAN: a third of the work of upsampling and a 3×3 convolution, and as good here.
    Any H and W: the last map is the next multiple of the smallest one, and its centre is cut out.
    """

    def __init__(self, inputs: int, shape: tuple[int, ...], width: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.shape = shape
        count = levels(*shape[1:])
        self.map = [math.ceil(side / 2**count) for side in shape[1:]]
        mlp: list[nn.Module] = []
        for index in range(layers):
            # No bias before a batch norm: its gradient is rounding noise, which Adam would blow up to full steps.
            mlp += [nn.Linear(hidden if index else inputs, hidden, bias=False), BatchNorm(hidden), nn.ReLU()]
        self.mlp = nn.Sequential(*mlp)
        self.top = channels(count, width)
        self.project = nn.Linear(hidden if layers else inputs, self.top * self.map[0] * self.map[1])
        self.start = nn.Sequential(BatchNorm(self.top), nn.ReLU())
        steps: list[nn.Module] = []
        for level in range(count, 1, -1):
            low, high = channels(level, width), channels(level - 1, width)
            steps += [nn.ConvTranspose2d(low, high, 4, 2, 1, bias=False), BatchNorm(high), nn.ReLU()]
        steps += [nn.ConvTranspose2d(channels(1, width), shape[0], 4, 2, 1), nn.Tanh()]
        self.steps = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs] → [N, C, H, W]."""
        x = self.project(self.mlp(x)).unflatten(1, (self.top, *self.map))
        if not torch.compiler.is_compiling():
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.steps(self.start(x))
        top, left = ((have - want) // 2 for have, want in zip(x.shape[2:], self.shape[1:], strict=True))
        return x[:, :, top : top + self.shape[1], left : left + self.shape[2]]


def vector_branch(inputs: int, outputs: int) -> nn.Sequential:
    """A vector [N, D] → a modality's vector [N, D'] in (-1, 1). No batch norm: it narrows the spread of the angles."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Tanh())


class Generator(nn.Module):
    """z [N, Z] → every modality at once. The first layer is shared (the paper, section 2.1)."""

    def __init__(self, modalities: tuple[Modality, ...], z_dim: int, width: int, hidden: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(z_dim, hidden), nn.LeakyReLU(0.2))
        self.branches = nn.ModuleDict(
            {
                m.name: ImageBranch(hidden, m.shape, width, hidden, 1)
                if m.kind == "image"
                else vector_branch(hidden, m.shape[0])
                for m in modalities
            }
        )

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        """[N, Z] → {name: tensor in (-1, 1)}."""
        shared = self.shared(z)
        return {name: branch(shared) for name, branch in self.branches.items()}


def image_features(shape: tuple[int, ...], width: int, hidden: int, wrap: Callable | None) -> nn.Sequential:
    """An image [N, C, H, W] → features [N, hidden]: strided 4×4 convolutions, then one linear layer.

    wrap: a layer's own normalisation (spectral norm, for a discriminator); None: batch norm after each layer but the
    first.
    """
    net: list[nn.Module] = []
    maps, size = shape[0], list(shape[1:])
    keep = wrap or (lambda layer: layer)
    for level in range(1, levels(*size) + 1):
        normed = wrap is None and level > 1
        net.append(keep(nn.Conv2d(maps, channels(level, width), 4, 2, 1, bias=not normed)))
        if normed:
            net.append(BatchNorm(channels(level, width)))
        net.append(nn.LeakyReLU(0.2))
        maps, size = channels(level, width), [side // 2 for side in size]
    return nn.Sequential(*net, nn.Flatten(), keep(nn.Linear(maps * size[0] * size[1], hidden)), nn.LeakyReLU(0.2))


class Discriminator(nn.Module):
    """A tuple of modalities → one score [N] for the whole tuple, d(x₁ … x_K) of the paper's equation 1.

    The branches' features meet in a shared head with a hidden layer: a single linear layer on joined features is a sum
    of one score a modality and cannot see that two of them do not belong together.
    """

    def __init__(self, modalities: tuple[Modality, ...], width: int, hidden: int) -> None:
        super().__init__()
        wrap = spectral_norm
        self.branches = nn.ModuleDict()
        for m in modalities:
            if m.kind == "image":
                self.branches[m.name] = image_features(m.shape, width, hidden, wrap)
            else:
                self.branches[m.name] = nn.Sequential(
                    wrap(nn.Linear(m.shape[0], hidden)), nn.LeakyReLU(0.2),
                    wrap(nn.Linear(hidden, hidden)), nn.LeakyReLU(0.2),
                )  # fmt: skip
        joined = len(modalities) * hidden
        self.head = nn.Sequential(
            wrap(nn.Linear(joined, 2 * hidden)), nn.LeakyReLU(0.2), wrap(nn.Linear(2 * hidden, 1))
        )

    def features(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """f_m of the paper's equation 3: each branch's output [N, hidden]."""
        return {name: branch(x[name]) for name, branch in self.branches.items()}

    def score(self, features: Mapping[str, Tensor]) -> Tensor:
        """The tuple's logit [N] from its branches' features."""
        return self.head(torch.cat([features[name] for name in self.branches], 1)).squeeze(1)


class VectorReader(nn.Module):
    """Reads all vector modalities off one image: [N, C, H, W] → [N, D] (their components joined)."""

    def __init__(self, shape: tuple[int, ...], outputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(image_features(shape, width, hidden, None), nn.Linear(hidden, outputs))

    def forward(self, image: Tensor) -> Tensor:
        """[N, C, H, W] → [N, D]."""
        return self.net(image)


class ImageDrawer(nn.Module):
    """Draws one image modality from all vector modalities: [N, D] (their components joined) → [N, C, H, W]."""

    def __init__(self, inputs: int, shape: tuple[int, ...], width: int, hidden: int) -> None:
        super().__init__()
        self.net = ImageBranch(inputs, shape, width, hidden, 2)

    def forward(self, vectors: Tensor) -> Tensor:
        """[N, D] → [N, C, H, W] in (-1, 1)."""
        return self.net(vectors)
