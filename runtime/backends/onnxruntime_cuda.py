"""Runs an ONNX graph with ONNX Runtime on a CUDA GPU: bound device buffers, our own streams, no hidden copies.

This code has run with stand-ins for PyCUDA only, never on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.backends import cuda
from runtime.backends.lanes import LARGEST, DeviceSession, Lane, buckets
from runtime.errors import InputError, one_line

if TYPE_CHECKING:
    from runtime.bundle import GraphEntry, Port

_PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeCudaSession(DeviceSession):
    """One ONNX file opened by ONNX Runtime for a GPU.

    Args:
        path: the ONNX file.
        graph: what the bundle says of it.
        number: CUDA's number of the GPU.

    Raises:
        InputError: ONNX Runtime with CUDA, PyCUDA, the driver or the GPU is missing, or the file cannot be opened.
            There is no silent fallback to the CPU.
    """

    backend = "onnxruntime"

    def __init__(self, path: Path, graph: GraphEntry, number: int = 0) -> None:
        self.precision = graph.precision
        gpu = cuda.device(number)
        try:
            import onnxruntime
        except ImportError:
            raise InputError("onnxruntime is not installed; `pip install awase[gpu]`") from None
        if _PROVIDER not in onnxruntime.get_available_providers():
            raise InputError(f"device cuda:{number}: this onnxruntime has no CUDA provider; `pip install awase[gpu]`")
        super().__init__(
            gpu,
            graph.inputs,
            graph.outputs,
            str(path),
            lambda: _OnnxRuntimeLane(gpu, graph.inputs, graph.outputs, onnxruntime, path),
        )


class _OnnxRuntimeLane(Lane):
    """A session of ONNX Runtime's on the lane's stream (a session has one stream), and a binding for each size."""

    def __init__(
        self, gpu: cuda.Device, inputs: Sequence[Port], outputs: Sequence[Port], library: Any, path: Path
    ) -> None:
        super().__init__(gpu, inputs, outputs, buckets(1, LARGEST, LARGEST))
        options = library.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings would mix with the commands' own lines
        provider = {
            "device_id": gpu.number,
            "user_compute_stream": str(self.stream),
            "use_tf32": 0,  # it would cost three digits of the parity that the bundle promises
            "cudnn_conv_algo_search": "HEURISTIC",  # measured, the choice and so the last bits would differ each time
        }
        try:
            with gpu.current():
                self._session = library.InferenceSession(
                    str(path), options, providers=[(_PROVIDER, provider), "CPUExecutionProvider"]
                )
        except Exception as error:  # ONNX Runtime's exception types have no public base but Exception
            raise InputError(f"{path}: onnxruntime cannot open it: {one_line(error)[:400]}") from error
        # ONNX Runtime lists CUDA as available on machines without a GPU; only the session itself tells the truth.
        if _PROVIDER not in self._session.get_providers():
            raise InputError(
                f"device cuda:{gpu.number}: onnxruntime's CUDA provider does not work here; use device cpu"
            )
        self._path = path
        self._run_options = library.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # `wait` does it
        self._bindings: dict[int, Any] = {}

    def _execute(self, size: int) -> None:
        if size not in self._bindings:
            self._bindings[size] = self._bound(size)
        try:
            self._session.run_with_iobinding(self._bindings[size], self._run_options)
        except Exception as error:
            raise InputError(f"{self._path}: onnxruntime cannot run it: {one_line(error)[:400]}") from error

    def _bound(self, size: int) -> Any:
        binding = self._session.io_binding()
        for bind, arrays in ((binding.bind_input, self.inputs), (binding.bind_output, self.outputs)):
            for name, array in arrays.items():
                element = np.dtype(array.dtype).type
                bind(name, "cuda", self.gpu.number, element, [size, *array.shape[1:]], array.pointer)
        return binding
