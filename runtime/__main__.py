"""python -m runtime: generate with a bundle, fuse pictures, score it, time it, look into it. Results go to stdout as
JSON, talk to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from runtime.commands import bench, evaluate, fuse, generate, info
from runtime.commands.options import check_numbers
from runtime.errors import Parser, cli


@cli
def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    parser = Parser(prog="python -m runtime", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    modules = {"generate": generate, "fuse": fuse, "evaluate": evaluate, "bench": bench, "info": info}
    for name, module in modules.items():
        command = commands.add_parser(name, help=module.run.__doc__, description=module.run.__doc__)
        command.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder or the name of a shipped one")
        module.configure(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(argv)
    check_numbers(options)
    result = options.run(options)
    # With `--raw -` stdout holds frames.
    file = sys.stderr if getattr(options, "raw", None) == "-" else sys.stdout
    print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False), file=file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
