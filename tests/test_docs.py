"""What stands on the pages of the documentation works as it stands there."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import compress
from compress.calling.pairs import pinned_threads
from compress.commands import cli
from compress.data import from_tensors
from tests.plugin_project import make_project
from tests.test_readme import README, example_of
from tests.workloads import tiny_net

DOCS = README.parent / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
# Page -> its examples, each of which a test runs, here or in test_readme.py.
EXAMPLES = {
    "README.md": ["compress.py", "test_times.py"],
    "compressing.md": ["techniques.py"],
    "extending.md": ["quality.py", "importance.py", "metric.py"],
    "gate.md": ["test_size.py"],
    "your-model.md": ["mine.py", "scenes.py", "reviews.py", "boxes.py", "test_times.py"],
}


def commands_of(page: Path) -> list[str]:
    """The lines of a page's shell blocks, whole where they go on after a backslash, without comments."""
    # Parts with an odd number stand between fences; those of no language begin with a line's end.
    blocks = re.split(r"^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1::2]
    text = "".join(block for block in blocks if block.startswith("\n"))
    lines = text.replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].partition("; ")[0].strip() for line in lines]


def run_example(page: Path, name: str, **names: object) -> dict[str, object]:
    """Run an example where those names are known, and give back all that it knows then."""
    exec(compile(example_of(page, name), f"{page.name}: {name}", "exec"), names)  # noqa: S102 - the page's own lines
    return names


@pytest.fixture
def trained():
    """A network, one input, batches of inputs with its own answers, and a data set."""
    torch.manual_seed(0)
    model = tiny_net(width=8).eval()
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(64) % 3
    data = from_tensors("tiny", train=(images, labels), test=(images, labels))
    batches = [(images.float() / 255, labels)]
    return SimpleNamespace(model=model, example_inputs=batches[0][0][:1], batches=batches, data=data)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_is_run(page):
    """No page shows Python that no test knows of."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"<!-- example: (\S+) -->\n```python\n", text)
    assert named == EXAMPLES.get(page.name, [])
    assert len(named) == text.count("```python\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_taken(page, pytester):
    """Each line of this program is one that its parser takes, and each of pytest has options that exist."""
    parser, _ = cli._parser()
    lines = commands_of(page)
    for line in lines:
        if line.startswith("python -m compress"):
            assert parser.parse_args(shlex.split(line)[3:]) is not None
        if line.startswith("pytest "):
            assert pytester.parseconfig("-p", "compress.pytest_plugin", *shlex.split(line)[1:]) is not None


@pytest.mark.nightly
def test_the_techniques_run(trained, tmp_path, monkeypatch):
    """Its lines do what their comments say, one after the other, on a small network."""
    monkeypatch.chdir(tmp_path)
    quick = partial(compress.FitConfig, batch_size=16)
    monkeypatch.setattr(compress, "FitConfig", lambda *, epochs: quick(epochs=epochs // 10), raising=False)
    monkeypatch.setattr("compress.models.googlenet", lambda: tiny_net(width=8))
    names = run_example(DOCS / "compressing.md", "techniques.py", **vars(trained))
    zeros = sum(int((p == 0).sum()) for p in names["masked"].parameters())
    assert zeros >= 0.2 * sum(p.numel() for p in trained.model.parameters() if p.ndim > 1)
    again, tuned = names["again"], names["tuned"]
    assert torch.equal(again(trained.example_inputs), tuned(trained.example_inputs))
    assert (tmp_path / "small.pt2").stat().st_size > 0


def test_a_quality_of_ones_own():
    """The first is a mean over examples; the second sums its counts first and has a figure for every resample."""
    names = run_example(DOCS / "extending.md", "quality.py")
    targets = torch.nn.functional.one_hot(torch.arange(40) % 4).float()
    inputs = targets.roll(1, dims=0)
    batches = [(inputs[:20], targets[:20]), (inputs[20:], targets[20:])]
    workload = compress.Workload(
        name="own",
        model_factory=torch.nn.Identity,
        data=lambda: (batches, batches),
        example_inputs=inputs[:1],
        quality=[names["angle_error"], names["recall"]],
    )
    judged = workload.judge(torch.nn.Identity())
    assert judged["angle_error"].value == pytest.approx(90.0)
    assert judged["recall"].value == 0.0
    rows = np.array([[1.0, 1.0], [0.0, 2.0], [2.0, 3.0]])
    assert names["recall"].reduce(rows, np.array([[1, 1, 1], [2, 0, 1]])) == pytest.approx([3 / 6, 4 / 5])


def test_an_importance_of_ones_own(trained):
    """A quarter of the channels goes, the filters that are most alike inside."""
    names = run_example(DOCS / "extending.md", "importance.py", **vars(trained))
    conv = trained.model.features[0].weight
    least = conv.flatten(1).std(dim=1).argsort()[:2]
    kept = names["smaller"].features[0].weight
    assert kept.shape[0] == 6
    assert not any(torch.equal(conv[gone], row) for gone in least for row in kept)


def test_a_metric_of_ones_own():
    """The bytes of the largest layer."""
    metric = run_example(DOCS / "extending.md", "metric.py")["largest"]
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    assert metric.measure(net) == 4 * (4 * 8 + 8)


def test_a_workload_of_another_task():
    """What the page returns holds its network to the mean IoU of its loader's examples."""
    lines = example_of(DOCS / "your-model.md", "scenes.py").splitlines()
    code = "\n".join(["def workload():", *(f"    {line}" for line in lines)])
    loader = [(torch.zeros(2, 1, 64, 64), torch.zeros(2, 64, 64, dtype=torch.long))]
    names = {
        "compress": compress,
        "torch": torch,
        "build_net": lambda: torch.nn.Conv2d(1, 11, 1),
        "train_loader": loader,
        "test_loader": loader,
        "my_loss": torch.nn.functional.cross_entropy,
    }
    exec(compile(code, "your-model.md", "exec"), names)  # noqa: S102 - the page's own lines
    workload = names["workload"]()
    assert [quality.name for quality in workload.quality] == ["miou"]
    assert workload.loss is torch.nn.functional.cross_entropy


@pytest.fixture
def project(pytester, monkeypatch, tmp_path_factory):
    """One whose recipe sets no limit to times, which depend on the machine."""
    project = make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")
    limits = project.recipe.read_text(encoding="utf-8")
    project.recipe.write_text(re.sub(r"(?m)^cpu_latency_ms.*\n", "", limits), encoding="utf-8")
    return project


@pytest.mark.parametrize(
    ("page", "name"),
    [(README, "test_times.py"), (DOCS / "gate.md", "test_size.py"), (DOCS / "your-model.md", "test_times.py")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_test_of_ones_own(project, page, name):
    """Written into a project as it stands there, it passes; what it asserts of a time is widened."""
    code = example_of(page, name).replace("ratio < 0.9", "ratio < 9")
    (project.path / name).write_text(code, encoding="utf-8")
    with pinned_threads(1):
        run = project.run(name)
    assert (run.status, len(run.passed)) == (0, 1), run.text
