from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import BaselineError
from compress.gate.baseline import load_baseline
from compress.gate.checks import Side, Status
from compress.gate.difference import Trend, compare_baselines
from compress.gate.error_rules import increase_change
from compress.gate.identity import NO_STEPS, Kinship, Relation, files_sentence, identity_sentence, relation
from compress.gate.limits import Limit
from compress.gate.recording import record
from compress.results import Measurement
from tests.gate.entries import baseline
from tests.gate.entries import params as params_entry
from tests.gate.samples import (
    DEVICE,
    ENVIRONMENT,
    IDENTITY,
    PROVENANCE,
    baseline_of,
    held,
    latency,
    memory,
    params,
    top1,
)

OTHER_CLASS = "cpu-avx512f-1t"
BUILD = dataclasses.replace(IDENTITY, compressed="b" * 64, built_on=OTHER_CLASS)
DENSE = dataclasses.replace(BUILD, dense="e" * 64)
RECIPE = dataclasses.replace(BUILD, recipe="6" * 64)
BOTH = dataclasses.replace(RECIPE, dense="e" * 64)
OTHERS = [BUILD, DENSE, RECIPE, BOTH, None]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (IDENTITY, Relation.SAME),
        (dataclasses.replace(IDENTITY, built_on=OTHER_CLASS), Relation.SAME),
        (dataclasses.replace(IDENTITY, recipe="6" * 64), Relation.SAME),
        (BUILD, Relation.BUILD),
        (DENSE, Relation.DENSE),
        (dataclasses.replace(IDENTITY, dense="e" * 64), Relation.DENSE),
        (RECIPE, Relation.RECIPE),
        (BOTH, Relation.RECIPE_AND_DENSE),
        (None, Relation.UNKNOWN),
    ],
)
def test_fingerprints_say_how_models_are_related(now, expected):
    """The same two models are the same, wherever and by whatever recipe they were made."""
    assert relation(now, IDENTITY) is expected


def test_a_model_that_no_recipe_made_is_another_model():
    """Where either comes from elsewhere nobody can say that a recipe was run again; nor where it was built."""
    file = dataclasses.replace(BUILD, recipe=NO_STEPS, file="net.onnx")
    for now, recorded in ((file, IDENTITY), (IDENTITY, file), (file, dataclasses.replace(file, compressed="c" * 64))):
        assert relation(now, recorded) is Relation.MODEL
    assert relation(dataclasses.replace(file, dense="e" * 64), IDENTITY) is Relation.DENSE
    assert relation(file, dataclasses.replace(file, file="")) is Relation.SAME
    kinship = Kinship(relation=Relation.MODEL, baseline="mine.json", recorded=IDENTITY, now=file)
    assert identity_sentence({"small": kinship}).startswith("compared with another model in mine.json, counts")
    assert files_sentence({"small": file, "made": IDENTITY}) == "not made in this run: small from net.onnx"
    assert files_sentence({"made": IDENTITY}) == ""


def test_the_same_model_is_held_exactly(tmp_path):
    """One parameter more is a regression, and one byte more of its file."""
    size = Measurement(metric="file_bytes", dense=2e6, compressed=1e6)
    recorded = baseline_of(tmp_path, params(1000), size)
    for more in (params(1001), dataclasses.replace(size, compressed=1e6 + 1)):
        verdict = held(more, baseline=recorded)
        assert verdict.status is Status.REGRESSED
        assert verdict.message().splitlines()[0].endswith("REGRESSED, compared with the same model")
    assert held(params(1000), baseline=recorded).status is Status.PASSED


@pytest.mark.parametrize("now", OTHERS)
def test_counts_of_another_build_may_differ_by_a_percent(tmp_path, now):
    """Whatever makes it another one, and it is said in the first line of a message."""
    recorded = baseline_of(tmp_path, params(1000))
    assert held(params(1010), baseline=recorded, identity=now).status is Status.PASSED
    verdict = held(params(1011), baseline=recorded, identity=now)
    assert verdict.status is Status.REGRESSED
    assert verdict.checks[0].text == f"1,000 + 1 % ({recorded.path}): exceeded by 11 (+1.1 %)"
    assert verdict.message().splitlines()[0].endswith(f"REGRESSED, compared with {relation(now, IDENTITY)}")


