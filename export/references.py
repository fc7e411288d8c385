"""What an exported graph is compared with: the PyTorch module it came from, or an ONNX file that already was."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import cpp_ext
from export.drift import Inside, Tensors, told

if TYPE_CHECKING:
    from runtime.bundle import Parity, Port
    from runtime.session import Session
    from trainer.recipe import Graph


class Declared(Protocol):
    """A graph's name and ports."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def inputs(self) -> tuple[Port, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[Port, ...]: ...  # noqa: D102


class Reference(Declared, Protocol):
    """The graph as it should be."""

    @property
    def text(self) -> str:
        """What it is, for the report: "torch 2.13.0 cpu"."""
        ...

    def freeze(self, path: Path) -> None:
        """Write the graph as an fp32 ONNX file.

        Raises:
            ExportError: it cannot be frozen.
        """
        ...

    def known_parity(self, path: Path) -> Parity | None:
        """The report of a file that `freeze` wrote, if that file has been compared before."""
        ...

    def feeds(self, seed: int, count: int) -> dict[str, np.ndarray]:
        """Inputs to compare and calibrate with, by port name, [count, *shape], a function of `seed`."""
        ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by output name, for arrays by input name."""
        ...

    def inside(self, feeds: Mapping[str, np.ndarray]) -> Tensors:
        """Tensors inside the graph by the names they have in its ONNX form, as far as they can be had."""
        ...


@dataclass(frozen=True)
class TorchReference:
    """A PyTorch module with its ports."""

    graph: Graph

    @property
    def name(self) -> str:
        """The graph's name."""
        return self.graph.name

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The graph's inputs."""
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The graph's outputs."""
        return self.graph.outputs

    @property
    def text(self) -> str:
        """PyTorch's version and device."""
        import torch

        return f"torch {torch.__version__} cpu"

    def freeze(self, path: Path) -> None:
        """Export the module."""
        from export.onnx import export_onnx

        export_onnx(self.graph, path)

    def known_parity(self, path: Path) -> Parity | None:
        """None: it was written just now."""
        return None

    def feeds(self, seed: int, count: int) -> dict[str, np.ndarray]:
        """The graph's own examples; where it has none, what its ports allow."""
        if self.graph.examples is None:
            return drawn(self.inputs, seed, count)
        examples = self.graph.examples(seed, count)
        return {port.name: examples[port.name] for port in self.inputs}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the module without gradients."""
        import torch

        with torch.no_grad():
            results = self.graph.module(*(torch.from_numpy(feeds[port.name]) for port in self.inputs))
        return {port.name: tensor.numpy() for port, tensor in zip(self.outputs, results, strict=True)}

    def inside(self, feeds: Mapping[str, np.ndarray]) -> Tensors:
        """Every tensor of the traced module, run by PyTorch: the exporter names ONNX tensors after them."""
        import torch

        from export.onnx import trace

        found: Tensors = {}

        class Recorder(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                result = super().run_node(n)
                if isinstance(result, torch.Tensor):
                    found[n.name] = result.numpy()
                return result

        program = trace(self.graph).exported_program
        assert program is not None  # PyTorch's newer exporter always has it
        with torch.no_grad():
            results = Recorder(program.module()).run(*(torch.from_numpy(feeds[port.name]) for port in self.inputs))
        for port, tensor in zip(self.outputs, results, strict=True):
            found[port.name] = tensor.numpy()
        return found


@dataclass(frozen=True)
class OnnxReference:
    """An fp32 ONNX file that has been compared with PyTorch before."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    path: Path
    text: str
    parity: Parity | None = None
    """Its report."""

    def freeze(self, path: Path) -> None:
        """Copy the file, its narrow transposed convolutions rewritten and all of its nodes named.

        It passes the checks of a new one: whoever made the bundle may have skipped them.
        """
        import onnx

        from export.onnx import check_file
        from export.surgery import name_nodes
        from export.upsampling import rewrite_upsampling

        shutil.copyfile(self.path, path)
        model = check_file(path, self)
        if rewrite_upsampling(model) + name_nodes(model.graph):
            onnx.save_model(model, path)
            check_file(path, self)

    def known_parity(self, path: Path) -> Parity | None:
        """The earlier report, if the file is still the same."""
        return self.parity if path.read_bytes() == self.path.read_bytes() else None

    def feeds(self, seed: int, count: int) -> dict[str, np.ndarray]:
        """What its ports allow: a bundle holds no examples, which would be somebody's pictures."""
        return drawn(self.inputs, seed, count)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the file with ONNX Runtime."""
        return self._session.run(feeds)

    @cached_property
    def _session(self) -> Session:
        from runtime.backends.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(self.path)

    def inside(self, feeds: Mapping[str, np.ndarray]) -> Tensors:
        """What the file's weighted layers make, and its outputs."""
        import onnx

        model = onnx.load(self.path)
        return Inside(model, told(model)).run(feeds)


def drawn(ports: tuple[Port, ...], seed: int, count: int) -> dict[str, np.ndarray]:
    """Test inputs for a graph: noise as at run time, latents alike, else evenly spread over the range or limits.

    Returns:
        Arrays by port name, [count, *shape], each a function of (seed, its place among the ports).
    """
    feeds = {}
    for place, port in enumerate(ports):
        size = int(np.prod(port.shape))
        if port.kind in ("noise", "latent"):  # what batch norm leaves is near enough to normal
            values = cpp_ext.noise(seed, place * 2**32, count, size).astype(np.float64)
        else:
            low, high = bounds_of(port)
            values = low + (high - low) * np.random.default_rng([seed, place]).random((count, size))
        feeds[port.name] = values.reshape(count, *port.shape).astype(port.dtype)
    return feeds


def bounds_of(port: Port) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of each component, [prod(shape)] or scalar."""
    low, high = np.asarray(port.limits if port.limits is not None else [port.range or (-1.0, 1.0)], np.float64).T
    return low, high
