from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from compress import recipe, train
from compress.artifacts import artifact
from compress.errors import CompressError, ConfigError, ModelError
from compress.recipe import load_recipe, pruning_steps, run_recipe
from compress.recipe.fit_step import Fit
from compress.recipe.lowrank_steps import Factorize
from compress.recipe.pruning_steps import PruneChannels, PruneWeights
from compress.recipe.quantization_steps import Quantize
from compress.recipe.reconstruct_step import Reconstruct
from compress.recipe.steps import STEPS
from compress.recipe.toml import change_step
from compress.system.files import cache_folder
from tests.workloads import tiny_net, tiny_workload

SHIPPED = Path(recipe.__file__).parents[2] / "benchmarks" / "recipes"

CUT_AND_FIT = """
[[steps]]
use = "prune_channels"
pruning_ratio = 0.5

[[steps]]
use = "fit"
epochs = 1
batch_size = 16
validation_fraction = 0
autocast = "off"
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def written(tmp_path):
    """Writes a recipe file and returns its path."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "mine.toml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def dense():
    """The dense model of the tiny workload, not trained: what the techniques do does not hang on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_net(width=4).eval()


@pytest.fixture
def steps_run(monkeypatch):
    """The name of every step that was really run, in order."""
    calls = []

    def counted(name, function):
        def step(*args, **settings):
            calls.append(name)
            return function(*args, **settings)

        return step

    for place, name in ((pruning_steps, "prune_channels"), (pruning_steps, "prune_weights"), (train, "fit")):
        monkeypatch.setattr(place, name, counted(name, getattr(place, name)))
    return calls


def run(path, dense, **changes) -> nn.Module:
    """The compressed model of the recipe at ``path``, of the tiny workload with ``changes``."""
    return run_recipe(load_recipe(path), dense, dataclasses.replace(tiny_workload(), **changes), progress=False)


def test_each_step_is_told_before_it_is_taken(written, dense):
    """Which step of how many, by its name in the file; what the cache knows is not taken again, and so not told."""
    told = []
    path = written(CUT_AND_FIT)
    for _ in range(2):
        run_recipe(load_recipe(path), dense, tiny_workload(), progress=False, on_step=told.append)
    assert told == ["step 1 of 2, prune_channels", "step 2 of 2, fit"]


def test_every_shipped_recipe_is_read():
    """The recipes of the benchmarks have a description, steps and limits."""
    paths = sorted(SHIPPED.glob("*.toml"))
    assert {"compose", "lowrank", "structured", "unstructured"} <= {path.stem for path in paths}
    for path in paths:
        shipped = load_recipe(path)
        assert (shipped.name, shipped.path) == (path.stem, path)
        assert shipped.description
        assert shipped.steps
        assert shipped.limits


def test_what_the_shipped_recipes_say():
    """Structured: a fifth of the channels, then repair. Unstructured: a fifth of all weights. Low rank: taught."""
    cut, repair = load_recipe(SHIPPED / "structured.toml").steps
    assert cut == PruneChannels(pruning_ratio=0.2, importance="l1", recalibration_batches=0)
    assert isinstance(repair, Reconstruct)
    unstructured = load_recipe(SHIPPED / "unstructured.toml")
    assert unstructured.steps == (PruneWeights(sparsity=0.2, scope="global"),)
    assert unstructured.limits["num_nonzero_params"] == {"max_ratio": 0.81}
    factorize, fit = load_recipe(SHIPPED / "lowrank.toml").steps
    assert factorize == Factorize(by="macs", target=0.6)
    assert fit.distill
    composed = load_recipe(SHIPPED / "compose.toml")
    assert [type(step) for step in composed.steps] == [PruneChannels, Reconstruct, Factorize, Quantize]
    assert composed.runtime == "aotinductor"


def test_a_recipe_names_its_runtime(written):
    """Times are measured under it; without a word, eagerly."""
    assert load_recipe(written('runtime = "inductor"')).runtime == "inductor"
    assert load_recipe(written("")).runtime == "eager"


def test_settings_left_out_have_their_defaults(written):
    """A step is its name alone where nothing else is said, and whole numbers stand for fractions."""
    read = load_recipe(written('[[steps]]\nuse="prune_weights"\nsparsity=0\n[[steps]]\nuse="fit"\n'))
    assert read.steps == (PruneWeights(sparsity=0), Fit())
    assert (read.name, read.description, read.limits) == ("mine", "", {})


def test_a_recipe_may_have_no_steps(written):
    """Limits alone are a recipe: for a model that is compressed elsewhere."""
    read = load_recipe(written("[limits]\nmacs = { max_ratio = 1.0 }\n"))
    assert read.steps == ()
    assert read.limits == {"macs": {"max_ratio": 1.0}}


SETTINGS = ", ".join(field.name for field in dataclasses.fields(PruneWeights))
STEP = '[[steps]]\nuse = "prune_weights"\n\n[[steps]]\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'runtime = "tvm"',
            "'runtime' must be one of eager, inductor, onnxruntime, aotinductor, openvino, executorch, got 'tvm' (",
        ),
        (
            "setps = []",
            "unknown key 'setps' - did you mean 'steps'?; known are description, runtime, steps, limits, sweep (",
        ),
        (
            STEP + 'use = "prune_chanels"',
            (
                "'use' must be one of {steps}, got 'prune_chanels'"
                " - did you mean 'prune_channels'? (recipe {path}, step 2)"
            ),
        ),
        (STEP + "sparsity = 0.2", "'use' must be one of {steps}, got None (recipe {path}, "),
        (STEP + 'use = ["fit"]', "'use' must be one of {steps}, got ['fit']"),
        (
            STEP + 'use = "prune_weights"\nsparsty = 0.2',
            "unknown key 'sparsty' - did you mean 'sparsity'?; known are {settings} (recipe {path}, step 2)",
        ),
        (
            STEP + 'use = "prune_weights"\nsparsity = "0.2"',
            "sparsity must be of type float, got '0.2' (recipe {path}, step 2)",
        ),
        (STEP + 'use = "fit"\nepochs = true', "epochs must be of type int, got True (recipe {path}, step 2)"),
        (STEP + 'use = "fit"\nepochs = 1.0', "epochs must be of type int, got 1.0 (recipe {path}, step 2)"),
        (STEP + 'use = "fit"\nepochs = 0', "epochs must be a whole number at least 1, got 0 (recipe {path}, step 2)"),
        ("steps = 3", "steps must be [[steps]] tables, got 3 (recipe {path})"),
        ('steps = ["fit"]', "a step must be a table, got 'fit' (recipe {path}, step 1)"),
        ("limits = 3", "'limits' must be a table [limits], got 3 (recipe {path})"),
        ("sweep = 3", "'sweep' must be a table [sweep], got 3 (recipe {path})"),
        ("description = 3", "'description' must be a string, got 3 (recipe {path})"),
        (
            STEP + 'use = "quantize"\nmax_accuracy_drop = 5',
            "max_accuracy_drop must be in [0, 1], where 0.005 is half a percentage point, got 5 (recipe {path}, ",
        ),
        (
            STEP + 'use = "quantize"\nobserver = "best"',
            "observer must be one of histogram, minmax, got 'best' (recipe {path}, step 2)",
        ),
        (
            STEP + 'use = "quantize"\nnum_calibration_images = 0',
            "num_calibration_images must be at least 1, got 0 (recipe {path}, step 2)",
        ),
        (
            STEP + 'use = "half"\nprecision = "int4"',
            "precision must be one of bfloat16, float16, got 'int4' (recipe {path}, step 2)",
        ),
        (STEP + 'use = "quantize_aware_fit"\nepochs = 0', "epochs must be a whole number at least 1, got 0 (recipe "),
        ("[[steps]\n", "recipe {path} is not valid TOML: "),
        (b"\xff\xfe", "recipe {path} is not valid TOML: "),
    ],
)
def test_a_mistake_in_a_recipe_is_one_sentence(written, content, message):
    """The rule, the value, file and step, and what was probably meant."""
    path = written(content)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(message.format(path=path, steps=", ".join(STEPS), settings=SETTINGS))
    assert "\n" not in str(caught.value)


def test_a_recipe_says_what_of_it_may_vary(written):
    """The table [sweep] is kept as it stands; nothing is taken from it when the recipe is run."""
    read = load_recipe(written('[[steps]]\nuse="prune_weights"\n[sweep]\nprune_weights.sparsity = [0.1, 0.2]\n'))
    assert read.sweep == {"prune_weights": {"sparsity": [0.1, 0.2]}}
    assert read.steps == (PruneWeights(),)


def test_a_step_can_be_changed_by_the_same_rules():
    """One setting anew, the others as they were; a mistake is told as if the file had it."""
    step = PruneWeights(sparsity=0.2, scope="global")
    assert change_step(step, "sparsity", 0.5, "here") == PruneWeights(sparsity=0.5, scope="global")
    for key, value, message in (
        ("sparsity", 1.5, "sparsity must be in [0, 1), got 1.5 (here)"),
        ("sparsity", "x", "sparsity must be of type float, got 'x' (here)"),
        ("sparsty", 1, "unknown key 'sparsty' - did you mean 'sparsity'?; known are sparsity, "),
    ):
        with pytest.raises(ConfigError) as caught:
            change_step(step, key, value, "here")
        assert str(caught.value).startswith(message)


def test_a_missing_recipe_is_named(tmp_path):
    """A path that leads to no file, or to a folder, is in the message with the reason."""
    for path, reason in ((tmp_path / "no.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"^cannot read recipe {path}: {reason}$"):
            load_recipe(path)


def test_steps_are_taken_in_their_order(written, dense, steps_run):
    """Pruning, then training: the result is smaller, trained, in eval mode, and in a fresh network of the factory."""
    model = run(written(CUT_AND_FIT), dense)
    assert steps_run == ["prune_channels", "fit"]
    assert model.features[0].out_channels == 2
    assert not model.training
    assert type(model) is type(dense)
    reverse = "[[steps]]".join(["", *reversed(CUT_AND_FIT.split("[[steps]]")[1:])])
    run(written(reverse), dense)
    assert steps_run[2:] == ["fit", "prune_channels"]


def test_the_dense_model_is_left_as_it_is(written, dense):
    """No step, nor the lack of any, changes a bit or the mode of the dense model."""
    before = artifact.digest(dense.train())
    for content in (CUT_AND_FIT, '[[steps]]\nuse = "prune_weights"\n', ""):
        assert run(written(content), dense) is not dense
    assert artifact.digest(dense) == before
    assert dense.training


def test_no_steps_give_the_dense_model_again(written, dense):
    """An empty recipe's model equals the dense one to the bit."""
    assert artifact.digest(run(written(""), dense)) == artifact.digest(dense)


