"""From a finished run to a bundle: graphs → ONNX → parity → engines → manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from export import tensorrt
from export.bundle import check_target, write_manifest, writing
from export.errors import ExportError
from export.onnx import OPSET, export_onnx
from export.parity import measure
from runtime.bundle import EngineEntry, GraphEntry, Manifest, sha256_of

if TYPE_CHECKING:
    from trainer.recipe import Graph

VERSIONS = ("awase", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


class Finished(Protocol):
    """What export needs of a run; `trainer.run.open_run` gives it."""

    recipe_name: str

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def robot(self) -> dict[str, Any] | None: ...  # noqa: D102
    @property
    def summary(self) -> dict[str, Any]: ...  # noqa: D102
    def graphs(self) -> list[Graph]: ...  # noqa: D102


@dataclass(frozen=True)
class Row:
    """One line of the summary: one file of the bundle."""

    file: str
    precision: str
    bytes: int
    seconds: float
    parity: str


@dataclass(frozen=True)
class Exported:
    """A bundle that was written."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def export_run(
    run: Finished,
    target: Path,
    engines: Sequence[tensorrt.Flavour] = (),
    capabilities: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Freeze one run into a bundle.

    Args:
        run: the finished run.
        target: the bundle's folder; an earlier bundle there is replaced once the new one is whole.
        engines: flavours of TensorRT engines to build beside the ONNX files.
        capabilities: GPU generations for TensorRT-RTX; None: all.
        say: told what is being done, for a status line.

    Raises:
        ExportError: a graph cannot be frozen or described, drifts from PyTorch, or an engine cannot be built. Nothing
            is written.
        InputError: `target` is something else than a bundle.
    """
    check_target(target)  # before minutes of work
    try:
        with writing(target) as folder:
            exported = Exported(target)
            summary = run.summary
            if not summary.get("finished", True):
                exported.notices.append(f"the run is not finished; its newest checkpoint: {summary['kimg']:g} kimg")
            graphs, built = [], []
            for graph in run.graphs():
                entry = _freeze(graph, folder, exported, say)
                graphs.append(entry)
                for flavour in engines:
                    say(f"{graph.name}: {flavour} engine")
                    built.append(_engine(entry, folder, flavour, capabilities, exported))
            manifest = Manifest(
                name=target.name,
                recipe=run.recipe_name,
                model=run.model,
                graphs=tuple(graphs),
                engines=tuple(built),
                robot=run.robot,
                training=summary,
                versions=_versions() | {entry.flavour: entry.version for entry in built},
            )
            write_manifest(folder, manifest)
            for lost in sorted(path.name for path in target.glob("*.engine") if not (folder / path.name).exists()):
                exported.notices.append(f"dropped the earlier bundle's {lost}; --trt builds it anew")
    except ValidationError as error:  # what the manifest says of a graph cannot be
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, (error.title, *first["loc"])))
        got = f" is {first['input']!r}" if isinstance(first["input"], str) else ""
        raise ExportError(f"{where}{got}: {first['msg']}") from None
    return exported


def _freeze(graph: Graph, folder: Path, exported: Exported, say: Callable[[str], None]) -> GraphEntry:
    started = time.perf_counter()
    path = folder / f"{graph.name}.onnx"
    say(f"{graph.name}: ONNX")
    export_onnx(graph, path)
    seconds = time.perf_counter() - started
    say(f"{graph.name}: parity with PyTorch")
    parity = measure(graph, path)
    worst = max(output.max_abs for output in parity.outputs.values())
    mean = max(output.mean_abs for output in parity.outputs.values())
    text = f"mean {mean:.1e}, max {worst:.1e} over {parity.samples} samples"
    exported.rows.append(Row(path.name, "fp32", path.stat().st_size, seconds, text))
    return GraphEntry(
        name=graph.name,
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        opset=OPSET,
        inputs=graph.inputs,
        outputs=graph.outputs,
        parity=parity,
    )


def _engine(
    graph: GraphEntry,
    folder: Path,
    flavour: tensorrt.Flavour,
    capabilities: Sequence[str] | None,
    exported: Exported,
) -> EngineEntry:
    engine = tensorrt.build(folder / graph.file, graph.inputs, flavour, capabilities)
    path = folder / f"{graph.name}.{flavour}.engine"
    path.write_bytes(engine.data)
    if engine.notice:
        exported.notices.append(engine.notice)
    runs_on = ",".join(engine.compute_capabilities) or "this GPU"
    exported.rows.append(Row(path.name, graph.precision, len(engine.data), engine.seconds, f"not run; for {runs_on}"))
    return EngineEntry(
        graph=graph.name,
        file=path.name,
        bytes=len(engine.data),
        sha256=sha256_of(path),
        flavour=engine.flavour,
        version=engine.version,
        compute_capabilities=engine.compute_capabilities,
        profile=engine.profile,
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree, or not needed for this export
            continue
    return found
