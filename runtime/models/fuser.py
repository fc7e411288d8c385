"""Fusion: two pictures or more blended part by part, live.

An encoder turns a picture into a latent map, whose channels are cut into parts; each part has its own λ, the share of
the first picture: Z = Λ∘Z_A + (1 - Λ)∘Z_B. A generator makes an image of the blend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

import cpp_ext
from runtime.errors import InputError
from runtime.images import Picture, fitted, several
from runtime.models import weights as lambdas
from runtime.models.alignment import ALIGNER, Alignment
from runtime.models.common import FORMS, Form, one_of, show, shown, whole
from runtime.models.weights import EASES, Ease
from runtime.session import Hint, Session, open_sessions
from runtime.stream import ahead

if TYPE_CHECKING:
    from runtime.bundle import Bundle, Precision

ENCODER, GENERATOR = "encoder", "generator"
BATCH = 32
"""Images a run on a CPU: more are hardly faster, and their latents would leave the caches."""
BATCH_ON_GPU = 256
LIVE = 8
"""Frames a run of an animation: the first is there soon."""

Pictures = Picture | Sequence[Picture]
"""One picture (a path or an array [H, W, …]), or several: an array [N, H, W, C], or a sequence, in sizes of their own.
A latent map, as `encode` gives it, goes wherever a picture does."""


class Fuser:
    """Blends pictures. One model may be used from several threads at once.

    λ = 1 gives exactly the reconstruction of A (the bits of `decode(encode(a))`), λ = 0 of B. On a CPU an image's bits
    do not depend on what else is made in the same call. On a GPU, latents and images still pass through host memory; no
    GPU has run it yet.

    Args:
        bundle: the bundle it came from.
        encoder, generator: its graphs of these names, opened.
        choice: one line on what runs them and why.
        aligner: its graph of this name, if it has one (it was trained with --align).

    Raises:
        InputError: the graphs are not a square RGB image in [-1, 1] to a latent in parts, and back.
    """

    def __init__(
        self, bundle: Bundle, encoder: Session, generator: Session, choice: str = "", aligner: Session | None = None
    ) -> None:
        inward, outward = bundle.graph(ENCODER, encoder.precision), bundle.graph(GENERATOR, generator.precision)
        for entry in (inward, outward):
            if len(entry.inputs) != 1 or len(entry.outputs) != 1:
                raise InputError(f"{bundle.path}: graph {entry.name} must have one input and one output")
        for port, kind in (
            (inward.inputs[0], "image"),
            (inward.outputs[0], "latent"),
            (outward.inputs[0], "latent"),
            (outward.outputs[0], "image"),
        ):
            if port.kind != kind or port.dtype != "float32":
                raise InputError(f"{bundle.path}: {port.name} is {port.dtype} {port.kind}, expected float32 {kind}")
            if kind == "image" and not (port.shape == (3, port.shape[1], port.shape[1]) and port.range == (-1.0, 1.0)):
                raise InputError(f"{bundle.path}: image {port.name} must be square, of 3 channels and in [-1, 1]")
        came, taken = inward.outputs[0], outward.inputs[0]
        if not came.parts or (came.shape, came.parts) != (taken.shape, taken.parts):
            raise InputError(f"{bundle.path}: encoder and generator must have one and the same latent, cut into parts")
        self.bundle, self.encoder, self.generator = bundle, encoder, generator
        self.choice = choice
        """What runs it and, if that was chosen by itself, why nothing else: one line."""
        self.image, self.latent = outward.outputs[0], came
        """An image and a latent map as the bundle describes them."""
        self.parts: tuple[int, ...] = came.parts
        """Channels of each part, in order: as many λ as there are parts."""
        self.size: int = inward.inputs[0].shape[1]
        """Side of an image in pixels."""
        self._alignment = Alignment(bundle, aligner, encoder) if aligner else None
        self._taken, self._input = taken.name, inward.inputs[0].name
        self._batch = BATCH if generator.device == "cpu" else BATCH_ON_GPU

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        device: str = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
        hint: Hint = "latency",
    ) -> Fuser:
        """Open the bundle's graphs on a device, all on the same; see `runtime.load`."""
        graphs = [ENCODER, GENERATOR]
        if any(graph.name == ALIGNER for graph in bundle.manifest.graphs):
            graphs.append(ALIGNER)
        (encoder, generator, *more), choice = open_sessions(bundle, graphs, device, precision, threads, hint)
        return cls(bundle, encoder, generator, choice, more[0] if more else None)

    @property
    def session(self) -> Session:
        """What makes the images: the generator's session."""
        return self.generator

    # --- pictures to latents and back ---

    def encode(self, pictures: Pictures) -> np.ndarray:
        """Latent maps of pictures, to be blended as often as one likes.

        Args:
            pictures: one or several, of any size: of each the largest square in its middle is resized to the model's.

        Returns:
            float32 [C, h, w] of one picture, [N, C, h, w] of several.

        Raises:
            InputError: a picture is missing or is none; the message says which.
        """
        some, alone = several(pictures)
        z = np.empty((len(some), *self.latent.shape), np.float32)
        for start in range(0, len(z), BATCH):
            images = cpp_ext.unpack(fitted(list(some[start : start + BATCH]), self.size, start))
            for part, outputs in self.encoder.pieces({self._input: images}):
                z[start : start + BATCH][part] = outputs[self.latent.name]
        return z[0] if alone else z

    def decode(self, latents: np.ndarray, form: Form = "uint8") -> np.ndarray:
        """Images of latent maps.

        Args:
            latents: float32 [C, h, w] or [N, C, h, w].
            form: "uint8": images as they are shown; "float": as the network made them.

        Returns:
            uint8 [H, W, 3] in 0 … 255 (RGB), or [N, H, W, 3]; in form "float" float32 [3, H, W] in [-1, 1], or
            [N, 3, H, W].

        Raises:
            InputError: `latents` is of another type or shape.
        """
        if not self._is_latent(latents):
            got = f"{getattr(latents, 'dtype', type(latents).__name__)} {list(np.shape(latents))}"
            raise InputError(f"latents are {got}, expected float32 {self._latent_shape()} as encode gives them")
        z = latents if latents.ndim == 4 else latents[None]

        made = self._images(lambda part, out: np.copyto(out, z[part]), len(z), form)
        return made if latents.ndim == 4 else made[0]

    # --- two pictures ---

    def __call__(
        self,
        a: Pictures,
        b: Pictures,
        weights: ArrayLike,
        *,
        form: Form = "uint8",
        extrapolate: bool = False,
        align: bool = False,
    ) -> np.ndarray:
        """Fuse pictures: `fuse("a.png", "b.png", [1, .8, .5, .2, 0])`.

        Args:
            a, b: a picture or a latent map each, or N of them.
            weights: λ of A, one for each part [P], or one number for all parts; or [L, P], of which each row makes an
                image.
            form: as in `decode`.
            extrapolate: λ may lie outside [0, 1].
            align: bring the shapes of A and B together first, each as far as λ is on the mean (of pictures, not of
                latent maps; the bundle must have been trained with --align).

        Returns:
            An image as `decode` gives it if one A, one B and one row were given; else one for each of the N or L, which
            must be the same number or 1.

        Raises:
            InputError: a picture is none, or the weights are of another count, NaN or outside [0, 1].
        """
        rows = lambdas.rows(weights, len(self.parts), extrapolate)
        za, zb = self._aligned(a, b, rows) if align else (self._latents(a), self._latents(b))
        counts = {"a": za.shape[:-3], "b": zb.shape[:-3], "weights": rows.shape[:-1]}
        alone = not any(counts.values())
        za, zb, rows = (array if array.ndim == axes else array[None] for array, axes in ((za, 4), (zb, 4), (rows, 2)))
        count = max(len(za), len(zb), len(rows))
        if any(len(array) not in (1, count) for array in (za, zb, rows)):
            got = ", ".join(f"{name} {shape[0] if shape else 1}" for name, shape in counts.items())
            raise InputError(f"numbers that do not fit together: {got}; expected 1 or {count} of each")

        def blend(part: slice, out: np.ndarray) -> None:
            here = rows if len(rows) == 1 else rows[part]
            if len(za) == len(zb) == 1:
                cpp_ext.blend(za, zb, here, self.parts, out=out)
            else:
                some_a, some_b = (z[part] if len(z) > 1 else np.broadcast_to(z, out.shape) for z in (za, zb))
                cpp_ext.blend(some_a, some_b, here, self.parts, out=out)

        made = self._images(blend, count, form)
        return made[0] if alone else made

    def sweep(self, a: Picture, b: Picture, steps: int = 6, *, form: Form = "uint8", align: bool = False) -> np.ndarray:
        """From A to B: all λ together from 1 to 0.

        Returns:
            [steps, …] images as `decode` gives them.

        Raises:
            InputError: a picture is none, or `steps` is below 2.
        """
        rows = lambdas.sweep(steps, len(self.parts))
        if align:
            return self(*self._alignable(a, b, one=True)[1:], rows, form=form, align=True)
        return self._under(a, b, rows.__getitem__, steps, form)

    def per_part(
        self, a: Picture, b: Picture, steps: int = 6, *, others: float = 1.0, form: Form = "uint8"
    ) -> np.ndarray:
        """What each part does alone: row p moves its λ from 1 to 0, the other parts keep theirs at `others`.

        Returns:
            [P, steps, …] images as `decode` gives them.

        Raises:
            InputError: a picture is none, `steps` is below 2, or `others` outside [0, 1].
        """
        rows = lambdas.per_part(steps, len(self.parts), others).reshape(-1, len(self.parts))
        made = self._under(a, b, rows.__getitem__, len(rows), form)
        return made.reshape(-1, steps, *made.shape[1:])

    def grid(
        self,
        a: Picture,
        b: Picture,
        steps: int = 6,
        *,
        vary: Sequence[int] | None = None,
        others: float = 1.0,
        form: Form = "uint8",
    ) -> np.ndarray:
        """Every combination of λ: a table in which sliders look up their image. `grid(a, b, 5)[0, 4, 2, 2, 1]` has
        part 0 all from A, part 1 all from B, parts 2 and 3 half and half.

        Args:
            a, b: a picture or a latent map each.
            steps: levels of each λ, from 1 down to 0. There are steps ** P images: 5 levels of 5 parts are 3,125.
            vary: the parts to vary (from 0), an axis of the table each; None: all.
            others: λ of the rest.
            form: as in `decode`.

        Returns:
            [steps, …, steps, H, W, 3] (or […, 3, H, W]), one axis for each part that varies.

        Raises:
            InputError: a picture is none, `steps` is below 2, `vary` names no parts, `others` is outside [0, 1], or so
                many images do not fit into memory.
        """
        axes = range(len(self.parts)) if vary is None else vary
        rows = lambdas.combinations(steps, len(self.parts), axes, others)
        made = self._under(a, b, rows, steps ** len(axes), form)
        return made.reshape(*(steps for _ in axes), *made.shape[1:])

    def animate(
        self,
        a: Picture,
        b: Picture,
        frames: int,
        *,
        keys: ArrayLike = (1, 0),
        ease: Ease = "smooth",
        form: Form = "uint8",
        extrapolate: bool = False,
        align: bool = False,
    ) -> Iterator[np.ndarray]:
        """Frames of an animation, the next ones being made while one is used.

        Args:
            a, b: a picture or a latent map each.
            frames: how many.
            keys: λ to pass, evenly spaced in time, the first at the first frame and the last at the last: K numbers for
                all parts, or [K, P], in which each part goes its own way. (1, 0) is from A to B, (1, 0, 1) there and
                back.
            ease: "smooth": slow at each key; "linear": at one speed between two keys.
            form: as in `decode`.
            extrapolate: keys may lie outside [0, 1].
            align: as of a call; each frame is then encoded anew.

        Yields:
            Images as `decode` gives them, one's own to keep.

        Raises:
            InputError: (before the first frame) a picture is none, or an argument is out of its range.
        """
        whole("frames", frames, 1, 2**31)
        one_of("ease", ease, EASES)
        one_of("form", form, FORMS)
        passed = lambdas.passed(keys, len(self.parts), extrapolate)
        if align:
            pair = self._alignable(a, b, one=True)
        else:
            za, zb = self._pair(a, b)
        batch = min(LIVE, frames)
        batches = -(-frames // batch)

        def make(z: np.ndarray, number: int) -> np.ndarray:
            part = slice(number * batch, min((number + 1) * batch, frames))
            out = np.empty(*shown(self.image, part.stop - part.start, form))
            rows = lambdas.tween(passed, frames, part, ease)
            ends = pair[0].encode(*pair[1:], rows) if align else (za, zb)
            self._generate(cpp_ext.blend(*ends, rows, self.parts, out=z[: len(out)]), out, form)
            return out

        made = ahead(make, batches, lambda: self._buffer(batch), self.generator.overlap)
        return (frame for images in made for frame in images)

    # --- more than two ---

    def blend(self, latents: Pictures, weights: ArrayLike, *, form: Form = "uint8") -> np.ndarray:
        """Fuse K pictures, 2 or more, each with its share.

        Args:
            latents: latent maps [K, C, h, w] as `encode` gives them, or K pictures.
            weights: the pictures' shares: [K], [K, P] with shares of each part, or [L, K, P], which makes L images.
                They are at least 0 and sum to 1 over the pictures (to 0.001, and are divided by their sum). For two
                pictures, λ and 1 - λ give the very bits of `fuse(a, b, λ)`.
            form: as in `decode`.

        Returns:
            An image as `decode` gives it, or L of them.

        Raises:
            InputError: fewer than 2 pictures, a picture is none, or the weights are no shares.
        """
        z = self._latents(latents)
        if z.ndim != 4 or len(z) < 2:
            raise InputError(f"blend: got {len(z) if z.ndim == 4 else 1} picture, expected 2 or more")
        folds = lambdas.folds(weights, len(z), len(self.parts))
        sets = folds if folds.ndim == 3 else folds[None]

        def blend(part: slice, out: np.ndarray) -> None:
            cpp_ext.blend(z[0], z[1], sets[part, 0], self.parts, out=out)
            for k in range(2, len(z)):
                cpp_ext.blend(out, np.broadcast_to(z[k], out.shape), sets[part, k - 1], self.parts, out=out)

        made = self._images(blend, len(sets), form)
        return made if folds.ndim == 3 else made[0]

    # --- inside ---

    def _is_latent(self, given: Any) -> bool:
        return (
            isinstance(given, np.ndarray)
            and given.dtype == np.float32
            and given.ndim in (3, 4)
            and given.shape[-3:] == self.latent.shape
            and len(given) > 0
        )

    def _latent_shape(self) -> str:
        axes = ", ".join(map(str, self.latent.shape))
        return f"[{axes}] or [N, {axes}]"

    def _latents(self, given: Pictures) -> np.ndarray:
        """[C, h, w] of one picture or latent map, [N, C, h, w] of several."""
        if self._is_latent(given):
            return given  # type: ignore[return-value]
        if isinstance(given, list | tuple) and given and all(self._is_latent(z) and z.ndim == 3 for z in given):
            return np.stack(given)
        if isinstance(given, np.ndarray) and given.dtype.kind == "f":
            raise InputError(
                f"got {given.dtype} {list(given.shape)}, expected pictures (uint8 [H, W, 3]) or latent maps (float32 "
                f"{self._latent_shape()})"
            )
        return self.encode(given)

    def _alignable(self, a: Pictures, b: Pictures, one: bool = False) -> tuple[Alignment, np.ndarray, np.ndarray]:
        """The alignment, and pictures (`one`: of each no more) as it takes them, uint8 [N, S, S, 3] each."""
        if self._alignment is None:
            raise InputError(f"{self.bundle.path} has no graph {ALIGNER}: train with --align, or leave align out")
        pictures = []
        for name, given in (("a", a), ("b", b)):
            if isinstance(given, np.ndarray) and given.dtype.kind == "f":
                raise InputError(f"{name} is a latent map, expected a picture: what is to be aligned is encoded after")
            some = several(given)[0]
            if one and len(some) != 1:
                raise InputError(f"{name} is {len(some)} pictures, expected one")
            pictures.append(fitted(some, self.size))
        return self._alignment, pictures[0], pictures[1]

    def _aligned(self, a: Pictures, b: Pictures, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latent maps of pictures whose shapes were brought together; of one pair and one row [C, h, w] each."""
        alignment, first, second = self._alignable(a, b)
        every = rows if rows.ndim == 2 else rows[None]
        count = max(len(first), len(second), len(every))
        if any(len(x) not in (1, count) for x in (first, second, every)):
            return self.encode(first), self.encode(second)  # whose numbers do not fit together, as will be said
        za, zb = alignment.encode(first, second, np.broadcast_to(every, (count, every.shape[1])))
        alone = rows.ndim == 1 and several(a)[1] and several(b)[1]
        return (za[0], zb[0]) if alone else (za, zb)

    def _pair(self, a: Picture, b: Picture) -> tuple[np.ndarray, np.ndarray]:
        """Latent maps [1, C, h, w] of one picture each."""
        pair = []
        for name, given in (("a", a), ("b", b)):
            z = self._latents(given)
            if z.ndim == 4 and len(z) != 1:
                raise InputError(f"{name} is {len(z)} pictures, expected one")
            pair.append(z.reshape(1, *self.latent.shape))
        return pair[0], pair[1]

    def _under(self, a: Picture, b: Picture, rows: Callable[[slice], np.ndarray], count: int, form: Form) -> np.ndarray:
        """Images of one pair under `count` rows of λ; `rows` gives some of them."""
        za, zb = self._pair(a, b)

        return self._images(lambda part, out: cpp_ext.blend(za, zb, rows(part), self.parts, out=out), count, form)

    def _images(self, blend: Callable[[slice, np.ndarray], None], count: int, form: Form) -> np.ndarray:
        """`count` images; `blend` writes the latent maps of some of them into the memory it is given."""
        one_of("form", form, FORMS)
        try:
            images = np.empty(*shown(self.image, count, form))
        except (MemoryError, OverflowError, ValueError) as error:
            raise InputError(f"{count} images at once do not fit into memory ({error}); ask for fewer") from None
        batch = min(self._batch, count)

        def make(z: np.ndarray, number: int) -> None:
            part = slice(number * batch, min((number + 1) * batch, count))
            out = images[part]
            blend(part, z[: len(out)])
            self._generate(z[: len(out)], out, form)

        batches = -(-count // batch)
        if batches == 1:
            make(self._buffer(batch), 0)
        else:
            for _ in ahead(make, batches, lambda: self._buffer(batch), self.generator.overlap):
                pass
        return images

    def _generate(self, z: np.ndarray, out: np.ndarray, form: Form) -> None:
        """Write the images of latent maps into `out`."""
        for part, outputs in self.generator.pieces({self._taken: z}):
            show(outputs[self.image.name], out[part], form)

    def _buffer(self, batch: int) -> np.ndarray:
        return np.empty((batch, *self.latent.shape), np.float32)
