"""Makes samples: PNG and CSV files, an .npz file, raw frames for a video encoder."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.commands.options import add_engine, add_samples, load, progress
from runtime.errors import InputError

if TYPE_CHECKING:
    from runtime.bundle import Port


def configure(command: argparse.ArgumentParser) -> None:
    """Add the options of `generate`."""
    add_samples(command, 64, "samples to make")
    command.add_argument("--first", type=int, default=0, help="number of the first sample (default 0)")
    command.add_argument(
        "--shard", metavar="I/N", help="make only the I-th of N parts (1/N … N/N), to spread the work over machines"
    )
    add_engine(command)
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for PNG and CSV files and a contact sheet, new or empty"
    )
    command.add_argument("--npz", type=Path, metavar="FILE", help="all samples as arrays in one .npz file")
    command.add_argument("--raw", metavar="FILE", help="RGB24 frames one after another; - is stdout, for ffmpeg")
    command.add_argument("--modality", metavar="NAME", help="which images --raw writes (default: the first)")
    command.add_argument("--overwrite", action="store_true", help="write into DIR, or FILE, although it is there")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write images and vectors: PNG and CSV files, an .npz file, raw frames; any of them together."""
    _check(options)
    first, count = _share(options)
    model = load(options)
    frames = _frames(model, options)
    result = _result(model, options, first, count, frames)
    _check_places(options, model.modalities)
    _prepare(options, model.modalities)
    from runtime.commands import sinks  # here, so that --help waits for no NumPy

    started = time.monotonic()
    with ExitStack() as stack:
        writers = []
        if options.out:
            writers.append(stack.enter_context(sinks.folder(options.out, model.modalities)))
        if options.npz:
            manifest = model.bundle.manifest
            sink = sinks.npz(options.npz, manifest, model.modalities, count, options.seed, first)
            writers.append(stack.enter_context(sink))
        if frames:
            writers.append(stack.enter_context(sinks.raw(options.raw, frames, not (options.out or options.npz))))
        bar = stack.enter_context(progress("images/s"))
        task = bar.add_task("generating", total=count)
        stream = stack.enter_context(closing(model.stream(count, batch=options.batch, seed=options.seed, first=first)))
        number = first
        for sample in stream:
            for write in writers:
                write(number, sample)
            number += len(sample[0])
            bar.update(task, completed=number - first)
    return result | {"seconds": round(time.monotonic() - started, 3)}


def _check(options: argparse.Namespace) -> None:
    """Refuse options that make no sense together."""
    if not (options.out or options.npz or options.raw):
        raise InputError("nothing to write to; give --out DIR, --npz FILE or --raw FILE")
    if options.npz and options.npz.suffix != ".npz":
        raise InputError(f"--npz {options.npz}, expected a name that ends in .npz")
    if options.modality and not options.raw:
        raise InputError("--modality says which images --raw writes; give --raw too")
    if options.raw == "-" and sys.stdout is None:
        raise InputError("--raw - writes to stdout, which is closed; give a file, or leave stdout open")
    if options.raw == "-" and sys.stdout.isatty():
        raise InputError("--raw - would write frames to the terminal; pipe them into a program, or give a file")
    if options.shard and options.out and options.overwrite:
        raise InputError(
            f"--overwrite with --shard would remove the other parts from --out {options.out}; give each part a folder "
            f"of its own"
        )


def _share(options: argparse.Namespace) -> tuple[int, int]:
    """Number of the first sample to make, and how many: all, or those of --shard."""
    if options.shard is None:
        return options.first, options.count
    words = re.fullmatch(r"(\d{1,9})/(\d{1,9})", options.shard)
    index, shards = (int(words[1]), int(words[2])) if words else (0, 0)
    if not 1 <= index <= shards <= options.count:
        raise InputError(
            f"--shard is {options.shard}, expected I/N as in 2/8, I from 1 to N, N up to the {options.count} samples"
        )
    start, end = options.count * (index - 1) // shards, options.count * index // shards
    return options.first + start, end - start