@pytest.mark.parametrize(("stated", "run", "most"), [(None, 0.02, 1020), (0.0, 0.02, 1000), (0.03, 0.0, 1030)])
def test_a_recipe_or_the_run_may_state_another_tolerance(tmp_path, stated, run, most):
    """The recipe's word for one metric goes before the run's for all; its bound is not needed beside it."""
    recorded = baseline_of(tmp_path, params(1000))
    limit = None if stated is None else Limit(metric="num_params", build_tolerance=stated)
    for value, status in ((most, Status.PASSED), (most + 1, Status.REGRESSED)):
        verdict = held(params(value), baseline=recorded, limit=limit, identity=BUILD, build_tolerance=run)
        assert [(check.side, check.status) for check in verdict.checks] == [(Side.BASELINE, status)]
    assert held(params(1001), baseline=recorded, limit=limit, build_tolerance=run).status is Status.REGRESSED


def test_memory_and_times_have_their_tolerances_whatever_was_built(tmp_path):
    """They are never exact, and a ratio is to the dense model of the same build already."""
    recorded = baseline_of(tmp_path, memory(), latency(0.8))
    for now in (IDENTITY, *OTHERS):
        assert held(memory(47_000_000 * 1.04), baseline=recorded, identity=now).status is Status.PASSED
        assert held(memory(47_000_000 * 1.06), baseline=recorded, identity=now).status is Status.REGRESSED
        assert held(latency(0.9), baseline=recorded, identity=now).status is Status.REGRESSED


def test_what_another_dense_model_costs_more_to_compress_is_undecided_up_to_a_point(tmp_path):
    """Two trainings differ in that by more than test examples tell; the same cut of the same dense model does not."""
    recorded = baseline_of(tmp_path, top1(range(10), range(12)))
    somewhat, much = top1(range(20), range(31)), top1(range(20), range(40))
    doubted = held(somewhat, baseline=recorded, identity=DENSE)
    assert doubted.status is Status.INCONCLUSIVE
    assert doubted.notes == (
        "the dense model is another one, which may cost more or less to compress: recording it anew would decide",
    )
    assert held(somewhat, baseline=recorded, identity=BUILD).status is Status.REGRESSED
    assert held(much, baseline=recorded, identity=DENSE).status is Status.REGRESSED


@pytest.mark.parametrize("now", OTHERS)
def test_errors_of_another_build_are_compared_over_their_dense_model(tmp_path, now):
    """Both models fail at four examples more than before: what compression costs is the same."""
    recorded = baseline_of(tmp_path, top1(range(10), range(12)))
    passed = held(top1(range(20), range(22)), baseline=recorded, identity=now)
    assert passed.status is Status.PASSED
    assert passed.checks[0].text.startswith(
        f"+0.40 pt + 0.50 pt over dense, 2.40 % of 2.00 % ({recorded.path}): +0.00 pt"
    )
    worse = held(top1(range(20), range(40)), baseline=recorded, identity=now)
    assert worse.status is Status.REGRESSED
    assert "+3.60 pt, 20 lost and 2 gained of 500 examples" in worse.checks[0].text
    assert held(top1(range(20), range(22)), baseline=recorded).status is Status.REGRESSED, "of the same model"


def test_without_the_recorded_results_their_totals_count(tmp_path):
    """A file from before they were kept says how many more failed, not which."""
    recorded = baseline_of(tmp_path, top1(range(10), range(12)))
    content = json.loads(recorded.path.read_text(encoding="utf-8"))
    del content["recipes"]["structured"]["top1_error"]["dense_correct"]
    recorded.path.write_text(json.dumps(content), encoding="utf-8")
    recorded = load_baseline(recorded.path)
    verdict = held(top1(range(20), range(40)), baseline=recorded, identity=BUILD)
    assert "+3.60 pt, 20 lost and 2 gained of 500 examples" in verdict.checks[0].text
    assert held(top1(range(20), range(22)), baseline=recorded, identity=BUILD).status is Status.PASSED


