from __future__ import annotations

import json
import re

import pytest
import torch

from compress.calling.pairs import pinned_threads
from compress.measure import memory
from compress.pytest_plugin.options import COULD_NOT_MEASURE
from tests.plugin_project import RECIPE, Project, make_project

QUICK = "not cpu_memory and not cpu_latency and not cpu_time"

# Metric made worse: (tests that fail of it, what it comes to). Who is right among five is right first less often still.
HARMS = {
    "num_params": ({"test_num_params"}, "161"),
    "num_nonzero_params": ({"test_num_nonzero_params"}, "147"),
    "macs": ({"test_macs"}, "400"),
    "file_bytes": ({"test_file_bytes", "test_compressed_file_bytes"}, r"\d\.\d kB \(\d,\d{3} bytes\)"),
    "compressed_file_bytes": ({"test_compressed_file_bytes"}, "760 B"),
    "top1_error": ({"test_quality[top1_error]"}, "35.00 %"),
    "top5_error": ({"test_quality[top1_error]", "test_quality[top5_error]"}, "100.00 %"),
    "peak_tensor_bytes": ({"test_peak_tensor_bytes"}, r"9\.4 MB \([\d,]+ bytes\)"),
}
QUALITIES = ("top1_error", "top5_error")
FILES = {"peak_tensor_bytes": "test_memory"}
CUDA_TESTS = {
    "test_cuda_memory",
    "test_cuda_latency",
    "test_cuda_time",
    "test_cuda_device_time",
    "test_cuda_graph_time",
}
TIMES = {"cpu_latency_ms": "test_cpu_latency", "cpu_time_ms": "test_cpu_time"}


@pytest.fixture
def project(pytester, monkeypatch, tmp_path_factory):
    """A project on a machine without CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pinned_threads(1):
        yield make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")


def without_limits(project: Project) -> None:
    """Leave nothing but the baseline to hold the model against."""
    project.recipe.write_text(RECIPE.partition("[limits]")[0], encoding="utf-8")


def named(metric: str) -> tuple[str, str]:
    """The test of a metric, and its node id."""
    if metric in QUALITIES:
        return f"test_quality[{metric}]", f"benchmarks/test_quality.py::test_quality[{metric}-quarter]"
    return f"test_{metric}", f"benchmarks/{FILES.get(metric, 'test_size')}.py::test_{metric}[quarter]"


def assert_breaks_limit(message: str, metric: str, value: str, node_id: str) -> None:
    """The message names the metric, its value, the limit, where that stands, and what to run."""
    assert message.startswith(f"Failed: {metric} of recipe 'quarter' REGRESSED")
    assert re.search(rf"  {value}", message)
    assert re.search(r"\n  limit +at most .*\(benchmarks/recipes/quarter.toml\): ", message)
    assert f"To look further, run: pytest '{node_id}' --compress-workload=mine:workload\n" in message
    assert f"change the limit of {metric} in benchmarks/recipes/quarter.toml" in message


def assert_breaks_baseline(message: str, metric: str, value: str, node_id: str) -> None:
    """The message names the metric, its value, the baseline's file, and what to run."""
    command = f"pytest '{node_id}' --compress-workload=mine:workload"
    assert message.startswith(f"Failed: {metric} of recipe 'quarter' REGRESSED")
    assert re.search(rf"  {value}", message)
    assert re.search(r"\n  baseline +.*baselines/mine\.json\): ", message)
    assert f"To look further, run: {command} --benchmark-compare --compress-partial\n" in message
    assert f"To make it the new baseline, run: {command} --benchmark-save=mine and review" in message


@pytest.mark.parametrize("metric", HARMS)
def test_a_metric_beyond_its_limit_fails_its_test_and_no_other(project, metric):
    """Of all benchmarks exactly those of the metric made worse fail, and the message says all that is needed."""
    expected, value = HARMS[metric]
    run = project.run("-k", QUICK, harm=metric)
    assert (run.status, set(run.failures)) == (1, expected)
    name, node_id = named(metric)
    assert_breaks_limit(run.failures[name], metric, value, node_id)


