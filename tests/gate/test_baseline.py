from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import BaselineError
from compress.gate.baseline import as_recorded, load_baseline
from compress.gate.recording import record
from compress.gate.schema import SCHEMA
from compress.results import METRICS, Environment
from tests.gate.samples import DATA, DEVICE, ENVIRONMENT, PROVENANCE, baseline_of, bits, latency, memory, params, top1

# A file with one metric of each kind.
WHOLE = {
    "schema": 1,
    "workload": "digits",
    "data_sha256": "0",
    "num_examples": 8,
    "environments": {"cpu-x": {"cpu": "c", "python": "p", "torch": "t"}},
    "recipes": {
        "structured": {
            "num_params": {"compressed": 1, "dense": 2},
            "cpu_peak_bytes": {"cpu-x": {"compressed": 1, "dense": 2}},
            "cpu_latency_ms": {"cpu-x": {"compressed": 1, "dense": 2, "ratio": 0.5, "ratio_interval": [0.4, 0.6]}},
            "top1_error": {"compressed": 0.5, "dense": 0.25, "correct": "8A=="},
        }
    },
}
ALL = (params(), memory(), latency(), top1([1, 2], [2, 3, 4]))


@pytest.fixture
def path(tmp_path):
    """A baseline with one metric of each kind."""
    return baseline_of(tmp_path, *ALL).path


