"""python -m export: freeze finished runs into bundles. The bundles' paths go to stdout as JSON, talk to stderr.

`--to trt` (or `--trt`) adds TensorRT engines, `--to openvino-int8` an int8 graph that holds its bound in OpenVINO too,
`--to triton` a Triton Inference Server model repository beside the bundle. A RUN may also be a bundle: then its fp32
graphs are what the others are made from and compared with.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from runtime.errors import InputError, Parser, cli, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from export.pipeline import Exported, Plan
    from export.sources import Source

TARGETS = ("onnx", "trt", "openvino-int8", "triton")


@cli
def main(argv: Sequence[str]) -> int:
    """Export runs, those that can be if some cannot; returns the exit status."""
    options = _parser().parse_args(argv)
    targets = {"onnx", *_words("--to", options.to, TARGETS), *(["trt"] if options.trt else [])}
    if options.sm and "trt" not in targets:
        raise InputError("--sm is for engines; add --trt")

    # After the arguments, so that --help does not wait for PyTorch.
    from rich.console import Console

    from export.pipeline import export_bundle, planned
    from trainer.run import finished_runs

    console = Console(stderr=True)
    plan = _plan(options, targets)
    if "triton" in targets:
        from export.triton import require

        require()
    runs = options.run or finished_runs(options.runs)
    if not runs:
        raise InputError(f"no finished run under {options.runs}; train one with `python -m trainer`, or name a RUN")
    names = [run.resolve().name for run in runs]
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
                if options.dry_run:
                    results.append({"run": str(run)} | planned(source, target, plan) | _beside(target, targets))
                    continue
                say = lambda what, name=name: status.update(f"{name}: {what}")  # noqa: E731
                beside = _beside(target, targets)  # refuses before minutes of work
                bundle = export_bundle(source, target, plan, say)
                if beside:
                    from export.triton import write_repository

                    say("Triton model repository")
                    write_repository(target, Path(beside["triton"]), plan.batches)
        except Exception as error:  # a damaged or older run can fail in any way; the others are not to suffer
            kind = "" if isinstance(error, InputError | OSError) else f"{type(error).__name__}: "
            errors.append(f"{name}: {kind}{one_line(error)}")
        else:
            exported.append(bundle)
            results.append(str(bundle.path))
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
        "--precision", default="fp32", metavar="fp32,fp16,int8", help="precisions beside fp32, which is always there"
    )
    parser.add_argument(
        "--batch", default="1:8:64", metavar="MIN:OPT:MAX", help="batch sizes of engines and of Triton (default 1:8:64)"
    )
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
    from export.pipeline import Plan
    from runtime.bundle import Precision

    known = get_args(Precision)
    asked = {"fp32", *_words("--precision", options.precision, known)}
    openvino = "openvino-int8" in targets
    if openvino:
        asked.add("int8")
        try:
            import openvino as _  # noqa: F401
        except ImportError:
            raise InputError("--to openvino-int8 needs OpenVINO; `pip install awase[cpu]`") from None
    engines = tuple(tensorrt.flavours()) if "trt" in targets else ()
    if options.sm and "tensorrt-rtx" not in engines:
        raise InputError("--sm is for TensorRT-RTX, which is not installed; `pip install awase[trt]`")
    return Plan(
        precisions=tuple(precision for precision in known if precision in asked),
        engines=engines,
        capabilities=tuple(tensorrt.parse_capabilities(options.sm)) if options.sm else None,
        batches=tensorrt.parse_batches(options.batch),
        openvino=openvino,
        cache=None if options.no_cache else EngineCache(cache_folder()),
    )


def _open(path: Path) -> Source:
    from export.sources import is_bundle, source_of_bundle, source_of_run
    from trainer.run import open_run

    return source_of_bundle(path) if is_bundle(path) else source_of_run(open_run(path))


def _beside(target: Path, targets: set[str]) -> dict[str, str]:
    """Where the Triton repository of a bundle goes."""
    if "triton" not in targets:
        return {}
    from export.triton import check_repository

    repository = target.with_name(f"{target.name}.triton")
    check_repository(repository)
    return {"triton": str(repository)}


def _summary(console: Console, exported: list[Exported]) -> None:
    from rich import box
    from rich.table import Table

    if not exported:
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("bundle", "graph", "form", "precision", "size", "seconds", "parity"):
        table.add_column(column, overflow="fold")
    for bundle in exported:
        for index, row in enumerate(bundle.rows):
            path = "" if index else str(bundle.path)
            size = f"{row.bytes / 1e6:.2f} MB"
            table.add_row(path, row.graph, row.form, row.precision, size, f"{row.seconds:.1f}", row.parity)
        table.add_section()
    console.print(table)
    for bundle in exported:
        for notice in bundle.notices:
            console.print(f"notice: {bundle.path}: {notice}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
