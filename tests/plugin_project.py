"""A user's project in a temporary folder, and pytest runs in it: what the plugin's tests drive."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

# pytester forgets the modules that a run in this process was the first to import, and torch's cannot be imported twice.
import compress.measure.cuda
import compress.measure.environment
import compress.measure.latency
import compress.measure.memory
import compress.measure.parity
import compress.measure.quality
import compress.recipe  # noqa: F401

HERE = Path(__file__).parent
BENCHMARKS = HERE.parent / "benchmarks"

RECIPE = (HERE / "project" / "quarter.toml").read_text(encoding="utf-8")

_CONFTEST = """
import pytest
from harms import harmed

@pytest.fixture(scope="session")
def compressed(compressed):
    return harmed(compressed)
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of a pytest run.

    Attributes:
        status: its exit status.
        text: all that it printed.
        failures: test to message of what failed, from its JUnit XML.
        passed, skipped: the tests that did.
    """

    status: int
    text: str
    failures: Mapping[str, str]
    passed: frozenset[str]
    skipped: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project with the workload ``mine``, the recipe ``quarter`` and this repository's benchmarks.

    Attributes:
        pytester: runs pytest in it.
        monkeypatch: sets the variable by which a run's compressed model is harmed.
    """

    pytester: pytest.Pytester
    monkeypatch: pytest.MonkeyPatch

    @property
    def path(self) -> Path:
        """The project's folder."""
        return self.pytester.path

    def run(self, *args: str, harm: str = "", fresh: bool = False) -> Run:
        """Run pytest.

        Args:
            args: further arguments; if none of them is a file or folder, the benchmarks are run.
            harm: metric that the compressed model is made worse in, "" for none.
            fresh: whether in a process of its own.
        """
        self.monkeypatch.setenv("HARM", harm)
        # Fresh processes take seconds to start, and how they measure has tests of its own.
        if not any(argument.startswith("--compress-processes") for argument in args):
            args = ("--compress-processes=0", *args)
        # Hypothesis would be imported anew at the end of every run, which takes longer than the run.
        given = ["--compress-seconds=0.01", "--junitxml=junit.xml", "-p", "no:hypothesispytest", *args]
        if not any((self.path / argument).exists() for argument in args):
            given.insert(0, "benchmarks")
        if not any(argument.startswith("--compress-workload") for argument in args):
            given.append("--compress-workload=mine:workload")
        run = self.pytester.runpytest_subprocess if fresh else self.pytester.runpytest_inprocess
        junit = self.path / "junit.xml"
        junit.unlink(missing_ok=True)
        result = run(*given)
        return _read(int(result.ret), "\n".join([*result.outlines, *result.errlines]), junit)

    def stored_timings(self) -> list[Path]:
        """What pytest-benchmark has stored of its own."""
        return sorted((self.path / ".benchmarks").rglob("*.json"))

    @property
    def baseline(self) -> Path:
        """The file that ``--benchmark-save=mine`` records."""
        return self.path / "baselines" / "mine.json"

    def widen_ratios(self) -> None:
        """Review the baseline by hand: thirty pairs of so short a time repeat to no 5 %, whatever the machine."""
        content = json.loads(self.baseline.read_text(encoding="utf-8"))
        for entry in content["recipes"]["quarter"].values():
            for values in entry.values():
                if isinstance(values, dict) and "ratio" in values:
                    values["ratio"] = 2.0
                    del values["ratio_interval"]
        self.baseline.write_text(json.dumps(content), encoding="utf-8")

    @property
    def recipe(self) -> Path:
        """The project's only recipe."""
        return self.path / "benchmarks" / "recipes" / "quarter.toml"


def make_project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Project:
    """Write a project.

    Args:
        pytester: in whose folder it is written.
        monkeypatch: of the test.
        cache: where models are kept between runs; may be shared, for it is keyed by all that makes a model.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    # Files of one name are rewritten faster than the clock by which Python tells whether it has compiled them.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    for name in ("mine.py", "harms.py"):
        shutil.copy(HERE / "project" / name, pytester.path / name)
    benchmarks = pytester.mkdir("benchmarks")
    for file in BENCHMARKS.glob("test_*.py"):
        shutil.copy(file, benchmarks)
    (benchmarks / "recipes").mkdir()
    pytester.makeconftest(_CONFTEST)
    pytester.makeini("[pytest]\n")
    project = Project(pytester=pytester, monkeypatch=monkeypatch)
    project.recipe.write_text(RECIPE, encoding="utf-8")
    return project


def _read(status: int, text: str, junit: Path) -> Run:
    failures: dict[str, str] = {}
    passed, skipped = set(), set()
    for case in ET.parse(junit).iter("testcase") if junit.exists() else ():  # noqa: S314 - pytest wrote it
        # The recipe in brackets is the same for all; a quality beside it is not.
        name = case.attrib["name"].replace("[quarter]", "").replace("[quarter-", "[").replace("-quarter]", "]")
        bad = [child for child in case if child.tag in ("failure", "error")]
        if bad:
            failures[name] = "\n".join(f"{child.get('message')}\n{child.text}" for child in bad)
        elif case.find("skipped") is not None:
            skipped.add(name)
        else:
            passed.add(name)
    return Run(status=status, text=text, failures=failures, passed=frozenset(passed), skipped=frozenset(skipped))
