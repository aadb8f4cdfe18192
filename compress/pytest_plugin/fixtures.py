"""The fixtures of the pytest plugin: the models, one meter for each metric, and the gate.

Any of them can be overridden in a conftest.py, by plain pytest means. A meter is called with the compressed and the
dense model and returns a :class:`compress.results.Measurement`, which makes it useful in anyone's own test::

    def test_latency(cpu_latency, compressed, dense):
        assert cpu_latency(compressed, dense).ratio < 0.9
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

import pytest

from compress.pytest_plugin.benchmarking import Looks, PytestBenchmark
from compress.pytest_plugin.declared import load_workload
from compress.pytest_plugin.meter import NO_CUDA, Measure, Meter
from compress.pytest_plugin.options import DEFAULT_RECIPE
from compress.pytest_plugin.run import RUN, at_work, stop_on_error

if TYPE_CHECKING:
    from torch import nn

    from compress.device.connection import Device
    from compress.exported.file_model import FileModel
    from compress.gate.baseline import Baseline
    from compress.gate.limits import Limit
    from compress.measure.children import Children, Conditions
    from compress.measure.memory import MemoryReport
    from compress.pytest_plugin.gate_session import Gate
    from compress.pytest_plugin.model_files import ModelFile
    from compress.quality import Judged, Quality
    from compress.recipe import Recipe
    from compress.results import Measurement
    from compress.workload.workload import Workload

Found = TypeVar("Found")


Judge = Callable[["nn.Module", "nn.Module"], "dict[str, Judged]"]


@pytest.fixture(scope="session")
def workload(pytestconfig: pytest.Config) -> Workload:
    """What is measured: a model, its data and an example input, as ``--compress-workload`` names it."""
    with stop_on_error(pytestconfig), at_work(pytestconfig, "loading the workload"):
        return load_workload(pytestconfig)


@pytest.fixture(scope="session")
def dense(request: pytest.FixtureRequest, workload: Workload, pytestconfig: pytest.Config) -> nn.Module:
    """The trained dense model of the workload; trained on first use, with a progress bar."""
    from compress.workload.workload import dense_model

    if "gate" in request.fixturenames:
        # A baseline that cannot be read is to be known before hours of training too.
        request.getfixturevalue("baseline")
    with stop_on_error(pytestconfig), at_work(pytestconfig, "the dense model"):
        return dense_model(workload)


@pytest.fixture(scope="session")
def _recipe_path(request: pytest.FixtureRequest) -> Path:
    """What ``recipe`` is parametrized by: a project's own fixture of that name then stays what it is."""
    path: Path = request.param
    return path


@pytest.fixture(scope="session")
def recipe(_recipe_path: Path, workload: Workload, pytestconfig: pytest.Config) -> Recipe:
    """The recipe under test: the test runs once for each."""
    from compress.gate.limits import parse_limits

    with stop_on_error(pytestconfig):
        recipe = _recipe_of(_recipe_path, pytestconfig.stash[RUN].files.get(_recipe_path.stem))
        if _recipe_path == DEFAULT_RECIPE:
            # It is written for images; a network for another task is judged by something else.
            known = {name: limit for name, limit in recipe.limits.items() if name in workload.known_metrics}
            recipe = replace(recipe, limits=known)
        # A limit that cannot be read is to be known before hours of training, not after.
        parse_limits(recipe.limits, where=str(recipe.path), metrics=workload.known_metrics)
    return recipe


@pytest.fixture(scope="session")
def _compressed_models() -> dict[tuple[Path, int], tuple[nn.Module, nn.Module]]:
    """By recipe and dense model: in whatever order tests run, each recipe is run once."""
    return {}


@pytest.fixture(scope="session")
def compressed(
    recipe: Recipe,
    dense: nn.Module,
    workload: Workload,
    pytestconfig: pytest.Config,
    _compressed_models: dict[tuple[Path, int], tuple[nn.Module, nn.Module]],
) -> nn.Module:
    """What the recipe makes of the dense model, or what stands in the file that takes its place."""
    from compress.recipe import run_recipe
    from compress.workload.workload import compressed_model

    key = (recipe.path, id(dense))
    if key not in _compressed_models:
        run = pytestconfig.stash[RUN]
        progress, file = run.progress, run.files.get(recipe.name)
        with at_work(pytestconfig, "compressing" if file is None else f"loading {file.name}"):
            if file is not None:
                model = compressed_model(file.local(), dense, workload)
            else:
                model = run_recipe(recipe, dense, workload, on_step=progress.step if progress is not None else None)
            # The dense model is kept with it: another one could be given the same id once this one is gone.
            _compressed_models[key] = (model, dense)
    return _compressed_models[key][0]


