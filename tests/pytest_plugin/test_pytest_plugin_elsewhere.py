"""The plugin in projects that have nothing to do with it: it is loaded in every session of its environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import compress
from compress.pytest_plugin.options import OPTIONS

# Hypothesis would be imported anew at the end of every run, which takes longer than the run.
QUIET = ("-p", "no:hypothesispytest", "-p", "no:cacheprovider")

ADDS = "def test_add():\n    assert 1 + 1 == 2\n"
TIMES = "def test_time(benchmark):\n    benchmark.pedantic(sum, args=([1, 2],), rounds=5)\n"


def test_nothing_heavy_is_imported(pytester, monkeypatch):
    """A session without our fixtures pays for neither torch nor numpy nor the gate, and sees no section of ours."""
    monkeypatch.setenv("PYTHONPATH", str(Path(compress.__file__).parents[1]))
    pytester.makepyfile("""
        import sys

        def test_modules(request):
            assert request.config.pluginmanager.hasplugin("compress.pytest_plugin")
            heavy = {"torch", "numpy", "scipy", "rich", "jsonschema", "compress.gate", "compress.results"}
            assert heavy.isdisjoint(sys.modules)
    """)
    result = pytester.runpytest_subprocess(*QUIET)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*compressed models*")


def test_help_lists_every_option_and_its_key_in_the_ini_file(pytester):
    """--help has a group of ours that says what the exit status means; whatever can be given there has an ini key."""
    text = pytester.runpytest_inprocess("--help").stdout.str()
    group = re.search(r"^compressed models: measure, compare, gate \((.*?)\):\n", text, re.MULTILINE | re.DOTALL)
    assert "8: nothing regressed, but something" in " ".join(group[1].split())
    for option in OPTIONS:
        assert re.search(rf"^  {option.flag}\b", text, re.MULTILINE)
        assert re.search(rf"^  {option.ini} \((string|linelist|bool)\):", text, re.MULTILINE)


def test_the_ini_file_names_the_folder_of_recipes(pytester):
    """compress_recipes is relative to the root, and a test that asks for a recipe runs once for each."""
    pytester.makeini("[pytest]\ncompress_recipes = cooking\n")
    pytester.mkdir("cooking")
    for name in ("one", "two"):
        (pytester.path / "cooking" / f"{name}.toml").write_text("", encoding="utf-8")
    pytester.makepyfile("def test_recipe(recipe):\n    assert recipe.name in ('one', 'two')\n")
    result = pytester.runpytest_inprocess(*QUIET, "-v")
    result.stdout.fnmatch_lines(["*::test_recipe[[]one[]] PASSED*", "*::test_recipe[[]two[]] PASSED*"])


def test_a_project_may_have_a_recipe_of_its_own(pytester):
    """A fixture or an argument called recipe belongs to whoever defines it."""
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def recipe():
            return "flour"

        def test_fixture(recipe):
            assert recipe == "flour"

        @pytest.mark.parametrize("recipe", ["salt", "water"])
        def test_argument(recipe):
            assert recipe in ("salt", "water")
    """)
    pytester.runpytest_inprocess(*QUIET).assert_outcomes(passed=3)


def test_pytest_benchmark_compares_with_its_own_runs(pytester):
    """--benchmark-compare does with stored timings what it does without us: the last run, a number, or a file."""
    pytester.makepyfile(TIMES)
    pytester.runpytest_inprocess(*QUIET, "--benchmark-save=before").assert_outcomes(passed=1)
    (stored,) = (pytester.path / ".benchmarks").rglob("*.json")
    for value in ("--benchmark-compare", "--benchmark-compare=0001", f"--benchmark-compare={stored}"):
        result = pytester.runpytest_inprocess(*QUIET, value)
        result.assert_outcomes(passed=1)
        for run in ("0001_before", "NOW"):
            result.stdout.fnmatch_lines([f"test_time ({run})*"])


def test_pytest_benchmark_stores_what_it_is_asked_to(pytester):
    """In a session that judged no model a failure does not keep timings from being saved, as without us."""
    pytester.makepyfile(f"{TIMES}\ndef test_wrong():\n    assert False\n")
    pytester.runpytest_inprocess(*QUIET, "--benchmark-save=anyway").assert_outcomes(passed=1, failed=1)
    assert len(list((pytester.path / ".benchmarks").rglob("*.json"))) == 1


def test_pytest_benchmark_may_be_switched_off(pytester):
    """Without pytest-benchmark other projects' tests run as ever."""
    pytester.makepyfile(ADDS)
    result = pytester.runpytest_inprocess(*QUIET, "-p", "no:benchmark")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1)


def test_errors_in_tests_without_our_fixtures_keep_their_traceback(pytester):
    """Only where a fixture of ours speaks to a user is an error cut down to its sentence."""
    pytester.makepyfile("""
        from compress.errors import ConfigError

        def test_raise():
            raise ConfigError("no sentence says where this is")
    """)
    result = pytester.runpytest_inprocess(*QUIET)
    result.stdout.fnmatch_lines([">*raise ConfigError*", "*.py:4: ConfigError"])
