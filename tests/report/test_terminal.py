from __future__ import annotations

import re

import pytest

from compress.gate.demands import Excuse, Gap
from compress.gate.judge import judge
from compress.report.screen import Screen
from compress.report.terminal import MOST_REMARK_LINES, render_terminal
from compress.results import METRICS, Measurement
from tests.gate.samples import ENVIRONMENT, params
from tests.report import six_recipes
from tests.report.samples import verdicts

EIGHTY = """\
REGRESSED: 1 of 5 values, 1 beyond a limit: exit status 1
  int8: CPU time
COULD NOT MEASURE: cuda_latency_ms of structured, int8: there is no CUDA device
Each failure above says why, what to run, and how to accept the new value on
  purpose.

workload: digits on cpu-avx2-1t, torch 2.15.0
the same models as in baselines/digits.json
verdicts: 1 REGRESSED, 2 NOT MEASURED, 1 inconclusive, 3 ok, 1 not gated

criterion       dense     structured           int8
---------------------------------------------------
parameters, M    6.40  4.09 -36.1 %        not run
top-1 error, %   2.00  3.20   +1.20?  2.10   +0.10
CPU memory, MB   58.7       not run   47.0 -19.9 %~
CPU time, ms     5.00  4.10   x0.78   6.00   x1.20!
NOT MEASURED: CUDA time: there is no CUDA device
value and change from dense; ! regressed, ? undecided, ~ held against nothing,
no mark: held

undecided: top-1 error (structured): more test examples would decide
held against nothing, for there is no limit and no baseline: CPU memory (int8)
all values and reasons: -v, --compress-report=FILE, --compress-html=FILE
"""


@pytest.fixture
def screen(tmp_path):
    """A run with every outcome."""
    gaps = [
        Gap(metric="cuda_latency_ms", recipe=recipe, why="there is no CUDA device") for recipe in ("structured", "int8")
    ]
    return Screen(
        verdicts=verdicts(tmp_path),
        workload="digits",
        environment=ENVIRONMENT,
        identity="the same models as in baselines/digits.json",
        title="regressed",
        exit_status=1,
        gaps=gaps,
    )


def test_eighty_columns(screen):
    """First what the run came to and what to do, then the table under the model's identity, then notes."""
    assert render_terminal(screen) == EIGHTY


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_the_terminal(screen, width, verbose):
    """Whatever the width, nothing is cut off by the terminal, no mark is lost, and all is ASCII."""
    text = render_terminal(screen, width=width, verbose=verbose)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()
    assert len(re.findall(r"x1\.20!", text)) == 1


def test_verbose_says_everything(screen):
    """Asked for, each reason is given in full, with the environment."""
    text = " ".join(render_terminal(screen, verbose=True).split())
    assert "p = 0.063: beyond the margin, but chance may explain it" in text
    assert "environment: Python 3.11.9, torch 2.15.0, Test CPU (cpu-avx2-1t)" in text
    assert "all values and reasons" not in text


def test_colour_adds_escapes_and_nothing_else(screen):
    """With colours the same text comes, with ANSI escapes around what did not hold."""
    colored = render_terminal(screen, color=True)
    assert "\x1b[1;31m6.00   x1.20!" in colored
    assert colored.startswith("\x1b[1;31mREGRESSED")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in plain.splitlines()] == render_terminal(screen).splitlines()