def _frames(model: Any, options: argparse.Namespace) -> Port | None:
    """The image modality that --raw writes."""
    if not options.raw:
        return None
    from runtime.sheet import CHANNELS

    images = {port.name: port for port in model.modalities if port.kind == "image" and port.shape[0] in CHANNELS}
    if options.modality in images:
        return images[options.modality]
    known = ", ".join(images) or "none"
    if options.modality:
        raise InputError(f"--modality is {options.modality}, expected an image of 1 or 3 channels: {known}")
    if not images:
        raise InputError(f"{model.bundle.path}: --raw needs an image of 1 or 3 channels, the bundle has none")
    return next(iter(images.values()))


def _result(model: Any, options: argparse.Namespace, first: int, count: int, frames: Port | None) -> dict[str, Any]:
    """What went where."""
    from runtime.commands.sinks import sheet_name

    ports = model.modalities
    result: dict[str, Any] = {
        "bundle": str(model.bundle.path),
        "backend": model.session.backend,
        "device": model.session.device,
        "precision": model.session.precision,
        "count": count,
        "seed": options.seed,
        "first": first,
    }
    if options.shard:
        result["shard"] = options.shard
    if options.out:
        result["out"] = str(options.out)
        result["files"] = {port.name: port.name if port.kind == "image" else f"{port.name}.csv" for port in ports}
        result["sheets"] = {port.name: sheet_name(port, ports) for port in ports if port.kind == "image"}
    if options.npz:
        result["npz"] = str(options.npz)
    if frames:
        _, height, width = frames.shape
        result["raw"] = {"file": options.raw, "modality": frames.name, "pixels": "rgb24", "size": f"{width}x{height}"}
    return result


def _check_places(options: argparse.Namespace, ports: tuple[Port, ...]) -> None:
    """Refuse places that nothing can be written to, or that two things would be written to."""
    from runtime.sheet import CHANNELS

    out: Path | None = options.out
    files = _files(options)
    for name, path in files.items():
        if out:
            _apart(f"--{name} {path}", path, out, ports)
        if path.is_dir():
            raise InputError(f"--{name} {path} is a folder, expected a file to write")
        if path.is_file() and not options.overwrite:
            raise InputError(f"--{name} {path} is there already; give a new name, or --overwrite to replace it")
    if len(files) == 2 and _real(files["npz"]) == _real(files["raw"]):
        raise InputError(f"--npz and --raw are both {files['npz']}; give each a file of its own")
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file, expected a folder")
    for port in ports:
        if port.kind == "image" and port.shape[0] not in CHANNELS:
            raise InputError(
                f"--out {out} takes images of 1 or 3 channels, {port.name} has {port.shape[0]}; give --npz FILE for it"
            )
    if out.is_dir():
        if any(out.iterdir()) and not options.overwrite:
            raise InputError(f"--out {out} is not empty; give a new folder, or --overwrite to write into it")
        for port in ports:
            if port.kind != "image" and (out / f"{port.name}.csv").is_dir():
                raise InputError(f"{out / port.name}.csv is a folder, expected a file to write; give another --out")


def _prepare(options: argparse.Namespace, ports: tuple[Port, ...]) -> None:
    """Make the folders. Of what is in them only numbered PNGs of an earlier run are removed, and only if asked."""
    out: Path | None = options.out
    for name, path in _files(options).items():
        _make(path.parent, f"--{name} {path}")
    for port in ports if out else ():
        assert out is not None
        folder = out / port.name if port.kind == "image" else out
        _make(folder, f"--out {out}")
        for stale in folder.iterdir() if port.kind == "image" else ():
            if re.fullmatch(r"\d{6,}\.png", stale.name):
                stale.unlink()


def _files(options: argparse.Namespace) -> dict[str, Path]:
    """Single files to write, by option."""
    files = {"npz": options.npz, "raw": Path(options.raw) if options.raw and options.raw != "-" else None}
    return {name: path for name, path in files.items() if path is not None}


def _apart(what: str, file: Path, out: Path, ports: tuple[Port, ...]) -> None:
    """Refuse a file at a place that is the folder's, or where the folder puts something."""
    from runtime.commands.sinks import names_in_folder

    file, out = _real(file), _real(out)
    inside = file.relative_to(out).parts if file.is_relative_to(out) else None
    if out.is_relative_to(file) or (inside and inside[0] in names_in_folder(ports)):
        raise InputError(f"{what} is where --out {out} puts its own files; give another place")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _make(folder: Path, what: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{what} cannot be written: {error.strerror}") from None