@pytest.fixture(scope="session")
def limits(recipe: Recipe, workload: Workload, pytestconfig: pytest.Config) -> dict[str, Limit]:
    """The recipe's limits, by metric."""
    from compress.gate.limits import parse_limits

    with stop_on_error(pytestconfig):
        return parse_limits(recipe.limits, where=str(recipe.path), metrics=workload.known_metrics)


@pytest.fixture(scope="session")
def baseline(pytestconfig: pytest.Config, workload: Workload) -> Baseline | None:
    """What ``--benchmark-compare`` compares with; None without that option."""
    with stop_on_error(pytestconfig):
        return pytestconfig.stash[RUN].gate_session().load_baseline(workload.name)


@pytest.fixture
def gate(
    request: pytest.FixtureRequest,
    recipe: Recipe,
    limits: dict[str, Limit],
    baseline: Baseline | None,
    workload: Workload,
    _fingerprint: Callable[[nn.Module], str],
) -> Gate:
    """Call it with a meter and the two models: ``gate(num_params, compressed, dense)``."""
    from compress.gate.demands import parse_excuse
    from compress.gate.recording import Provenance
    from compress.measure.environment import environment
    from compress.pytest_plugin.gate_session import Gate
    from compress.results import Identity

    session = request.config.stash[RUN].gate_session()
    file = request.config.stash[RUN].files.get(recipe.name)
    with stop_on_error(request.config):
        here = environment(_threads(request.config))
        for excuse in session.rules.excuses:
            parse_excuse(excuse.text, workload.known_metrics)
    if session.provenance is None:
        session.provenance = Provenance(
            workload=workload.name,
            data_sha256=workload.dataset.sha256,
            num_examples=len(workload.dataset.test),
            environment=here,
        )

    def identify(compressed: nn.Module, dense: nn.Module) -> Identity:
        return Identity(
            dense=_fingerprint(dense),
            compressed=_fingerprint(compressed),
            recipe=recipe.sha256,
            built_on=here.cpu_class,
            file=file.name if file is not None else "",
        )

    session.baseline = baseline
    session.limits[recipe.name] = tuple(limits)
    session.begin(request.node.nodeid)
    return Gate(
        session=session,
        recipe=recipe.name,
        limits=limits,
        baseline=baseline,
        node_id=request.node.nodeid,
        options=(
            *((f"--compress-workload={spec}",) if (spec := request.config.getoption("--compress-workload")) else ()),
            *((file.option,) if file is not None else ()),
        ),
        identify=identify,
    )


@pytest.fixture(scope="session")
def _fingerprint() -> Callable[[nn.Module], str]:
    """Which model it is, found out once however often it is asked."""
    from compress.modules.fingerprint import fingerprint

    return _once_a_model(fingerprint)


@pytest.fixture(scope="session")
def num_params() -> Meter:
    """Parameters."""
    from compress.measure import size

    return Meter(metric="num_params", measure=size.num_params)


@pytest.fixture(scope="session")
def num_nonzero_params() -> Meter:
    """Parameters that are not zero."""
    from compress.measure import size

    return Meter(metric="num_nonzero_params", measure=size.num_nonzero_params)


@pytest.fixture(scope="session")
def macs(workload: Workload) -> Meter:
    """Multiply-accumulates of one forward pass of one example."""
    from compress.measure import size

    return Meter(metric="macs", measure=lambda small, large: size.macs(small, large, workload.inputs))


@pytest.fixture(scope="session")
def file_bytes() -> Meter:
    """Bytes of the saved model."""
    from compress.measure import size

    return Meter(metric="file_bytes", measure=size.file_bytes)


@pytest.fixture(scope="session")
def compressed_file_bytes() -> Meter:
    """Bytes of the saved model after DEFLATE."""
    from compress.measure import size
    from compress.results import Measurement

    count = _once_a_model(size.count_compressed_file_bytes)

    def measure(compressed: nn.Module, dense: nn.Module) -> Measurement:
        return Measurement(metric="compressed_file_bytes", dense=count(dense), compressed=count(compressed))

    return Meter(metric="compressed_file_bytes", measure=measure)


