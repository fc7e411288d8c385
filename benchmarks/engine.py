"""The runtime's sessions against what one would run instead: noise in, float32 images out, all cores.

Exact peers compute in float32: PyTorch eager, with channels last and batch norm folded, compiled, and ONNX Runtime on
the file that PyTorch's own exporter writes. `auto` is what `runtime.load` picks; int8 is its quantised variant.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cpp_ext
from benchmarks.compare import Case
from benchmarks.generators import Case as Generator
from benchmarks.generators import generators
from benchmarks.peers import torch_threads
from export.pipeline import export_run
from runtime.bundle import Bundle
from runtime.machine import usable_cores
from runtime.models import Multimodal
from runtime.session import Session, open_session

BATCHES = (1, 64)
INT8_BARS = {"mgan 80x80": 1.8, "wide 80x80": 4.0}
"""How many times as fast as ONNX Runtime in fp32."""
BATCHES_STREAMED = 32
"""Of 64 samples each: the rate of a stream that runs, less what starting it takes."""
CLOSE = 2e-4
"""Largest difference from PyTorch, relative to the largest value: float32 with batch norms folded."""


class _Run:
    """A run for export: one generator."""

    recipe_name, model, robot = "benchmark", "multimodal", None
    summary: dict[str, Any] = {}

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def graphs(self) -> list[Any]:
        return [self._generator.graph()]


def cases() -> Iterator[Case]:
    for generator in generators():
        with tempfile.TemporaryDirectory() as folder:
            bundle = Bundle.open(export_run(_Run(generator), Path(folder) / "bundle", precisions=("fp32", "int8")).path)
            plain = generator.export(Path(folder) / "plain.onnx")
            yield from _compared(generator, bundle, plain)


def _compared(generator: Generator, bundle: Bundle, plain: Path) -> Iterator[Case]:
    onnxruntime = _onnxruntime(plain)
    fp32, picked = open_session(bundle, "generator", "auto", "fp32")
    int8, _ = open_session(bundle, "generator", "auto", "int8")
    peers = _torch_peers(generator.module)
    threads = torch_threads(usable_cores())
    ours = f"auto ({picked.split(' | ')[0]})"
    for batch in BATCHES:
        z = cpp_ext.noise(0, 0, batch, generator.noise)
        tensor = torch.from_numpy(z)
        name = f"{generator.name}, batch {batch}"

        def run(session: Any = fp32, z: np.ndarray = z) -> np.ndarray:
            return session.run({"z": z})["image"]

        for peer, call in peers.items():
            exact = "bf16" not in peer
            yield Case(
                f"{name}: {ours}",
                run,
                f"torch {peer}",
                lambda call=call, tensor=tensor: call(tensor),
                batch,
                1.0 if exact else None,
                CLOSE if exact else None,
                peer_setting=threads,
            )
        yield Case(f"{name}: {ours}", run, "onnxruntime", lambda z=z: onnxruntime(z), batch, 1.0, CLOSE)
        yield Case(
            f"{name}: int8",
            lambda run=run: run(int8),
            "onnxruntime",
            lambda z=z: onnxruntime(z),
            batch,
            INT8_BARS.get(generator.name),
        )
    for session in (fp32, int8):
        yield _stream(f"{generator.name}: stream in {session.precision}", bundle, session)


def _stream(name: str, bundle: Bundle, session: Session) -> Case:
    """From nothing to uint8 pictures, against the session alone, which is given its noise and whose floats are left."""
    model = Multimodal(bundle, session)
    z = cpp_ext.noise(0, 0, 64, model.noise.shape[0])

    def stream() -> None:
        for _ in model.stream(BATCHES_STREAMED * 64):
            pass

    def bare() -> None:
        for _ in range(BATCHES_STREAMED):
            for _ in session.pieces({"z": z}):
                pass

    return Case(name, stream, "the bare session", bare, BATCHES_STREAMED * 64, 0.95)


def _onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """ONNX Runtime with its own defaults."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda z: session.run(None, {"z": z})[0]


def _torch_peers(module: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    folded = _folded(copy.deepcopy(module)).to(memory_format=torch.channels_last)
    half = copy.deepcopy(folded).bfloat16()
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(folded), dynamic=False)  # for each batch size anew

    def inference(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(z: Tensor) -> Tensor:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return call(z)

        return run

    return {
        "eager": inference(module),
        "channels_last, folded": inference(folded),
        "compile": inference(compiled),
        "bf16": inference(lambda z: half(z.bfloat16()).float()),
    }


def _folded(module: nn.Module) -> nn.Module:
    """Batch norms taken into the layer before them, wherever a convolution or a fully connected layer is there."""
    names = [name for name, child in module.named_children()]
    for name in names:
        _folded(getattr(module, name))
    if isinstance(module, nn.Sequential):
        for before, norm in zip(list(module.named_children()), list(module.named_children())[1:], strict=False):
            layer, batch_norm = before[1], norm[1]
            if not hasattr(batch_norm, "running_var"):
                continue
            if isinstance(layer, nn.ConvTranspose2d | nn.Conv2d):
                transposed = isinstance(layer, nn.ConvTranspose2d)
                setattr(module, before[0], torch.nn.utils.fuse_conv_bn_eval(layer, batch_norm, transpose=transposed))
            elif isinstance(layer, nn.Linear):
                setattr(module, before[0], torch.nn.utils.fuse_linear_bn_eval(layer, batch_norm))
            else:
                continue
            setattr(module, norm[0], nn.Identity())
    return module