@pytest.mark.parametrize("metric", HARMS)
def test_a_metric_worse_than_its_baseline_fails_its_test_and_no_other(project, metric):
    """Without any limit the healthy model passes against its own baseline, and the one made worse does not."""
    expected, value = HARMS[metric]
    without_limits(project)
    assert project.run("-k", QUICK, "--benchmark-save=mine").status == 0
    assert project.run("-k", QUICK, "--benchmark-compare=mine", "--compress-partial").status == 0
    run = project.run("-k", QUICK, "--benchmark-compare=mine", "--compress-partial", harm=metric)
    assert (run.status, set(run.failures)) == (1, expected)
    name, node_id = named(metric)
    assert_breaks_baseline(run.failures[name], metric, value, node_id)


@pytest.mark.parametrize(("metric", "name"), TIMES.items())
def test_a_slower_model_fails_by_limit_and_by_baseline(project, metric, name):
    """Times ten times as long break the limit and the baseline; as long as the dense model's they pass."""
    assert project.run("-k", name, "--benchmark-save=mine").status == 0
    project.widen_ratios()
    healthy = project.run("-k", name, "--benchmark-compare=mine", "--compress-partial")
    assert (healthy.status, healthy.passed) == (0, {name})
    run = project.run("-k", name, "--benchmark-compare=mine", "--compress-partial", harm=metric)
    assert (run.status, set(run.failures)) == (1, {name})
    message = run.failures[name]
    assert_breaks_baseline(
        message, metric, r"[\d.]+ ms, dense [\d.]+ ms, x[\d.]+", f"benchmarks/test_latency.py::{name}[quarter]"
    )
    assert re.search(r"\n  limit +at most 2 x dense \(benchmarks/recipes/quarter.toml\): exceeded", message)
    assert re.search(
        r"\n  baseline +x2\.000 \+ [\d.]+ %, halfway to the \d+ % that must be found .*: exceeded", message
    )


def test_one_fresh_process_measures_the_dense_model_under_each_runtime(project, monkeypatch):
    """However many recipes compare with it: it is measured again only where another runtime executes it."""
    measured = []

    def measure_in_child(model, conditions):
        measured.append((sum(parameter.numel() for parameter in model.parameters()), conditions.runtime))
        sizes = ("peak_delta_bytes", "resident_delta_bytes", "sampled_process_bytes")
        return dict.fromkeys(sizes, len(measured))

    monkeypatch.setattr(memory, "measure_in_child", measure_in_child)
    recipe = project.recipe.read_text(encoding="utf-8")
    for name, runtime in (("half", "eager"), ("third", "onnxruntime")):
        project.recipe.with_name(f"{name}.toml").write_text(f'runtime = "{runtime}"\n{recipe}', encoding="utf-8")
    run = project.run("-k", "cpu_memory", "--compress-partial")
    # The recipes are the same but for the runtime: three compressed models, and one dense one under two runtimes.
    (small, _), (large, _) = min(measured), max(measured)
    assert small < large, run.text
    expected = [(small, "eager")] * 2 + [(small, "onnxruntime"), (large, "eager"), (large, "onnxruntime")]
    assert sorted(measured) == expected


def test_more_memory_fails_by_limit_and_by_baseline(project):
    """Four times the memory in forward breaks the limit and the baseline, as seen from a process of its own."""
    for option in ("--benchmark-save=mine", "--benchmark-compare=mine"):
        healthy = project.run("-k", "cpu_memory", option, "--compress-partial", "-W", "error")
        assert (healthy.status, healthy.passed) == (0, {"test_cpu_memory"})
    run = project.run("-k", "cpu_memory", "--benchmark-compare=mine", "--compress-partial", harm="cpu_peak_bytes")
    assert (run.status, set(run.failures)) == (1, {"test_cpu_memory"})
    message, node_id = run.failures["test_cpu_memory"], "benchmarks/test_memory.py::test_cpu_memory[quarter]"
    assert_breaks_baseline(message, "cpu_peak_bytes", r"3\d\.\d MB \([\d,]+ bytes\), dense", node_id)
    assert re.search(r"\n  limit +at most 1\.2 x dense = [\d,]+ bytes .*: exceeded by [\d,]+ bytes", message)


def test_without_a_cuda_device_its_metrics_are_skipped_aloud(project):
    """A skip says NOT MEASURED, in the list of skips and in the table; it is never a pass."""
    run = project.run("-k", "cuda", "-rs")
    assert (run.status, run.skipped) == (0, CUDA_TESTS)
    assert re.search(r"SKIPPED \[5\] .*NOT MEASURED: no CUDA device; with --require-cuda this fails", run.text)
    assert "verdicts: 5 NOT MEASURED" in run.text


