"""``python -m compress``: what is to be done from a command line, without writing Python."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

from compress.commands.baselines import add_diff_parser, add_schema_parser
from compress.commands.doctor import add_doctor_parser
from compress.commands.export import add_export_parser
from compress.commands.init import add_init_parser
from compress.commands.models import add_run_parser, add_train_parser
from compress.commands.plan import add_plan_parser
from compress.commands.runtimes import add_runtimes_parser
from compress.commands.selfcheck import add_selfcheck_parser
from compress.commands.sweep import add_sweep_parser
from compress.errors import CompressError
from compress.system.termination import TERMINATED_STATUS, Terminated, terminable

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_PROGRAM = "python -m compress"
# In the order in which somebody meets them; each with a call that shows what it is for.
_COMMANDS: Sequence[tuple[Callable[[Commands], None], str]] = (
    (add_init_parser, "init"),
    (add_doctor_parser, "doctor"),
    (add_plan_parser, "plan torchvision.models:resnet18 --input 1,3,224,224"),
    (add_run_parser, "run benchmarks/recipes/structured.toml --workload digits --output small.safetensors"),
    (add_train_parser, "train --workload compress_workload:workload --output dense.safetensors"),
    (
        add_sweep_parser,
        "sweep benchmarks/recipes/structured.toml --study sweep.journal --set prune_channels.pruning_ratio=0.1..0.5",
    ),
    (add_runtimes_parser, "runtimes --recipe benchmarks/recipes/int8.toml"),
    (add_export_parser, "export small.safetensors --workload digits --to small"),
    (add_diff_parser, "diff old.json baselines/digits.json"),
    (add_schema_parser, "schema"),
    (add_selfcheck_parser, "selfcheck --trials 20"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if it did what it was asked, 1 with one sentence on stderr if it could not.

    A command may have exit statuses of its own, which its --help says.
    """
    parser, commands = _parser()
    if "_ARGCOMPLETE" in os.environ:
        _complete(parser)
    options = parser.parse_args(arguments)
    try:
        with terminable():
            if options.run is None:
                print(overview(commands), end="")
                return 0
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


def _complete(parser: argparse.ArgumentParser) -> None:
    """Tell the shell, which asks by that variable, what may follow, and end; by an extra that nothing else needs."""
    from argcomplete import autocomplete

    autocomplete(parser)


def overview(commands: Commands) -> str:
    """Every command: what it does, and one call of it to copy."""
    lines = [
        "Make PyTorch models smaller and faster, and prove in pytest what it cost.",
        "",
        f"usage: {_PROGRAM} COMMAND ..., with --help for all that a command takes",
        "",
    ]
    for action, (_, example) in zip(commands._choices_actions, _COMMANDS, strict=True):
        lines += [f"{action.dest:10} {action.help}", f"{'':10}   {_PROGRAM} {example}"]
    lines += ["", "The gate is pytest's: pytest benchmarks --benchmark-compare", ""]
    return "\n".join(lines)


def _parser() -> tuple[argparse.ArgumentParser, Commands]:
    """The parser, and its commands in the order in which somebody meets them."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Make PyTorch models smaller and faster. What it cost is measured by: pytest benchmarks.",
        epilog="without a command: every command with an example",
    )
    parser.set_defaults(run=None, trouble=1)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add_parser, example in _COMMANDS:
        add_parser(commands)
        command = list(commands.choices.values())[-1]
        before = f"{command.epilog.strip()}; " if command.epilog else ""
        command.epilog = f"{before}example: {_PROGRAM} {example}"
    return parser, commands
