"""A run: the folder a recipe trains into, and how it is opened again without its data.

runs/NAME/  options.json  data.json  stats.jsonl  metric-*.jsonl  timing.jsonl
            samples/  checkpoints/  figures/  report.html  summary.json (once finished)
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import types
import typing
from pathlib import Path
from typing import Any

import torch

from runtime.errors import InputError
from trainer import checkpoint
from trainer.log import console
from trainer.recipe import RESUMABLE, Graph, Options, Recipe

RECIPES = {"fusion": "trainer.recipes.fusion:Fusion", "mgan": "trainer.recipes.mgan:Mgan"}
"""Every recipe by the name the command line knows it by. Imported when asked for."""


def recipe_type(name: str) -> type[Recipe]:
    """The recipe called `name`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}, expected one of: {', '.join(sorted(RECIPES))}")
    module, attribute = RECIPES[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def folder(options: Options) -> Path:
    """Where the run of these options lies."""
    return options.runs / options.name


def options_json(kind: type[Recipe], options: Options) -> dict[str, Any]:
    """Options as plain JSON, with the recipe's name and the files that shape its training.

    Raises:
        InputError: such a file is not there.
    """
    plain = {"recipe": kind.name} | json.loads(json.dumps(dataclasses.asdict(options), default=str))
    sources = kind.sources(options)
    return plain | ({"sources": sources} if sources else {})


def options_from_json(kind: type[Options], plain: dict[str, Any]) -> Options:
    """The inverse of `options_json`: JSON's lists, strings and nulls back into tuples, paths and None."""
    hints = typing.get_type_hints(kind)

    def revive(hint: Any, value: Any) -> Any:
        choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        if value is not None and Path in choices:
            return Path(value)
        if isinstance(value, list) and any(typing.get_origin(choice) is tuple for choice in choices):
            return tuple(value)
        return value

    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: revive(hints[name], value) for name, value in plain.items() if name in names})


def read_json(path: Path) -> dict[str, Any]:
    """A run's JSON file.

    Raises:
        InputError: it cannot be read; the message names it.
    """
    try:
        plain = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); train the run again with --fresh") from error
    if not isinstance(plain, dict):
        raise InputError(f"{path} holds {type(plain).__name__}, expected an object; train the run again with --fresh")
    return plain


def check_same(run: Path, now: dict[str, Any]) -> None:
    """Refuse to go on with a run under other options than it was begun with.

    Raises:
        InputError: an option that shapes the training differs; the message names it.
    """
    if not (run / "options.json").exists():
        return
    before = read_json(run / "options.json")
    for name in sorted(set(before) | set(now)):
        if name not in RESUMABLE and before.get(name) != now.get(name):
            raise InputError(
                f"run {run} was begun with {name} = {before.get(name)!r}, now it is {now.get(name)!r}: "
                "expected the same; choose another --name, or start over with --fresh"
            )


def check_same_data(run: Path, description: dict[str, Any]) -> None:
    """Refuse to go on with a run on other data than it was begun with.

    Raises:
        InputError: the data's description differs.
    """
    if not (run / "data.json").exists():
        return
    before, now = read_json(run / "data.json"), json.loads(json.dumps(description))
    changed = ", ".join(name for name in sorted(set(before) | set(now)) if before.get(name) != now.get(name))
    if changed:
        raise InputError(
            f"run {run} was begun on other data (its {changed} differ): expected the same; choose another --name, or "
            "start over with --fresh"
        )


class Finished:
    """A run reopened to be exported or reported on: its recipe with averaged weights, on the CPU."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "options.json").exists():
            raise InputError(f"{path} is no run: expected a folder with options.json, made by `python -m trainer`")
        plain, description = read_json(path / "options.json"), read_json(path / "data.json")
        self.recipe_name: str = plain.get("recipe", "")
        kind = recipe_type(self.recipe_name)
        try:
            self.options = options_from_json(kind.options_type, plain)
            self.recipe = kind(self.options, description)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"run {path} was made by another version ({error}); train it again with --fresh"
            ) from error
        found = checkpoint.newest(path, console.print)
        if found is None:
            raise InputError(f"run {path} has no checkpoint yet; train it first with `python -m trainer`")
        tensors, self.meta = found
        self.averaged = {}
        for name in self.recipe.averaged:
            network = self.recipe.networks[name]
            checkpoint.load_network(network, f"ema/{name}", tensors)
            self.averaged[name] = network.eval().requires_grad_(False)

    @property
    def model(self) -> str:
        """The task-level object that `runtime.load` makes of the bundle."""
        return self.recipe.model

    @property
    def robot(self) -> dict[str, Any] | None:
        """Description of the robot the data came from, if any."""
        return self.recipe.robot()

    @property
    def summary(self) -> dict[str, Any]:
        """How long it was trained, and its newest metrics."""
        meta = self.meta
        return {
            "kimg": meta["images"] / 1000,
            "seed": self.options.seed,
            "seconds": meta["seconds"],
            "cpu_seconds": meta["cpu_seconds"],
            "metrics": meta["metrics"],
            "finished": (self.path / "summary.json").exists(),
            "torch": torch.__version__,
        }

    def graphs(self) -> list[Graph]:
        """What a bundle holds."""
        return self.recipe.graphs(self.averaged)


def finished_runs(root: Path) -> list[Path]:
    """The runs under `root` that reached their end."""
    return sorted(path.parent for path in root.glob("*/summary.json"))


def open_run(path: Path) -> Finished:
    """Reopen a run.

    Raises:
        InputError: it is no run, has no checkpoint, or none that can be read.
    """
    return Finished(Path(path))
