"""python -m export: freeze finished runs into bundles. The bundles' paths go to stdout as JSON, talk to stderr.

`--to trt` (or `--trt`) adds TensorRT engines, `--to openvino-int8` an int8 graph that holds its bound in OpenVINO too,
`--to triton` a Triton Inference Server model repository beside the bundle. A RUN may also be a bundle: then its fp32
graphs are what the others are made from and compared with, its precisions and engines are kept unless they are asked
for anew, and `--to triton` alone leaves a bundle that is in its place as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from runtime.errors import InputError, Parser, cli, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from export.pipeline import Exported
    from export.plan import Plan
    from export.sources import Source

TARGETS = ("onnx", "trt", "openvino-int8", "triton")


@cli
def main(argv: Sequence[str]) -> int:
    """Export runs, those that can be if some cannot; returns the exit status."""
    options = _parser().parse_args(argv)
    targets = {"onnx", *_words("--to", options.to, TARGETS), *(["trt"] if options.trt else [])}
    if options.sm and "trt" not in targets:
        raise InputError("--sm is for engines; add --trt")
    if options.batch is not None and not targets & {"trt", "triton"}:
        raise InputError("--batch is for engines and Triton; add --trt or --to triton")

    # After the arguments, so that --help does not wait for PyTorch.
    from rich.console import Console

    from export.pipeline import Exported, export_bundle
    from trainer.run import finished_runs

    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = 120  # a log is not folded to the 80 columns of a terminal that is not there
    plan = _plan(options, targets)
    if "triton" in targets:
        from export.triton import require

        require()
    runs = options.run or finished_runs(options.runs)
    if not runs:
        raise InputError(f"no finished run under {options.runs}; train one with `python -m trainer`, or name a RUN")
    names = [_name(run) for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two runs are called {name!r} and would be one bundle; export them with separate --out")
    exported: list[Exported] = []
    results: list[Any] = []
    errors = []
    for run, name in zip(runs, names, strict=True):
        target = options.out / name
        try:
            with console.status(f"{name}: opening the run") as status:
                source = _open(run)
                beside = _beside(target, targets)  # refuses before minutes of work
                as_it_is = _as_it_is(source, target, options)
                if options.dry_run:
                    results.append({"run": str(run)} | _planned(source, target, plan, as_it_is) | beside)
                    continue
                say = lambda what, name=name: status.update(f"{name}: {what}")  # noqa: E731
                bundle = Exported(target) if as_it_is else export_bundle(source, target, plan, say)
                exported.append(bundle)
                results.append(str(target))
                if beside:
                    say("Triton model repository")
                    bundle.notices.extend(_write_beside(target, Path(beside["triton"]), plan))
        except Exception as error:  # a damaged or older run can fail in any way; the others are not to suffer
            kind = "" if isinstance(error, InputError | OSError) else f"{type(error).__name__}: "
            errors.append(f"{name}: {kind}{one_line(error)}")
    _summary(console, exported)
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    if results:
        print(json.dumps(results, indent=1 if options.dry_run else None))
    return 2 if errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", nargs="*", type=Path, metavar="RUN", help="a run's or bundle's folder (default: every finished run)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where finished runs are (default runs)")
    parser.add_argument("--out", type=Path, default=Path("bundles"), help="where the bundles go (default bundles)")
    parser.add_argument("--to", default="onnx", metavar=",".join(TARGETS), help="what to write (default onnx)")
    parser.add_argument("--trt", action="store_true", help="the same as --to trt: build TensorRT engines too")
    parser.add_argument(
        "--precision",
        metavar="fp32,fp16,int8",
        help="precisions to make beside fp32, which is always there (default: those of a RUN that is a bundle)",
    )
    parser.add_argument("--batch", metavar="MIN:OPT:MAX", help="batch sizes of engines and of Triton (default 1:8:64)")
    parser.add_argument("--sm", metavar="80,86,89", help="GPU generations for --trt (default: all that can be had)")
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="build engines anew and keep none (default: in $AWASE_CACHE or ~/.cache/awase)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print as JSON what would be written; write nothing")
    return parser


def _words(option: str, text: str, known: Sequence[str]) -> list[str]:
    """Read a list with commas, each of its words one of `known`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise InputError(f"{option}: {word!r} is not one of {', '.join(known)}")
    if not words:
        raise InputError(f"{option} is {text!r}, expected some of {','.join(known)}")
    return words