def test_environment_variables_change_nothing(screen, monkeypatch):
    """The same verdicts give the same text wherever they are rendered."""
    expected = render_terminal(screen)
    for name, value in {"COLUMNS": "33", "NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    assert render_terminal(screen) == expected


def test_text_is_never_markup():
    """Brackets in a recipe's name are no style, and a long name does not widen its column without end."""
    text = render_terminal(Screen(verdicts=[judge(params(), recipe=name) for name in ("[red]", "a-recipe" * 9)]))
    assert "[red]" in text
    assert max(map(len, text.splitlines())) <= 80


def test_without_verdicts_there_is_no_table():
    """What keeps a run from measuring anything is all that there is to say."""
    gap = Gap(why="the baseline does not exist")
    text = render_terminal(Screen(verdicts=(), title="could not measure", exit_status=8, gaps=[gap]))
    assert text.splitlines()[:2] == [
        "nothing regressed, but something could not be measured: exit status 8",
        "COULD NOT MEASURE: this run: the baseline does not exist",
    ]
    assert "criterion" not in text


@pytest.mark.parametrize(
    ("title", "compares", "first"),
    [
        ("held", True, "HELD: no value is worse than it may be, 12 undecided: exit status 0"),
        ("regressed", True, "FAILED: no value regressed, but another test failed: exit status 0"),
        ("could not measure", True, "nothing regressed, but something could not be measured: exit status 0"),
    ],
)
def test_the_first_line_says_what_the_run_came_to(title, compares, first):
    """Whatever the values are, what else failed is not passed over, and two times of six recipes decide nothing."""
    screen = Screen(verdicts=six_recipes.run(noise=six_recipes.NOISY), title=title, compares=compares)
    assert render_terminal(screen).splitlines()[0] == first


def test_limits_alone_are_said_to_be_all():
    """A run without a comparison says how to have one."""
    text = render_terminal(Screen(verdicts=six_recipes.run(compared=False), compares=False))
    assert "Held by the recipes' limits alone: --benchmark-save records a baseline" in text


EXCUSED = [
    (Excuse(text=f"{name}:{path.stem}", metric=name, recipe=path.stem), Gap(why="w", metric=name, recipe=path.stem))
    for name in METRICS
    for path in six_recipes.RECIPES
]
MANY_GAPS = [
    Gap(why=f"why {gap.metric} of {gap.recipe!r} is missing, at length", metric=gap.metric) for _, gap in EXCUSED
]
HARD = {"worse": 1.5, "lost": 30}
RUNS = {
    "held": {},
    "held with a card": {"cuda": True},
    "all red": {**HARD, "cuda": True},
    "all red without a card": HARD,
    "all undecided": {"noise": six_recipes.NOISY, "lost": 4},
    "another class": {"device": "cpu-amx_int8-1t"},
    "another class with a card, red": {"device": "cpu-amx_int8-1t", "cuda": True, **HARD},
    "no baseline": {"compared": False},
    "neither limit nor baseline": {"compared": False, "limited": False, "cuda": True},
}


def parts_of(text):
    """Head, table and notes of a screen, line by line: blank lines stand between them."""
    head, about, *blocks, notes = text.rstrip("\n").split("\n\n")
    table = "\n\n".join([about, *blocks])
    return [part.splitlines() for part in (head, table, notes)]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", RUNS)
def test_the_screen_of_six_recipes_is_read(name, width):
    """Whatever a run of six recipes comes to, it is told in a few lines, one table and eight lines of notes."""
    screen = Screen(
        verdicts=six_recipes.run(**RUNS[name]),
        workload="digits",
        environment=six_recipes.ENVIRONMENT,
        identity="the same models as in baselines/digits.json",
        title="regressed" if "red" in name else "held",
    )
    head, table, notes = parts_of(render_terminal(screen, width=width))
    assert len(head) <= 10
    assert len(table) <= 45
    assert len(notes) <= MOST_REMARK_LINES == 8
    assert sum(line.startswith("criterion") for line in table) == (2 if width == 80 else 1)
    assert [line for line in table if line.startswith("NOT MEASURED")] == (
        [] if RUNS[name].get("cuda") else ["NOT MEASURED: CUDA memory, CUDA time and 3 more: no CUDA device"]
    )
    for recipe in screen.recipes:
        assert sum(recipe in line.split() for line in table) == 1


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("gaps", [MANY_GAPS, ()])
def test_whatever_is_missing_or_excused_takes_few_lines(gaps, width):
    """Names of everything that was excused, or reasons of everything that is missing, are cut before they fill it."""
    screen = Screen(
        verdicts=six_recipes.run(device="cpu-amx_int8-1t", noise=six_recipes.NOISY, lost=4),
        title="could not measure" if gaps else "held",
        gaps=gaps,
        excused=EXCUSED,
        notes=[f"excuse {excuse.text} was not needed" for excuse, _ in EXCUSED],
    )
    head, table, notes = parts_of(render_terminal(screen, width=width))
    assert len(head) <= 14
    assert len(table) <= 45
    assert len(notes) <= MOST_REMARK_LINES
    assert any("excused by name: num_params:compose, " in line for line in notes)
    assert notes[-1].startswith("all values and reasons: -v")
    assert re.fullmatch(r"\.\.\. and \d+ more", notes[-2])


@pytest.mark.parametrize(("records", "advised"), [("", True), ("others", True), ("digits", False)])
def test_a_class_without_a_baseline_is_told_how_to_add_it_unless_it_just_did(records, advised):
    """The sentence ends where the run records that baseline itself."""
    verdicts = six_recipes.run(device="cpu-amx_int8-1t")
    text = render_terminal(Screen(verdicts=verdicts, records=records), width=200)
    assert "has none for cpu-amx_int8-1t, only limits were held" in text
    assert ("; add it with --benchmark-save=digits" in text) == advised


def test_what_is_better_than_recorded_is_one_note():
    """A baseline that guards nothing any more is said once for all that it holds."""
    text = render_terminal(Screen(verdicts=six_recipes.run(worse=0.8)), width=200)
    assert "baseline is stale: parameters, non-zero, MACs and 6 more (all 6 recipes) are better, record" in text
    one = [verdict for verdict in six_recipes.run(worse=0.8) if verdict.metric.name == "macs"][:1]
    recorded = six_recipes.BASELINE.entries("compose", "macs")[""].compressed
    assert f"MACs (compose): baseline is stale: {0.8 * recorded:,.0f} against {recorded:,.0f}, record" in (
        render_terminal(Screen(verdicts=one), width=200)
    )


def test_how_a_value_was_measured_is_one_note():
    """What was noted of many measurements alike is said once."""
    noted = [
        judge(Measurement(metric="macs", dense=2, compressed=1, notes=("in this process",)), recipe=name)
        for name in ("a", "b")
    ]
    assert "MACs (a, b): in this process\n" in render_terminal(Screen(verdicts=noted))
