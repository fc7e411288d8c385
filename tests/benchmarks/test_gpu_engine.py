"""The engine's GPU benchmark without a GPU: PyTorch on the CPU, the sessions with stand-ins for the GPU."""

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_stand_ins
import library_stand_ins
import numpy as np
import onnxruntime
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks import generators, gpu, gpu_engine
from benchmarks.peers import torch_threads
from runtime import session
from runtime.backends import cuda
from runtime.backends.onnxruntime_cuda import OnnxRuntimeCudaSession
from runtime.bundle import Port
from trainer.recipe import Graph

CPU = torch.device("cpu")


class Tuple(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor) -> tuple[Tensor]:
        return (self.inner(z),)


@dataclass(frozen=True)
class Tiny:
    """A generator of 16 × 16 images."""

    module: nn.Module
    name: str = "tiny"
    noise: int = 8
    side: int = 16

    def graph(self) -> Graph:
        return Graph(
            name="generator",
            module=Tuple(self.module),
            inputs=(Port(name="z", shape=(8,), kind="noise"),),
            outputs=(Port(name="image", shape=(3, 16, 16), kind="image", range=(-1, 1)),),
        )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 768), nn.Unflatten(1, (3, 16, 16)), nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())
    made = Tiny(module.eval().requires_grad_(False))
    monkeypatch.setattr(generators, "generators", lambda: iter([made]))
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    return made


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Put in place when called: what is exported before goes through the real ONNX Runtime."""

    def place() -> None:
        gpu = gpu_stand_ins.Gpu()
        for name, module in gpu_stand_ins.pycuda(gpu).items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, "onnxruntime", library_stand_ins.onnxruntime(gpu, onnxruntime))
        monkeypatch.setattr(cuda, "_driver", lambda: gpu_stand_ins.Driver(gpu))
        cuda.device.cache_clear()

    yield place
    cuda.device.cache_clear()


def test_every_engine_is_measured_or_says_why_not(
    tiny: Tiny, stand_ins: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_session(bundle: Any, graph: str, device: str, precision: Any) -> tuple[Any, str]:
        assert device == "cuda:0"
        stand_ins()
        entry = bundle.graph(graph, precision)
        return OnnxRuntimeCudaSession(bundle.file(entry), entry), ""

    monkeypatch.setattr(session, "open_session", open_session)
    text = io.StringIO()
    console = Console(file=text, width=200)
    with torch_threads(1)():
        table, rows = gpu_engine.rows(CPU, 1, console, small=True)
    console.print(table)
    engines = ["torch eager", "torch compile", "torch CUDA graph", "onnxruntime", "tensorrt", "tensorrt-rtx"]
    cases = [f"tiny {precision}, batch {batch}" for precision in ("fp32", "fp16") for batch in (1, 8)]
    assert [(row["name"], row["engine"]) for row in rows] == [(case, engine) for case in cases for engine in engines]
    for row in rows:
        if row["engine"] in ("torch eager", "torch compile", "onnxruntime"):
            assert row["images_per_s"] > 0 and row["images_per_s_with_copies"] > 0, row
            assert row["difference"] <= gpu_engine.TOLERANCES[row["name"].split()[1][:4]]
        else:
            assert row["why_not"] and "images_per_s" not in row
    shown = text.getvalue()
    assert shown.count("torch CUDA graph not measured: CUDA graphs need a GPU") == 1
    assert shown.count("tiny fp16, batch 8") == 1


def test_an_engine_that_cannot_be_built_has_its_reason(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.tensorrt.flavours", lambda: [])
    openers = gpu_engine.sessions(tiny, "fp32", tmp_path, torch.device("cuda", 3))
    with pytest.raises(RuntimeError, match="tensorrt cannot build engines here: not installed, or no GPU"):
        openers["tensorrt"]()
    assert not list(tmp_path.iterdir())


def test_a_session_is_opened_once() -> None:
    calls = []

    def opener() -> None:
        calls.append(1)
        raise ValueError("no GPU")

    once = gpu_engine._once(opener)
    for _ in range(3):
        with pytest.raises(ValueError, match="no GPU"):
            once()
    assert len(calls) == 1


def test_wrong_images_are_not_timed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        outputs = (Port(name="image", shape=(3, 16, 16), kind="image"),)
        calls = 0

        def run(self, feeds: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            self.calls += 1
            return {"image": np.zeros((len(feeds["z"]), 3, 16, 16), np.float32)}

    wrong = Wrong()
    monkeypatch.setattr(gpu_engine, "sessions", lambda *_: {"wrong": lambda: wrong})
    text = io.StringIO()
    with torch_threads(1)():
        _, rows = gpu_engine.rows(CPU, 1, Console(file=text, width=200), small=True)
    found = [row for row in rows if row["engine"] == "wrong"]
    assert len(found) == 4 and wrong.calls == 4
    assert all("differs from PyTorch in float32 by 1, expected" in row["wrong"] for row in found)
    assert "wrong: differs from PyTorch" in text.getvalue()


def test_the_kernels_are_measured_where_the_engine_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise ImportError("No module named 'pydantic'", name="pydantic")

    monkeypatch.setattr(gpu_engine, "rows", missing)
    shown, rows = gpu.engine(CPU, 1, Console(file=io.StringIO()))
    assert shown == "the engine was not measured: pydantic is not installed"
    assert rows == [{"name": "engine", "why_not": "pydantic is not installed"}]


def test_both_tables_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(gpu, "limits", lambda device: (None, {"name": "NVIDIA H100 80GB/HBM3"}))
    monkeypatch.setattr(gpu, "CudaClock", lambda device: None)
    monkeypatch.setattr(gpu, "run", lambda *_: ("kernels", [{"name": "ssim"}]))
    monkeypatch.setattr(gpu_engine, "rows", lambda *_: ("engines", [{"name": "tiny"}]))
    text = io.StringIO()
    stem, tables, here, rows = gpu.measure(1, Console(file=text))
    Console(file=text).print(tables)
    assert stem == "gpu-NVIDIA-H100-80GB-HBM3" and text.getvalue().split() == ["kernels", "engines"]
    assert rows == [{"name": "ssim"}, {"name": "tiny"}] and here["gpu"]["name"].startswith("NVIDIA")
