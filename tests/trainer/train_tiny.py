"""Train on the tiny recording, in a process of its own that may be killed. Used by the tests of resuming."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import torch

from trainer import checkpoint, loop
from trainer.recipes import mgan

OPTIONS = dataclasses.replace(
    mgan.PRESETS["demo"], name="tiny", batch=8, total_kimg=0.16, tick_kimg=0.024, metric_kimg=0.08, snapshot_kimg=0.08,
    checkpoint_kimg=0.04, width=4, hidden=16, z_dim=4, ema_kimg=0.1, read=1.0, threads=1,
)  # fmt: skip


def train(data: Path, runs: Path, cut: str = "", **changes: Any) -> None:
    """Train (on). `cut` kills the process: "step K" in the K-th step, "write K" half-way through the K-th
    checkpoint, "rename K" between its writing and its renaming, "stats K" after the K-th line of statistics;
    "term K" sends SIGTERM in the K-th step."""
    torch.set_num_threads(1)
    kind, _, number = cut.partition(" ")
    left = {"count": int(number or 0)}

    def now() -> bool:
        left["count"] -= 1
        return left["count"] == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if kind in ("step", "term"):
        batch = mgan.MganData.batch

        def counted(self: Any, indices: Any) -> Any:
            if now():
                die() if kind == "step" else os.kill(os.getpid(), signal.SIGTERM)
            return batch(self, indices)

        mgan.MganData.batch = counted  # type: ignore[method-assign]
    if kind == "write":
        whole = checkpoint.save

        def half(*args: Any, **more: Any) -> bytes:
            data = whole(*args, **more)
            if now():
                path = next(Path(runs).glob("*/checkpoints"), Path(runs))
                (path / "0000009999.partial").write_bytes(data[: len(data) // 2])
                die()
            return data

        checkpoint.save = half
    if kind == "rename":
        replace = os.replace

        def late(source: Any, target: Any) -> None:
            if str(target).endswith(".safetensors") and now():
                die()
            replace(source, target)

        checkpoint.os.replace = late
    if kind == "stats":
        tick = loop.tick

        def then_die(*args: Any) -> None:
            tick(*args)
            if now():
                die()

        loop.tick = then_die
    loop.train(mgan.Mgan, dataclasses.replace(OPTIONS, data=data, runs=runs, **changes))
