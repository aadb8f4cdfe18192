"""``init``: what the gate needs, written into anyone's project; nothing that is there is overwritten."""

from __future__ import annotations

import argparse
import importlib.resources
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from compress.commands.arguments import add_json, print_json
from compress.commands.ini import Value, added_settings
from compress.errors import ConfigError
from compress.system.files import write_atomically

RECIPES = ("structured", "unstructured", "int8")

_SETTINGS: Mapping[str, Value] = {"compress_workload": "compress_workload:workload", "pythonpath": ["."]}
_DESCRIPTION = """\
Write into a project what holds its compressed models: the model and its data (compress_workload.py, with two blanks to
fill), recipes with limits, tests, a workflow for GitHub, and two settings for pytest. A file that is there already is
kept as it is. Before you fill the blanks everything runs on a small network and handwritten digits.
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of one file.

    Attributes:
        path: from the project's folder.
        what: whether it was written, was there and is kept, or had settings added.
        by_hand: what its owner has to add, a line each.
    """

    path: str
    what: Literal["written", "kept", "added to"]
    by_hand: tuple[str, ...] = ()


def add_init_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``init``."""
    parser = commands.add_parser(
        "init", help="write what the gate needs into your project, with two blanks to fill", description=_DESCRIPTION
    )
    parser.set_defaults(run=_init)
    add = parser.add_argument
    add("--directory", metavar="DIR", type=Path, default=Path(), help="the project's folder (default: this one)")
    add("--name", metavar="NAME", help="what reports and the baseline call the model (default: the folder's name)")
    add(
        "--recipe",
        choices=RECIPES,
        action="append",
        dest="recipes",
        help="a recipe to begin with; may be given more than once (default: structured)",
    )
    add("--no-workflow", action="store_false", dest="workflow", default=None, help="write no workflow for GitHub")
    add("--yes", action="store_true", help="ask nothing, take the defaults")
    add_json(parser)


def _init(options: argparse.Namespace) -> None:
    """Ask what was not said, write the files, say what comes next."""
    folder: Path = options.directory
    if not folder.is_dir():
        raise ConfigError(f"--directory must be a folder that exists, got {str(folder)!r}")
    name, recipes, workflow = _answers(options, folder)
    done = write_project(folder, name=name, recipes=recipes, workflow=workflow)
    steps = _next_steps(name)
    if options.json:
        print_json({"name": name, "files": [asdict(one) for one in done], "next": steps})
        return
    for one in done:
        print(f"{one.what:8}  {one.path}")
        for line in one.by_hand:
            print(f"{'':8}  by hand: {line}")
    print("\nNext:")
    for step, command in steps.items():
        print(f"  {command:55}  {step}")


def write_project(folder: Path, *, name: str, recipes: Sequence[str], workflow: bool) -> list[Done]:
    """Write the files of a project, and add its settings.

    Args:
        folder: of the project; it exists.
        name: of the workload, and so of its baseline.
        recipes: out of :data:`RECIPES`.
        workflow: whether to write one for GitHub's CI.

    Raises:
        ConfigError: if the name is no name, a file cannot be written, or the settings cannot be added.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"a name must be letters, digits, '.', '_' and '-', got {name!r}")
    # What can go wrong with what is there is found before anything is written.
    settings = added_settings(folder, _SETTINGS)
    files = {"compress_workload.py": _template("compress_workload.py").replace("PROJECT", name)}
    files |= {f"benchmarks/recipes/{recipe}.toml": _template(f"{recipe}.toml") for recipe in recipes}
    files["benchmarks/test_compressed.py"] = _template("test_compressed.py")
    if workflow:
        files[".github/workflows/compress-gate.yml"] = _template("compress-gate.yml")
    done = [_write_new(folder, path, text) for path, text in files.items()]
    existed = settings.path.exists()
    if settings.text is not None:
        write_atomically(settings.path, settings.text.encode(), ConfigError)
    what: Literal["written", "kept", "added to"] = (
        "kept" if settings.text is None else "added to" if existed else "written"
    )
    return [*done, Done(path=settings.path.name, what=what, by_hand=settings.by_hand)]


def _answers(options: argparse.Namespace, folder: Path) -> tuple[str, Sequence[str], bool]:
    """Name, recipes, workflow: what was said, what is asked on a terminal, and the defaults."""
    name = options.name or re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-.") or "mine"
    recipes, workflow = options.recipes, options.workflow
    if not options.yes and not options.json and sys.stdin.isatty():
        from rich.prompt import Confirm, Prompt

        if options.name is None:
            name = Prompt.ask("What is the model called?", default=name)
        if recipes is None:
            recipes = [Prompt.ask("Which recipe to begin with?", choices=list(RECIPES), default=RECIPES[0])]
        if workflow is None:
            workflow = Confirm.ask("Write a workflow for GitHub?", default=True)
    return name, recipes or [RECIPES[0]], workflow is not False


def _write_new(folder: Path, name: str, text: str) -> Done:
    path = folder / name
    if path.exists():
        return Done(path=name, what="kept")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path.parent}: {error.strerror or error}") from error
    write_atomically(path, text.encode(), ConfigError)
    return Done(path=name, what="written")


def _next_steps(name: str) -> Mapping[str, str]:
    return {
        "compress the model and hold it to its limits": "pytest benchmarks",
        "fill its two blanks": "edit compress_workload.py",
        "what can be measured here": "python -m compress doctor",
        f"record baselines/{name}.json, to be committed": f"pytest benchmarks --benchmark-save={name}",
        "from then on: hold it to the baseline too": "pytest benchmarks --benchmark-compare",
    }


def _template(name: str) -> str:
    return importlib.resources.files("compress.commands").joinpath("project", name).read_text(encoding="utf-8")
