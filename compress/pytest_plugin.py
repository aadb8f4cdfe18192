"""The pytest plugin: options, and the hooks that tie a run to the gate. Fixtures are in ``compress.fixtures``.

Loaded in every pytest session of its environment, so nothing here imports torch; fixtures do when a test asks for one.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Literal

import pytest

from compress.errors import CompressError
from compress.gate_session import GATE, GateSession
from compress.html_session import HTML, html_session

pytest_plugins = ["compress.fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the group "compress", and their defaults in the ini file."""
    parser.addini("compress_workload", "workload to measure when --compress-workload is not given", default="digits")
    parser.addini("compress_recipes", "folder of recipes, relative to the root", default="benchmarks/recipes")
    parser.addini("compress_baselines", "folder of baselines, relative to the root", default="baselines")
    group = parser.getgroup("compress", "compressed models: measure, compare, gate")
    group.addoption(
        "--compress-workload",
        metavar="SPEC",
        help="model and data: digits, cifar10, cifar100, imagefolder:DIR, or module:function returning a"
        " compress.Workload (default: ini compress_workload, else digits)",
    )
    group.addoption(
        "--compress-recipe",
        metavar="FILE",
        action="append",
        type=Path,
        help="recipe to run, may be given more than once (default: every *.toml under ini compress_recipes)",
    )
    group.addoption(
        "--compress-threads",
        metavar="N",
        type=_positive,
        default=1,
        help="CPU threads that latency is measured with (default: 1)",
    )
    group.addoption(
        "--compress-seconds",
        metavar="S",
        type=_positive_seconds,
        default=10.0,
        help="how long a test may measure a latency, a second look included; longer only where 30 pairs in each process"
        " are (default: 10)",
    )
    group.addoption(
        "--compress-processes",
        metavar="N",
        type=_whole,
        default=3,
        help="fresh processes that CPU latency is measured in, all of which must agree; 0 measures in pytest's own"
        " (default: 3)",
    )
    group.addoption(
        "--compress-report", metavar="FILE", type=Path, help="write the table of the results to FILE as Markdown"
    )
    group.addoption(
        "--compress-html",
        metavar="FILE",
        type=Path,
        help="write a page of the results to FILE: table, verdicts, layers, history; it needs no network and no script",
    )
    group.addoption(
        "--compress-sweep",
        metavar="FILE",
        type=Path,
        help="draw on that page also the models of a sweep, the .json that python -m compress sweep --output wrote",
    )
    group.addoption(
        "--require-cuda", action="store_true", help="fail, rather than skip, what needs a CUDA device if there is none"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Find out what to compare with, before pytest-benchmark does."""
    folder = _relative(config.rootpath / str(config.getini("compress_baselines")))
    gate = config.stash[GATE] = GateSession(folder=folder, compare=_comparison(config, folder))
    if gate.compare and not _has_timings(config, gate.compare):
        # Our baselines are there to compare with; that pytest-benchmark has none of its own deserves no warning.
        config.option.benchmark_compare = []
    config.stash[HTML] = html_session(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever asks for our ``recipe`` once for each recipe; one of that name in another project is not ours."""
    if "_recipe_path" not in metafunc.fixturenames:
        return
    paths = metafunc.config.getoption("--compress-recipe") or _recipes(metafunc.config)
    metafunc.parametrize("_recipe_path", paths, indirect=True, ids=[path.stem for path in paths], scope="session")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Look at the models while the test still has them."""
    html = item.config.stash[HTML]
    if html is not None:
        html.look_at(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say what this package raises on purpose in its one sentence, without the way there."""
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    ours = isinstance(error, CompressError) and "workload" in getattr(item, "fixturenames", ())
    if ours and not item.config.getoption("--full-trace"):
        report.longrepr = str(error)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Write the report and the baseline, if asked to; keep pytest-benchmark to the same rule."""
    gate = session.config.stash[GATE]
    if gate.verdicts:
        _write_report(session, gate)
        name = session.config.getoption("benchmark_save", None)
        if name:
            timings = session.config._benchmarksession  # type: ignore[attr-defined]
            if not (_record(session, gate, name) and timings.benchmarks):
                # A run whose baseline is refused stores no timings, and to have none of them deserves no warning.
                timings.save = None
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the reference table."""
    gate = config.stash[GATE]
    if not gate.verdicts:
        return
    writer = terminalreporter._tw
    terminalreporter.section("compressed models")
    terminalreporter.write(gate.render_terminal(width=writer.fullwidth, color=writer.hasmarkup))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info: dict[str, object]) -> None:
    """Drop the clock of the moment: with it no two runs of one machine would look alike to pytest-benchmark."""
    cpu = machine_info.get("cpu")
    if isinstance(cpu, dict):
        for key in [key for key in cpu if key.startswith("hz_")]:
            del cpu[key]


