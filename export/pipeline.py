"""From a source to a bundle: graphs → ONNX → parity → precisions → engines → manifest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import onnx
from pydantic import ValidationError

from export import tensorrt
from export.bundle import check_target, write_manifest, writing
from export.drift import Inside, layers, steepest, told
from export.errors import ExportError
from export.onnx import OPSET, check_file
from export.parity import measure, misses, onnxruntime_runner
from export.plan import Plan, dropped, engine_file, graph_file, kept_engines, reduced
from export.precision import reduce_precision
from export.references import Reference
from export.sources import Finished, Source, source_of_run
from runtime.bundle import Bundle, EngineEntry, GraphEntry, Manifest, Parity, Precision, sha256_of

Say = Callable[[str], None]
"""Told what is being done, for a status line."""


@dataclass(frozen=True)
class Row:
    """One line of the summary: one file of the bundle."""

    graph: str
    form: str
    """"onnx" or what an engine is for."""
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


def export_bundle(source: Source, target: Path, plan: Plan | None = None, say: Say = lambda _: None) -> Exported:
    """Freeze a run into a bundle, or make a bundle anew.

    Args:
        source: the run or bundle.
        target: the bundle's folder; an earlier bundle there is replaced once the new one is whole.
        plan: what it shall hold; None: of a run the ONNX files in fp32, of a bundle what it holds.
        say: told what is being done.

    Raises:
        ExportError: a graph cannot be frozen or described, drifts from its reference, or an engine cannot be built.
            Nothing is written.
        InputError: `target` is something else than a bundle, or the source is a bundle without fp32.
    """
    plan = plan or Plan()
    check_target(target)  # before minutes of work
    try:
        with writing(target) as folder:
            exported = Exported(target)
            summary = source.training
            if not summary.get("finished", True):
                exported.notices.append(f"the run is not finished; its newest checkpoint: {summary['kimg']:g} kimg")
            graphs = [
                entry
                for reference in source.references()
                for entry in _freeze(reference, source, folder, plan, exported, say)
            ]
            built = [
                _engine(entry, folder, flavour, plan, exported, say) for entry in graphs for flavour in plan.engines
            ]
            kept, unfit = kept_engines(source, graphs, plan)
            built += [_kept_engine(engine, source, folder, exported) for engine in kept]
            used = {"openvino": version("openvino")} if plan.openvino else {}
            manifest = Manifest(
                name=target.name,
                recipe=source.recipe,
                model=source.model,
                graphs=tuple(graphs),
                engines=tuple(built),
                robot=source.robot,
                training=summary,
                versions=source.versions | used | {entry.flavour: entry.version for entry in built},
            )
            write_manifest(folder, manifest)
            exported.notices.extend(f"{file} is not kept: {why}; {_anew(file)}" for file, why in unfit.items())
            lost = dropped(target, [entry.file for entry in manifest.files])
            exported.notices.extend(
                f"dropped the earlier bundle's {file}; {_anew(file)}" for file in lost if file not in unfit
            )
    except ValidationError as error:  # what the manifest says of a graph cannot be
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, (error.title, *first["loc"])))
        got = f" is {first['input']!r}" if isinstance(first["input"], str) else ""
        raise ExportError(f"{where}{got}: {first['msg']}") from None
    return exported


def export_run(
    run: Finished,
    target: Path,
    precisions: tuple[Precision, ...] = ("fp32",),
    engines: tuple[tensorrt.Flavour, ...] = (),
    capabilities: tuple[str, ...] | None = None,
    say: Say = lambda _: None,
) -> Exported:
    """Freeze a finished run into a bundle; see `export_bundle` and `Plan`."""
    return export_bundle(source_of_run(run), target, Plan(precisions, engines, capabilities), say)


def _freeze(
    reference: Reference, source: Source, folder: Path, plan: Plan, exported: Exported, say: Say
) -> list[GraphEntry]:
    """One graph in every precision."""
    fp32 = folder / graph_file(reference.name, "fp32")
    started = time.perf_counter()
    say(f"{reference.name}: ONNX")
    reference.freeze(fp32)
    say(f"{reference.name}: parity")
    parity = reference.known_parity(fp32) or _checked(reference, fp32)
    entries = [_entry(reference, "fp32", fp32, parity, started, exported)]
    for precision, held in reduced(source, reference.name, plan).items():
        started = time.perf_counter()
        path = folder / graph_file(reference.name, precision)
        if held is not None and source.bundle is not None and _same(source.bundle, entries[0]):
            shutil.copyfile(source.bundle.file(held), path)
            check_file(path, reference)
            entries.append(_entry(reference, precision, path, held.parity, started, exported, "kept"))
            continue
        both = plan.openvino and precision == "int8"
        variant = reduce_precision(reference, fp32, path, precision, both, say)
        exported.notices.extend(variant.notices)
        entries.append(_entry(reference, precision, path, variant.parity, started, exported))
    return entries


def _same(bundle: Bundle, graph: GraphEntry) -> bool:
    """Whether a graph is what the bundle's other precisions of it were made from."""
    return bundle.graph(graph.name, graph.precision).sha256 == graph.sha256


