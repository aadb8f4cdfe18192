from __future__ import annotations

import json
import sqlite3

import optuna
import pytest

from compress.errors import ConfigError
from compress.sweep.parameters import Choices
from compress.sweep.plans import plan_sweep
from compress.sweep.study import STUDY_NAME, fingerprint, open_study
from tests.sweep.recipes import ZERO, recipe

ABOUT = {"workload": "tiny", "data_sha256": "a", "dense": "b", "device": "cpu-avx2-1t"}


@pytest.fixture
def begun_with(tmp_path):
    """What a study of one recipe is begun with, with changes."""

    def make(name="zero", content=ZERO, values=(0.1, 0.2), **changes):
        plans = plan_sweep([recipe(tmp_path, name, content)], {"prune_weights.sparsity": Choices(values=values)})
        return fingerprint(plans, {**ABOUT, **changes})

    return make


@pytest.mark.parametrize("target", ["{}/study.journal", "sqlite:///{}/study.db"])
def test_a_study_is_begun_and_opened_again(tmp_path, begun_with, target):
    """In a file or in a database: what one process writes the next one finds."""
    target = target.format(tmp_path)
    open_study(target, begun_with()).enqueue_trial({"recipe": "zero"})
    assert len(open_study(target, begun_with()).get_trials()) == 1


def test_a_study_file_is_lines_of_json(tmp_path, begun_with):
    """Nothing in it is pickled."""
    path = tmp_path / "study.journal"
    open_study(str(path), begun_with()).enqueue_trial({"recipe": "zero"})
    assert all(isinstance(json.loads(line), dict) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workload": "huge"}, "is of the workload 'tiny', this sweep of 'huge'"),
        ({"data_sha256": "x"}, "was measured on other test data"),
        (
            {"dense": "x"},
            "was begun from another dense model, and every machine must have the same; save it and name it as weights",
        ),
        (
            {"device": "cpu-sve-1t"},
            "was measured on cpu-avx2-1t, whose ratios of times do not compare with those of cpu-sve-1t",
        ),
        ({"name": "other"}, "is of the recipes zero, this sweep of other"),
        ({"content": ZERO.replace("0.5", "0.6")}, "was begun when a recipe had other steps"),
        ({"values": (0.1, 0.3)}, "was begun with other parameters"),
    ],
)
def test_the_study_of_something_else_is_refused(tmp_path, begun_with, change, message):
    """One sentence says what differs, and the study stays as it was."""
    path = tmp_path / "study.journal"
    open_study(str(path), begun_with())
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        open_study(str(path), begun_with(**change))
    assert str(caught.value) == f"the study {path} {message}; name another file with --study"
    # Opening leaves a line of its own, which Optuna ignores; nothing is taken away.
    assert path.read_bytes().startswith(before)


def test_a_study_that_sweep_did_not_begin_is_refused(tmp_path, begun_with):
    """Somebody else's trials are not ours to count, whatever the study's name."""
    target = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=target, study_name=STUDY_NAME, directions=["minimize"] * 3).enqueue_trial({"x": 1})
    with pytest.raises(ConfigError, match=r"^a study must be one that sweep began, this one is not \(sqlite"):
        open_study(target, begun_with())


@pytest.mark.parametrize("content", ["hello\n", "[1]\n", '{"a": 1}', "3\n"])
def test_a_file_of_something_else_stays_as_it_is(tmp_path, begun_with, content):
    """Optuna would write at its end."""
    path = tmp_path / "notes.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"^a study must be a file that sweep wrote, this one holds something else \("
    ):
        open_study(str(path), begun_with())
    assert path.read_text(encoding="utf-8") == content


def test_a_database_named_as_a_file_is_told_its_url(tmp_path, begun_with):
    """SQLite wants a URL."""
    path = tmp_path / "study.db"
    with sqlite3.connect(path) as database:
        database.execute("create table t (x)")
    database.close()
    with pytest.raises(ConfigError, match=r"^a SQLite database is named by its URL, sqlite:///.*study\.db \("):
        open_study(str(path), begun_with())


def test_a_password_is_never_shown(begun_with):
    """It may end up in a log."""
    with pytest.raises(ConfigError) as caught:
        open_study("nosuch://me:s3cret@host/db", begun_with())
    assert str(caught.value).endswith(" (nosuch://me:***@host/db)")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{}/absent/study", "a study needs a folder that exists ({}/absent/study)"),
        ("{}", "cannot read a study: Is a directory ({})"),
        ("nosuch://host/db", "cannot open a study's database: "),
        ("sqlite:///{}/absent/study.db", "cannot open a study's database: "),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(tmp_path, begun_with, target, message):
    """A missing folder, a folder, a database that nobody knows."""
    with pytest.raises(ConfigError) as caught:
        open_study(target.replace("{}", str(tmp_path)), begun_with())
    assert str(caught.value).startswith(message.replace("{}", str(tmp_path)))
    assert "\n" not in str(caught.value)