def _comparison(config: pytest.Config, folder: Path) -> str | Literal[True] | None:
    """What ``--benchmark-compare`` asks for: a baseline's name, True for the workload's own, None for nothing."""
    value = config.getoption("benchmark_compare", None)
    if not value or value is True:
        return True if value else None
    if (folder / f"{value}.json").exists():
        return str(value)
    if Path(value).exists() and Path(value).suffix != ".json":
        raise pytest.UsageError(
            f"--benchmark-compare took {value!r} as the name of a baseline, and there is no {folder / value}.json;"
            f" to run the tests in {value}, write: pytest {value} --benchmark-compare"
        )
    return str(value)


def _has_timings(config: pytest.Config, value: str | Literal[True]) -> bool:
    """Whether pytest-benchmark has stored runs of its own that ``value`` names; it takes the path of a file too."""
    if value is not True and Path(value).is_file():
        return True
    storage = str(config.getoption("benchmark_storage"))
    if "://" in storage and not storage.startswith("file://"):
        return True
    folder = Path(storage.removeprefix("file://"))
    return any(folder.glob("**/[0-9][0-9][0-9][0-9]_*.json" if value is True else f"**/{value}*.json"))


def _recipes(config: pytest.Config) -> list[Path]:
    folder = _relative(config.rootpath / str(config.getini("compress_recipes")))
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise pytest.Collector.CollectError(
            f"no recipes in {folder}; name one with --compress-recipe, or the folder with the ini option"
            " compress_recipes"
        )
    return paths


def _relative(path: Path) -> Path:
    """As a user would write it: relative to where pytest runs, if it lies below."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _write_report(session: pytest.Session, gate: GateSession) -> None:
    """The files for people: the table as Markdown, the page."""
    markdown: Path | None = session.config.getoption("--compress-report")
    html = session.config.stash[HTML]
    try:
        if markdown is not None:
            gate.write_markdown(markdown)
            _say(session.config, f"report written to {markdown}")
        if html is not None:
            html.write(gate)
            _say(session.config, f"page written to {html.path}")
    except CompressError as error:
        _say(session.config, f"no report: {error}", red=True)
        session.exitstatus = session.exitstatus or pytest.ExitCode.USAGE_ERROR


def _record(session: pytest.Session, gate: GateSession, name: str) -> bool:
    """Record the baseline if the whole run held; whether it did."""
    if session.exitstatus != pytest.ExitCode.OK:
        failed = session.testsfailed
        reason = f"{failed} test{'s' if failed > 1 else ''} failed" if failed else "the run was broken off"
        _say(session.config, f"baseline {name!r} NOT recorded: {reason}", red=True)
        return False
    try:
        recorded = gate.record(name)
    except CompressError as error:
        _say(session.config, f"baseline {name!r} NOT recorded: {error}", red=True)
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        return False
    if recorded.replaced:
        _say(session.config, f"baseline {recorded.path} begun anew: {recorded.replaced}")
    _say(session.config, f"baseline {'recorded in' if recorded.changed else 'unchanged:'} {_relative(recorded.path)}")
    for recipe, metric, reason in recorded.skipped:
        _say(session.config, f"  {metric} of {recipe} not recorded: {reason}")
    return True


def _say(config: pytest.Config, line: str, *, red: bool = False) -> None:
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        reporter.write_line(line, red=red)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise pytest.UsageError(f"--compress-threads must be a whole number of 1 or more, got {text!r}")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise pytest.UsageError(f"--compress-processes must be a whole number of 0 or more, got {text!r}")
    return int(text)


def _positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError(f"--compress-seconds must be a number above 0, got {text!r}")
    return seconds