def _checked(reference: Reference, fp32: Path) -> Parity:
    """The parity report of an fp32 file.

    Raises:
        ExportError: it does not hold its bounds; the message says where it drifts first.
    """
    report = measure(reference, [onnxruntime_runner(fp32)])
    missed = misses(report)
    if not missed:
        return report
    model, feeds = onnx.load(fp32), reference.feeds(0, 8)
    worst = steepest(layers(model, Inside(model, told(model)).run(feeds), reference.inside(feeds)), "fp32")
    if worst is None or worst.sqnr_db > _SAME_DB:
        where = "no layer inside does: the module gives something else when PyTorch traces it"
    else:
        where = f"drifts first at {worst}"
    raise ExportError(f"graph {reference.name}: {missed} against {reference.text}; {where}; nothing was exported")


_SAME_DB = 90.0
"""Tensors this near to each other differ by float32's rounding alone."""


def _entry(
    reference: Reference,
    precision: Precision,
    path: Path,
    parity: Parity | None,
    started: float,
    exported: Exported,
    how: str = "",
) -> GraphEntry:
    seconds = time.perf_counter() - started
    text = "; ".join(filter(None, [_in_words(parity) if parity else "", how]))
    exported.rows.append(Row(reference.name, "onnx", precision, path.stat().st_size, seconds, text))
    return GraphEntry(
        name=reference.name,
        precision=precision,
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        opset=OPSET,
        inputs=reference.inputs,
        outputs=reference.outputs,
        parity=parity,
    )


def _in_words(parity: Parity) -> str:
    """The figures that are bounded, of the worst output."""
    outputs = parity.outputs.values()
    texts = []
    if scores := [o.ssim for o in outputs if o.ssim_bound is not None and o.ssim is not None]:
        texts.append(f"SSIM {min(scores):.4f}")
    if errors := [output for output in outputs if output.mean_bound is not None]:
        worst = f", max {max(o.max_abs for o in errors):.1e}" if errors[0].max_bound is not None else ""
        texts.append(f"mean {max(o.mean_abs for o in errors):.1e}{worst}")
    return "; ".join(texts)


def _engine(
    graph: GraphEntry, folder: Path, flavour: tensorrt.Flavour, plan: Plan, exported: Exported, say: Say
) -> EngineEntry:
    say(f"{graph.name}: {flavour} engine in {graph.precision}")
    engine = tensorrt.build(
        folder / graph.file, graph.inputs, flavour, plan.capabilities, plan.batches, plan.cache, graph.precision
    )
    path = folder / engine_file(graph.file, flavour)
    path.write_bytes(engine.data)
    if engine.notice:
        exported.notices.append(engine.notice)
    runs_on = " ".join(engine.compute_capabilities) or "this GPU"
    text = f"not run; for {runs_on}" + ("; cached" if engine.cached else "")
    exported.rows.append(Row(graph.name, flavour, graph.precision, len(engine.data), engine.seconds, text))
    return EngineEntry(
        graph=graph.name,
        precision=graph.precision,
        onnx_sha256=graph.sha256,
        file=path.name,
        bytes=len(engine.data),
        sha256=sha256_of(path),
        flavour=engine.flavour,
        version=engine.version,
        compute_capabilities=engine.compute_capabilities,
        profile=engine.profile,
    )


def _kept_engine(engine: EngineEntry, source: Source, folder: Path, exported: Exported) -> EngineEntry:
    """Copy an engine of the bundle that is the source."""
    assert source.bundle is not None  # where else it would come from
    path = folder / engine.file
    if path.exists():
        raise ExportError(f"{source.bundle.path}: engine {engine.file} is called like a file of the new bundle")
    shutil.copyfile(source.bundle.file(engine), path)
    runs_on = " ".join(engine.compute_capabilities) or "its own GPU"
    text = f"not run; for {runs_on}; kept"
    exported.rows.append(Row(engine.graph, engine.flavour, engine.precision, engine.bytes, 0.0, text))
    return engine


def _anew(file: str) -> str:
    return f"{'--trt builds' if file.endswith('.engine') else '--precision makes'} it anew"
