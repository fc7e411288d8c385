"""Train on the tiny recording, in a process of its own that may be killed. Used by the tests of resuming."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import torch

from trainer import checkpoint, log, loop
from trainer.recipes import mgan

OPTIONS = dataclasses.replace(
    mgan.PRESETS["demo"], name="tiny", batch=8, total_kimg=0.16, tick_kimg=0.024, metric_kimg=0.08, snapshot_kimg=0.08,
    checkpoint_kimg=0.04, width=4, hidden=16, z_dim=4, ema_kimg=0.1, read=1.0, threads=1,
    matched=8, random=16,
)  # fmt: skip


def train(data: Path | str, runs: Path | str, cut: str = "", **changes: Any) -> None:
    """Train (on). `cut` kills the process: "step K" in the K-th step, "write K" half-way through the K-th
    checkpoint, "rename K" between its writing and its renaming, "stats K" after the K-th line of statistics;
    "term K" and "interrupt K" send SIGTERM and SIGINT in the K-th step."""
    torch.set_num_threads(1)
    kind, _, number = cut.partition(" ")
    left = {"count": int(number or 0)}

    def now() -> bool:
        left["count"] -= 1
        return left["count"] == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if kind in ("step", "term", "interrupt"):
        batch = mgan.MganData.batch

        def counted(self: Any, indices: Any) -> Any:
            if now():
                number = {"step": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}[kind]
                os.kill(os.getpid(), number)
            return batch(self, indices)

        mgan.MganData.batch = counted  # type: ignore[method-assign]
    if kind == "write":

        class Interrupted:
            """A file that takes half of what is written to it, and then the process is gone."""

            def __init__(self, file: Any) -> None:
                self.file = file

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: object) -> None:
                self.file.close()

            def __getattr__(self, name: str) -> Any:
                return getattr(self.file, name)

            def write(self, data: bytes) -> None:
                if now():
                    self.file.write(data[: len(data) // 2])
                    self.file.flush()
                    die()
                self.file.write(data)

        def interrupted(path: Any, mode: str = "r") -> Any:
            return Interrupted(open(path, mode)) if mode == "wb" else open(path, mode)

        checkpoint.open = interrupted  # type: ignore[attr-defined]
    if kind == "rename":
        replace = os.replace

        def late(source: Any, target: Any) -> None:
            if str(target).endswith(".safetensors") and now():
                die()
            replace(source, target)

        checkpoint.os.replace = late
    if kind == "stats":
        tick = log.Records.tick

        def then_die(self: Any, *args: Any) -> None:
            tick(self, *args)
            if now():
                die()

        log.Records.tick = then_die  # type: ignore[method-assign]
    loop.train(mgan.Mgan, dataclasses.replace(OPTIONS, data=Path(data), runs=Path(runs), **changes))
