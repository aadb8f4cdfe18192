from __future__ import annotations

from pathlib import Path

import pytest

from compress.device.address import parse_address
from compress.pytest_plugin.options import OPTIONS, read_settings

# Key of the ini file, its value there, the setting, what it comes to; relative paths start at the root.
GIVEN = [
    ("compress_workload", "cifar10", "workload", "cifar10"),
    ("compress_train_dense", "true", "train_dense", True),
    ("compress_build_tolerance", "0.02", "build_tolerance", 0.02),
    ("compress_recipes", "cooking\n  baking/bread.toml", "recipes", (Path("cooking"), Path("baking/bread.toml"))),
    ("compress_model", "a.pt2\n  small=out/b.onnx", "models", ("a.pt2", f"small={Path('out/b.onnx')}")),
    ("compress_models", "hf://some/where", "models_folder", "hf://some/where"),
    ("compress_baselines", "kept", "baselines", Path("kept")),
    ("compress_threads", "2", "threads", 2),
    ("compress_seconds", "0.5", "seconds", 0.5),
    ("compress_processes", "2", "processes", 2),
    ("compress_device", "ssh://pi@board", "device", parse_address("ssh://pi@board")),
    ("compress_report", "out/table.md", "report", Path("out/table.md")),
    ("compress_html", "out/page.html", "html", Path("out/page.html")),
    ("compress_sweep", "out/sweep.json", "sweep", Path("out/sweep.json")),
    ("compress_inconclusive", "fail", "strict", True),
    ("compress_excuse", "macs\n  num_params:half", "excuses", ("macs", "num_params:half")),
    ("compress_partial", "true", "partial", True),
    ("compress_widen", "true", "widen", True),
    ("compress_require_cuda", "true", "require_cuda", True),
    ("compress_require_baseline", "true", "require_baseline", True),
]


def settings_of(pytester, ini, *args):
    """What the options come to in a project with this ini file."""
    lines = [f"{key} = {value}" for key, value in ini.items()]
    pytester.makeini("\n".join(["[pytest]", *lines]))
    return read_settings(pytester.parseconfig(*args))


@pytest.mark.parametrize(("key", "value", "name", "expected"), GIVEN, ids=[key for key, *_ in GIVEN])
def test_every_option_has_a_key_in_the_ini_file(pytester, key, value, name, expected):
    """What stands there is the default of the option, and changes nothing else."""
    plain, given = settings_of(pytester, {}), settings_of(pytester, {key: value})
    assert getattr(given, name) == expected
    changed = {item for item in vars(plain) if getattr(plain, item) != getattr(given, item)}
    assert changed == {name}


def test_no_option_is_untested():
    """The table above knows every key."""
    assert {option.ini for option in OPTIONS} == {key for key, *_ in GIVEN}


def test_the_keys_may_stand_in_pyproject(pytester):
    """As a list where the option takes several."""
    pytester.makepyprojecttoml("""
        [tool.pytest.ini_options]
        compress_recipes = ["cooking", "baking"]
        compress_threads = "2"
        compress_partial = true
    """)
    settings = read_settings(pytester.parseconfig())
    assert (settings.recipes, settings.threads, settings.partial) == ((Path("cooking"), Path("baking")), 2, True)


def test_the_command_line_has_the_last_word(pytester):
    """An option that is given there is taken instead of the ini file's."""
    ini = {"compress_threads": "2", "compress_recipes": "cooking", "compress_inconclusive": "fail"}
    args = ("--compress-threads=3", "--compress-recipe=here.toml", "--compress-inconclusive=warn")
    settings = settings_of(pytester, ini, *args)
    assert (settings.threads, settings.recipes, settings.strict) == (3, (Path("here.toml"),), False)
    assert settings.recipes_named


@pytest.mark.parametrize(
    ("ini", "args", "said"),
    [
        ({"compress_threads": "none"}, (), "compress_threads must be a whole number of 1 or more, got 'none'"),
        ({"compress_seconds": "-1"}, (), "compress_seconds must be a number above 0, got '-1'"),
        ({"compress_seconds": "4"}, ("--compress-seconds=nan",), "--compress-seconds must be a number above 0"),
        ({"compress_inconclusive": "ignore"}, (), "compress_inconclusive must be warn or fail, got 'ignore'"),
        ({"compress_partial": "perhaps"}, (), "compress_partial cannot be read"),
    ],
)
def test_a_wrong_value_is_named_with_whoever_states_it(pytester, ini, args, said):
    """The option on the command line, or the key in the ini file."""
    with pytest.raises(pytest.UsageError, match=said):
        settings_of(pytester, ini, *args)