def test_masks_hold_through_a_fit_and_are_permanent_in_the_end(written, dense):
    """Half of each layer's weights are plain zeros after training, with no mask or hook left over."""
    fit = CUT_AND_FIT.rpartition("[[steps]]")[2]
    model = run(written(f'[[steps]]\nuse = "prune_weights"\nsparsity = 0.5\n[[steps]]{fit}'), dense)
    for layer in (model.features[0], model.features[3], model.classifier):
        assert int((layer.weight == 0).sum()) == layer.weight.numel() // 2
        assert not layer._forward_pre_hooks
    assert not model.classifier.weight.equal(dense.classifier.weight)


def test_a_second_run_takes_the_first_ones_model(written, dense, steps_run):
    """Equal recipe, dense model and workload: no step is run again, and the model is equal to the bit."""
    first = run(written(CUT_AND_FIT), dense)
    second = run(written(f'description = "said anew"\n{CUT_AND_FIT}\n[limits]\nmacs = {{}}\n'), dense)
    assert steps_run == ["prune_channels", "fit"]
    assert artifact.digest(first) == artifact.digest(second)


def test_recipes_that_begin_alike_train_once(written, dense, steps_run):
    """What a longer recipe shares with one that was run is taken from the cache, to the same bits as without it."""
    run(written(CUT_AND_FIT), dense)
    longer = written(CUT_AND_FIT + '[[steps]]\nuse = "prune_weights"\n')
    model = run(longer, dense)
    assert steps_run == ["prune_channels", "fit", "prune_weights"]
    for kept in cache_folder().glob("*.safetensors"):
        kept.unlink()
    assert artifact.digest(run(longer, dense)) == artifact.digest(model)
    assert len(steps_run) == 6


