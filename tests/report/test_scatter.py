from __future__ import annotations

import itertools
import re

import pytest

from compress.report.pareto import Candidate
from compress.report.scatter import HEIGHT, Cost, Role, describe, draw_scatter, marks_of
from tests.report.page_samples import sweep


def candidate(name="r", error=0.02, size=10e6, ratio=0.5, **settings):
    """A model of 10 MB, twice as fast as the dense one."""
    return Candidate(
        recipe=name, quality=error, file_bytes=size, num_params=1000, latency_ratio=ratio, settings=settings
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


def ticks_of(*errors):
    """What is written beside the axis of the error, from below, and where each model lies on it."""
    models = [candidate(f"m{number}", error) for number, error in enumerate(errors)]
    text = "".join(draw_scatter(marks_of(models[0], models[1:], Cost.BYTES), Cost.BYTES, title="t").content)
    ticks = re.findall(r'y="([\d.]+)" class="tick end">([^<]*)<', text)
    return [name for _, name in ticks], [float(place) for place, _ in ticks], "logarithmic" in text


def test_errors_of_several_magnitudes_are_told_apart():
    """From half a percent to 80 % each factor of two has its room, at ticks that can be read; 0 lies below."""
    names, places, is_logarithmic = ticks_of(0.005, 0.01, 0.02, 0.8)
    assert is_logarithmic
    assert names == ["0.5", "1", "2", "5", "10", "20", "50", "100"]
    assert min(above - below for below, above in itertools.pairwise(places[::-1])) > 15
    names, places, is_logarithmic = ticks_of(0.0, 0.005, 0.8)
    assert is_logarithmic
    assert (names[0], names[-1]) == ("0", "100")
    assert places[0] == HEIGHT + 4
    assert min(above - below for below, above in itertools.pairwise(places[::-1])) > 14


@pytest.mark.parametrize("errors", [(0.01, 0.1), (0.0, 0.02), (0.0, 0.0), (0.0, 0.01, 0.1)])
def test_errors_of_one_magnitude_lie_on_a_plain_axis(errors):
    """Up to a decade, and where none or one alone is above zero."""
    names, _, is_logarithmic = ticks_of(*errors)
    assert not is_logarithmic
    assert float(names[0]) == 0


def test_names_do_not_cover_one_another():
    """Of recipes at one place not all can be named."""
    models = [candidate(f"recipe-number-{number}") for number in range(12)]
    text = "".join(draw_scatter(marks_of(DENSE, models, Cost.BYTES), Cost.BYTES, title="t").content)
    assert 1 <= text.count("recipe-number") - 12 < 12
