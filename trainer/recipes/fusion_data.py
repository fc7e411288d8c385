"""What fusion trains on: packed images, some of them held out."""

from __future__ import annotations

import base64
import functools
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.sheet import encode_png
from trainer.data.images import ImageSet, open_images
from trainer.recipes.fusion_options import FusionOptions

EXAMPLES = 32
"""Held-out images that travel with the run: the report shows them, and export calibrates with them."""


class FusionData:
    """Images as the loop wants them; those held out are set apart by chance, the same whatever the training's seed."""

    def __init__(self, images: ImageSet, held_out: int) -> None:
        order = np.random.default_rng(0).permutation(len(images.images))
        self.images = images
        self.test, self.train = np.sort(order[:held_out]), np.sort(order[held_out:])
        shown = [encode_png(images.images[index]) for index in self.test[:EXAMPLES]]
        self.description: dict[str, Any] = {
            "images": images.description,
            "held_out": len(self.test),
            "examples": [base64.b64encode(png).decode() for png in shown],
        }

    def __len__(self) -> int:
        """How many images there are to train on."""
        return len(self.train)

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The training images `indices`: uint8 [N, S, S, 3]."""
        return {"images": self.images.images[self.train[indices]]}

    @functools.cached_property
    def held_out(self) -> np.ndarray:
        """The images kept from training, uint8 [K, S, S, 3]."""
        return np.ascontiguousarray(self.images.images[self.test])


def load(options: FusionOptions) -> FusionData:
    """Draw or pack the images (once, then cached).

    Raises:
        InputError: they cannot be had, or are too few.
    """
    count = options.avatars if options.data == "avatars" else options.count
    images = open_images(options.data, options.size, crop=options.crop, count=count, cache=options.cache)
    most = len(images.images) - options.batch
    if options.held_out > most:
        raise InputError(
            f"--held-out is {options.held_out}, but of {len(images.images)} images at least a batch of {options.batch} "
            f"is needed to train on; give at most {max(most, 0)}, or more images"
        )
    return FusionData(images, options.held_out)


def decode_examples(description: dict[str, Any]) -> np.ndarray:
    """The held-out images that travel with a run, uint8 [K, S, S, 3]."""
    import cv2

    pictures = []
    for text in description["examples"]:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None  # encoded by ourselves
        pictures.append(picture[..., ::-1])  # OpenCV gives BGR
    return np.stack(pictures)