def test_masks_hold_through_two_fits(written, dense):
    """A file holds no masks, so nothing is kept between a step that prunes weights and the steps after it."""
    fit = CUT_AND_FIT.rpartition("[[steps]]")[2]
    pruned = f'[[steps]]\nuse = "prune_weights"\nsparsity = 0.5\n[[steps]]{fit}'
    run(written(pruned), dense)
    model = run(written(f"{pruned}[[steps]]{fit.replace('epochs = 1', 'epochs = 2')}"), dense)
    for layer in (model.features[0], model.features[3], model.classifier):
        assert int((layer.weight == 0).sum()) == layer.weight.numel() // 2


@pytest.mark.parametrize("change", ["setting", "dense", "input"])
def test_whatever_the_model_depends_on_runs_the_steps_again(written, dense, steps_run, change):
    """Another setting, one changed weight of the dense model, or another shape of example input: all is made anew."""
    one_step = '[[steps]]\nuse = "prune_channels"\npruning_ratio = 0.5\n'
    run(written(one_step), dense)
    if change == "setting":
        run(written(one_step.replace("0.5", "0.4")), dense)
    elif change == "dense":
        dense.classifier.bias.data[0] += 1
        run(written(one_step), dense)
    else:
        run(written(one_step), dense, example_input=torch.zeros(1, 3, 16, 16))
    assert len(steps_run) == 2


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ('use = "prune_channels"\npruning_ratio = 1.5', ConfigError, "pruning_ratio must be in [0, 1), got 1.5"),
        ('use = "prune_weights"\nsparsity = -0.5', ConfigError, "sparsity must be in [0, 1), got -0.5"),
        (
            'use = "fit"\nalpha = 0.5',
            ConfigError,
            "alpha needs a teacher: set distill = true, got alpha = 0.5 without it",
        ),
        (
            'use = "quantize_aware_fit"\nhints = ["c"]',
            ConfigError,
            "hints needs a teacher: fine-tune by one before, with fit, got hints = ('c',) without it",
        ),
        (
            'use = "factorize"\nby = "rank"\ntarget = 0.5',
            ConfigError,
            "target must be a whole number at least 1 for rank, got 0.5",
        ),
        ('use = "factorize"\ncalibration_images = -1', ConfigError, "calibration_images must be at least 0, got -1"),
        ('use = "factorize"\nthreads = 0', ConfigError, "threads must be at least 1, got 0"),
        ('use = "prune_weights"\nscope = "rows"', ConfigError, "scope must be one of layer, global, got 'rows'"),
    ],
)
def test_an_error_in_a_step_names_recipe_and_step(written, settings, kind, message):
    """The technique's own sentence and kind, and the place in the recipe after it, before anything is trained."""
    path = written(f"{STEP}{settings}\n")
    with pytest.raises(kind) as caught:
        load_recipe(path)
    assert str(caught.value) == f"{message} (recipe {path}, step 2)"


def test_an_error_of_the_model_keeps_its_kind(written):
    """A model that cannot be pruned is a ModelError still, with the place named."""
    path = written('[[steps]]\nuse = "prune_weights"\n')
    with pytest.raises(ModelError, match=r"has no linear or convolution layer .* \(recipe .*, step 1\)$") as caught:
        run(path, nn.Flatten())
    assert isinstance(caught.value, CompressError)
