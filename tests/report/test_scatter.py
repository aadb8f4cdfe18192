from __future__ import annotations

import re

import pytest

from compress.pareto import Candidate
from compress.report.scatter import Cost, Role, describe, draw_scatter, marks_of
from tests.report.page_samples import sweep


def candidate(name="r", error=0.02, size=10e6, ratio=0.5, **settings):
    """A model of 10 MB, twice as fast as the dense one."""
    return Candidate(
        recipe=name, top1_error=error, file_bytes=size, num_params=1000, latency_ratio=ratio, settings=settings
    )


DENSE = candidate("dense", 0.02, 25e6, 1.0)


def test_each_model_is_a_mark():
    """The dense model, recipes as they stand, and trials; beaten is told for the two axes of the picture alone."""
    models = [candidate("fast", 0.03, 30e6, 0.4), candidate("small", 0.03, 5e6, 0.9, x=1), candidate("bad", 0.5)]
    by_time = {mark.title.partition(":")[0]: mark for mark in marks_of(DENSE, models, Cost.LATENCY)}
    assert {name: mark.role for name, mark in by_time.items()} == {
        "dense": Role.DENSE,
        "fast": Role.SEED,
        "small": Role.TRIAL,
        "bad": Role.SEED,
    }
    assert {name for name, mark in by_time.items() if mark.beaten} == {"small", "bad"}
    by_size = {mark.title.partition(":")[0]: mark for mark in marks_of(DENSE, models, Cost.BYTES)}
    assert {name for name, mark in by_size.items() if mark.beaten} == {"fast", "bad"}
    assert (by_size["small"].x, by_size["small"].y) == (5.0, 3.0)


def test_what_was_not_timed_is_not_drawn_against_time():
    """It has no place on that axis."""
    assert len(marks_of(DENSE, [candidate(ratio=None)], Cost.LATENCY)) == 1
    assert len(marks_of(DENSE, [candidate(ratio=None)], Cost.BYTES)) == 2


def test_a_model_in_one_line():
    """Label, error, size, parameters and time."""
    assert describe(candidate(epochs=3)) == "r: epochs=3: top-1 error 2.00 %, 10.0 MB, 1,000 parameters, time x0.500"


@pytest.mark.parametrize("cost", list(Cost))
def test_every_model_and_seed_is_in_the_picture(cost):
    """A title on each mark, a diamond on each recipe, names on recipes and the dense model, both axes with units."""
    whole = sweep()
    picture = draw_scatter(marks_of(whole.dense, whole.candidates, cost), cost, title="title")
    text = "".join(picture.content)
    assert text.count("<title>") == 1 + len(whole.candidates)
    assert text.count("<path") == 2
    names = re.findall(r'class="name[^"]*">([^<]*)<', text)
    assert set(names) <= {"dense", "structured", "unstructured"}
    assert "structured" in names
    assert "top-1 error, %" in text
    assert {Cost.LATENCY: "time per image, compressed / dense", Cost.BYTES: "file size, MB"}[cost] in text
    assert picture.words.startswith("title. Best in error and ")


def test_one_lonely_model_can_be_drawn():
    """Where all values are equal there is still an axis."""
    assert "NaN" not in "".join(draw_scatter(marks_of(DENSE, [], Cost.BYTES), Cost.BYTES, title="t").content)
    zero = candidate("zero", 0.0, 0.0, 0.0)
    assert "nan" not in "".join(draw_scatter(marks_of(zero, [zero], Cost.BYTES), Cost.BYTES, title="t").content)


def test_names_do_not_cover_one_another():
    """Of recipes at one place not all can be named."""
    models = [candidate(f"recipe-number-{number}") for number in range(12)]
    text = "".join(draw_scatter(marks_of(DENSE, models, Cost.BYTES), Cost.BYTES, title="t").content)
    assert 1 <= text.count("recipe-number") - 12 < 12
