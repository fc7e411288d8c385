"""An array in device memory that other libraries take without a copy: DLPack and `__cuda_array_interface__`."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

CPU, CUDA = 1, 2
"""DLPack's numbers of the kinds of device."""
_KINDS = {"i": 0, "u": 1, "f": 2}


class DeviceArray:
    """Contiguous memory on a device, with a shape and a type.

    PyTorch, CuPy, JAX and Awase's kernels take it as it is (`torch.from_dlpack(array)`); a copy for NumPy is made with
    `Lane.to_host`. It does not compute.

    Args:
        owner: what keeps the memory; kept alive as long as this array and all that was made of it.
        pointer: address of the first element.
        shape: sizes of the axes.
        dtype: NumPy's type or its name.
        place: DLPack's kind of device and the device's number, e.g. (CUDA, 0).
    """

    def __init__(
        self, owner: Any, pointer: int, shape: Sequence[int], dtype: Any, place: tuple[int, int] = (CUDA, 0)
    ) -> None:
        self.owner = owner
        self.pointer = pointer
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.place = place

    @property
    def device(self) -> str:
        """Where it is, e.g. "cuda:0"."""
        return f"cuda:{self.place[1]}" if self.place[0] == CUDA else "cpu"

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype} {list(self.shape)} on {self.device})"

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Some of its first axis, without gaps and in the same memory: `array[:count]`."""
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise IndexError(f"{self!r}: got a step of {step}, expected 1")
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = (max(0, stop - start), *self.shape[1:])
        return DeviceArray(self.owner, self.pointer + start * row, shape, self.dtype, self.place)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.place[0] != CUDA:
            raise AttributeError("__cuda_array_interface__")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        # The capsule is of DLPack's first form, which every version may be given. No stream has to wait for another:
        # whoever hands an array out says whether its work is done.
        if copy or (dl_device is not None and tuple(dl_device) != self.place):
            raise BufferError(f"{self!r} gives its own memory only, no copy and not on another device")
        tensor = _Managed()
        tensor.shape = (ctypes.c_int64 * len(self.shape))(*self.shape)
        tensor.managed.tensor = _Tensor(
            self.pointer,
            _Device(*self.place),
            len(self.shape),
            _Type(_KINDS[self.dtype.kind], 8 * self.dtype.itemsize, 1),
            tensor.shape,
            None,  # no strides: contiguous
            0,
        )
        address = ctypes.addressof(tensor.managed)
        tensor.managed.deleter = _FORGET
        tensor.owner = self.owner
        _HANDED_OUT[address] = tensor
        return _new_capsule(address, _NAME, _UNUSED)


# --- DLPack's structures (dlpack.h, version 0.8) ---


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("axes", ctypes.c_int32),
        ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


class _Managed:
    """A tensor handed out, with all that its pointers point to."""

    def __init__(self) -> None:
        self.managed = _ManagedTensor()
        self.shape: Any = None
        self.owner: Any = None


_HANDED_OUT: dict[int, _Managed] = {}
"""By address: what others still use."""
_NAME = b"dltensor"


@_Deleter
def _FORGET(address: int) -> None:
    _HANDED_OUT.pop(address, None)


_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _UNUSED(capsule: int) -> None:
    # A capsule that nobody took (who takes one renames it) is ours to release.
    if _is_valid(capsule, _NAME):
        _FORGET(_address(capsule, _NAME))