def _plan(options: argparse.Namespace, targets: set[str]) -> Plan:
    from export import tensorrt
    from export.cache import EngineCache, cache_folder
    from export.plan import Plan
    from runtime.bundle import Precision

    known = get_args(Precision)
    asked = None if options.precision is None else _words("--precision", options.precision, known)
    openvino = "openvino-int8" in targets
    if openvino:
        try:
            import openvino as _  # noqa: F401
        except ImportError:
            raise InputError("--to openvino-int8 needs OpenVINO; `pip install awase[cpu]`") from None
    engines = tuple(tensorrt.flavours()) if "trt" in targets else ()
    if options.sm and "tensorrt-rtx" not in engines:
        raise InputError("--sm is for TensorRT-RTX, which is not installed; `pip install awase[trt]`")
    return Plan(
        precisions=None if asked is None else tuple(precision for precision in known if precision in asked),
        engines=engines,
        capabilities=tuple(tensorrt.parse_capabilities(options.sm)) if options.sm else None,
        batches=tensorrt.BATCHES if options.batch is None else tensorrt.parse_batches(options.batch),
        openvino=openvino,
        cache=None if options.no_cache else EngineCache(cache_folder()),
    )


def _open(path: Path) -> Source:
    from export.sources import is_bundle, source_of_bundle, source_of_run
    from trainer.run import open_run

    return source_of_bundle(path) if is_bundle(path) else source_of_run(open_run(path))


def _name(run: Path) -> str:
    """What a run's bundle is called: as the run, and as a bundle is called in the place where it was found."""
    from export.sources import is_bundle

    name = Path(os.path.abspath(run)).name if is_bundle(run) else run.resolve().name
    if not name:
        raise InputError(f"{run} is no run's or bundle's folder")
    return name


def _as_it_is(source: Source, target: Path, options: argparse.Namespace) -> bool:
    """Whether a bundle is asked nothing new of: only to stand where it stands, with a Triton repository beside it."""
    words = {word.strip() for word in options.to.split(",") if word.strip()}
    in_place = source.bundle is not None and target.exists() and source.bundle.path.samefile(target)
    return in_place and words == {"triton"} and not options.trt and options.precision is None


def _planned(source: Source, target: Path, plan: Plan, as_it_is: bool) -> dict[str, Any]:
    from export.plan import planned

    if as_it_is:
        return {"bundle": str(target), "replaces": False, "files": [], "drops": [], "graphs": [], "engines": []}
    return planned(source, target, plan)


def _beside(target: Path, targets: set[str]) -> dict[str, str]:
    """Where the Triton repository of a bundle goes."""
    if "triton" not in targets:
        return {}
    from export.triton import check_repository

    repository = target.with_name(f"{target.name}.triton")
    check_repository(repository)
    return {"triton": str(repository)}


def _write_beside(bundle: Path, repository: Path, plan: Plan) -> list[str]:
    """Write the Triton repository of a bundle; returns what to say of it."""
    from export.triton import models_of, write_repository

    before = models_of(repository)
    names = write_repository(bundle, repository, plan.batches)
    lost = [name for name in before if name not in names]
    gone = f"; dropped the earlier one's {', '.join(lost)}" if lost else ""
    return [f"Triton model repository {repository}: {', '.join(names)}{gone}"]


def _summary(console: Console, exported: list[Exported]) -> None:
    from rich import box
    from rich.table import Table

    for bundle in exported:
        if not bundle.rows:
            continue
        # Narrow enough for 80 columns: only what stands last may take several lines.
        table = Table(box=box.SIMPLE, pad_edge=False)
        for column in ("graph", "form", "precision"):
            table.add_column(column, no_wrap=True)
        for column in ("MB", "seconds"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("parity", overflow="fold")
        for row in bundle.rows:
            size, seconds = f"{row.bytes / 1e6:.2f}", f"{row.seconds:.1f}"
            table.add_row(row.graph, row.form, row.precision, size, seconds, row.parity)
        console.print(str(bundle.path), highlight=False, markup=False, soft_wrap=True)
        console.print(table)
    for bundle in exported:
        for notice in bundle.notices:
            console.print(f"notice: {bundle.path}: {notice}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
