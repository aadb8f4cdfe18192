from __future__ import annotations

import dataclasses

from compress.selfcheck.rates import Rates
from compress.selfcheck.table import render
from compress.selfcheck.trial import Trial
from compress.selfcheck.trials import Plan
from tests.gate.samples import latency

PLAN = Plan(workload="digits", device="cpu-avx2-1t")
TRIALS = [Trial(slowdown=0.0, first=latency(), second=second, seconds=seconds) for second, seconds in
          ((None, 4.0), (None, 5.0), (latency(), 9.5))]  # fmt: skip
FOUND = [
    Rates(slowdown=0.0, trials=200, red=0, undecided=3, red_at_tolerance=0, mean_red=11, median_red=4),
    Rates(slowdown=0.05, trials=50, red=49, undecided=1, red_at_tolerance=2, mean_red=26, median_red=25),
]

COLUMNS = [
    ("slow-down", "--------:", "     none", "       5%"),
    ("trials", "-----:", "   200", "    50"),
    ("gate: red", "--------:", "     0.0%", "    98.0%"),
    ("undecided", "--------:", "     1.5%", "     2.0%"),
    ("     95 % sure", "-------------:", "  at most 1.5%", "at least 90.9%"),
    ("red if bound at 5%", "-----------------:", "              0.0%", "              4.0%"),
    ("pytest-benchmark mean:5%", "-----------------------:", "                    5.5%", "                   52.0%"),
    ("median:5%", "--------:", "     2.0%", "    50.0%"),
]

EXPECTED = """\
Self-check of the latency gate: digits, 5 ms a call, on cpu-avx2-1t, no load of our own beside it.
Each trial takes 3 fresh processes; its baseline is 5 of identical models.
The gate holds a ratio to 2.5% above its baseline, halfway to the 5% that it must find.
Time of a trial: median 5.0 s, longest 9.5 s, of 10 s allowed; 1 of 3 took a second look.

{table}

Held: at most 1% false alarms, and at least 95% of slow-downs by 5% and more found.
"""


def test_the_whole_table():
    """What was measured and how long it took, the rates of each rule, and what it comes to."""
    table = "\n".join(f"| {' | '.join(column[i] for column in COLUMNS)} |" for i in range(4))
    assert render(PLAN, TRIALS, FOUND) == EXPECTED.format(table=table)


def test_a_busy_machine_is_said_and_a_missed_promise_too():
    """A reader must not take one table for the other."""
    missed = [dataclasses.replace(FOUND[0], red=3), FOUND[1]]
    text = render(dataclasses.replace(PLAN, busy=True), TRIALS, missed)
    assert "another process keeping one core busy." in text
    assert text.rstrip().splitlines()[-1].startswith("MISSED: at most 1% false alarms")
