"""What a recipe answers. The loop, the export and the report know recipes only through this page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from runtime.errors import InputError

if TYPE_CHECKING:
    from runtime.bundle import Port


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run trains, whatever its recipe. All cadences are in thousands of images shown (kimg); 0 means never."""

    name: str = ""
    """Name of the run; its folder is RUNS/NAME. Default: the preset's and recipe's names."""
    runs: Path = Path("runs")
    """Folder that holds the runs."""
    seed: int = 0
    """Everything random is a function of this and of the images seen."""
    total_kimg: float = 100.0
    """Length of the training."""
    batch: int = 32
    """Images a step, over all processes together."""
    tick_kimg: float = 2.0
    """A status line and a line of stats.jsonl this often."""
    metric_kimg: float = 20.0
    """Metrics this often, and at the end."""
    snapshot_kimg: float = 20.0
    """A sheet of samples this often, and at the end."""
    checkpoint_kimg: float = 10.0
    """A checkpoint this often, and at the end."""
    ema_kimg: float = 22.0
    """Half-life of the running average of the weights that samples, metrics and exports use."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train. auto: CUDA if it works here."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the forward passes (bf16: automatic mixed precision, for which a processor needs instructions)."""
    threads: int = 0
    """CPU threads for one process. 0: PyTorch's own choice."""
    fresh: bool = False
    """Start over: delete what an earlier run of this name left."""
    dry_run: bool = False
    """Print options, data and network sizes, check everything, train nothing."""

    def check(self) -> None:
        """Refuse what cannot work, before any work starts.

        Raises:
            InputError: an option is out of its range.
        """
        at_least = [("total_kimg", 0.001), ("batch", 2), ("tick_kimg", 0.001), ("metric_kimg", 0), ("threads", 0)]
        at_least += [("snapshot_kimg", 0), ("checkpoint_kimg", 0), ("ema_kimg", 0), ("seed", 0)]
        for field, lowest in at_least:
            value = getattr(self, field)
            if not lowest <= value < float("inf"):
                raise InputError(f"--{field.replace('_', '-')} is {value}, expected a number of at least {lowest}")
        if self.seed >= 2**32:
            raise InputError(f"--seed is {self.seed}, expected a number below 2^32")
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise InputError(f"--name is {self.name!r}, expected a plain folder name such as 'first-try'")


# What may change when a run is resumed; everything else would make it another run.
RESUMABLE = {"total_kimg", "tick_kimg", "metric_kimg", "snapshot_kimg", "checkpoint_kimg", "runs", "fresh", "dry_run"}
RESUMABLE |= {"threads", "device"}
RESUMABLE |= {"cache", "weights"}  # places of files: what is in them stands in data.json and under `sources`


class Dataset(Protocol):
    """Samples addressed by number, so that a step's batch is a function of the images seen."""

    description: dict[str, Any]
    """JSON: all that building the networks and writing the bundle needs to know of the data."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The samples `indices` [N] int64, as arrays by name, ready to be made tensors."""
        ...


@dataclass(frozen=True)
class Step:
    """What the loop hands a recipe for one training step."""

    images: int
    """Images seen before this step, over all processes."""
    progress: float
    """The same as a fraction of the whole training, in [0, 1)."""
    size: int
    """Images in this process's share of the batch."""
    first: int
    """Number of this process's first sample: sample k of the training is the k-th ever shown."""
    device: torch.device
    shared: torch.Generator
    """Randomness on the CPU, the same in every process: for what is drawn for the global batch."""
    optimize: Callable[[str, Tensor], None]
    """optimize(name, loss): zero the gradients of optimizer `name`, backward, average over processes, step."""


@dataclass(frozen=True)
class Graph:
    """One module to freeze, with named, typed inputs and outputs."""

    name: str
    module: nn.Module
    """In evaluation mode, on the CPU, float32; takes the inputs in order and returns the outputs in order."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    examples: Callable[[int, int], dict[str, np.ndarray]] | None = None
    """examples(seed, count): inputs like those it will see, by port (others may be among them), to measure and to
    calibrate with. None: drawn from what the ports say, which does for noise."""


@dataclass(frozen=True)
class Figure:
    """One picture of the report."""

    name: str
    title: str
    caption: str
    picture: Any
    """A uint8 [H, W, 3] RGB array or a matplotlib figure."""


class Recipe(ABC):
    """A training system. Built from its options and its data's description alone, so that a run can be reopened
    without its data."""

    name: ClassVar[str]
    model: ClassVar[str]
    """The task-level object that `runtime.load` makes of its bundle."""
    options_type: ClassVar[type[Options]]
    presets: ClassVar[dict[str, Any]]

    networks: dict[str, nn.Module]
    """Everything trained, by name."""
    averaged: tuple[str, ...]
    """The networks kept as a running average (EMA) too: the ones samples, metrics and exports use."""
    optimizers: dict[str, torch.optim.Optimizer]
    data: Any = None
    """What `dataset` gave, while it trains; a run that is reopened has none."""

    @classmethod
    def sources(cls, options: Any) -> dict[str, Any]:
        """Files beside the data that shape the training (weights of other networks), as JSON: they stand in
        options.json, and a run does not go on with others.

        Raises:
            InputError: one is not there.
        """
        return {}

    @classmethod
    @abstractmethod
    def dataset(cls, options: Any) -> Dataset:
        """Load, simulate or check the data, with progress on stderr.

        Raises:
            InputError: the data cannot be trained on.
        """

    @abstractmethod
    def __init__(self, options: Any, description: dict[str, Any]) -> None: ...

    @abstractmethod
    def step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """One training step on this process's share of a batch. Returns scalars to be averaged into stats.jsonl."""

    @abstractmethod
    def metrics(self, averaged: dict[str, nn.Module]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (metric's name, its figures with their protocol)."""

    @abstractmethod
    def snapshot(self, averaged: dict[str, nn.Module]) -> np.ndarray:
        """A sheet of samples, uint8 [H, W, 3] RGB."""

    @abstractmethod
    def graphs(self, averaged: dict[str, nn.Module]) -> list[Graph]:
        """What a bundle holds."""

    @abstractmethod
    def figures(self, averaged: dict[str, nn.Module], history: dict[str, list[dict[str, Any]]]) -> Iterator[Figure]:
        """The report's figures. `history`: the run's jsonl files by name (stats, metric-…), as lists of lines."""

    def headline(self, metrics: dict[str, dict[str, Any]]) -> str:
        """The newest metrics in a few words, for the status line."""
        return ""

    def robot(self) -> dict[str, Any] | None:
        """Description of the robot the data came from, if any: it travels in the bundle so that it can be replayed."""
        return None

    def learning_rate_factor(self, progress: float) -> float:
        """Factor on every optimizer's initial learning rate at `progress` in [0, 1]."""
        return 1.0
