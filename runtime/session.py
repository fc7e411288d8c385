"""A session: one graph of a bundle opened on one backend."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import numpy as np

from runtime.errors import InputError

if TYPE_CHECKING:
    from runtime.bundle import Bundle


class Session(Protocol):
    """What every backend offers."""

    @property
    def device(self) -> str:
        """Where it truly runs: "cpu" or "cuda:N"."""
        ...

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph once: arrays by input name in, arrays by output name out, batch axis first.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape than the graph's.
        """
        ...


def open_session(bundle: Bundle, graph: str, device: str = "cpu", threads: int | None = None) -> Session:
    """Open one graph of a bundle.

    Args:
        bundle: a verified bundle.
        graph: the graph's name.
        device: "cpu", "cuda" (the first GPU) or "cuda:N".
        threads: CPU threads for one run; None: the engine's own choice.

    Raises:
        InputError: no such graph, an unknown or absent device, or threads below 1.
    """
    from runtime.backends.onnxruntime import OnnxRuntimeSession

    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise InputError(f"device is {device!r}, expected cpu, cuda or cuda:N")
    return OnnxRuntimeSession(bundle.file(bundle.graph(graph)), threads=threads, device=device)
