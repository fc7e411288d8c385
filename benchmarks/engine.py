"""A frozen generator in ONNX Runtime against the same generator in PyTorch eager: noise to float images and joints.

The generator is MGAN's at width 16, 80 × 80 pixels and 10 joints, with random weights; one CPU thread each.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import cpp_ext
from benchmarks.compare import Case
from benchmarks.peers import torch_threads
from export.onnx import export_onnx
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.bundle import Port
from trainer.data.recording import Modality
from trainer.networks.multimodal import Generator
from trainer.recipe import Graph

NOISE = 32
BATCHES = (1, 8, 64)


class _Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        image = Modality(name="image", kind="image", shape=(3, 80, 80))
        joints = Modality(name="joints", kind="vector", shape=(10,))
        self.inner = Generator((image, joints), NOISE, width=16, hidden=128)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.inner(z).values())


def cases() -> list[Case]:
    torch.manual_seed(0)
    module = _Generator().eval().requires_grad_(False)
    graph = Graph(
        name="generator",
        module=module,
        inputs=(Port(name="z", shape=(NOISE,), kind="noise"),),
        outputs=(
            Port(name="image", shape=(3, 80, 80), kind="image", range=(-1, 1)),
            Port(name="joints", shape=(10,), kind="vector"),
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.onnx"
        export_onnx(graph, path)
        session = OnnxRuntimeSession(path, threads=1)
    return [_case(session, module, batch) for batch in BATCHES]


def _case(session: OnnxRuntimeSession, module: nn.Module, batch: int) -> Case:
    z = cpp_ext.noise(0, 0, batch, NOISE)
    tensor = torch.from_numpy(z)

    def eager() -> Tensor:
        with torch.inference_mode():
            return module(tensor)

    name = f"generator 80x80, batch {batch} (images)"
    return Case(name, lambda: session.run({"z": z}), "torch eager", eager, batch, peer_setting=torch_threads(1))