@pytest.fixture
def _quality_name(request: pytest.FixtureRequest) -> str:
    """What ``quality`` is parametrized by."""
    return str(request.param)


@pytest.fixture
def quality(_quality_name: str, workload: Workload, _judge: Judge) -> Meter:
    """What the workload is judged by: the test runs once for each quality."""
    return _quality_meter(_quality_name, workload, _judge)


@pytest.fixture(scope="session")
def top1_error(workload: Workload, _judge: Judge) -> Meter:
    """Share of test images whose most likely class is wrong."""
    return _quality_meter("top1_error", workload, _judge)


@pytest.fixture(scope="session")
def top5_error(workload: Workload, _judge: Judge) -> Meter:
    """Share of test images whose class is not among the five most likely."""
    return _quality_meter("top5_error", workload, _judge)


@pytest.fixture(scope="session")
def outputs_agree(workload: Workload, pytestconfig: pytest.Config, _judge: Judge) -> Meter:
    """Relative error of the compressed model's outputs to the dense model's on the test examples, of any structure."""
    from compress.quality import output_error

    agreement = output_error()
    is_judged_by_it = any(quality.name == agreement.name for quality in workload.qualities)
    return _meter_of(agreement, _judge if is_judged_by_it else _judging(workload, (agreement,), pytestconfig))


@pytest.fixture
def artifact_parity(workload: Workload, _conditions: Conditions) -> Meter:
    """How the file that the recipe's runtime executes answers on the test examples, against the model it is made of.

    Of classifiers it is the share of answers that changed, of others the relative error of the outputs.
    """
    from compress.measure.parity import artifact_parity
    from compress.quality import parity_of
    from compress.workload.workload import EVALUATED_AT_ONCE

    quality = parity_of(workload.qualities)

    def measure(compressed: nn.Module, _dense: nn.Module) -> Measurement:
        batches = workload.dataset.test.batches(EVALUATED_AT_ONCE)
        return artifact_parity(compressed, _conditions, batches, quality, outputs=workload.outputs)

    return Meter(metric=quality.name, measure=measure)


@pytest.fixture
def _own_metric_name(request: pytest.FixtureRequest) -> str:
    """What ``own_metric`` is parametrized by."""
    return str(request.param)


@pytest.fixture
def own_metric(_own_metric_name: str, workload: Workload, pytestconfig: pytest.Config) -> Meter:
    """What else the workload declares to be measured: the test runs once for each."""
    from compress.measure.quality import own_measurement

    own = next(one for one in workload.metrics if one.name == _own_metric_name)
    threads = _threads(pytestconfig)
    return Meter(
        metric=own.name,
        declared=own.metric,
        measure=lambda small, large: own_measurement(own, small, large, threads),
    )


@pytest.fixture
def cpu_memory(
    _conditions: Conditions,
    _dense_memory: dict[tuple[int, str], tuple[nn.Module, MemoryReport]],
    _remote: Device | None,
) -> Meter:
    """Peak bytes of one forward pass on the CPU, taken in a fresh process, here or on the device."""
    from compress.measure import memory

    if _remote is not None:
        from compress.device.measuring import remote_memory

        there = partial(remote_memory, conditions=_conditions, device=_remote)
        return Meter(metric="cpu_peak_bytes", measure=there)

    def measure(compressed: nn.Module, dense: nn.Module) -> Measurement:
        key = (id(dense), _conditions.runtime)
        if key not in _dense_memory:
            _dense_memory[key] = dense, memory.measure_in_child(dense, _conditions)
        return memory.cpu_memory(compressed, dense, _conditions, known=_dense_memory[key][1])

    return Meter(metric="cpu_peak_bytes", measure=measure)


@pytest.fixture(scope="session")
def _dense_memory() -> dict[tuple[int, str], tuple[nn.Module, MemoryReport]]:
    """By dense model, kept for its id, and runtime: one fresh process measures it, whatever is compared with it."""
    return {}


@pytest.fixture(scope="session")
def peak_tensor_bytes(workload: Workload) -> Meter:
    """Most bytes of tensors that live at once in one forward pass."""
    from compress.measure import memory

    example = workload.inputs
    return Meter(
        metric="peak_tensor_bytes", measure=lambda small, large: memory.peak_tensor_bytes(small, large, example)
    )


@pytest.fixture(scope="session")
def cuda_memory(workload: Workload) -> Meter:
    """Peak bytes of torch's CUDA allocator in one forward pass."""
    from compress.measure import memory

    example = workload.inputs
    return _cuda_meter("cuda_peak_bytes", lambda small, large: memory.cuda_memory(small, large, example))


