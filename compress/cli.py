"""``python -m compress``: what is to be done from a command line, without writing Python."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from compress.commands.models import add_run_parser, add_train_parser
from compress.commands.runtimes import add_runtimes_parser
from compress.commands.selfcheck import add_selfcheck_parser
from compress.errors import CompressError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if it did what it was asked, 1 with one sentence on stderr if it could not.

    A command that has more to say, as that a promise was not kept, returns a status of its own.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int | None = options.run(options)
    except CompressError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return status or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m compress",
        description="Make PyTorch models smaller and faster. What it cost is measured by: pytest benchmarks.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add_parser in (add_train_parser, add_run_parser, add_runtimes_parser, add_selfcheck_parser):
        add_parser(commands)
    return parser
