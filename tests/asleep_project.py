"""A project whose models are plain numbers: a whole run of the gate takes as long as its tests need to be collected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

# pytester forgets the modules that a run in this process was the first to import, and torch's cannot be imported twice.
import compress.measure.environment
import compress.recipe
from tests.gate.samples import DEVICE

SHA256 = "0" * 64
QUIET = ("-p", "no:hypothesispytest")
UNCACHED = ("-p", "no:cacheprovider")

CONFTEST = f"""
import pytest
from compress.pytest_plugin.meter import Meter
from compress.results import METRICS, Environment, Measurement

class Data:
    sha256 = "{SHA256}"
    test = range(8)

class Workload:
    name = "mine"
    dataset = Data()
    known_metrics = METRICS

@pytest.fixture(autouse=True)
def machine(monkeypatch):
    here = Environment(python="3", torch="2", cpu="c", cpu_class="{DEVICE}")
    monkeypatch.setattr("compress.measure.environment.environment", lambda threads: here)

@pytest.fixture(scope="session")
def workload():
    return Workload()

@pytest.fixture(scope="session")
def _fingerprint():
    return lambda model: str(model).encode().hex().ljust(64, "0")[:64]

@pytest.fixture(scope="session")
def dense():
    return 100

@pytest.fixture(scope="session")
def compressed(recipe):
    return 50

@pytest.fixture
def num_params():
    return Meter(metric="num_params", measure=lambda small, large: Measurement(
        metric="num_params", dense=large, compressed=small))

@pytest.fixture
def cpu_memory():
    return Meter(metric="cpu_peak_bytes", measure=lambda small, large: Measurement(
        metric="cpu_peak_bytes", dense=large * 1024, compressed=small * 1024, device="{DEVICE}"))

@pytest.fixture
def top1_error():
    # One example of eight lost: more than the limit allows, and no more than chance may do.
    return Meter(metric="top1_error", measure=lambda small, large: Measurement(
        metric="top1_error", dense=0.0, compressed=0.125, correct=(b"\\xff", b"\\x7f"), num_examples=8))
"""

TESTS = """
def test_num_params(gate, num_params, compressed, dense):
    gate(num_params, compressed, dense)

def test_cpu_memory(gate, cpu_memory, compressed, dense):
    gate(cpu_memory, compressed, dense)
"""

# Time that needs no clock, shown to pytest-benchmark as the plugin's own is.
TIMED = f"""
from compress.pytest_plugin.benchmarking import PytestBenchmark

@pytest.fixture
def cpu_latency(request):
    timings = PytestBenchmark(request)

    def measure(small, large):
        timings.refuse_if_disabled()
        return Measurement(metric="cpu_latency_ms", dense=2.0, compressed=1.0, device="{DEVICE}")

    return Meter(metric="cpu_latency_ms", measure=measure)
"""

LIMITS = {"num_params": "max_ratio = 0.6", "cpu_peak_bytes": "max_ratio = 0.6"}
ENTRY = {"compressed": 50, "dense": 100}
ENTRIES = {"num_params": ENTRY, "cpu_peak_bytes": {DEVICE: {"compressed": 51200, "dense": 102400}}}


@dataclass(frozen=True, kw_only=True)
class Run:
    """The exit status of a run and what it printed."""

    status: int
    text: str


@dataclass(frozen=True, kw_only=True)
class AsleepProject:
    """A project with the recipe ``half``, one test for each of two metrics, and a baseline that both of them meet."""

    pytester: pytest.Pytester

    @property
    def path(self) -> Path:
        """The project's folder."""
        return self.pytester.path

    def run(self, *args: str, fresh: bool = False, cached: bool = False) -> Run:
        """Run pytest, on the folder ``benchmarks`` unless ``args`` name something.

        Args:
            args: of the command line.
            fresh: in another process.
            cached: remembering what failed.
        """
        given = [*QUIET, *(() if cached else UNCACHED), *args]
        if not any((self.path / argument).exists() for argument in args):
            given.insert(0, "benchmarks")
        run = self.pytester.runpytest_subprocess if fresh else self.pytester.runpytest_inprocess
        result = run(*given)
        # Long lines of the table's notes are broken where the terminal ends.
        return Run(status=int(result.ret), text=" ".join(" ".join([*result.outlines, *result.errlines]).split()))

    def compare(self, *args: str, fresh: bool = False, cached: bool = False) -> Run:
        """Run the gate against the baseline."""
        return self.run("--benchmark-compare", *args, fresh=fresh, cached=cached)

    def write_tests(self, text: str) -> None:
        """Replace the tests."""
        (self.path / "benchmarks" / "test_mine.py").write_text(text, encoding="utf-8")

    def write_conftest(self, text: str) -> None:
        """Add to what the project defines."""
        self.pytester.makeconftest(CONFTEST + text)

    def write_recipe(self, name: str = "half", limits: Mapping[str, str] = LIMITS, *, folder: str = "") -> Path:
        """Write a recipe file."""
        lines = [f"{metric} = {{ {limit} }}" for metric, limit in limits.items()]
        path = self.path / (folder or "benchmarks/recipes") / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["[limits]", *lines]), encoding="utf-8")
        return path

    def write_baseline(
        self, entries: Mapping[str, object] = ENTRIES, *, recipe: str = "half", name: str = "mine", **top: object
    ) -> Path:
        """Write a baseline file."""
        content = {
            "schema": 2,
            "workload": "mine",
            "data_sha256": SHA256,
            "num_examples": 8,
            "environments": {DEVICE: {"cpu": "c", "python": "3", "torch": "2"}},
            "recipes": {recipe: entries},
        }
        path = self.path / "baselines" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**content, **top}), encoding="utf-8")
        return path


def make_asleep_project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> AsleepProject:
    """Write a project in which everything holds."""
    # Another process is to run the package that is tested here, whichever is installed.
    monkeypatch.setenv("PYTHONPATH", str(Path(compress.__file__).parents[1]))
    project = AsleepProject(pytester=pytester)
    pytester.mkdir("benchmarks")
    pytester.makeini("[pytest]\n")
    project.write_conftest("")
    project.write_tests(TESTS)
    project.write_recipe()
    project.write_baseline()
    return project
