"""One trained network made smaller by several tools, without training: what each costs at the same number of weights.

    python benchmarks/peers.py                          GoogLeNet on CIFAR-100
    python benchmarks/peers.py --workload pitch         CREPE on tones
    python benchmarks/peers.py --epochs 4 --only l1     those cuts, and four distilled epochs after each
    python benchmarks/peers.py --only 'reconstructed$' --target 2500000
    python benchmarks/peers.py --workload benchmarks.vgg:cifar100 --times-fewer-macs 8.9

For each way to cut and repair, and each number of parameters left, it measures the error on the same test examples, all
from the same calibration examples; likewise for masks, and for ways to int8. What is measured is kept in a file, so
that a run that was stopped goes on, and is printed as the tables of docs/peers.md. Torch-Pruning and NNCF come from the
extra 'comparison'; what is not installed is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks is no installed package

from benchmarks.peers_cuts import CUTS, MASKS, trained_on
from benchmarks.peers_int8 import INT8, Int8
from benchmarks.peers_subjects import Target, Trial, num_params, targets_of, trial_of
from compress.errors import ConfigError, first_line
from compress.gate.figures import write_change, write_value
from compress.report.markdown import pipe_table
from compress.results import Metric, Unit
from compress.system.files import write_atomically

# Cuts that are measured before all else; each figure takes minutes.
_FIRST = 5
_DENSE = "dense"

Figures = Mapping[str, Any]
Known = Mapping[str, Figures]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one figure is of.

    Attributes:
        way: to make the network smaller.
        target: how small the network is to get; None where it stays whole.
        epochs: of distillation after it.
    """

    way: str
    target: Target | None = None
    epochs: int = 0


@dataclass(frozen=True, kw_only=True)
class Session:
    """What all figures of a table have in common, and the file where they are kept.

    Attributes:
        trial: the network.
        targets: how small it is to get.
        calibration: how many examples were asked for to calibrate on.
        file: where figures are kept.
    """

    trial: Trial
    targets: tuple[Target, ...]
    calibration: int
    file: Path

    def key(self, row: Row) -> str:
        """What a figure stands under in the file."""
        workload, examples = self.trial.workload.name, len(self.trial.test)
        return f"{workload}|{row.way}|{row.target}|{row.epochs}|{self.calibration}|{examples}"

    def known(self) -> dict[str, Figures]:
        """All figures so far."""
        return json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}

    def figures(self, row: Row) -> Figures | None:
        """Those of a row; None if it was not measured."""
        return self.known().get(self.key(row))


def main() -> None:
    """Read the command line, measure what is not known yet, and print the tables."""
    given = _options()
    torch.set_num_threads(given.threads)
    trial = trial_of(given.workload, calibration=given.calibration, examples=given.examples)
    targets = [
        one
        for one in targets_of(trial, given.times_fewer_macs or ())
        if given.target is None or one.left in given.target
    ]
    session = Session(trial=trial, targets=tuple(targets), calibration=given.calibration, file=given.results)
    for row, make in wanted(session, given.epochs):
        if row.way == _DENSE or re.search(given.only, row.way):
            measure(session, row, make)
    print("\n".join(tables(session, given.epochs, given.only)))


def wanted(session: Session, epochs: int) -> list[tuple[Row, Callable[[Trial], nn.Module | Int8]]]:
    """Every row in the order in which it is measured, and how to get there; after distillation the cuts alone."""
    names = list(CUTS)
    cuts = [
        (Row(way=name, target=target, epochs=epochs), partial(_cut, target=target, name=name))
        for name in names
        for target in session.targets
    ]
    first = _FIRST * len(session.targets)
    dense = (Row(way=_DENSE), lambda one: one.dense)
    if epochs:
        return [dense, *cuts]
    others = [(Row(way=name), way) for name, way in {**MASKS, **INT8}.items()]
    return [dense, *cuts[:first], *others, *cuts[first:]]


def _cut(trial: Trial, target: Target, name: str) -> nn.Module:
    return CUTS[name](replace(trial, target=target))


def measure(session: Session, row: Row, make: Callable[[Trial], nn.Module | Int8]) -> None:
    """Keep the figures of a row, unless they are there already or its tool is not installed.

    What fails is kept with its reason: that is a finding too.
    """
    if session.figures(row) is not None:
        return
    try:
        found = _figures(session, row, make)
    except ImportError as cause:
        print(f"{row.way} is left out: {cause}", file=sys.stderr)
        return
    except Exception as cause:  # noqa: BLE001 - others' tools raise what they like
        found = {"failed": f"{type(cause).__name__}: {first_line(cause)}"}
    content = {**session.known(), session.key(row): found}
    write_atomically(session.file, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode(), ConfigError)
    print(session.key(row), found, file=sys.stderr, flush=True)