def test_a_gain_over_the_dense_model_makes_the_baseline_stale(tmp_path):
    """What compression no longer costs would be lost again unseen."""
    recorded = baseline_of(tmp_path, top1(range(10), range(30)))
    verdict = held(top1(range(20), range(22)), baseline=recorded, identity=BUILD)
    assert verdict.notes[-1] == (
        "baseline is stale: +0.40 pt over dense against +4.00 pt, record the gain with --benchmark-save"
    )


RIGHT = st.lists(st.booleans(), min_size=24, max_size=24).map(lambda one: np.packbits(one).tobytes())


@given(dense=RIGHT, compressed=RIGHT, dense_before=RIGHT, before=RIGHT)
def test_worse_and_better_off_add_up_to_the_change_of_the_increase(dense, compressed, dense_before, before):
    """And the way back exchanges them; without a change of the dense model they are the flips of the compressed one."""
    worse, better = increase_change((dense, compressed), (dense_before, before), 24)
    wrong = [
        24 - int(np.unpackbits(np.frombuffer(one, np.uint8)).sum()) for one in (dense, compressed, dense_before, before)
    ]
    assert worse - better == (wrong[1] - wrong[0]) - (wrong[3] - wrong[2])
    assert increase_change((dense_before, before), (dense, compressed), 24) == (better, worse)
    assert increase_change((dense, compressed), (dense, compressed), 24) == (0, 0)


def test_every_example_may_count_twice(tmp_path):
    """All that the dense model alone got right is now what the compressed one alone gets right, or the reverse."""
    everything = range(500)
    recorded = baseline_of(tmp_path, top1([], everything))
    assert held(top1(everything, []), baseline=recorded, identity=BUILD).status is Status.PASSED
    recorded = baseline_of(tmp_path / "worse", top1(everything, []))
    assert held(top1([], everything), baseline=recorded, identity=BUILD).status is Status.REGRESSED


def test_the_sentence_says_like_with_like():
    """Once for all recipes, or by recipe where they differ; machines only where models do."""
    same = Kinship(relation=Relation.SAME, baseline="b.json", recorded=IDENTITY, now=IDENTITY)
    build = Kinship(relation=Relation.BUILD, baseline="b.json", recorded=IDENTITY, now=BUILD)
    unknown = Kinship(relation=Relation.UNKNOWN, baseline="b.json", now=BUILD)
    assert identity_sentence({}) == ""
    assert identity_sentence({"a": same, "b": same}) == (
        "compared with the same model in b.json, counts and bytes held exactly"
    )
    assert identity_sentence({"a": same, "b": build, "c": build}) == (
        "a: compared with the same model in b.json, counts and bytes held exactly; b, c: compared with another build "
        f"of the same recipe in b.json (built on {DEVICE}, now {OTHER_CLASS}), counts and bytes held within a "
        "tolerance, errors by their increase over the dense model"
    )
    assert identity_sentence({"a": unknown}).endswith("--benchmark-save records fingerprints")


def recorded_models(path):
    """What the file says of the recipe's models."""
    return load_baseline(path).models.get("structured")


def save(path, *measurements, identity=IDENTITY, **changes):
    """Record some measurements of these models."""
    models = {"structured": identity} if identity else {}
    provenance = dataclasses.replace(PROVENANCE, **changes)
    return record(path, {"structured": measurements}, provenance=provenance, models=models)


def test_fingerprints_are_recorded_beside_the_class_that_built_the_models(tmp_path):
    """And read back as they were."""
    path = tmp_path / "b.json"
    save(path, params(), top1([1], [2]))
    assert recorded_models(path) == IDENTITY


def test_the_same_model_recorded_elsewhere_changes_nothing_about_it(tmp_path):
    """The class that built it first stands, so that two machines do not take turns in the file."""
    path = tmp_path / "b.json"
    save(path, params())
    assert not save(path, params(), identity=dataclasses.replace(IDENTITY, built_on=OTHER_CLASS)).changed


