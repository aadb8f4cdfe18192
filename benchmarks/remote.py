"""The same two models timed here and behind a connection, in turn: do verdicts agree, and how near are the ratios?

    python benchmarks/remote.py ssh://board/usr/bin/python3 --trials 20

The recipe's model of the digits and the dense one run under ONNX Runtime on both sides, in three fresh processes, and
the ratio is held to each bound. Meant for a connection to this machine itself, where both sides must say the same;
COMPRESS_SSH_COMMAND stands in for ``ssh``.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path

from compress.artifacts.runtimes import PACKAGING
from compress.device.address import parse_address
from compress.device.connection import Device
from compress.device.measuring import remote_latency
from compress.gate.checks import precise_enough, ratio_intervals
from compress.gate.rules import place_ratio
from compress.measure.children import Children, Conditions
from compress.measure.latency import Effort, cpu_latency
from compress.recipe import load_recipe, run_recipe
from compress.results import Measurement
from compress.workload.workload import dense_model, load_workload

RECIPE = Path(__file__).parent / "recipes" / "structured.toml"
PROCESSES = 3
NEAR = 0.02


def main() -> None:
    """Print a row for each trial, and what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", help="ssh://user@host[:port]/path/of/python")
    parser.add_argument("--trials", type=int, default=20, help="how often (20)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (5)")
    parser.add_argument(
        "--bounds",
        type=float,
        nargs="+",
        default=[0.85, 0.95, 1.0],
        metavar="B",
        help="of the ratio: one that is exceeded, the recipe's own, one that is held (0.85 0.95 1.0)",
    )
    parser.add_argument(
        "--runtime", choices=[name for name in PACKAGING if name != "aotinductor"], default="onnxruntime"
    )
    options = parser.parse_args()
    workload = load_workload("digits")
    dense = dense_model(workload)
    compressed = run_recipe(load_recipe(RECIPE), dense, workload)
    conditions = Conditions(
        model_factory=workload.model_factory,
        model_args=workload.model_args,
        example_input=workload.inputs,
        runtime=options.runtime,
    )
    effort = Effort(seconds=options.seconds, enough=precise_enough)
    heads = ["trial", "here", "there", "there / here", *(f"held to x{bound:g}" for bound in options.bounds)]
    print(f"| {' | '.join(heads)} |\n|{' --: |' * 4}{' :-- |' * len(options.bounds)}", flush=True)
    same, factors = dict.fromkeys(options.bounds, 0), []
    for trial in range(1, options.trials + 1):
        with Children(PROCESSES, threads=1) as children:
            here = cpu_latency(compressed, dense, conditions, effort=effort, children=children)
        with Device(parse_address(options.device)) as device:
            there = remote_latency(compressed, dense, conditions, device=device, processes=PROCESSES, effort=effort)
        ratios = [measured.ratio or math.nan for measured in (here, there)]
        factors.append(ratios[1] / ratios[0])
        cells = [*(f"x{ratio:.3f}" for ratio in ratios), f"{factors[-1]:.3f}"]
        for bound in options.bounds:
            said = [_verdict(measured, bound) for measured in (here, there)]
            same[bound] += said[0] == said[1]
            cells.append(said[0] if said[0] == said[1] else " / ".join(said))
        print(f"| {trial} | {' | '.join(cells)} |", flush=True)
    apart = sorted(abs(factor - 1) for factor in factors)
    agreed = ", ".join(f"{count} of {options.trials} held to x{bound:g}" for bound, count in same.items())
    near = sum(one <= NEAR for one in apart)
    print(
        f"\nThe same verdict: {agreed}. Ratios differ by {statistics.median(apart):.1%} in the median,"
        f" by {apart[-1]:.1%} at most, by at most {NEAR:.0%} in {near} of {options.trials}."
    )


def _verdict(measured: Measurement, bound: float) -> str:
    return place_ratio(ratio_intervals(measured), bound).value


if __name__ == "__main__":
    main()
