"""Runs an ONNX graph with ONNX Runtime, on the CPU or a CUDA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError

_DTYPES = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int64)": np.dtype(np.int64),
}


class OnnxRuntimeSession:
    """One ONNX file opened by ONNX Runtime.

    Args:
        path: the ONNX file.
        threads: CPU threads for one run; None: ONNX Runtime's own choice (the physical cores).
        device: "cpu", "cuda" or "cuda:N". There is no silent fallback: a GPU that is not there is an error.

    Raises:
        InputError: ONNX Runtime is not installed, the file cannot be opened, the device is not there, or threads is
            below 1.
    """

    def __init__(self, path: str | Path, threads: int | None = None, device: str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError:
            raise InputError("onnxruntime is not installed; `pip install awase[cpu]` (or awase[gpu])") from None
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, expected at least 1 or None")
        kind, _, number = device.partition(":")
        self.device = device if kind == "cpu" else f"cuda:{int(number or 0)}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings would mix with the commands' own lines
        if threads is not None:
            options.intra_op_num_threads = threads
        providers: list[Any] = ["CPUExecutionProvider"]
        if kind == "cuda":
            # TF32 would cost three digits of the parity that the bundle promises.
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(number or 0), "use_tf32": 0}))
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise InputError(
                    f"device {device!r}: this onnxruntime has no CUDA provider; `pip install awase[gpu]` or use cpu"
                )
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's exception types have no public base but Exception
            raise InputError(f"{path}: onnxruntime cannot open it: {error}") from error
        # ONNX Runtime lists CUDA as available on machines without a GPU; only the session itself tells the truth.
        if kind == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise InputError(f"device {device!r}: no usable GPU with CUDA on this machine; use device cpu")
        self._path = path
        self._inputs = {port.name: port for port in self._session.get_inputs()}
        self._outputs = [port.name for port in self._session.get_outputs()]

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph once: arrays by input name in, arrays by output name out, batch axis first.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape than the graph's.
        """
        if feeds.keys() != self._inputs.keys():
            raise InputError(f"{self._path}: inputs {', '.join(feeds) or 'none'}, expected {', '.join(self._inputs)}")
        for name, port in self._inputs.items():
            array = feeds[name]
            fits = len(array.shape) == len(port.shape) and all(
                got == want for got, want in zip(array.shape, port.shape, strict=True) if isinstance(want, int)
            )
            if not fits or array.dtype != _DTYPES.get(port.type, array.dtype):
                raise InputError(
                    f"{self._path}: input {name} is {array.dtype} {list(array.shape)}, "
                    f"expected {_DTYPES.get(port.type, port.type)} {port.shape}"
                )
        return dict(zip(self._outputs, self._session.run(None, feeds), strict=True))