@pytest.fixture
def cpu_latency(
    request: pytest.FixtureRequest, _conditions: Conditions, _children: Children, _remote: Device | None
) -> Meter:
    """Milliseconds of one forward pass on the CPU, dense and compressed called in turn, in several fresh processes."""
    from compress.device.measuring import remote_latency
    from compress.measure import latency

    looks, timings = Looks(request.config), PytestBenchmark(request)

    def measure(compressed: nn.Module, dense: nn.Module) -> Measurement:
        timings.refuse_if_disabled()
        effort = looks.effort(compressed, dense)
        with timings.skipped_if_unmeasured():
            if _remote is None:
                measured = latency.cpu_latency(compressed, dense, _conditions, effort=effort, children=_children)
            else:
                processes = _processes(request.config)
                measured = remote_latency(
                    compressed, dense, _conditions, device=_remote, processes=processes, effort=effort
                )
        timings.show(measured)
        return measured

    return Meter(metric="cpu_latency_ms", measure=measure)


@pytest.fixture
def cpu_time(_conditions: Conditions, _children: Children) -> Meter:
    """Milliseconds that torch.profiler counts on the CPU in one forward pass, in several fresh processes."""
    from compress.measure import latency

    def measure(compressed: nn.Module, dense: nn.Module) -> Measurement:
        return latency.cpu_time(compressed, dense, _conditions, children=_children)

    return Meter(metric="cpu_time_ms", measure=measure)


@pytest.fixture
def cuda_latency(request: pytest.FixtureRequest, workload: Workload) -> Meter:
    """Milliseconds of one forward pass on the CUDA device, until the host has seen it end, both models in turn."""
    from compress.measure import cuda

    looks, timings = Looks(request.config), PytestBenchmark(request)

    def measure(compressed: nn.Module, dense: nn.Module) -> Measurement:
        timings.refuse_if_disabled()
        effort = looks.effort(compressed, dense)
        measured = cuda.cuda_latency(compressed, dense, workload.inputs, effort=effort)
        timings.show(measured)
        return measured

    return _cuda_meter("cuda_latency_ms", measure)


@pytest.fixture
def cuda_device_time(pytestconfig: pytest.Config, workload: Workload) -> Meter:
    """Milliseconds between two CUDA events around one forward pass, both models in turn on inputs that rotate."""
    from compress.measure import cuda

    return _event_meter("cuda_device_ms", cuda.cuda_device_time, pytestconfig, workload)


@pytest.fixture
def cuda_graph_time(pytestconfig: pytest.Config, workload: Workload) -> Meter:
    """Milliseconds between two CUDA events around the replay of one forward pass captured as a CUDA graph."""
    from compress.measure import cuda

    return _event_meter("cuda_graph_ms", cuda.cuda_graph_time, pytestconfig, workload)


@pytest.fixture(scope="session")
def cuda_time(workload: Workload) -> Meter:
    """Milliseconds that torch.profiler counts in CUDA kernels in one forward pass."""
    from compress.measure import cuda

    example = workload.inputs
    return _cuda_meter("cuda_time_ms", lambda small, large: cuda.cuda_time(small, large, example))


@pytest.fixture(scope="session")
def _packages() -> dict[str, WeakKeyDictionary[nn.Module, Path | FileModel]]:
    """By runtime: the files that it has made of models."""
    return {}


@pytest.fixture
def _conditions(
    request: pytest.FixtureRequest,
    workload: Workload,
    _packages: dict[str, WeakKeyDictionary[nn.Module, Path | FileModel]],
) -> Conditions:
    """How a fresh process finds the workload's models, and what the recipe under test runs them with."""
    from compress.measure.children import Conditions

    # A project with a compressed model of its own has no recipe.
    recipe: Recipe | None = request.getfixturevalue("recipe") if "recipe" in request.fixturenames else None
    runtime = recipe.runtime if recipe is not None else "eager"
    return Conditions(
        model_factory=workload.model_factory,
        model_args=workload.model_args,
        example_input=workload.inputs,
        runtime=runtime,
        threads=_threads(request.config),
        packages=_packages.setdefault(runtime, WeakKeyDictionary()),
    )