def edit(path, change):
    """Change the parsed file by a function and write it back."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def refused(path):
    """What is said when the file is loaded."""
    with pytest.raises(BaselineError) as caught:
        load_baseline(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_loaded_baseline_is_what_was_recorded(path):
    """Everything in the file arrives, under its recipe, metric and class of device."""
    baseline = load_baseline(path)
    assert (baseline.workload, baseline.data_sha256, baseline.num_examples) == ("digits", DATA, 500)
    assert baseline.environments == {DEVICE: ENVIRONMENT}
    assert baseline.entries("structured", "num_params")[""].compressed == 4_089_523
    assert baseline.entries("structured", "cpu_latency_ms")[DEVICE].ratio == pytest.approx(0.8, abs=0.01)
    assert baseline.entries("structured", "top1_error")[""].correct == bits([2, 3, 4])
    assert baseline.entries("structured", "macs") == {}
    assert baseline.entries("another", "num_params") == {}


def test_graphics_card_is_read_back(path):
    """The optional parts of an environment arrive too."""
    card = {"cuda_class": "cuda-sm90", "gpu": "Test GPU", "cpu": "c", "python": "p", "torch": "t"}
    edit(path, lambda document: document["environments"].update({"cpu-x": card}))
    expected = Environment(python="p", torch="t", cpu="c", cpu_class="cpu-x", cuda_class="cuda-sm90", gpu="Test GPU")
    assert load_baseline(path).environments["cpu-x"] == expected


def test_file_written_by_hand_is_read(tmp_path):
    """The format is what the documentation shows, whoever wrote it."""
    path = tmp_path / "digits.json"
    path.write_text(json.dumps(WHOLE))
    entry = load_baseline(path).entries("structured", "cpu_latency_ms")["cpu-x"]
    assert (entry.ratio, entry.ratio_interval) == (0.5, (0.4, 0.6))


def test_missing_file_says_how_to_make_it(tmp_path):
    """Who compares without a baseline is told how to record one."""
    path = tmp_path / "none.json"
    assert refused(path) == f"the baseline does not exist; record it with --benchmark-save ({path})"


def test_folder_in_place_of_file(tmp_path):
    """A path that cannot be read is no crash."""
    assert refused(tmp_path) == f"the baseline cannot be read: Is a directory ({tmp_path})"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the baseline is not valid JSON: Expecting value"),
        (b"<<<<<<< HEAD\n{}", "the baseline is not valid JSON"),
        (b'{"schema": NaN}', "the baseline is not valid JSON: NaN is no JSON number"),
        (b'{"schema": 1, "schema": 1}', "the baseline is not valid JSON: key 'schema' stands twice in one table"),
        (b"\xff\xfe", "the baseline is not UTF-8 text: invalid start byte at byte 0"),
        (b"[" * 100_000, "the baseline is not valid JSON"),
        (b"[]", "the baseline must hold a table here, got a list"),
        (b"{}", "the baseline lacks 'data_sha256', 'environments', 'num_examples', 'recipes', 'schema', 'workload'"),
    ],
)
def test_file_that_is_no_baseline(tmp_path, content, said):
    """Whatever else the file holds, one sentence names it and the file."""
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith(said)
    assert message.endswith(f"({path})")


def test_newer_schema_asks_to_upgrade(path):
    """A file of a later version is not guessed at."""
    edit(path, lambda document: document.update(schema=SCHEMA + 1))
    assert refused(path) == (
        f"the baseline was written by a newer version, upgrade pytest-compress: it reads schema 4, got 5 "
        f"({path}, schema)"
    )


def test_older_schema_asks_to_record_again(path):
    """A schema that never was is refused."""
    edit(path, lambda document: document.update(schema=0))
    assert refused(path) == f"schema must be 1 to 4, got 0; record the baseline again ({path}, schema)"


RECIPE = ("recipes", "structured")


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("schema",), "1", 'a whole number of 0 or more here, got "1"'),
        (("schema",), True, "a whole number of 0 or more here, got true"),
        (("workload",), 3, "a text here, got 3"),
        (("data_sha256",), None, "a text here, got null"),
        (("num_examples",), -1, "a whole number of 0 or more here, got -1"),
        (("num_examples",), 5.5, "a whole number of 0 or more here, got 5.5"),
        (("environments",), [], "a table here, got a list"),
        (("environments", DEVICE, "cpu"), {}, "a text here, got a table"),
        (("recipes",), "x" * 100, f'a table here, got "{"x" * 39}...'),
        (RECIPE, 7, "a table here, got 7"),
        ((*RECIPE, "num_params"), 7, "a table here, got 7"),
        ((*RECIPE, "num_params", "compressed"), "many", 'a whole number of 0 or more here, got "many"'),
        ((*RECIPE, "num_params", "compressed"), -4, "a whole number of 0 or more here, got -4"),
        ((*RECIPE, "num_params", "compressed"), False, "a whole number of 0 or more here, got false"),
        ((*RECIPE, "num_params", "dense"), 10**400, f"a whole number of 0 or more here, got 1{'0' * 39}..."),
        ((*RECIPE, "cpu_latency_ms", DEVICE), 0.8, "a table here, got 0.8"),
        ((*RECIPE, "cpu_latency_ms", DEVICE, "ratio"), None, "a number of 0 or more here, got null"),
    ],
)
def test_wrong_value_is_named_with_its_place(path, keys, value, said):
    """A value of a wrong type or range is shown with the keys that lead to it."""

    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    edit(path, change)
    assert refused(path) == f"the baseline must hold {said} ({path}, {'.'.join(keys)})"


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ((*RECIPE, "cpu_latency_ms", DEVICE, "ratio"), 0, "a ratio of times must be above 0, got 0"),
        (
            (*RECIPE, "cpu_latency_ms", DEVICE, "ratio_interval"),
            [0.9, 1.0],
            "the interval must hold the ratio 0.8",
        ),
        ((*RECIPE, "top1_error", "compressed"), 23.1, "the baseline must hold a number in [0, 1] here, got 23.1"),
        ((*RECIPE, "top1_error", "correct"), "A", "the results of single examples must be base64"),
        ((*RECIPE, "top1_error", "correct"), "\u00e9", "the results of single examples must be base64"),
        ((*RECIPE, "top1_error", "correct"), "AAAA", "the results of 500 examples take 63 bytes, got 3"),
    ],
)
def test_wrong_error_is_named_with_its_place(path, keys, value, said):
    """An error and its single results obey rules of their own."""

    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    edit(path, change)
    message = refused(path)
    assert message.startswith(said)
    assert message.endswith(f"({path}, {'.'.join(keys)})")


@pytest.mark.parametrize("key", ["workload", "data_sha256", "num_examples", "environments", "recipes"])
def test_missing_key_is_named(path, key):
    """Each part of the file is required, and never a KeyError."""
    edit(path, lambda document: document.pop(key))
    assert refused(path) == f"the baseline lacks {key!r} ({path})"


def test_missing_value_of_a_metric_is_named(path):
    """A time without its ratio cannot be compared."""
    edit(path, lambda document: document["recipes"]["structured"]["cpu_latency_ms"][DEVICE].pop("ratio"))
    assert refused(path) == f"the baseline lacks 'ratio' ({path}, recipes.structured.cpu_latency_ms.{DEVICE})"


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([0.7], "the baseline must hold 2 values here, got 1"),
        ([0.7, 0.8, 0.9], "the baseline must hold 2 values here, got 3"),
        (0.7, "the baseline must hold a list here, got 0.7"),
        ([0.9, 0.7], "the interval must hold the ratio 0.8, got [0.9, 0.7]"),
    ],
)
def test_an_interval_is_two_numbers_in_order(path, interval, said):
    """What is no interval is named with its place."""
    edit(
        path,
        lambda document: document["recipes"]["structured"]["cpu_latency_ms"][DEVICE].update(ratio_interval=interval),
    )
    assert refused(path) == f"{said} ({path}, recipes.structured.cpu_latency_ms.{DEVICE}.ratio_interval)"


def test_an_interval_is_read_and_written_back(path):
    """Where a ratio lay when it was recorded stays in the file when something else is recorded."""
    table = {"compressed": 4, "dense": 5, "ratio": 0.8, "ratio_interval": [0.79, 0.82]}
    edit(path, lambda document: document["recipes"]["structured"]["cpu_latency_ms"].update({DEVICE: table}))
    record(path, {"structured": [params(5)]}, provenance=PROVENANCE)
    assert load_baseline(path).entries("structured", "cpu_latency_ms")[DEVICE].ratio_interval == (0.79, 0.82)


def test_unknown_keys_are_refused(path):
    """A mistyped key is not passed over."""
    edit(path, lambda document: document["recipes"]["structured"]["num_params"].update(ratio=0.6))
    assert refused(path) == (
        f"the baseline holds 'ratio', known here are compressed, dense ({path}, recipes.structured.num_params)"
    )


def test_unknown_metric_is_refused(path):
    """A metric that this version does not know is not passed over."""
    edit(path, lambda document: document["recipes"]["structured"].update(watts={}))
    message = refused(path)
    assert message.startswith("the baseline holds 'watts', known here are ")
    assert message.endswith(f"({path}, recipes.structured)")


def test_truncated_file_is_never_half_read(path):
    """Cut off anywhere, the file is refused in one sentence."""
    content = path.read_bytes()
    for length in range(0, len(content) - 2, 37):
        path.write_bytes(content[:length])
        assert "is not valid JSON" in refused(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def replaced(document, positions, value):
    """The document with another value at the place to which the positions of sorted keys lead."""
    if not positions or not isinstance(document, dict) or not document:
        return value
    names = sorted(document)
    name = names[positions[0] % len(names)]
    return {**document, name: replaced(document[name], positions[1:], value)}


@given(positions=st.lists(st.integers(0, 5), max_size=5), value=values)
@settings(deadline=None, max_examples=150)
def test_any_replaced_value_is_read_or_refused_in_one_sentence(tmp_path_factory, positions, value):
    """Whatever stands in place of any value, loading gives a baseline or one sentence that names the file."""
    path = tmp_path_factory.getbasetemp() / "replaced.json"
    path.write_text(json.dumps(replaced(WHOLE, positions, value)))
    try:
        said = None
        load_baseline(path)
    except BaselineError as error:
        said = str(error)
    assert said is None or (str(path) in said and "\n" not in said)


def test_key_with_a_line_break_breaks_no_message(path):
    """Even a recipe's name with a line break in it is shown on one line."""
    edit(path, lambda document: document["recipes"].update({"a\nb": 7}))
    assert refused(path).endswith(f"({path}, recipes.'a\\nb')")


@pytest.mark.parametrize(
    ("metric", "value", "kept"),
    [
        ("num_params", 4_089_523.0, 4_089_523),
        ("file_bytes", 16_404_321, 16_404_321),
        ("cpu_peak_bytes", 46_980_000, 46_980_096),
        ("top1_error", 1 / 3, 0.333333),
        ("cpu_latency_ms", 15.7449, 15.7),
        ("cpu_latency_ms", 0.0473123, 0.0473),
        ("cuda_time_ms", 1234.5, 1230.0),
    ],
)
def test_values_keep_the_digits_that_repeat(metric, value, kept):
    """Counts are exact, memory is whole KiB, times have three significant digits, errors six decimals."""
    assert as_recorded(METRICS[metric], value) == kept


@given(metric=st.sampled_from(list(METRICS.values())), value=st.floats(0, 1e12))
@settings(deadline=None)
def test_rounding_again_changes_nothing(metric, value):
    """What is read and written back is the same."""
    once = as_recorded(metric, value)
    assert as_recorded(metric, once) == once
