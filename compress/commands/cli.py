"""``python -m compress``: what is to be done from a command line, without writing Python."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from compress.commands.baselines import add_diff_parser, add_schema_parser
from compress.commands.models import add_run_parser, add_train_parser
from compress.commands.runtimes import add_runtimes_parser
from compress.commands.selfcheck import add_selfcheck_parser
from compress.commands.sweep import add_sweep_parser
from compress.errors import CompressError
from compress.termination import TERMINATED_STATUS, Terminated, terminable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if it did what it was asked, 1 with one sentence on stderr if it could not.

    A command may have exit statuses of its own, which its --help says.
    """
    options = _parser().parse_args(arguments)
    try:
        with terminable():
            return options.run(options) or 0
    except CompressError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(options.trouble)
    except BrokenPipeError:
        # Whoever read the output has had enough; Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as interrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return TERMINATED_STATUS if isinstance(interrupt, Terminated) else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m compress",
        description="Make PyTorch models smaller and faster. What it cost is measured by: pytest benchmarks.",
    )
    parser.set_defaults(trouble=1)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add_parser in (
        add_train_parser,
        add_run_parser,
        add_sweep_parser,
        add_runtimes_parser,
        add_diff_parser,
        add_schema_parser,
        add_selfcheck_parser,
    ):
        add_parser(commands)
    return parser
