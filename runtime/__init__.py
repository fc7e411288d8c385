"""Runs what `export` froze: a bundle in, images, joints and scores out. Needs no PyTorch.

`runtime.load("mgan-robot").generate(64, seed=0)` gives images and the joints that belong to them;
`runtime.load("bundles/fusion")("a.png", "b.png", 0.5)` the fusion of two pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import InputError

if TYPE_CHECKING:
    from runtime.bundle import Bundle, Precision
    from runtime.session import Hint

__all__ = ["InputError", "load"]


def load(
    bundle: str | Path | Bundle,
    device: str = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    hint: Hint = "latency",
) -> Any:
    """Open a bundle and return its task-level model: a `runtime.models.Multimodal` or a `runtime.models.Fuser`.

    Args:
        bundle: a bundle's folder, the name of one shipped with the package, or an open Bundle.
        device: where to run it: "cpu" (ONNX Runtime), "openvino" (OpenVINO, on the CPU), "cuda" or "cuda:N" (ONNX
            Runtime on a GPU), "tensorrt" or "tensorrt:N" (an engine of the bundle on a GPU); "auto": the first of
            tensorrt, cuda, openvino and cpu that truly works here (`model.choice` says which, and why).
        precision: "fp32", "fp16" or "int8": one that the bundle was exported in. "auto" never changes it.
        threads: CPU threads for one run; None: the engine's own choice.
        hint: for OpenVINO: "latency" (all threads work on one run) or "throughput" (several runs at once on fewer
            threads each, which many cores are best used by: `stream` keeps them busy). Others take no notice.

    Raises:
        InputError: no such bundle, a file of it is missing or changed, it was written by a newer version, or the
            device or the precision is not there.
    """
    # Inside the function: `import runtime` alone stays quick and loads neither pydantic nor an engine.
    from runtime.bundle import Bundle
    from runtime.models import MODELS

    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    model = MODELS.get(opened.manifest.model)
    if model is None:
        raise InputError(
            f"{opened.path}: model {opened.manifest.model!r} is not one of {', '.join(MODELS)}; upgrade awase to run it"
        )
    return model.load(opened, device, precision, threads, hint)