def _figures(session: Session, row: Row, make: Callable[[Trial], nn.Module | Int8]) -> Figures:
    start = time.perf_counter()
    made = make(session.trial)
    seconds = round(time.perf_counter() - start, 1)
    if isinstance(made, Int8):
        error = session.trial.judged(made.model)
        return {"error": error, "num_int8": made.num_int8, "file_bytes": made.file_bytes, "seconds": seconds}
    row_id = hashlib.sha256(session.key(row).encode()).hexdigest()[:12]
    checkpoint = session.file.with_name(f"{session.file.stem}-{row_id}.checkpoint")
    if row.epochs:
        made = trained_on(made, session.trial, row.epochs, checkpoint)
    error = session.trial.judged(made)
    for file in checkpoint.parent.glob(f"{checkpoint.name}.*"):
        file.unlink()
    return {"error": error, "num_params": num_params(made), "seconds": seconds}


def tables(session: Session, epochs: int, only: str = "") -> list[str]:
    """What was measured of the ways that match ``only``, in Markdown: after distillation the cuts alone."""
    trial = session.trial
    known = session.figures(Row(way=_DENSE))
    assert known is not None
    dense, metric = known["error"], trial.metric

    def cell(row: Row) -> str:
        return written(session.figures(row), dense, metric)

    after = f" after {epochs} distilled epochs" if epochs else ""
    heads = (f"channels removed{after}", *(_title(one, trial) for one in session.targets))
    cuts = [(name, *(cell(Row(way=name, target=one, epochs=epochs)) for one in session.targets)) for name in CUTS]
    parts = [(heads, cuts)]
    if not epochs:
        parts += [
            (("weights at zero", "error"), [(name, cell(Row(way=name))) for name in MASKS]),
            (
                ("int8", "error", "int8 layers", "file", "s"),
                [(name, cell(Row(way=name)), *_int8_cells(session.figures(Row(way=name)))) for name in INT8],
            ),
        ]
    title = f"{metric.title[0].upper()}{metric.title[1:]}"
    judged = f"{trial.workload.name} on {len(trial.test):,} test examples"
    lines = [
        f"{title}, {judged}; in parentheses what that is more than the dense network's {write_value(metric, dense)}."
    ]
    for titles, rows in parts:
        measured = [row for row in rows if any(row[1:]) and re.search(only, row[0])]
        if measured:
            lines += ["", *pipe_table(titles, measured, right=range(1, len(titles)))]
    return lines


def _title(target: Target, trial: Trial) -> str:
    return f"{target.title} left ({target.left / target.count(trial.dense, trial.example):.0%})"


def written(figures: Figures | None, dense: float, metric: Metric) -> str:
    """An error and what it is more than the dense network's; "" where there is none, "fails" where the tool did."""
    if figures is None:
        return ""
    if "failed" in figures:
        return "fails"
    is_share = metric.unit is Unit.FRACTION
    change = write_change(metric, dense, figures["error"]) if is_share else f"{figures['error'] - dense:+.2f}"
    change = change.removesuffix(" pt")
    return f"{write_value(metric, figures['error'])} ({change})"


def _int8_cells(figures: Figures | None) -> tuple[str, ...]:
    if figures is None or "failed" in figures:
        return "", "", ""
    return str(figures["num_int8"]), f"{figures['file_bytes'] / 1e6:.2f} MB", f"{figures['seconds']:.0f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workload", default="cifar100", metavar="SPEC", help="network and data (default: %(default)s)"
    )
    parser.add_argument("--calibration", type=int, default=512, help="training examples that a repair sees")
    parser.add_argument("--examples", type=int, default=10_000, help="to test on, chosen by a fixed seed")
    parser.add_argument("--epochs", type=int, default=0, help="of distillation after each cut, as the recipe has them")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="ways whose names match this regular expression; dense always"
    )
    parser.add_argument("--target", type=int, action="append", help="only this many parameters left; may be repeated")
    parser.add_argument(
        "--times-fewer-macs",
        type=float,
        nargs="+",
        metavar="TIMES",
        help="cut to so many times fewer multiply-accumulates, not to numbers of parameters",
    )
    parser.add_argument("--results", type=Path, default=Path("peers.json"), help="keeps what was measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
