"""Runs an ONNX graph with ONNX Runtime, on the CPU or a CUDA GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import InputError, one_line
from runtime.session import Session, Slot, check_feeds, check_results

if TYPE_CHECKING:
    from runtime.bundle import Precision

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}


class OnnxRuntimeSession(Session):
    """One ONNX file opened by ONNX Runtime.

    Args:
        path: the ONNX file.
        threads: CPU threads for one run; None: ONNX Runtime's own choice (the physical cores).
        device: "cpu", "cuda" or "cuda:N". There is no silent fallback: a GPU that is not there is an error.
        precision: what the file's precision is called.

    Raises:
        InputError: ONNX Runtime is not installed, the file cannot be opened, the device is not there, or threads is
            below 1.
    """

    backend = "onnxruntime"

    def __init__(
        self, path: str | Path, threads: int | None = None, device: str = "cpu", precision: Precision = "fp32"
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise InputError("onnxruntime is not installed; `pip install awase[cpu]` (or awase[gpu])") from None
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, expected at least 1 or None")
        self.precision = precision
        kind, _, number = device.partition(":")
        self.device = device if kind == "cpu" else f"cuda:{int(number or 0)}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings would mix with the commands' own lines
        if threads is not None:
            options.intra_op_num_threads = threads
        providers: list[Any] = ["CPUExecutionProvider"]
        if kind == "cuda":
            # TF32 would cost three digits of the parity that the bundle promises; and were the kernels chosen by
            # measuring, the last bits would differ from time to time.
            provider = {"device_id": int(number or 0), "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
            providers.insert(0, ("CUDAExecutionProvider", provider))
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise InputError(
                    f"device {device!r}: this onnxruntime has no CUDA provider; `pip install awase[gpu]` or use cpu"
                )
        try:
            # Its own fallback would print to stdout and run elsewhere than was asked for.
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exception types have no public base but Exception
            raise InputError(f"{path}: onnxruntime cannot open it: {one_line(error)[:400]}") from error
        # ONNX Runtime lists CUDA as available on machines without a GPU; only the session itself tells the truth.
        if kind == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise InputError(f"device {device!r}: no usable GPU with CUDA on this machine; use device cpu")
        self._path = str(path)
        self.inputs = [_slot(port) for port in self._session.get_inputs()]
        self.outputs = [_slot(port) for port in self._session.get_outputs()]
        self._names = [slot.name for slot in self.outputs]

    def pieces(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[slice, Mapping[str, np.ndarray]]]:
        """Run the graph once; see `Session.pieces`. One piece: the whole batch."""
        count = check_feeds(self._path, self.inputs, feeds)
        try:
            results = self._session.run(self._names, feeds)
        except Exception as error:
            raise InputError(f"{self._path}: onnxruntime cannot run it: {one_line(error)[:400]}") from error
        named = dict(zip(self._names, results, strict=True))
        check_results(self._path, self.outputs, named, count)
        yield slice(0, count), named

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Run the graph once; see `Session.run`."""
        if outputs is not None:
            return super().run(feeds, outputs)
        return dict(next(self.pieces(feeds))[1])  # the one piece is new memory already


def _slot(port: Any) -> Slot:
    sizes = tuple(size if isinstance(size, int) else 0 for size in port.shape[1:])
    return Slot(port.name, _DTYPES.get(port.type, port.type), sizes)
