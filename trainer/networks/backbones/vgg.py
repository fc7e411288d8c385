"""VGG (Simonyan and Zisserman 2015) and AlexNet (Krizhevsky 2014, one tower), as far as their convolutions go.

The state dicts are torchvision's (`features.N.weight`), without the classifiers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from trainer.networks.backbones.backbone import IMAGENET_DEVIATION, IMAGENET_MEAN, Backbone

# Width and number of the convolutions before each pooling.
VGG16_GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
VGG19_GROUPS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class _Chain(Backbone):
    """A network that is one chain of layers."""

    def __init__(self, chain: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__([name for name, _ in chain], IMAGENET_MEAN, IMAGENET_DEVIATION)
        self.features = nn.Sequential(*[layer for _, layer in chain])

    def steps(self) -> Iterator[Callable[[Tensor], Tensor]]:
        return iter(self.features)


class Vgg(_Chain):
    """VGG without batch norm. Layers conv1_1, relu1_1, conv1_2 … pool1, conv2_1 … pool5.

    convG_K is the K-th convolution's output before its ReLU, at a stride of 2^(G-1).
    """

    def __init__(self, groups: Sequence[tuple[int, int]]) -> None:
        chain: list[tuple[str, nn.Module]] = []
        channels = 3
        for g, (width, count) in enumerate(groups, 1):
            for k in range(1, count + 1):
                # Not in place: the convolution's output may have been asked for.
                chain += [(f"conv{g}_{k}", nn.Conv2d(channels, width, 3, padding=1)), (f"relu{g}_{k}", nn.ReLU())]
                channels = width
            chain.append((f"pool{g}", nn.MaxPool2d(2)))
        super().__init__(chain)


class Vgg16(Vgg):
    """VGG-16, configuration D."""

    def __init__(self) -> None:
        super().__init__(VGG16_GROUPS)


class Vgg19(Vgg):
    """VGG-19, configuration E."""

    def __init__(self) -> None:
        super().__init__(VGG19_GROUPS)


class AlexNet(_Chain):
    """AlexNet. Layers conv1, relu1, pool1, conv2, relu2, pool2, conv3, relu3, conv4, relu4, conv5, relu5."""

    def __init__(self) -> None:
        convolutions = [
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.Conv2d(256, 256, 3, padding=1),
        ]
        chain: list[tuple[str, nn.Module]] = []
        for k, convolution in enumerate(convolutions, 1):
            chain += [(f"conv{k}", convolution), (f"relu{k}", nn.ReLU())]
            if k < 3:
                chain.append((f"pool{k}", nn.MaxPool2d(3, 2)))
        super().__init__(chain)
