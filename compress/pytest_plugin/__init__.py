"""The pytest plugin: the hooks that tie a run to the gate.

Options are in ``options``, fixtures in ``fixtures``, what a run comes to in ``conclusion``.
Loaded in every pytest session of its environment, so nothing here imports torch, numpy or the gate itself before a test
asks for it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import pytest

from compress.errors import CompressError
from compress.pytest_plugin.declared import is_for_nothing, make_tests
from compress.pytest_plugin.html_session import HTML, html_session
from compress.pytest_plugin.model_files import model_files
from compress.pytest_plugin.options import Settings, add_options, read_settings
from compress.pytest_plugin.outcomes import NotMeasured
from compress.pytest_plugin.run import RECIPE_PARAMETER, RUN, PytestRun, asks_for_gate
from compress.system.termination import TERMINATED_STATUS, Terminated, terminable

pytest_plugins = [f"compress.pytest_plugin.fixtures.{room}" for room in ("models", "size", "quality", "cpu", "cuda")]


class _Worker(Protocol):
    """What pytest-xdist says of a process that runs tests for this one."""

    workerinput: dict[str, object]
    workeroutput: dict[str, object]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the group "compress", and their defaults in the ini file."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Find out what to compare with, before pytest-benchmark does."""
    settings = read_settings(config)
    worker = getattr(config, "workerinput", None)
    compare = _comparison(config, settings.baselines) if worker is None else worker["compress_compare"]
    recording = bool(config.getoption("benchmark_save", None))
    run = PytestRun(settings=settings, compare=compare, recording=recording, is_worker=worker is not None)
    if settings.excuses:
        try:
            run.rules()
        except CompressError as error:
            raise pytest.UsageError(str(error)) from error
    if compare and worker is None:
        run.own_timings = _has_timings(config, compare)
        if not run.own_timings:
            # Our baselines are there to compare with; that pytest-benchmark has none of its own deserves no warning.
            config.option.benchmark_compare = []
    config.stash[RUN] = run
    config.stash[HTML] = html_session(settings)
    # A report does not know its config: the run itself listens to them.
    config.pluginmanager.register(run, "compress-run")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: _Worker) -> None:
    """Let a process of pytest-xdist compare with the same baseline."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    node.workerinput["compress_compare"] = config.stash[RUN].compare


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: _Worker) -> None:
    """Take over which tests a process of pytest-xdist was to run."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    told = getattr(node, "workeroutput", {}).get("compress")
    if told is not None:
        run, html = config.stash[RUN], config.stash[HTML]
        if html is not None:
            html.hear(told["layers"])
        run.selected, run.recipes, run.deselected = told["selected"], told["recipes"], told["deselected"]
        run.unreadable = run.unreadable or told["unreadable"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever asks for our ``recipe`` once for each recipe; one of that name in another project is not ours."""
    make_tests(metafunc)
    if RECIPE_PARAMETER not in metafunc.fixturenames:
        return
    run = metafunc.config.stash[RUN]
    recipes = _recipes(run.settings)
    try:
        files = model_files(run.settings, recipes)
    except CompressError as error:
        raise pytest.Collector.CollectError(str(error)) from error
    paths = list(files) or recipes
    run.recipes = [path.stem for path in paths]
    run.files = {path.stem: file for path, file in files.items()}
    metafunc.parametrize(RECIPE_PARAMETER, paths, indirect=True, ids=run.recipes, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests for each of nothing, which pytest would report as skipped."""
    items[:] = [item for item in items if not is_for_nothing(item)]


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the tests of the gate that will not run."""
    for item in items:
        item.config.stash[RUN].deselected += asks_for_gate(item)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep which tests are to hold a model: one of them that does not has measured nothing. Show how far they are."""
    config, run = session.config, session.config.stash[RUN]
    recipes = run.note_selected(session.items)
    if not recipes or run.is_worker or config.getoption("collectonly"):
        return
    from compress.pytest_plugin.progress import shown_progress

    run.progress = shown_progress(config, recipes)
    if run.progress is not None:
        config.pluginmanager.register(run.progress, "compress-progress")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Let a run of the gate that is cancelled end its processes and delete its files; all others end as ever."""
    if not session.config.stash[RUN].selected:
        return (yield)
    try:
        with terminable():
            return (yield)
    except Terminated as terminated:
        pytest.exit(str(terminated), returncode=TERMINATED_STATUS)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Look at the models while the test still has them."""
    html = item.config.stash[HTML]
    if html is not None:
        html.look_at(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say what this package raises on purpose in its one sentence, and send on what the gate found."""
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    ours = isinstance(error, CompressError) and "workload" in getattr(item, "fixturenames", ())
    if ours and not item.config.getoption("--full-trace"):
        report.longrepr = str(error)
    if isinstance(error, NotMeasured):
        report.compress_not_measured = True  # type: ignore[attr-defined]
    run = item.config.stash[RUN]
    if run.is_worker and run.session is not None and report.when == "teardown":
        report.compress_told = run.session.tell(item.nodeid)  # type: ignore[attr-defined]
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Conclude; write the report and the baseline, if asked to; keep pytest-benchmark to the same rule."""
    run = session.config.stash[RUN]
    if run.is_worker:
        html = session.config.stash[HTML]
        told = {"selected": run.selected, "recipes": run.recipes, "deselected": run.deselected}
        told["layers"] = html.tell() if html is not None else ""
        session.config.workeroutput["compress"] = {**told, "unreadable": run.unreadable}  # type: ignore[attr-defined]
    elif _concerns_us(run) and not session.config.getoption("collectonly"):
        from compress.pytest_plugin.finish import finish

        finish(session, run)
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Generator[None]:
    """Show what the run came to, below all else: there a reader of a terminal begins."""
    run = config.stash[RUN]
    if run.session is None:
        return (yield)
    from compress.pytest_plugin.summary import hush_timings, show

    hush_timings(config, run)
    try:
        return (yield)
    finally:
        show(terminalreporter, run)


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
    # A test in a file, too, is what pytest was to run.
    path = Path(str(value).partition("::")[0])
    if path.exists() and path.suffix != ".json":
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


def _recipes(settings: Settings) -> list[Path]:
    """The recipe files, each once."""
    files = [sorted(path.glob("*.toml")) if path.is_dir() else [path] for path in settings.recipes]
    paths = list({path.resolve(): path for found in files for path in found}.values())
    if settings.models:
        # What they go by is looked up here, but a model needs no recipe.
        paths = [path for path in paths if path.exists() or settings.recipes_named]
    elif not paths or (not settings.recipes_named and not any(path.exists() for path in paths)):
        where = ", ".join(map(str, settings.recipes))
        raise pytest.Collector.CollectError(
            f"no recipes in {where}; name one with --compress-recipe, or the folder with the ini option"
            " compress_recipes, or write some: python -m compress init"
        )
    names = [path.stem for path in paths]
    for number, path in enumerate(paths):
        if path.stem in names[:number]:
            first = paths[names.index(path.stem)]
            raise pytest.Collector.CollectError(
                f"a recipe goes by its file's name, got {path.stem!r} twice: {first} and {path}; rename one of them"
            )
    return paths


def _concerns_us(run: PytestRun) -> bool:
    """Whether anything of ours was to happen: in all other sessions the gate is not even imported."""
    return bool(run.session or run.selected or run.deselected or run.compare)
