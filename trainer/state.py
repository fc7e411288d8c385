"""Everything a training step changes, and its way into a checkpoint and back."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runtime.errors import InputError
from trainer import checkpoint, log
from trainer.recipe import Recipe


class State:
    """A training at one moment: its recipe's networks and optimizers, their running averages, images, open sums."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        for network in recipe.networks.values():
            network.to(device).train()
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged: dict[str, nn.Module] = {
            name: copy.deepcopy(recipe.networks[name]).eval().requires_grad_(False) for name in recipe.averaged
        }
        self.rates = {name: [g["lr"] for g in o.param_groups] for name, o in recipe.optimizers.items()}
        """Every optimizer's learning rates before any schedule."""
        self.images = 0
        self.means = log.Means()
        self.metrics: dict[str, dict[str, Any]] = {}
        """The newest figures of every metric."""
        self._before = (0.0, 0.0)
        self._started = (time.perf_counter(), time.process_time())

    def seconds(self) -> tuple[float, float]:
        """Wall and CPU seconds trained so far, over all sessions."""
        return (
            self._before[0] + time.perf_counter() - self._started[0],
            self._before[1] + time.process_time() - self._started[1],
        )

    def update_averages(self, batch: int, ema_kimg: float) -> None:
        """Move the running averages towards the networks; their half-life grows until it is `ema_kimg`."""
        half_life = min(ema_kimg * 1000, max(self.images, batch) * 0.1)
        beta = 0.5 ** (batch / half_life) if half_life > 0 else 0.0
        with torch.no_grad():
            for name, average in self.averaged.items():
                network = self.recipe.networks[name]
                for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                    mean.lerp_(value, 1 - beta) if mean.is_floating_point() else mean.copy_(value)

    def check_finite(self, means: dict[str, float]) -> None:
        """Refuse to go on from, or to save, what has diverged.

        Raises:
            InputError: a mean is not finite.
        """
        bad = ", ".join(name for name, value in means.items() if not math.isfinite(value))
        if bad:
            raise InputError(
                f"training diverged by {self.images / 1000:.1f} kimg ({bad} is not finite); the last good checkpoint "
                "is kept: start over with --fresh and a lower learning rate"
            )

    def save(self, path: Path) -> None:
        """Write the run's checkpoint for this moment.

        Raises:
            InputError: the training has diverged since the last one.
        """
        self.check_finite(self.means.state()["sums"])
        networks, averaged = self.recipe.networks, self.averaged
        tensors = {f"network/{n}/{k}": v for n, m in networks.items() for k, v in m.state_dict().items()}
        tensors |= {f"ema/{n}/{k}": v for n, m in averaged.items() for k, v in m.state_dict().items()}
        plain = {}
        for name, optimizer in self.recipe.optimizers.items():
            state, plain[name] = checkpoint.optimizer_tensors(optimizer, f"optimizer/{name}")
            tensors |= state
        seconds, cpu_seconds = self.seconds()
        meta = {"images": self.images, "seconds": seconds, "cpu_seconds": cpu_seconds, "optimizers": plain}
        meta |= {"means": self.means.state(), "metrics": self.metrics}
        checkpoint.write(checkpoint.path_at(path, self.images), tensors, meta)
        checkpoint.prune(path)

    def resume(self, path: Path, notify: Callable[[str], None]) -> bool:
        """Take over the run's newest readable checkpoint, if there is any. Returns whether there was.

        Raises:
            InputError: there are checkpoints and none can be read, or it does not fit the networks.
        """
        found = checkpoint.newest(path, notify)
        if found is None:
            return False
        tensors, meta = found
        for name, network in self.recipe.networks.items():
            checkpoint.load_network(network, f"network/{name}", tensors)
        for name, network in self.averaged.items():
            checkpoint.load_network(network, f"ema/{name}", tensors)
        for name, optimizer in self.recipe.optimizers.items():
            checkpoint.restore_optimizer(optimizer, f"optimizer/{name}", tensors, meta["optimizers"][name])
        try:
            self.means.restore(meta["means"], self.device)
        except KeyError:
            raise InputError(
                f"{path}: its checkpoint was written by another version; train it again with --fresh"
            ) from None
        self.images, self.metrics = meta["images"], meta["metrics"]
        self._before = (meta["seconds"], meta["cpu_seconds"])
        return True
