"""``diff`` and ``schema``: what changed between two baselines, and what may stand in one."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.commands.arguments import add_json, print_json

if TYPE_CHECKING:
    from compress.gate.difference import Difference

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
    add_json(diff)
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
    if options.json:
        print_json(_as_json(difference, everything=options.everything))
        return _WORSE if difference.worse else 0
    if options.markdown:
        text = diff_markdown(difference, everything=options.everything)
    else:
        width = shutil.get_terminal_size((120, 24)).columns
        text = diff_terminal(difference, everything=options.everything, width=width, color=sys.stdout.isatty())
    print(text, end="")
    return _WORSE if difference.worse else 0


def _as_json(difference: Difference, *, everything: bool) -> dict[str, Any]:
    """The changes for a machine: values as the files have them."""
    from compress.gate.difference import Trend, held_value

    return {
        "worse": difference.worse,
        "about": difference.about,
        "changes": [
            {
                "recipe": change.recipe,
                "metric": change.metric.name,
                "device": change.device,
                "before": None if change.before is None else held_value(change.before),
                "after": None if change.after is None else held_value(change.after),
                "trend": change.trend.value,
            }
            for change in difference.changes
            if everything or change.trend is not Trend.SAME
        ],
    }


def _schema(_options: argparse.Namespace) -> None:
    """Print the JSON Schema (draft 2020-12) that every baseline file obeys."""
    from compress.gate.schema import baseline_schema

    print(json.dumps(baseline_schema(), indent=2))