def test_another_build_takes_the_place_of_all_that_was_of_the_one_before(tmp_path):
    """Counts and errors of two builds side by side would be compared with the wrong one; the file stays as it was."""
    path = tmp_path / "b.json"
    save(path, params(), top1([1], [2]))
    before = path.read_bytes()
    with pytest.raises(BaselineError, match="of one build, and top1_error of 'structured' would stay") as caught:
        save(path, params(7), identity=BUILD)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    save(path, params(7), top1([1], [2]), identity=BUILD)
    assert recorded_models(path) == BUILD


def test_another_build_keeps_the_classes_of_other_machines(tmp_path):
    """Their times and memory stay, whatever models the counts are of."""
    path = tmp_path / "b.json"
    save(path, params(), memory(), latency())
    elsewhere = dataclasses.replace(ENVIRONMENT, cpu_class=OTHER_CLASS)
    save(path, params(7), memory(device=OTHER_CLASS), identity=BOTH, environment=elsewhere)
    merged = load_baseline(path)
    assert set(merged.environments) == {DEVICE, OTHER_CLASS}
    assert set(merged.entries("structured", "cpu_peak_bytes")) == {DEVICE, OTHER_CLASS}
    assert set(merged.entries("structured", "cpu_latency_ms")) == {DEVICE}


def test_times_alone_say_nothing_of_the_models_that_counts_are_of(tmp_path):
    """A machine may add its times for a build of its own."""
    path = tmp_path / "b.json"
    save(path, params())
    save(path, latency(), identity=BUILD)
    assert recorded_models(path) == IDENTITY


def test_an_older_file_is_read_and_learns_fingerprints_once_all_is_recorded(tmp_path):
    """Of what stands in it nobody knows which build it is of, until nothing of that is left."""
    path = tmp_path / "b.json"
    save(path, params(), top1([1], [2]), identity=None)
    path.write_text(path.read_text(encoding="utf-8").replace('"schema": 4', '"schema": 2'), encoding="utf-8")
    verdict = held(params(), baseline=load_baseline(path))
    assert (verdict.status, verdict.kinship.relation) == (Status.PASSED, Relation.UNKNOWN)
    save(path, params())
    assert recorded_models(path) is None
    save(path, params(), top1([1], [2]))
    assert recorded_models(path) == IDENTITY


@pytest.mark.parametrize("wrong", ["abc", "G" * 64, "d" * 63, "", 5, None])
@pytest.mark.parametrize("key", ["dense", "compressed", "recipe"])
def test_a_fingerprint_that_is_no_hash_is_refused(tmp_path, key, wrong):
    """With its place; the file stays as it was."""
    path = tmp_path / "b.json"
    save(path, params())
    content = json.loads(path.read_text(encoding="utf-8"))
    content["models"]["structured"][key] = wrong
    path.write_text(json.dumps(content), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(BaselineError) as caught:
        save(path, params())
    what = "a SHA-256 of 64 hexadecimal digits" if isinstance(wrong, str) else "a text"
    assert str(caught.value).startswith(f"the baseline must hold {what} here, got ")
    assert str(caught.value).endswith(f"({path}, models.structured.{key})")
    assert path.read_bytes() == before


def test_the_difference_of_files_of_two_builds_is_shown_as_the_gate_holds_it():
    """Within a percent a count only changed; which models they are of is said once."""
    before = baseline(params_entry(1000))
    for compressed, trend in ((1010, Trend.CHANGED), (1011, Trend.WORSE)):
        after = baseline(params_entry(compressed), models={"structured": BUILD})
        difference = compare_baselines(before, after)
        assert [change.trend for change in difference.changes] == [trend]
    (about,) = difference.about
    assert about == (
        "models of structured: another build of the same recipe; counts and bytes held within a tolerance, errors by "
        "their increase over the dense model"
    )
    assert compare_baselines(before, before).about == ()
