"""What a bundle shall hold, and what one that is made from another keeps of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from export import tensorrt
from export.bundle import check_target
from export.cache import EngineCache
from export.sources import Source
from runtime.bundle import MANIFEST, EngineEntry, GraphEntry, Precision


@dataclass(frozen=True)
class Plan:
    """What a bundle shall hold."""

    precisions: tuple[Precision, ...] | None = None
    """To be made beside fp32, which is in every bundle; None: no other, but those that a source that is a bundle holds
    are kept."""
    engines: tuple[tensorrt.Flavour, ...] = ()
    """TensorRT engines to build of every graph in every precision. Of another flavour, those that a source that is a
    bundle holds are kept if they still fit."""
    capabilities: tuple[str, ...] | None = None
    """GPU generations for TensorRT-RTX; None: all."""
    batches: tensorrt.Batches = tensorrt.BATCHES
    openvino: bool = False
    """Make int8, and measure it in OpenVINO too."""
    cache: EngineCache | None = None
    """Where engines are kept between exports."""


def graph_file(name: str, precision: Precision) -> str:
    """The file of a graph."""
    return f"{name}.onnx" if precision == "fp32" else f"{name}.{precision}.onnx"


def engine_file(onnx_file: str, flavour: tensorrt.Flavour) -> str:
    """The file of an engine that is built from an ONNX file."""
    return f"{onnx_file.removesuffix('.onnx')}.{flavour}.engine"


def reduced(source: Source, graph: str, plan: Plan) -> dict[Precision, GraphEntry | None]:
    """The precisions of a graph beside fp32: with each the source's entry to keep, or None if it is to be made."""
    found: dict[Precision, GraphEntry | None] = {}
    if plan.precisions is not None:
        found = dict.fromkeys(plan.precisions)
    elif source.bundle is not None:
        found = {entry.precision: entry for entry in source.bundle.manifest.graphs if entry.name == graph}
    if plan.openvino:
        found["int8"] = None
    return {precision: found[precision] for precision in _REDUCED if precision in found}


_REDUCED = tuple(precision for precision in get_args(Precision) if precision != "fp32")


def kept_engines(
    source: Source, graphs: Collection[GraphEntry], plan: Plan
) -> tuple[list[EngineEntry], dict[str, str]]:
    """Engines of the source that nobody asked to be built anew.

    Args:
        source: the run or bundle; a run has none.
        graphs: those of the new bundle.
        plan: what was asked for.

    Returns:
        Those that still fit; of the others the file and why not.
    """
    fit: list[EngineEntry] = []
    unfit: dict[str, str] = {}
    for engine in source.bundle.manifest.engines if source.bundle else ():
        graph = next((g for g in graphs if (g.name, g.precision) == (engine.graph, engine.precision)), None)
        if engine.flavour in plan.engines and graph is not None:
            continue
        if reason := _misfit(engine, graph):
            unfit[engine.file] = reason
        else:
            fit.append(engine)
    return fit, unfit


def _misfit(engine: EngineEntry, graph: GraphEntry | None) -> str:
    """Why an engine cannot be of a graph; "" if it can."""
    if graph is None:
        return f"its graph is not there in {engine.precision} any more"
    if engine.onnx_sha256 != graph.sha256:
        return f"it was built from another {graph.file}"
    here = tensorrt.installed_version(engine.flavour)
    if here and here != engine.version:
        return f"it was built by {engine.flavour} {engine.version}, here is {here}"
    shapes = {port.name: port.shape for port in graph.inputs}
    profile = {name: {shape[1:] for shape in ends} for name, ends in engine.profile.items()}
    if profile != {name: {shape} for name, shape in shapes.items()}:
        return "its profile does not fit the graph's inputs"
    return ""


def planned(source: Source, target: Path, plan: Plan) -> dict[str, Any]:
    """What `export_bundle` would write, as JSON values. An engine is said to be kept only if its graph is.

    Raises:
        InputError: `target` is something else than a bundle, or the source is a bundle without fp32.
    """
    check_target(target)
    held = {} if source.bundle is None else {(g.name, g.precision): g for g in source.bundle.manifest.graphs}
    graphs: list[dict[str, Any]] = []
    stay: list[GraphEntry] = []
    for reference in source.references():
        variants: dict[Precision, GraphEntry | None] = {"fp32": held.get((reference.name, "fp32"))}
        for precision, entry in (variants | reduced(source, reference.name, plan)).items():
            file = graph_file(reference.name, precision)
            kept = entry is not None
            graphs.append({"graph": reference.name, "precision": precision, "file": file, "kept": kept})
            stay += [entry] if entry is not None else []
    new = [
        graph
        | {"file": engine_file(graph["file"], flavour), "kept": False}
        | {"batch": list(plan.batches), "compute_capabilities": plan.capabilities or "all"}
        for graph in graphs
        for flavour in plan.engines
    ]
    old = [
        {"graph": engine.graph, "precision": engine.precision, "file": engine.file, "kept": True}
        | {"batch": [shape[0] for shape in next(iter(engine.profile.values()))]}
        | {"compute_capabilities": list(engine.compute_capabilities)}
        for engine in kept_engines(source, stay, plan)[0]
    ]
    files = [MANIFEST, *(entry["file"] for entry in (*graphs, *new, *old))]
    return {
        "bundle": str(target),
        "replaces": target.exists(),
        "files": files,
        "drops": dropped(target, files),
        "graphs": graphs,
        "engines": new + old,
    }


def dropped(target: Path, files: Iterable[str]) -> list[str]:
    """Names of the graphs and engines of the bundle at `target` that a new one of these files has not."""
    there = {path.name for path in target.glob("*") if path.suffix in (".onnx", ".engine")}
    return sorted(there - set(files))
