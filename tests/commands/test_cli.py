from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import compress
from compress import train
from compress.artifacts import artifact
from compress.commands import cli, models
from compress.commands.cli import main
from compress.workload import workload
from tests.workloads import tiny_net

ROOT = Path(compress.__file__).parents[1]
PRUNE = '[[steps]]\nuse = "prune_weights"\nsparsity = 0.5\n'


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def recipe(tmp_path):
    """A recipe of one step."""
    path = tmp_path / "recipe.toml"
    path.write_text(PRUNE, encoding="utf-8")
    return path


def python_m_compress(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user types it, in the folder ``cwd``, with every warning an error."""
    command = [sys.executable, "-W", "error", "-m", "compress", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], ["COMMAND", "train", "run"]),
        (["train", "--help"], ["--workload", "--output", "--quiet", "module:function"]),
        (["run", "--help"], ["recipe", "--workload", "--output", "--quiet"]),
        *(([name, "--help"], [name, "example:"]) for name in cli._parser()[1].choices),
    ],
)
def test_help_is_no_error(capsys, arguments, expected):
    """Of every command: help goes to stdout, names what can be said, and exits with 0."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    output = capsys.readouterr()
    assert all(word in output.out for word in expected)
    assert not output.err


@pytest.mark.parametrize("arguments", [["squeeze"], ["train"], ["run", "--output", "file"]])
def test_wrong_usage_is_two(capsys, arguments):
    """An unknown command or a missing argument exits with 2 and says how it is used."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m compress" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [("python -m compress ru", {"run", "runtimes"}), ("python -m compress runtimes --be", {"--best"})],
)
def test_a_shell_completes_what_is_begun(tmp_path, line, expected):
    """As argcomplete's shell function asks: it finds the mark in the module and gets what may follow."""
    assert "PYTHON_ARGCOMPLETE_OK" in (ROOT / "compress" / "__main__.py").read_text(encoding="utf-8")[:1024]
    asked = {"_ARGCOMPLETE": "3", "_ARGCOMPLETE_IFS": " ", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    environment = {**os.environ, **asked, "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "told")}
    subprocess.run([sys.executable, "-m", "compress"], cwd=ROOT, env=environment, check=True)
    assert set((tmp_path / "told").read_text(encoding="utf-8").split()) == expected


def test_alone_it_shows_what_can_be_done(capsys):
    """Every command, what it does and a call of it; each example is one that its own parser takes."""
    assert main([]) == 0
    text = capsys.readouterr().out
    parser, commands = cli._parser()
    assert len(commands.choices) == len(commands._choices_actions) == text.count("python -m compress ") - 1
    for name in commands.choices:
        calls = [line.strip() for line in text.splitlines() if line.split()[3:4] == [name]]
        assert [parser.parse_args(call.split()[3:]).run is not None for call in calls] == [True]


def test_help_of_a_command_ends_with_an_example(capsys):
    """Where somebody looks who knows the command already."""
    with pytest.raises(SystemExit):
        main(["diff", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert text.endswith("; example: python -m compress diff old.json baselines/digits.json")


def test_a_machine_is_told_in_json(tmp_path, recipe, capsys):
    """What was saved, in numbers."""
    output = tmp_path / "out.safetensors"
    named = ["--workload", "tests.workloads:tiny_workload", "--output", str(output), "--quiet", "--json"]
    assert main(["run", str(recipe), *named]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("top1_error") <= 1
    assert told.pop("top5_error") <= 1
    size = output.stat().st_size
    assert told == {"path": str(output), "num_params": 455, "file_bytes": size, "num_examples": 24}


def test_run_writes_a_file_and_prints_one_line(tmp_path):
    """As a user types it, with a workload in the working folder: a loadable file, one line on stdout, nothing else."""
    (tmp_path / "recipe.toml").write_text(PRUNE, encoding="utf-8")
    (tmp_path / "mine.py").write_text("from tests.workloads import tiny_workload as workload\n", encoding="utf-8")
    done = python_m_compress(
        "run", "recipe.toml", "--workload", "mine:workload", "--output", "out.safetensors", "--quiet", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    size = (tmp_path / "out.safetensors").stat().st_size / 1e6
    assert done.stdout.startswith(f"out.safetensors: 455 parameters, {size:.2f} MB, top-1 error ")
    assert done.stdout.endswith(" on 24 test examples\n")
    assert done.stdout.count("\n") == 1
    model = artifact.load(tmp_path / "out.safetensors", lambda: tiny_net(width=4))
    assert int((model.classifier.weight == 0).sum()) == 12


def test_an_error_is_one_line_on_stderr(tmp_path):
    """What the package raises on purpose is shown as it stands, exits with 1, and leaves no traceback and no file."""
    done = python_m_compress("run", "nowhere.toml", "--output", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: cannot read recipe nowhere.toml: No such file or directory\n"
    assert not done.stdout
    assert not (tmp_path / "out").exists()


def test_train_writes_the_dense_model(tmp_path, capsys):
    """The file is the workload's dense model; however long its path, what is printed is one line."""
    folder = tmp_path / ("a [red] folder with a long name " * 4)
    folder.mkdir()
    output = folder / "dense.safetensors"
    assert main(["train", "--workload", "tests.workloads:tiny_workload", "--output", str(output), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{output}: 455 parameters, ")
    assert printed.out.count("\n") == 1
    assert not printed.err
    dense = workload.dense_model(workload.load_workload("tests.workloads:tiny_workload"), progress=False)
    assert output.read_bytes() == artifact.serialize(dense)


def test_train_by_a_recipe_trains_by_that(tmp_path, recipe):
    """Its settings take the place of the workload's own, weights included."""
    recipe.write_text('[[steps]]\nuse = "fit"\nepochs = 1\nbatch_size = 8\nlearning_rate = 1e-9\n', encoding="utf-8")
    output = tmp_path / "dense.safetensors"
    named = ["--workload", "tests.workloads:tiny_workload", "--output", str(output), "--quiet"]
    assert main(["train", str(recipe), *named]) == 0
    tiny = workload.load_workload("tests.workloads:tiny_workload")
    config = train.FitConfig(epochs=1, batch_size=8, learning_rate=1e-9)
    model = train.fit(workload.initial_model(tiny, seed=0), tiny.dataset, config, progress=False).model
    assert output.read_bytes() == artifact.serialize(model.eval())


def test_train_goes_on_from_one_fit_to_the_next(tmp_path, recipe):
    """Several steps are warm restarts: each trains what the one before it made."""
    step = '[[steps]]\nuse = "fit"\nepochs = 1\nbatch_size = 8\nvalidation_fraction = 0\nlearning_rate = '
    recipe.write_text(f"{step}0.01\nseed = 3\n{step}0.02\n", encoding="utf-8")
    output = tmp_path / "dense.safetensors"
    named = ["--workload", "tests.workloads:tiny_workload", "--output", str(output), "--quiet"]
    assert main(["train", str(recipe), *named]) == 0
    tiny = workload.load_workload("tests.workloads:tiny_workload")
    model = workload.initial_model(tiny, seed=3)
    for rate, seed in ((0.01, 3), (0.02, 0)):
        config = train.FitConfig(epochs=1, batch_size=8, validation_fraction=0, learning_rate=rate, seed=seed)
        model = train.fit(model, tiny.dataset, config, progress=False).model
    assert output.read_bytes() == artifact.serialize(model.eval())


@pytest.mark.parametrize("steps", ["", PRUNE, '[[steps]]\nuse = "fit"\ndistill = true\n'])
def test_train_refuses_a_recipe_that_is_no_training(tmp_path, recipe, capsys, steps):
    """No step, another step, or one that needs a dense model for a teacher."""
    recipe.write_text(steps, encoding="utf-8")
    assert main(["train", str(recipe), "--output", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().err
    assert printed == f"error: a recipe to train by must be steps 'fit' without a teacher ({recipe})\n"


def test_the_training_recipes_of_the_benchmarks_can_be_read():
    """Each is nothing but training."""
    recipes = sorted((ROOT / "benchmarks" / "training").glob("*.toml"))
    assert recipes
    assert all(models.training(recipe).steps for recipe in recipes)


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_shows_no_progress_at_all(tmp_path, recipe, monkeypatch, quiet):
    """Training and evaluation are told to show how far they are, unless ``--quiet`` is given."""
    shown = []

    def watched(function):
        def call(*args, progress, **settings):
            shown.append(progress)
            return function(*args, progress=False, **settings)

        return call

    monkeypatch.setattr(train, "fit", watched(train.fit))
    monkeypatch.setattr(workload.Workload, "judge", watched(workload.Workload.judge))
    arguments = ["run", str(recipe), "--workload", "tests.workloads:tiny_workload", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--quiet"] if quiet else arguments) == 0
    assert shown == [not quiet] * 2


def test_a_recipe_is_read_before_anything_is_trained(tmp_path, recipe, monkeypatch, capsys):
    """A typing error in a recipe shows at once."""
    recipe.write_text("steps = 3\n", encoding="utf-8")
    monkeypatch.setattr(workload, "load_workload", lambda _: pytest.fail("the workload was loaded first"))
    assert main(["run", str(recipe), "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: steps must be [[steps]] tables, got 3 (recipe {recipe})\n"


def test_an_output_that_cannot_be_written_is_an_error(tmp_path, capsys):
    """A folder that is not there is named, in one line."""
    output = tmp_path / "nowhere" / "out"
    assert main(["train", "--workload", "tests.workloads:tiny_workload", "--output", str(output), "--quiet"]) == 1
    assert capsys.readouterr().err == f"error: cannot write {output}: No such file or directory\n"


def test_an_interrupt_is_130(monkeypatch, capsys):
    """Ctrl-C exits as a shell expects, with a line that says how to go on."""

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "_train", interrupted)
    assert main(["train", "--output", "out"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


def test_a_termination_is_143(monkeypatch, capsys):
    """What SIGTERM ends cleans up like what Ctrl-C ends, and has the status that a shell gives it."""

    def terminated(_):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(models, "_train", terminated)
    assert main(["train", "--output", "out"]) == 143
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