def test_required_cuda_that_is_missing_fails(project):
    """With --require-cuda the same tests fail, because nothing unmeasured passes."""
    run = project.run("-k", "cuda", "--require-cuda")
    assert (run.status, set(run.failures)) == (COULD_NOT_MEASURE, CUDA_TESTS)
    assert all("was NOT MEASURED" in message and "no CUDA device" in message for message in run.failures.values())


def test_disabled_benchmarks_are_not_measured_and_fail(project):
    """A latency that pytest-benchmark was told not to take is missing, which fails, and says by whose wish."""
    run = project.run("-k", "cpu_latency", "--benchmark-disable")
    assert (run.status, set(run.failures)) == (COULD_NOT_MEASURE, {"test_cpu_latency"})
    assert "cpu_latency_ms of recipe 'quarter' was NOT MEASURED" in run.failures["test_cpu_latency"]
    assert "--benchmark-disable" in run.failures["test_cpu_latency"]


def test_a_model_that_puts_out_nan_is_not_measured_and_fails(project):
    """Errors of a model without numbers cannot be counted: the table says so, in a sentence and no traceback."""
    run = project.run("-k", "top1_error", harm="nan")
    assert (run.status, set(run.failures)) == (COULD_NOT_MEASURE, {"test_quality[top1_error]"})
    assert (
        "a model's outputs must be numbers to be judged, this one put out NaN"
        in run.failures["test_quality[top1_error]"]
    )
    assert "NOT MEASURED: top-1 error: a model's outputs must be numbers" in run.text
    assert_no_traceback(run.text)


def test_fresh_processes_measure_and_pytest_benchmark_shows_it(project):
    """By default a latency comes from fresh processes; pytest-benchmark's own file holds every pair of them."""
    run = project.run("-k", "cpu_latency", "--compress-processes=2", "--benchmark-json=timings.json")
    assert (run.status, run.passed) == (0, {"test_cpu_latency"})
    (timed,) = json.loads((project.path / "timings.json").read_text())["benchmarks"]
    assert timed["group"] == "time per image"
    assert timed["stats"]["rounds"] == 60
    assert timed["stats"]["min"] > 0
    assert timed["extra_info"]["ratio"] > 0
    assert timed["extra_info"]["dense_ms"] > 0


def test_fixtures_can_be_overridden(project):
    """A project's own workload, dense and compressed models take the place of the plugin's."""
    project.pytester.makeconftest("""
        import pytest
        import torch
        import mine

        @pytest.fixture(scope="session")
        def workload():
            return mine.workload()

        @pytest.fixture(scope="session")
        def dense():
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6))

        @pytest.fixture(scope="session")
        def compressed(dense):
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6, bias=False))
    """)
    run = project.run("-k", "num_params", "--compress-workload=digits")
    assert run.status == 1, "six parameters fewer are not within the limit"
    assert re.search(r"parameters +390 +384 ", run.text)
    assert "workload: mine" in run.text


def test_a_dense_model_is_trained_only_on_request(project):
    """``--compress-train-dense`` needs a workload that says how, and tells one without it in one sentence."""
    run = project.run("-k", "num_params", "--compress-train-dense")
    assert run.status != 0
    assert "a dense model is trained as its workload's fit= says, which 'mine' lacks" in run.text
    assert_no_traceback(run.text)


def test_a_meter_serves_in_a_test_of_ones_own(project):
    """Called with two models a meter returns a measurement, and nothing is judged, printed or kept."""
    project.pytester.makepyfile(
        own="""
        def test_latency(cpu_latency, compressed, dense):
            assert cpu_latency(compressed, dense).ratio > 0
            assert len(cpu_latency(compressed, dense).pairs) >= 30

        def test_size(num_params, macs, compressed, dense):
            assert num_params(compressed, dense).ratio == 153 / 202
            assert macs(compressed, dense).compressed == 336
    """
    )
    run = project.run("own.py")
    assert (run.status, run.passed) == (0, {"test_latency", "test_size"})
    assert "compressed models" not in run.text


def assert_no_traceback(text: str) -> None:
    """What was printed is for a user, and shows nothing of the inside."""
    assert "Traceback" not in text
    assert "site-packages" not in text
    assert "pytest_plugin/" not in text
