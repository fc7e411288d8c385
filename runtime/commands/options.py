"""What the commands share: the options that say what runs a bundle, ranges of numbers, the progress bar."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from runtime.devices import HINTS, PRECISIONS
from runtime.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from runtime.bundle import Bundle

RANGES = {
    "count": (1, 10**9),
    "random": (1, 10**7),
    "seed": (0, 2**64 - 1),
    "first": (0, 2**64 - 1),
    "batch": (1, 2**12),
    "threads": (1, 2**10),
    "sweep": (2, 2**10),
    "per_part": (2, 2**10),
    "frames": (1, 10**7),
}
"""Lowest and highest value of the whole numbers among the options."""


def add_engine(command: argparse.ArgumentParser) -> None:
    """Add --device, --precision, --threads and --hint."""
    command.add_argument(
        "--device",
        default="auto",
        help="auto, cpu (ONNX Runtime), openvino, cuda[:N] or tensorrt[:N] (default auto: the best that works here)",
    )
    command.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="which variant of the bundle's graphs (default fp32)"
    )
    command.add_argument("--threads", type=int, help="CPU threads (default: the engine's own choice)")
    add_hint(command)


def add_hint(command: argparse.ArgumentParser) -> None:
    """Add --hint."""
    command.add_argument(
        "--hint",
        choices=HINTS,
        default="latency",
        help="what OpenVINO makes of many cores: one run on all of them, or several runs at once (default latency)",
    )


def add_samples(command: argparse.ArgumentParser, count: int, counted: str) -> None:
    """Add --count, --seed and --batch."""
    command.add_argument("--count", type=int, default=count, help=f"{counted} (default {count})")
    command.add_argument("--seed", type=int, default=0, help="sample k of a seed is always the same (default 0)")
    command.add_argument("--batch", type=int, default=64, help="samples a run of the graph (default 64)")


def check_numbers(options: argparse.Namespace) -> None:
    """Refuse whole numbers out of their range before any work.

    Raises:
        InputError: naming the option, its value and its range.
    """
    for name, (low, high) in RANGES.items():
        value = getattr(options, name, None)
        if isinstance(value, int) and not low <= value <= high:
            raise InputError(f"--{name.replace('_', '-')} is {value}, expected a whole number from {low} to {high}")
    first = getattr(options, "first", 0)
    if first + getattr(options, "count", 0) > 2**64:
        raise InputError(f"--first is {first}, expected at most {2**64 - options.count}: samples end at 2^64")


COMMANDS = {"multimodal": "generate", "fuser": "fuse"}
"""The command that each model is for."""


def open_for(model: str, bundle: str) -> Bundle:
    """A bundle of one model; another's is refused before any engine is opened.

    Raises:
        InputError: it cannot be used, or is another model's.
    """
    from runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    other = opened.manifest.model
    if other != model and other in COMMANDS:
        raise InputError(
            f"{opened.path} holds a {other}, expected a {model}; `python -m runtime {COMMANDS[other]}` is for it"
        )
    return opened


def load(options: argparse.Namespace, kind: str = "multimodal") -> Any:
    """The bundle's model on the device asked for; what was picked, and why, goes to stderr in one line."""
    import runtime

    bundle = open_for(kind, options.bundle)
    model = runtime.load(bundle, options.device, options.precision, options.threads, options.hint)
    print(model.choice, file=sys.stderr)
    return model


def progress(rate: str | None = None) -> Progress:
    """A progress bar on stderr; `rate` is the unit of the speed to show, e.g. "images/s"."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    ]
    if rate:
        columns.append(_speed(rate))
    return Progress(*columns, console=Console(stderr=True))


def _speed(unit: str) -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {unit}" if speed else "")

    return Speed()
