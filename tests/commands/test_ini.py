from __future__ import annotations

import configparser
import re
import tomllib

import pytest

from compress.commands.ini import added_settings
from compress.errors import ConfigError

SETTINGS = {"compress_workload": "mine:workload", "pythonpath": ["."]}


def edited(tmp_path, name, text):
    """The file as it is to be."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    return added_settings(tmp_path, SETTINGS)


def test_a_project_without_settings_gets_a_pytest_ini(tmp_path):
    """Where there is no file for them there is one then, and nothing is written yet."""
    edit = added_settings(tmp_path, SETTINGS)
    assert edit.path == tmp_path / "pytest.ini"
    assert edit.text == "[pytest]\ncompress_workload = mine:workload\npythonpath = .\n"
    assert not edit.path.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[project]\nname = "x"',
        '[project]\r\nname = "x"\r\n',
        '[tool.pytest.ini_options]\naddopts = "-q"\n\n[tool.ruff]\nline-length = 99\n',
        "[tool.pytest.ini_options]  # ours",
        "[tool.pytest]\nminversion = '9.0'\n",
    ],
)
def test_a_pyproject_gains_the_settings_and_nothing_else(tmp_path, text):
    """Every line that was there is there still, in order, and means what it meant."""
    edit = edited(tmp_path, "pyproject.toml", text)
    assert edit.path.name == "pyproject.toml"
    assert [line for line in edit.text.splitlines() if line in text.splitlines() or not line] >= text.splitlines()
    before, after = tomllib.loads(text), tomllib.loads(edit.text)
    table = after["tool"]["pytest"]
    table = table.get("ini_options", table)
    assert {key: table.pop(key) for key in SETTINGS} == SETTINGS
    assert after.get("project") == before.get("project")
    assert after["tool"].get("ruff") == before.get("tool", {}).get("ruff")


@pytest.mark.parametrize(
    ("name", "section"), [("pytest.ini", "pytest"), ("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")]
)
def test_an_ini_file_gains_the_settings_below_its_header(tmp_path, name, section):
    """What stands in the section stays, and so do other sections."""
    edit = edited(tmp_path, name, f"[other]\nkey = 1\n\n[{section}]\naddopts = -q\n")
    assert edit.path.name == name
    parser = configparser.RawConfigParser()
    parser.read_string(edit.text)
    assert dict(parser[section]) == {"addopts": "-q", "compress_workload": "mine:workload", "pythonpath": "."}
    assert dict(parser["other"]) == {"key": "1"}


def test_a_key_that_is_there_keeps_its_value(tmp_path):
    """A workload named before stays the workload; an import path that lacks ours is for its owner to widen."""
    text = '[tool.pytest.ini_options]\ncompress_workload = "other:workload"\npythonpath = ["src"]\n'
    edit = edited(tmp_path, "pyproject.toml", text)
    assert edit.text is None
    assert edit.by_hand == ("pythonpath: add '.'",)


def test_a_second_time_nothing_is_left_to_add(tmp_path):
    """The settings that were added are found again."""
    first = added_settings(tmp_path, SETTINGS)
    first.path.write_text(first.text, encoding="utf-8")
    assert added_settings(tmp_path, SETTINGS) == type(first)(path=first.path, text=None)


def test_a_form_that_is_not_understood_is_left_to_its_owner(tmp_path):
    """Whatever a textual edit would break is refused, with the lines to add."""
    with pytest.raises(ConfigError, match=r"the form of \[tool\.pytest\.ini_options\] is not understood, add to it"):
        edited(tmp_path, "pyproject.toml", 'tool.pytest.ini_options.addopts = "-q"\n')


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """A damaged file is not made worse."""
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "pyproject.toml"))):
        edited(tmp_path, "pyproject.toml", "[tool.pytest\n")
