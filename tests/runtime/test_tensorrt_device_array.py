"""Arrays on a device as other libraries see them. With memory of the host: the structures are the same."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import cpp_ext
from runtime.backends import device_array
from runtime.backends.device_array import CPU, CUDA, DeviceArray


class Owner:
    """Host memory that says when it goes."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


def there(array: np.ndarray, place: tuple[int, int] = (CPU, 0)) -> DeviceArray:
    return DeviceArray(Owner(array), array.ctypes.data, array.shape, array.dtype, place)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
def test_round_trip_by_dlpack(dtype: str) -> None:
    array = np.arange(60).astype(dtype).reshape(3, 4, 5)
    np.testing.assert_array_equal(np.from_dlpack(there(array)), array)
    rows = np.from_dlpack(there(array)[1:])
    assert rows.dtype == array.dtype and rows.ctypes.data == array[1:].ctypes.data
    np.testing.assert_array_equal(rows, array[1:])


def test_pytorch_writes_into_it() -> None:
    torch = pytest.importorskip("torch")
    array = np.zeros((4, 3), np.float32)
    torch.from_dlpack(there(array))[1:3].fill_(5)
    np.testing.assert_array_equal(array[:, 0], [0, 5, 5, 0])


def test_kernels_write_into_it() -> None:
    if not cpp_ext.compiled():
        pytest.skip("the compiled kernels were not built here")
    array = np.zeros((8, 32), np.float32)
    cpp_ext.noise(3, 7, 5, 32, out=there(array)[:5])
    np.testing.assert_array_equal(array[:5], cpp_ext.noise(3, 7, 5, 32))
    assert not array[5:].any()


def test_memory_lives_as_long_as_anyone_uses_it() -> None:
    before = len(device_array._HANDED_OUT)
    owner = there(np.ones((2, 2), np.float32)).owner
    gone = weakref.ref(owner)
    array: Any = DeviceArray(owner, owner.array.ctypes.data, (2, 2), "float32", (CPU, 0))
    capsule, view = array.__dlpack__(), np.from_dlpack(array)
    assert len(device_array._HANDED_OUT) == before + 2
    del array, owner
    gc.collect()
    assert gone() is not None and view.sum() == 4
    del capsule  # which nobody took
    assert len(device_array._HANDED_OUT) == before + 1
    del view
    gc.collect()
    assert gone() is None and len(device_array._HANDED_OUT) == before


def test_cuda_array_interface() -> None:
    array = DeviceArray(None, 4096, (2, 3, 4), "float16", (CUDA, 1))
    assert array.__cuda_array_interface__ == {
        "shape": (2, 3, 4),
        "typestr": "<f2",
        "data": (4096, False),
        "strides": None,
        "version": 3,
    }
    assert array[1:].pointer == 4096 + 24 and array[1:].shape == (1, 3, 4) and array.nbytes == 48
    assert (array.device, array.__dlpack_device__(), len(array)) == ("cuda:1", (2, 1), 2)
    assert repr(array) == "DeviceArray(float16 [2, 3, 4] on cuda:1)"
    assert not hasattr(there(np.zeros(1)), "__cuda_array_interface__")


def test_what_it_does_not_do() -> None:
    array = there(np.zeros((4, 2), np.float32))
    with pytest.raises(IndexError, match="step of 2, expected 1"):
        array[::2]
    for asked in ({"copy": True}, {"dl_device": (CUDA, 0)}):
        with pytest.raises(BufferError, match="its own memory only"):
            array.__dlpack__(**asked)
    assert array[3:1].shape == (0, 2)
