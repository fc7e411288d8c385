"""Weights of networks that others trained: where they are looked for and how they are read.

Nothing is ever fetched: a file is given by the user, lies in a folder of AWASE_WEIGHTS (several are separated as in
PATH), or ships in an installed package. No pickle that runs code is read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from runtime.errors import InputError, one_line

VARIABLE = "AWASE_WEIGHTS"


def find(names: Sequence[str], given: Path | None = None, package: str | None = None) -> Path | None:
    """The first file called one of `names` (best first), or None.

    given: the user's own file, of any name, or a folder to look in instead of AWASE_WEIGHTS. package: an installed
    package whose folder `models` is looked in last; none of its code is run.

    Raises:
        InputError: `given` does not exist, or is a folder with no such file.
    """
    if given is not None and given.is_file():
        return given
    folders = [given] if given is not None else [Path(f) for f in os.environ.get(VARIABLE, "").split(os.pathsep) if f]
    if given is None and package is not None and (spec := importlib.util.find_spec(package)) is not None:
        folders += [Path(place) / "models" for place in spec.submodule_search_locations or ()]
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    if given is not None:
        raise InputError(f"weights {given}: expected a file of weights, or a folder with {' or '.join(names)}")
    return None


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a state dict saved by PyTorch, by name, on the CPU.

    Raises:
        InputError: it is neither, is cut short, or holds other things than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        if isinstance(error, (MemoryError, FileNotFoundError, PermissionError)):
            raise
        reason = one_line(error).split(". ")[0][:160]
        raise InputError(f"{path}: cannot be read as weights ({reason}); fetch the file again") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: holds {type(state).__name__} with other things than tensors, expected a state dict")
    return state


def fill(module: nn.Module, state: dict[str, Tensor], path: Path, ignored: tuple[str, ...] = ()) -> None:
    """Load `state`, read from `path`, into `module`, cast to the module's types (half precision to float32).

    ignored: prefixes of the entries that `module` has no use for.

    Raises:
        InputError: an entry is missing, unknown or of another shape: the file is of another network.
    """
    own = module.state_dict()
    state = {key: value for key, value in state.items() if key in own or not key.startswith(ignored or ("\0",))}
    kind = f"{path}: not the weights of {type(module).__name__}"
    if missing := [key for key in own if key not in state]:
        raise InputError(f"{kind}: {missing[0]} is missing{_more(missing)}; give the file of this network")
    if unknown := [key for key in state if key not in own]:
        raise InputError(f"{kind}: {unknown[0]} is not among its parameters{_more(unknown)}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise InputError(f"{kind}: {key} is {list(value.shape)}, expected {list(own[key].shape)}")
    module.load_state_dict(state)


def _more(keys: Sequence[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
