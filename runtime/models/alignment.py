"""Alignment: the shapes of two pictures brought together before they are fused, so that a frontal face and a profile
do not both show."""

from __future__ import annotations

import numpy as np

import cpp_ext
from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.session import Session

ALIGNER = "aligner"
INPUTS, OUTPUTS = ("a", "b", "t"), ("a_aligned", "b_aligned")
BATCH = 32
"""Pairs a run."""


class Alignment:
    """The graph `aligner` of a fusion's bundle, beside its encoder.

    Args:
        bundle: the bundle it came from.
        aligner, encoder: its graphs of these names, opened.

    Raises:
        InputError: the aligner's inputs or outputs are others, or of another size than the encoder's image.
    """

    def __init__(self, bundle: Bundle, aligner: Session, encoder: Session) -> None:
        entry, reads = bundle.graph(ALIGNER, aligner.precision), bundle.graph("encoder", encoder.precision)
        image = reads.inputs[0]
        got = {port.name: (port.shape, port.dtype) for port in (*entry.inputs, *entry.outputs)}
        expected = dict.fromkeys(("a", "b", *OUTPUTS), (image.shape, "float32")) | {"t": ((1,), "float32")}
        if got != expected:
            raise InputError(f"{bundle.path}: graph {ALIGNER} must take a, b and t and give both images aligned")
        self.aligner, self.encoder = aligner, encoder
        self._image, self._latent = image.name, reads.outputs[0]

    def encode(self, a: np.ndarray, b: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latent maps of both pictures, warped to the shapes that lie as far from B's to A's as Λ is, on the mean.

        Where every λ is 1, A is as it was, bit for bit; where every λ is 0, B.

        Args:
            a, b: pictures of the model's size, uint8 [1 or L, S, S, 3].
            rows: Λ, float32 [L, P]; a mean outside [0, 1] counts as the nearer end.

        Returns:
            float32 [L, C, h, w] of A and of B.
        """
        t = np.clip(rows.mean(1, keepdims=True, dtype=np.float32), 0, 1)
        z = np.empty((2, len(rows), *self._latent.shape), np.float32)
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            count = len(t[part])
            pair = {}
            for name, images in (("a", a), ("b", b)):
                some = cpp_ext.unpack(np.ascontiguousarray(images[part] if len(images) > 1 else images))
                pair[name] = np.ascontiguousarray(np.broadcast_to(some, (count, *some.shape[1:])))
            for inside, warped in self.aligner.pieces(pair | {"t": t[part]}):
                for which, name in enumerate(OUTPUTS):
                    images = np.array(warped[name])  # the engine's own memory, which the encoder may use again
                    made = self.encoder.run({self._image: images})
                    z[which, part][inside] = made[self._latent.name]
        return z[0], z[1]
