"""``diff`` and ``schema``: what changed between two baselines, and what may stand in one."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

# As of diff(1), so that a script can tell a worse baseline from one that cannot be read.
_WORSE, _TROUBLE = 1, 2


def add_diff_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``diff``."""
    diff = commands.add_parser(
        "diff",
        help="show what changed from one baseline to another",
        description=_diff.__doc__,
        epilog=f"exit status: 0 if nothing got worse, {_WORSE} if an entry got worse or is gone, {_TROUBLE} if a file"
        " cannot be read",
    )
    diff.add_argument("before", metavar="A.json", type=Path, help="the older baseline")
    diff.add_argument("after", metavar="B.json", type=Path, help="the newer one")
    diff.add_argument("--markdown", action="store_true", help="print Markdown, for a pull request")
    diff.add_argument("--all", action="store_true", dest="everything", help="show what is the same too")
    diff.set_defaults(run=_diff, trouble=_TROUBLE)


def add_schema_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``schema``."""
    schema = commands.add_parser("schema", help="print the JSON Schema of a baseline", description=_schema.__doc__)
    schema.set_defaults(run=_schema)


def _diff(options: argparse.Namespace) -> int:
    """Show what changed from one baseline to another, each metric judged by its own tolerance."""
    from compress.gate.baseline import load_baseline
    from compress.gate.difference import compare_baselines
    from compress.report.difference import diff_markdown, diff_terminal

    difference = compare_baselines(load_baseline(options.before, rows=False), load_baseline(options.after, rows=False))
    if options.markdown:
        text = diff_markdown(difference, everything=options.everything)
    else:
        width = shutil.get_terminal_size((120, 24)).columns
        text = diff_terminal(difference, everything=options.everything, width=width, color=sys.stdout.isatty())
    print(text, end="")
    return _WORSE if difference.worse else 0


def _schema(_options: argparse.Namespace) -> None:
    """Print the JSON Schema (draft 2020-12) that every baseline file obeys."""
    from compress.gate.schema import baseline_schema

    print(json.dumps(baseline_schema(), indent=2))
