from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from compress.errors import ConfigError
from compress.report.html import Report, render_html
from compress.report.html_tradeoffs import models_of, tradeoff_section
from compress.report.svg import asset
from tests.gate.samples import DATA, ENVIRONMENT, held, params
from tests.report.page_samples import DENSE_BYTES, RUNS, layers, report, sweep
from tests.report.samples import verdicts

HOSTILE = """<script>alert("x")</script>&amp;'"><img src=//evil.example>"""
_VOID = {"meta", "link", "br", "img"}


class Outline(HTMLParser):
    """Whether tags close in their order, which ids and links there are, and all attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for key, value in attrs if key == "id"]
        self.links += [value for key, value in attrs if key == "href"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(tmp_path):
    """A run with everything that a page can show."""
    return render_html(report(tmp_path))


def test_all_parts_are_there(page):
    """Table, verdicts, trade-offs, layers and history, each under a heading that the contents link to."""
    outline = Outline(page)
    assert not outline.open
    for part in ("results", "verdicts", "tradeoffs", "layers", "history"):
        assert part in outline.ids
        assert f"#{part}" in outline.links
    assert set(outline.links) <= {f"#{one}" for one in outline.ids} | {"data:,"}
    for words in ("4,089,523", "-36.1 %", "Test CPU (cpu-avx2-1t)", "baselines/digits.json", "All 44 models"):
        assert words in outline.text


def test_what_there_is_nothing_of_is_left_out(tmp_path):
    """A run without layers, baselines, sizes and errors still has its table and verdicts, and no empty headings."""
    outline = Outline(
        render_html(Report(workload="digits", data_sha256=DATA, environment=None, verdicts=verdicts(tmp_path)))
    )
    assert {"results", "verdicts"} <= set(outline.ids)
    assert not {"tradeoffs", "layers", "history"} & set(outline.ids)
    assert set(outline.links) <= {f"#{one}" for one in outline.ids} | {"data:,"}


def test_the_headline_is_the_worst_that_happened(tmp_path):
    """Regressed before undecided before held; what nobody could measure is counted too."""
    whole = report(tmp_path)
    assert "4 regressed, 8 held, 5 not measured" in render_html(whole)
    structured = [verdict for verdict in whole.verdicts if verdict.recipe == "structured"]
    assert "Nothing regressed: 5 held, 1 not measured" in render_html(dataclasses.replace(whole, verdicts=structured))
    alone = dataclasses.replace(whole, verdicts=[held(params())])
    assert "Nothing was held against a limit or a baseline" in render_html(alone)


def test_whatever_stands_in_a_name_is_text(tmp_path):
    """Recipes, workload, machine, layers, settings and reasons are escaped wherever they come: no tag, no attribute."""
    plain = report(tmp_path)
    reference = Outline(render_html(plain))
    rename = {"structured": HOSTILE}
    page = render_html(
        Report(
            workload=HOSTILE,
            data_sha256=DATA,
            environment=dataclasses.replace(ENVIRONMENT, cpu=HOSTILE),
            verdicts=[
                dataclasses.replace(verdict, recipe=rename.get(verdict.recipe, verdict.recipe), notes=(HOSTILE,))
                for verdict in plain.verdicts
            ],
            layers={HOSTILE: [dataclasses.replace(layer, name=HOSTILE, kind=HOSTILE) for layer in layers()]},
            versions=[dataclasses.replace(version, label=HOSTILE) for version in plain.versions],
            sweep=dataclasses.replace(
                sweep(),
                workload=HOSTILE,
                candidates=tuple(
                    dataclasses.replace(one, recipe=HOSTILE, settings={HOSTILE: HOSTILE}) for one in sweep().candidates
                ),
            ),
        )
    )
    outline = Outline(page)
    assert not outline.open
    assert set(outline.tags) == set(reference.tags)
    assert "script" not in outline.tags
    assert "img" not in outline.tags
    assert {key for key, _ in outline.attributes} <= {key for key, _ in reference.attributes}
    assert not any(key.startswith("on") for key, _ in outline.attributes)
    assert HOSTILE in outline.text


def test_the_page_needs_nothing_from_anywhere(page):
    """No address of anything, no script, and a policy that would let the browser load nothing."""
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|javascript:", page)
    assert "default-src 'none'" in page


def test_pictures_are_described(page):
    """Every picture is an image with a description, or hidden from those who hear the page."""
    for tag in re.findall(r"<svg[^>]*>", page):
        inner = 'class="plot"' in tag
        assert inner or "aria-hidden" in tag or re.search(r'role="img" aria-label="[^"]{10,}"', tag)


def test_the_later_of_two_measurements_is_drawn():
    """Of what was measured twice the second counts, and a recipe without size or error is no mark."""
    first, second = (held(one) for one in (params(5_000_000), params(4_000_000)))
    assert models_of([first, second], "top1_error")[0] is None
    rest = [held(one) for one in RUNS["structured"]]
    dense, (model,), device = models_of([first, *rest, second], "top1_error")
    assert (model.num_params, dense.num_params, dense.file_bytes) == (4_000_000, 6_402_564, DENSE_BYTES)
    assert (dense.latency_ratio, device) == (1.0, "cpu-avx2-1t")
    low, high = model.latency_interval
    assert low < model.latency_ratio < high


def test_a_sweep_of_another_workload_is_refused(tmp_path):
    """It would show models of another network as if they were this one's."""
    other = dataclasses.replace(sweep(), workload="cifar10")
    with pytest.raises(
        ConfigError, match=r"^a page shows one workload, got the sweep of 'cifar10' for a run of 'digits'$"
    ):
        render_html(report(tmp_path, sweep=other))
    other = dataclasses.replace(sweep(), data_sha256="f" * 64)
    with pytest.raises(ConfigError, match=r"^a page shows one data set, got a sweep on other test data"):
        render_html(report(tmp_path, sweep=other))


def test_times_of_another_machine_are_not_mixed(tmp_path):
    """The sweep's models are drawn against their size only, and the page says why."""
    other = dataclasses.replace(sweep(), device="cpu-sve-1t")
    section = tradeoff_section(report(tmp_path).verdicts, other, workload="digits", data_sha256=DATA)
    assert len(section["scatter_notes"]) == 1
    by_time, by_size = section["scatters"]
    assert "".join(by_time["picture"].content).count("<title>") == 1 + 3
    assert "".join(by_size["picture"].content).count("<title>") == 1 + 3 + 40


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast(scheme):
    """Text stands out from both backgrounds at 4.5 or more, marks at 3 or more, light and dark (WCAG 2.2, 1.4.3)."""
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", asset("palette.css").split("@media")[scheme]))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((_luminance(colours[one]), _luminance(colours[other])))
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "muted", "accent", "good", "warn", "bad"):
        assert contrast(text, "paper") >= 4.5, text
        assert contrast(text, "raised") >= 4.5, text
    for mark in ("second", "third", "fourth", "fifth", "bad"):
        assert contrast(mark, "paper") >= 3, mark
    assert contrast("bad", "bad-soft") >= 3
