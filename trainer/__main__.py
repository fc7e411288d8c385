"""python -m trainer RECIPE …: train a recipe. Also `report RUN`, its report anew, and `data check DIR`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InputError, cli

USAGE = """usage: python -m trainer RECIPE [--preset NAME] [options]     train, or go on with a run
       python -m trainer RECIPE --help                    the recipe's options
       python -m trainer report RUN                       write a run's report anew
       python -m trainer data check DIR                   list every image that is broken, small, a duplicate …

recipes: {recipes}"""


def take_preset(arguments: list[str], presets: dict[str, Any]) -> tuple[str, list[str]]:
    """The preset's name (default: the first) and the arguments without it: presets are the other options' defaults."""
    name, rest = next(iter(presets)), []
    words = iter(arguments)
    for word in words:
        if word == "--preset":
            name = next(words, "")
        elif word.startswith("--preset="):
            name = word.removeprefix("--preset=")
        else:
            rest.append(word)
    if name not in presets:
        raise InputError(f"--preset is {name!r}, expected one of: {', '.join(presets)}")
    return name, rest


def parse(kind: Any, default: Any, arguments: list[str], prog: str) -> Any:
    """Options from the command line. tyro's boxed message becomes one line.

    Raises:
        InputError: the arguments are not the recipe's.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, default=default, args=arguments, prog=prog)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        words = re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─├┤]", " ", said.getvalue())
        raise InputError(" ".join(words.split()) or "the arguments cannot be read") from None


@cli
def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    if list(argv[:1]) == ["data"]:
        from trainer.data import doctor

        return doctor.main(argv[1:])
    from trainer import loop, report, run  # here, so that a package that is not installed is one line

    arguments = list(argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(recipes=", ".join(sorted(run.RECIPES))), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    command, *rest = arguments
    if command == "report":
        if len(rest) != 1:
            raise InputError("report takes one run, e.g. `python -m trainer report runs/demo`")
        from trainer import log

        finished = run.open_run(Path(rest[0]))
        print(report.write(finished.path, finished.recipe.figures(finished.averaged, log.history(finished.path))))
        return 0
    recipe = run.recipe_type(command)
    preset, rest = take_preset(rest, recipe.presets)
    default = dataclasses.replace(recipe.presets[preset], name=f"{command}-{preset}")
    options = parse(
        recipe.options_type, default, rest, f"python -m trainer {command} [--preset {{{','.join(recipe.presets)}}}]"
    )
    loop.train(recipe, options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
