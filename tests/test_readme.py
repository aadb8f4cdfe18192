"""What the README shows works as it stands there."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import compress
from compress.calling.pairs import pinned_threads
from tests.plugin_project import make_project
from tests.workloads import tiny_net

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CIFAR100 = ROOT / "docs" / "cifar100.md"
YOUR_MODEL = ROOT / "docs" / "your-model.md"

# What the example's reader has already.
PACKAGE = """
from mine_before import images, net as build_net

def load_images():
    return images(40, seed=1), images(40, seed=2)
"""


def example_of(page: Path, name: str) -> str:
    """The code between the marker of that file's name and the end of its fence."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```python\n(.*?)\n```\n", text, re.DOTALL)
    assert found is not None, f"{page.name} has no block marked <!-- example: {name} -->"
    return found[1]


@pytest.mark.parametrize("page", [README, CIFAR100], ids=lambda page: page.name)
def test_the_first_table_is_the_committed_baselines(page, capsys, monkeypatch):
    """A page shows what the command above the table prints, and nobody's copy of it by hand."""
    found = re.search(r"<!-- python (benchmarks/\S+\.py)(.*?) -->\n((?:\|.*\n)+)", page.read_text(encoding="utf-8"))
    assert found is not None, f"{page.name} has no table after a comment with its command"
    monkeypatch.setattr(sys, "argv", [found[1], *found[2].split()])
    runpy.run_path(str(ROOT / found[1]), run_name="__main__")
    assert capsys.readouterr().out == found[3]


def test_the_picture_is_the_committed_baselines(tmp_path, monkeypatch):
    """It is what the command beside it draws, and looks right on light and dark pages."""
    drawn = tmp_path / "drawn.svg"
    monkeypatch.setattr(sys, "argv", ["reference_table.py", "--picture", str(drawn)])
    runpy.run_path(str(ROOT / "benchmarks" / "reference_table.py"), run_name="__main__")
    committed = (ROOT / "docs" / "cifar100.svg").read_text(encoding="utf-8")
    assert drawn.read_text(encoding="utf-8") == committed
    assert "prefers-color-scheme: dark" in committed


def test_the_readme_is_one_screen_or_two():
    """What is longer is for the documentation."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", [README, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    """A file that a page names exists."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    """Its lines do what their comments say, on a network that is small enough for a test."""
    code = example_of(README, "compress.py")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = tiny_net(width=8).eval()
    inputs = torch.randn(64, 3, 8, 8)
    names = {"model": model, "example_inputs": inputs[:1], "batches": [(inputs, model(inputs).argmax(1).detach())]}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - the README's own lines
    assert sum(map(torch.numel, names["thinner"].parameters())) < sum(map(torch.numel, model.parameters()))
    assert (tmp_path / "small.safetensors").stat().st_size > 0
    assert (tmp_path / "small.pt2").stat().st_size > 0


@pytest.mark.parametrize("name", ["mine.py", "reviews.py", "boxes.py"])
def test_a_workload_takes_a_few_lines(name):
    """Whoever has a network and data is fifteen lines away from measuring them."""
    example = example_of(YOUR_MODEL, name)
    assert 0 < len([line for line in example.splitlines() if line.strip()]) <= 15
    assert max(map(len, example.splitlines())) <= 120


def test_the_example_runs(pytester, monkeypatch, tmp_path_factory):
    """Written down as mine.py, beside a package that builds a net and loads images, it is measured."""
    project = make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")
    (project.path / "mine.py").rename(project.path / "mine_before.py")
    (project.path / "mine.py").write_text(example_of(YOUR_MODEL, "mine.py"), encoding="utf-8")
    (project.path / "my_package.py").write_text(PACKAGE, encoding="utf-8")
    with pinned_threads(1):
        run = project.run("--compress-workload=mine:workload", "-k", "num_params")
    assert (run.status, run.passed) == (0, {"test_num_params"})
    assert "workload: mine" in run.text
    assert re.search(r"parameters +202 +153 ", run.text)


@pytest.mark.nightly
def test_the_tutorial_puts_out_what_it_shows(tmp_path, monkeypatch, capsys):
    """Its cells run in turn, and print again all that depends on no clock and no file of the reader's."""
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "tutorial.ipynb", "exec"), names)  # noqa: S102 - the tutorial's own
            shown = "".join(text for output in cell["outputs"] for text in output["text"])
            # What processes of their own print names this machine and its times.
            if "subprocess.run" not in "".join(cell["source"]):
                assert parameters(capsys.readouterr().out) == parameters(shown)
    dense, repaired = (compress.evaluate(names[name], names["data"].test) for name in ("dense", "repaired"))
    assert repaired.top1_error <= dense.top1_error + 0.01
    assert "HELD" in shown


def parameters(text: str) -> list[str]:
    """The numbers of parameters that are printed."""
    return re.findall(r"[\d,]+(?= parameters)", text)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("library", "name", "quality"), [("transformers", "reviews", "top1_error"), ("ultralytics", "boxes", "map50")]
)
def test_networks_of_other_libraries_are_recorded_and_held(library, name, quality, tmp_path):
    """Written down as it stands there, each is cut, recorded, and held to what was recorded; nothing is downloaded."""
    pytest.importorskip(library)
    (tmp_path / f"{name}.py").write_text(example_of(YOUR_MODEL, f"{name}.py"), encoding="utf-8")
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("recipes", "[!t]*"))
    command = [sys.executable, "-m", "pytest", "benchmarks", "-v", f"--compress-workload={name}:workload"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])}
    for option in (f"--benchmark-save={name}", "--benchmark-compare"):
        run = subprocess.run(
            [*command, option, "--compress-partial", "-k", "not cpu_ and not cuda"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout
        assert f"test_quality[{quality}-structured] PASSED" in run.stdout
    assert "compared with" in run.stdout


def test_the_reference_shows_every_public_name():
    """What the package offers is documented once, and nothing else."""
    shown = re.findall(
        r"^::: compress\.(\w+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(shown) == compress.__all__


def test_the_site_has_every_page():
    """A page that no menu shows is not found."""
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    assert sorted(re.findall(r"[\w-]+\.md", menu)) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))
