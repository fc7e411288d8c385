"""The one training loop. Reads top to bottom; a recipe supplies data, networks and the step."""

from __future__ import annotations

import copy
import fcntl
import functools
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from runtime.errors import InputError
from runtime.sheet import write_png
from trainer import checkpoint, distributed, log, report, run
from trainer.recipe import Dataset, Options, Recipe, Step

console = Console(stderr=True, highlight=False, soft_wrap=True)


def crossed(images: int, batch: int, kimg: float) -> bool:
    """Whether the step that ended at `images` images passed a multiple of `kimg` thousand images."""
    every = kimg * 1000
    return every > 0 and images // every > (images - batch) // every


def sample_indices(seed: int, first: int, count: int, length: int) -> np.ndarray:
    """Which data samples are shown as the training's samples first … first+count−1, [count] int64.

    Every epoch is a permutation of all `length` samples, a pure function of (seed, epoch).
    """
    epochs, places = np.divmod(np.arange(first, first + count), length)
    indices = np.empty(count, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = epoch_order(seed, int(epoch), length)[places[here]]
    return indices


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order in which an epoch shows its samples: a permutation, [length] int64."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def update_average(average: nn.Module, network: nn.Module, images: int, batch: int, ema_kimg: float) -> None:
    """Move the running average towards `network`; its half-life grows with the training until it is `ema_kimg`."""
    half_life = min(ema_kimg * 1000, max(images, batch) * 0.1)
    beta = 0.5 ** (batch / half_life) if half_life > 0 else 0.0
    with torch.no_grad():
        tensors = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
        for mean, value in tensors:
            mean.lerp_(value, 1 - beta) if mean.is_floating_point() else mean.copy_(value)


@contextmanager
def catch_stop() -> Iterator[dict[str, str]]:
    """SIGTERM and Ctrl-C ask for a stop at the end of the step; the loop then saves. A second Ctrl-C stops at once."""
    asked: dict[str, str] = {}
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked["signal"] = signal.Signals(number).name

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a run for this process alone.

    Raises:
        InputError: another process trains it.
    """
    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"run {path} is being trained by another process; wait for it or choose --name") from error
        yield


def tensorboard(path: Path, images: int) -> Any:
    """TensorBoard's writer if TensorBoard is installed, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path / "tensorboard"), purge_step=images)


def train(kind: type[Recipe], options: Options) -> Path:
    """Train a run, or go on with it, until `options.total_kimg`. Returns its folder.

    Raises:
        InputError: options, data or an earlier run of that name do not allow it; nothing has been changed then.
    """
    # Check what can be checked before any work.
    options.check()
    path = run.folder(options)
    if not options.fresh:
        run.check_same(path, kind.name, options)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but CUDA does not work here (torch.cuda.is_available() is False); use cpu")
    accelerator = Accelerator(
        cpu=options.device == "cpu", mixed_precision={"fp32": "no", "bf16": "bf16"}[options.precision]
    )
    device, main = accelerator.device, accelerator.is_main_process
    if options.batch % accelerator.num_processes:
        raise InputError(
            f"--batch is {options.batch}, expected a multiple of the {accelerator.num_processes} processes"
        )

    # Data: the first process makes the cache, the others read it.
    with accelerator.main_process_first():
        dataset = kind.dataset(options)

    # Networks: the same initial weights everywhere.
    torch.manual_seed(options.seed)
    recipe = kind(options, dataset.description)
    for network in recipe.networks.values():
        network.to(device).train()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = {name: copy.deepcopy(recipe.networks[name]).eval().requires_grad_(False) for name in recipe.averaged}
    if main:
        announce(kind, options, recipe, dataset, accelerator)
    if options.dry_run:
        return path

    with lock(path) if main else nullcontext():
        if main and options.fresh:
            clear(path)
        if main:
            log.write_text(path / "options.json", json.dumps(run.options_json(kind.name, options), indent=2) + "\n")
            log.write_text(path / "data.json", json.dumps(dataset.description) + "\n")
        accelerator.wait_for_everyone()
        stopped = fit(recipe, averaged, dataset, options, accelerator, path)
        if main and not stopped:
            finish(recipe, averaged, path)
    accelerator.end_training()
    return path


def fit(
    recipe: Recipe,
    averaged: dict[str, nn.Module],
    dataset: Dataset,
    options: Options,
    accelerator: Accelerator,
    path: Path,
) -> bool:
    """Resume if there is something to resume, then train to the end. Returns whether a signal stopped it before."""
    device, main = accelerator.device, accelerator.is_main_process
    means, metrics = log.Means(), {}
    images, seconds, cpu_seconds = 0, 0.0, 0.0
    rates = {name: [g["lr"] for g in o.param_groups] for name, o in recipe.optimizers.items()}

    # Resume from the newest checkpoint that can be read.
    found = checkpoint.newest(path, console.print if main else lambda _: None)
    if found:
        tensors, meta = found
        for name, network in recipe.networks.items():
            checkpoint.load_network(network, f"network/{name}", tensors)
        for name, network in averaged.items():
            checkpoint.load_network(network, f"ema/{name}", tensors)
        for name, optimizer in recipe.optimizers.items():
            checkpoint.restore_optimizer(optimizer, f"optimizer/{name}", tensors, meta["optimizers"][name])
        means.restore(meta["means"], device)
        images, seconds, cpu_seconds = meta["images"], meta["seconds"], meta["cpu_seconds"]
        metrics = meta["metrics"]
        if main:
            console.print(f"going on with {path} at {images / 1000:.1f} kimg")
    if main:
        log.rewind(path, images)
        checkpoint.prune(path)
    writer = tensorboard(path, images) if main else None

    total = round(options.total_kimg * 1000)
    share = options.batch // accelerator.num_processes
    clock, cpu_clock = time.perf_counter(), time.process_time()

    def save() -> None:
        if not main:
            return
        tensors = {f"network/{n}/{k}": v for n, m in recipe.networks.items() for k, v in m.state_dict().items()}
        tensors |= {f"ema/{n}/{k}": v for n, m in averaged.items() for k, v in m.state_dict().items()}
        plain = {}
        for name, optimizer in recipe.optimizers.items():
            state, plain[name] = checkpoint.optimizer_tensors(optimizer, f"optimizer/{name}")
            tensors |= state
        meta = {"images": images, "seconds": elapsed(), "cpu_seconds": cpu_elapsed(), "means": means.state()}
        checkpoint.write(checkpoint.path_at(path, images), tensors, meta | {"optimizers": plain, "metrics": metrics})
        checkpoint.prune(path)

    def elapsed() -> float:
        return seconds + time.perf_counter() - clock

    def cpu_elapsed() -> float:
        return cpu_seconds + time.process_time() - cpu_clock

    def measure(final: bool) -> None:
        for name, figures in recipe.metrics(averaged, final):
            metrics[name] = figures
            log.append(path / f"metric-{name}.jsonl", {"images": images, "kimg": images / 1000} | figures)
            if writer:
                scalars = {k: v for k, v in figures.items() if isinstance(v, float)}
                for key, value in scalars.items():
                    writer.add_scalar(f"{name}/{key}", value, images)

    def snapshot() -> None:
        (path / "samples").mkdir(exist_ok=True)
        write_png(path / "samples" / f"{images:010d}.png", recipe.snapshot(averaged))

    def optimize(name: str, loss: torch.Tensor) -> None:
        optimizer = recipe.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        distributed.average_gradients(p for group in optimizer.param_groups for p in group["params"])
        optimizer.step()

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("img"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=console, disable=not main,
    )  # fmt: skip
    with catch_stop() as asked, bar:
        task = bar.add_task(path.name, total=total, completed=images)
        while images < total:
            # Everything random in this step follows from (seed, rank, images seen).
            torch.manual_seed(int(np.random.SeedSequence([options.seed, accelerator.process_index, images])
                                  .generate_state(1, np.uint64)[0] >> 1))  # fmt: skip

            # This process's share of the batch.
            first = images + accelerator.process_index * share
            arrays = dataset.batch(sample_indices(options.seed, first, share, len(dataset)))
            batch = {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}

            # One step.
            progress = images / total
            for name, optimizer in recipe.optimizers.items():
                for group, rate in zip(optimizer.param_groups, rates[name], strict=True):
                    group["lr"] = rate * recipe.learning_rate_factor(progress)
            with accelerator.autocast():
                scalars = recipe.step(batch, Step(images, progress, share, first, device, optimize))
            means.add(scalars)
            images += options.batch
            for name, average in averaged.items():
                update_average(average, recipe.networks[name], images, options.batch, options.ema_kimg)
            bar.update(task, completed=min(images, total))

            # Cadences. The checkpoint comes last: it stands for all that was written before it.
            last = images >= total
            if last or crossed(images, options.batch, options.tick_kimg):
                scalars_now = means.take()
                if not all(np.isfinite(value) for value in scalars_now.values()):
                    bad = ", ".join(name for name, value in scalars_now.items() if not np.isfinite(value))
                    raise InputError(
                        f"training diverged at {images / 1000:.1f} kimg ({bad} is not finite); the last good "
                        "checkpoint is kept: start over with --fresh and a lower learning rate"
                    )
                if main:
                    tick(path, writer, images, total, scalars_now, recipe.headline(metrics), elapsed(), cpu_elapsed())
            if main and (last or crossed(images, options.batch, options.snapshot_kimg)):
                snapshot()
            if main and (last or crossed(images, options.batch, options.metric_kimg)):
                measure(last)
            stop = distributed.any_process(bool(asked), device)
            if last or stop or crossed(images, options.batch, options.checkpoint_kimg):
                save()
            if stop and not last:
                if main:
                    console.print(f"stopped at {images / 1000:.1f} kimg and saved; the same command goes on from there")
                return True
    if writer:
        writer.close()
    if main:
        summary = {"kimg": images / 1000, "seconds": elapsed(), "cpu_seconds": cpu_elapsed(), "device": str(device)}
        log.write_text(path / "summary.json", json.dumps(summary | {"metrics": metrics}, indent=2) + "\n")
    return False


def tick(
    path: Path,
    writer: Any,
    images: int,
    total: int,
    scalars: dict[str, float],
    headline: str,
    seconds: float,
    cpu: float,
) -> None:
    """Write one line of statistics, one of timing, and the status line."""
    log.append(path / "stats.jsonl", {"images": images, "kimg": images / 1000} | scalars)
    log.append(path / "timing.jsonl", {"images": images, "seconds": seconds, "cpu_seconds": cpu})
    if writer:
        for name, value in scalars.items():
            writer.add_scalar(f"stats/{name}", value, images)
    words = "  ".join(f"{name} {value:.3f}" for name, value in scalars.items())
    place = f"kimg {images / 1000:7.1f}/{total / 1000:.0f}  min {seconds / 60:5.1f}  cpu {cpu / 60:5.1f}"
    console.print(f"{place}  {words}  {headline}")


def announce(kind: type[Recipe], options: Options, recipe: Recipe, dataset: Dataset, accelerator: Accelerator) -> None:
    """Print options as JSON (stdout), and what will be trained on what (stderr)."""
    print(json.dumps(run.options_json(kind.name, options), indent=2), flush=True)
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in recipe.networks.items()}
    console.print(f"data      {len(dataset)} samples")
    console.print(
        "networks  " + ", ".join(f"{name} {size / 1000:.0f}k" for name, size in sizes.items()) + " parameters"
    )
    console.print(f"device    {accelerator.device}, {accelerator.num_processes} process(es), {options.precision}")


def clear(path: Path) -> None:
    """Delete what an earlier training of this run left; nothing else that lies in its folder."""
    for name in ("checkpoints", "samples", "figures", "tensorboard"):
        shutil.rmtree(path / name, ignore_errors=True)
    for file in [*path.glob("*.jsonl"), path / "summary.json", path / "report.html", path / "data.json"]:
        file.unlink(missing_ok=True)


def finish(recipe: Recipe, averaged: dict[str, nn.Module], path: Path) -> None:
    """Draw the figures and write the report."""
    console.print("drawing the report …")
    page = report.write(path, recipe.figures(averaged, log.history(path)))
    print(page, file=sys.stderr)
