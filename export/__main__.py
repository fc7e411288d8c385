"""python -m export: freeze finished runs into bundles. The bundles' paths go to stdout as JSON, talk to stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import InputError, Parser, cli, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from export.pipeline import Exported


@cli
def main(argv: Sequence[str]) -> int:
    """Export runs, those that can be if some cannot; returns the exit status."""
    options = _parser().parse_args(argv)
    if options.sm and not options.trt:
        raise InputError("--sm is for engines; add --trt")

    # After the arguments, so that --help does not wait for PyTorch.
    from rich.console import Console

    from export import tensorrt
    from export.pipeline import export_run
    from trainer.run import finished_runs, open_run

    console = Console(stderr=True)
    engines = tensorrt.flavours() if options.trt else []
    if options.sm and "tensorrt-rtx" not in engines:
        raise InputError("--sm is for TensorRT-RTX, which is not installed; `pip install awase[trt]`")
    capabilities = tensorrt.parse_capabilities(options.sm) if options.sm else None
    runs = options.run or finished_runs(options.runs)
    if not runs:
        raise InputError(f"no finished run under {options.runs}; train one with `python -m trainer`, or name a RUN")
    names = [run.resolve().name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two runs are called {name!r} and would be one bundle; export them with separate --out")
    exported, errors = [], []
    for run, name in zip(runs, names, strict=True):
        try:
            with console.status(f"{name}: opening the run") as status:
                finished = open_run(run)
                bundle = export_run(
                    finished,
                    options.out / name,
                    engines,
                    capabilities,
                    say=lambda what, name=name: status.update(f"{name}: {what}"),  # type: ignore[misc]
                )
        except Exception as error:  # a damaged or older run can fail in any way; the others are not to suffer
            kind = "" if isinstance(error, InputError | OSError) else f"{type(error).__name__}: "
            errors.append(f"{name}: {kind}{one_line(error)}")
        else:
            exported.append(bundle)
    _summary(console, exported)
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    if exported:
        print(json.dumps([str(bundle.path) for bundle in exported]))
    return 2 if errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m export", description=__doc__)
    parser.add_argument("run", nargs="*", type=Path, metavar="RUN", help="a run's folder (default: every finished run)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where finished runs are (default runs)")
    parser.add_argument("--out", type=Path, default=Path("bundles"), help="where the bundles go (default bundles)")
    parser.add_argument("--trt", action="store_true", help="build TensorRT engines too")
    parser.add_argument("--sm", metavar="80,86,89", help="GPU generations for --trt (default: all that can be had)")
    return parser


def _summary(console: Console, exported: list[Exported]) -> None:
    from rich.table import Table

    for bundle in exported:
        table = Table(title=str(bundle.path))
        for column in ("file", "precision", "size", "seconds", "against PyTorch"):
            table.add_column(column, overflow="fold")
        for row in bundle.rows:
            size = f"{row.bytes / 1e6:.2f} MB"
            table.add_row(row.file, row.precision, size, f"{row.seconds:.1f}", row.parity)
        console.print(table)
        for notice in bundle.notices:
            console.print(f"notice: {notice}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
