"""A small torch generator with everything that export has to deal with, and a run that holds it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trainer.run
from runtime.bundle import Port
from runtime.errors import InputError
from trainer.recipe import Graph

NAMES = ("pan", "tilt", "roll")
LIMITS = ((-1.2, 2.0), (-0.1, 0.7), (-3.0, 3.0))


class TinyGenerator(nn.Module):
    """z [N, 16] → image [N, 3, 20, 20] in [-1, 1], joints [N, 3] rad within LIMITS. Batch norm after a fully connected
    layer, after a reshape and after both kinds of convolution; a wide transposed convolution and a narrow one."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.project = nn.Linear(32, 16 * 25)
        self.start = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU())
        self.steps = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 12, 3, 2, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.ConvTranspose2d(12, 16, 4, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1),
            nn.Tanh(),
        )
        self.joints = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3), nn.Tanh())
        low, high = torch.tensor(LIMITS).T
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(z)
        image = self.steps(self.start(self.project(hidden).unflatten(1, (16, 5, 5))))
        unit = (self.joints(hidden) / 0.9).clamp(-1, 1)
        return image, self.low + (unit + 1) / 2 * (self.high - self.low)


def make_graph(module: nn.Module, name: str = "generator") -> Graph:
    return Graph(
        name=name,
        module=module.eval(),
        inputs=(Port(name="z", shape=(16,), kind="noise"),),
        outputs=(
            Port(name="image", shape=(3, 20, 20), kind="image", range=(-1, 1)),
            Port(name="joints", shape=(3,), kind="vector", unit="rad", names=NAMES, limits=LIMITS),
        ),
    )


@dataclass
class FakeRun:
    """What `trainer.run.open_run` would give."""

    graph: Graph
    recipe_name: str = "mgan"
    model: str = "multimodal"
    robot: dict[str, Any] | None = None
    summary: dict[str, Any] = field(default_factory=lambda: {"kimg": 1.5, "seed": 0})

    def graphs(self) -> list[Graph]:
        return [self.graph]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """PyTorch's threads wait by spinning: with small batches on a busy machine that is most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds or leaves engines in the user's cache."""
    monkeypatch.setenv("AWASE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def graph() -> Graph:
    """The graph of a generator whose batch norms have seen data."""
    torch.manual_seed(0)
    module = TinyGenerator().train()
    for _ in range(20):
        module(torch.randn(32, 16))
    return make_graph(module)


@pytest.fixture(scope="session")
def run(graph: Graph) -> FakeRun:
    return FakeRun(graph)


@pytest.fixture(scope="session")
def onnx_file(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph as an ONNX file, exported once for all tests; do not change it."""
    from export.onnx import export_onnx

    path = tmp_path_factory.mktemp("onnx") / "generator.onnx"
    export_onnx(graph, path)
    return path


@pytest.fixture(scope="session")
def exported(run: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an engine; do not change it."""
    pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    from export.pipeline import export_run

    path = tmp_path_factory.mktemp("bundles") / "whole"
    export_run(run, path, engines=("tensorrt-rtx",), capabilities=("SM89",))
    return path


@pytest.fixture
def runs(run: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two finished runs; the working directory is its parent."""

    def open_run(path: Path) -> FakeRun:
        if not (path / "options.json").exists():
            raise InputError(f"{path} is no run")
        return run

    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        for file in ("options.json", "summary.json"):
            (tmp_path / "runs" / name / file).write_text("{}")
    monkeypatch.setattr(trainer.run, "open_run", open_run)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"