@pytest.fixture(scope="session")
def _remote(pytestconfig: pytest.Config) -> Iterator[Device | None]:
    """The device that ``--compress-device`` names, connected by the first test that measures; None for this machine."""
    address = pytestconfig.stash[RUN].settings.device
    if address is None:
        yield None
        return
    from compress.device.connection import Device

    with Device(address) as device:
        yield device


@pytest.fixture(scope="session")
def _children(pytestconfig: pytest.Config) -> Iterator[Children]:
    """The processes that time models: started by the first test that needs them, gone with the session."""
    from compress.measure.children import Children

    with Children(_processes(pytestconfig), threads=_threads(pytestconfig)) as children:
        yield children


@pytest.fixture(scope="session")
def _judge(workload: Workload, pytestconfig: pytest.Config) -> Judge:
    """Judges a model, and the dense one it came from, on the test split by all qualities."""
    return _judging(workload, workload.qualities, pytestconfig)


def _recipe_of(path: Path, file: ModelFile | None) -> Recipe:
    """The recipe in the file at ``path``; without the steps that did not make the model that ``file`` holds."""
    from compress.recipe import Recipe, load_recipe

    if file is None:
        return load_recipe(path)
    stated = load_recipe(path) if file.recipe is not None else Recipe(name=path.stem, path=path, steps=())
    return replace(stated, steps=stated.steps if file.built else (), runtime=file.runtime(stated.runtime))


def _quality_meter(name: str, workload: Workload, judge: Judge) -> Meter:
    """Measures the quality of that name, if the workload has one."""
    from compress.errors import MeasureError

    own = {quality.name: quality for quality in workload.qualities}
    if name not in own:
        known = ", ".join(own)
        raise MeasureError(f"workload {workload.name!r} is not judged by {name}, its qualities are {known}")
    return _meter_of(own[name], judge)


def _meter_of(quality: Quality, judge: Judge) -> Meter:
    from compress.measure.quality import quality_measurement
    from compress.results import METRICS

    name = quality.name
    return Meter(
        metric=name,
        declared=None if name in METRICS else quality.metric,
        measure=lambda small, large: quality_measurement(judge(small, large)[name], judge(large, large)[name]),
    )


def _judging(workload: Workload, qualities: Sequence[Quality], config: pytest.Config) -> Judge:
    """Judges a model and the dense one it came from by some qualities, once however often it is asked."""
    from compress.workload.workload import judge_on

    # The models are kept with the result: another one could be given the same id once one is gone.
    known: dict[tuple[int, int], tuple[nn.Module, nn.Module, dict[str, Judged]]] = {}

    def judged(model: nn.Module, dense: nn.Module) -> dict[str, Judged]:
        key = (id(model), id(dense))
        if key not in known:
            with at_work(config, "evaluating"):
                split = workload.dataset.test
                known[key] = (model, dense, judge_on(workload, model, split, qualities, dense=dense, progress=True))
        return known[key][2]

    return judged


def _once_a_model(find_out: Callable[[nn.Module], Found]) -> Callable[[nn.Module], Found]:
    """The same, but asked once for each model: the dense one meets every recipe's."""
    known: WeakKeyDictionary[nn.Module, Found] = WeakKeyDictionary()

    def once(model: nn.Module) -> Found:
        if model not in known:
            known[model] = find_out(model)
        return known[model]

    return once


def _cuda_meter(metric: str, measure: Measure) -> Meter:
    import torch

    from compress.errors import MeasureError
    from compress.exported.file_model import FileModel
    from compress.results import Measurement

    def on_device(compressed: nn.Module, dense: nn.Module) -> Measurement:
        if isinstance(compressed, FileModel):
            raise MeasureError(f"{compressed.kind} runs on the CPU alone")
        return measure(compressed, dense)

    if torch.cuda.is_available():
        return Meter(metric=metric, measure=on_device)
    return Meter(metric=metric, measure=lambda *_models: Measurement(metric=metric, unmeasured=NO_CUDA))


def _event_meter(metric: str, time: Callable[..., Measurement], config: pytest.Config, workload: Workload) -> Meter:
    """What ``time`` measures between CUDA events, with as much effort as the looks at these models leave."""
    looks = Looks(config)

    def measure(compressed: nn.Module, dense: nn.Module) -> Measurement:
        return time(compressed, dense, workload.inputs, effort=looks.effort(compressed, dense))

    return _cuda_meter(metric, measure)


def _threads(config: pytest.Config) -> int:
    return config.stash[RUN].settings.threads


def _processes(config: pytest.Config) -> int:
    return config.stash[RUN].settings.processes
