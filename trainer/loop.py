"""The one training loop. Reads top to bottom; a recipe supplies data, networks and the step."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from runtime.errors import InputError
from runtime.sheet import write_png
from trainer import distributed, log, report, run
from trainer.log import console
from trainer.recipe import Dataset, Options, Recipe, Step
from trainer.state import State
from trainer.stop import Stop, lock


def train(kind: type[Recipe], options: Options) -> Path:
    """Train a run, or go on with it, until `options.total_kimg`. Returns its folder.

    Raises:
        InputError: options, data or an earlier run of that name do not allow it; nothing has been changed then.
    """
    # Check what can be checked before any work.
    options.check()
    path = run.folder(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but CUDA does not work here (torch.cuda.is_available() is False); use cpu")
    accelerator = Accelerator(
        cpu=options.device == "cpu", mixed_precision={"fp32": "no", "bf16": "bf16"}[options.precision]
    )
    main, processes = accelerator.is_main_process, accelerator.num_processes
    if options.batch % processes:
        raise InputError(f"--batch is {options.batch}, expected a multiple of the {processes} processes")
    plain = distributed.main_first(lambda: run.options_json(kind, options))  # what is missing is said once
    if main:
        print(json.dumps(plain, indent=2), flush=True)

    def load() -> Dataset:
        if not options.fresh:
            run.check_same(path, plain)
        dataset = kind.dataset(options)
        if not options.fresh:
            run.check_same_data(path, dataset.description)
        return dataset

    with Stop() as stop, ExitStack() as held:
        # Data: the first process makes the cache, the others read it.
        dataset = distributed.main_first(load)

        # Networks: the same initial weights everywhere.
        torch.manual_seed(options.seed)
        recipe = kind(options, dataset.description)
        recipe.data = dataset
        state = State(recipe, accelerator.device)
        if main:
            announce(state, dataset, accelerator, options)
        if options.dry_run:
            return path

        # Begin or resume; one training a run.
        distributed.main_first(lambda: held.enter_context(lock(path)) if main else None)
        if main:
            begin(path, plain, options, dataset)
        accelerator.wait_for_everyone()
        if state.resume(path, console.print if main else lambda _: None) and main:
            console.print(f"going on with {path} at {state.images / 1000:.1f} kimg")
        accelerator.wait_for_everyone()

        # Train, then report.
        stop.saving = True
        finished = fit(state, dataset, options, accelerator, path, stop)
        if main and finished:
            console.print("drawing the report …")
            print(report.write(path, recipe.figures(state.averaged, log.history(path))), file=sys.stderr)
    accelerator.end_training()
    if stop.interrupted and not finished:
        raise KeyboardInterrupt  # saved, but whoever waits for a trained run must hear that it is not
    return path


def fit(state: State, dataset: Dataset, options: Options, accelerator: Accelerator, path: Path, stop: Stop) -> bool:
    """Train from `state.images` to the end. Returns False if it was stopped before, after saving."""
    recipe, device, main = state.recipe, accelerator.device, accelerator.is_main_process
    total = round(options.total_kimg * 1000)
    share = options.batch // accelerator.num_processes

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
    with log.Records(path, state.images, main) as records, bar:
        task = bar.add_task(path.name, total=total, completed=state.images)
        while state.images < total:
            # Everything random in this step follows from (seed, rank, images seen).
            torch.manual_seed(step_seed(options.seed, accelerator.process_index, state.images))
            shared = torch.Generator().manual_seed(step_seed(options.seed, 0, state.images))

            # This process's share of the batch.
            first = state.images + accelerator.process_index * share
            arrays = dataset.batch(sample_indices(options.seed, first, share, len(dataset)))
            batch = {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}

            # One step.
            progress = state.images / total
            for name, optimizer in recipe.optimizers.items():
                for group, rate in zip(optimizer.param_groups, state.rates[name], strict=True):
                    group["lr"] = rate * recipe.learning_rate_factor(progress)
            with accelerator.autocast():
                scalars = recipe.step(batch, Step(state.images, progress, share, first, device, shared, optimize))
            state.means.add(scalars)
            state.images += options.batch
            state.update_averages(options.batch, options.ema_kimg)
            bar.update(task, completed=min(state.images, total))

            # Cadences. The checkpoint comes last: it stands for all that was written before it.
            last = state.images >= total
            due = functools.partial(crossed, state.images, options.batch)
            if last or due(options.tick_kimg):
                means = state.means.take()
                state.check_finite(means)
                records.tick(state.images, total, means, *state.seconds(), recipe.headline(state.metrics))
            if main and (last or due(options.snapshot_kimg)):
                write_png(path / "samples" / f"{state.images:010d}.png", recipe.snapshot(state.averaged))
            if main and (last or due(options.metric_kimg)):
                for name, figures in recipe.metrics(state.averaged):
                    state.metrics[name] = figures
                    records.metric(name, state.images, figures)
            stopping = distributed.any_process(stop.asked, device)
            if main and (last or stopping or due(options.checkpoint_kimg)):
                state.save(path)
            if stopping and not last:
                if main:
                    place = f"{state.images / 1000:.1f} kimg"
                    console.print(f"stopped at {place} and saved; the same command goes on from there")
                return False
    if main:
        seconds, cpu_seconds = state.seconds()
        summary = {"kimg": state.images / 1000, "seconds": seconds, "cpu_seconds": cpu_seconds, "device": str(device)}
        log.write_text(path / "summary.json", json.dumps(summary | {"metrics": state.metrics}, indent=2) + "\n")
    return True


def crossed(images: int, batch: int, kimg: float) -> bool:
    """Whether the step that ended at `images` images passed a multiple of `kimg` thousand images; 0 is never."""
    every = kimg * 1000
    return every > 0 and images // every > (images - batch) // every


def step_seed(seed: int, rank: int, images: int) -> int:
    """Seed of all that a process draws in the step that begins at `images`."""
    return int(np.random.SeedSequence([seed, rank, images]).generate_state(1, np.uint64)[0] >> 1)


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


def announce(state: State, dataset: Dataset, accelerator: Accelerator, options: Options) -> None:
    """Say what will be trained on what."""
    networks = state.recipe.networks.items()
    sizes = ", ".join(
        f"{name} {sum(p.numel() for p in network.parameters()) / 1000:.0f}k" for name, network in networks
    )
    console.print(f"data      {len(dataset)} samples")
    console.print(f"networks  {sizes} parameters")
    console.print(f"device    {accelerator.device}, {accelerator.num_processes} process(es), {options.precision}")
    if options.precision == "bf16" and accelerator.device.type == "cpu":
        can = torch.cpu.get_capabilities()
        if not any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")):
            console.print("this processor has no instructions for bf16: --precision fp32 trains faster here")


def begin(path: Path, plain: dict[str, Any], options: Options, dataset: Dataset) -> None:
    """Write down what the run is; with --fresh delete what an earlier one of its name left, and nothing else."""
    if options.fresh:
        for name in ("checkpoints", "samples", "figures", "tensorboard", "generated"):
            shutil.rmtree(path / name, ignore_errors=True)
        for file in [*path.glob("*.jsonl"), path / "report.html", path / "evaluation.json"]:
            file.unlink(missing_ok=True)
    (path / "summary.json").unlink(missing_ok=True)  # it says that the run is finished
    (path / "samples").mkdir(exist_ok=True)
    log.write_text(path / "options.json", json.dumps(plain, indent=2) + "\n")
    log.write_text(path / "data.json", json.dumps(dataset.description) + "\n")
