"""Checkpoints: one safetensors file each, written atomically, verified on reading: tensors and JSON, nothing else.

A checkpoint is everything a step reads: networks, their running averages (EMA), optimizer state, and the sums of
the statistics not yet written out. Randomness is a function of (seed, images seen), so no generator state is needed.
Nothing is pickled: optimizer state is flattened into tensors and JSON, so that a file from a stranger is safe to open.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from runtime.errors import InputError

FORMAT = "awase-checkpoint-1"
KEPT = 3  # a truncated newest checkpoint must leave an older one to go on from


def digest(tensors: Mapping[str, Tensor], meta: str = "") -> str:
    """sha256 over `meta` and the names, shapes, dtypes and bytes of `tensors`, in name order."""
    sha = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return sha.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors and as JSON (its parameter groups and any plain numbers)."""
    state = optimizer.state_dict()
    tensors, plain = {}, {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}/{index}/{key}"] = value
            else:
                plain[f"{index}/{key}"] = value
    return tensors, {"groups": state["param_groups"], "plain": plain}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor], plain: dict[str, Any]
) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix + "/"):
            index, key = name[len(prefix) + 1 :].split("/")
            state.setdefault(int(index), {})[key] = tensor
    for name, value in plain["plain"].items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})
    # load_state_dict keeps the file's memory layout; with the parameter's own the next step rounds as it would have.
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[key] = torch.empty_like(parameter).copy_(value)


def write(path: Path, tensors: Mapping[str, Tensor], meta: dict[str, Any]) -> None:
    """Write `tensors` and the JSON `meta` to `path`: whole or not at all, also through a kill or a power cut."""
    # Own memory for each: safetensors refuses tensors that share storage.
    cpu = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(meta)
    header = {"format": FORMAT, "sha256": digest(cpu, text), "meta": text}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        file.write(save(cpu, metadata=header))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors (on the CPU) and meta.

    Raises:
        InputError: the file is truncated, changed, or no checkpoint of ours; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"checkpoint {path} cannot be read ({error}): it is truncated or no checkpoint") from error
    if header.get("format") != FORMAT:
        raise InputError(f"checkpoint {path} has format {header.get('format')!r}, expected {FORMAT!r}")
    if digest(tensors, header.get("meta", "")) != header.get("sha256"):
        raise InputError(f"checkpoint {path} has changed since it was written (its sha256 does not match)")
    return tensors, json.loads(header["meta"])


def path_at(run: Path, images: int) -> Path:
    """Where the checkpoint after `images` images of `run` lies."""
    return run / "checkpoints" / f"{images:010d}.safetensors"


def newest(run: Path, notify: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint of `run` that can be read, or None if it has none at all.

    A damaged one is named through `notify` and the one before it is used.

    Raises:
        InputError: there are checkpoints and none can be read.
    """
    paths = sorted((run / "checkpoints").glob("*.safetensors"), reverse=True)
    for path in paths:
        try:
            return read(path)
        except InputError as error:
            notify(f"{error}; trying the one before it")
    if paths:
        raise InputError(f"no checkpoint in {run / 'checkpoints'} can be read; start over with --fresh")
    return None


def prune(run: Path) -> None:
    """Delete all but the newest few checkpoints, and what a killed write left behind."""
    folder = run / "checkpoints"
    for path in sorted(folder.glob("*.safetensors"))[:-KEPT]:
        path.unlink()
    for path in folder.glob("*.partial"):
        path.unlink()


def load_network(network: nn.Module, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors called `prefix/…` into `network`.

    Raises:
        InputError: names or shapes differ from the network's.
    """
    own = {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + "/")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise InputError(
            f"the checkpoint does not fit the network {prefix!r}: {error}; start over with --fresh"
        ) from error
