"""The gate over classes of machine: a baseline recorded under each one, compared with under each of the others.

    python benchmarks/portability.py --output docs/portability.md [--no-times] [--worsened channel ...] [-- OPTIONS]

One machine stands in for older ones by ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA, as far as its own instructions
reach; what it cannot tell apart is left out. Under each of them the models are built once, from an empty cache, and
that build is compared with the baselines of the others. A cell says how many verdicts were red, undecided and held.
With --worsened the models under comparison are then made worse on purpose, one way after the other, and every cell of
that way must be red; only the tests that could see it are run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from compress.errors import CompressError
from compress.system.cpu import cpu_class, has_bfloat16
from compress.system.files import write_atomically

HERE = Path(__file__).parent
# From the oldest to the newest: (ATen's bound, oneDNN's).
BOUNDS = (
    ("default", "SSE41"),
    ("default", "AVX2"),
    ("avx2", "SSE41"),
    ("avx2", "AVX2"),
    ("avx512", "AVX512_CORE"),
    ("avx512", "AVX512_CORE_VNNI"),
    ("avx512", "AVX512_CORE_BF16"),
    ("avx512", "AVX512_CORE_AMX"),
)
# How the models are made worse, and which tests must see it, as pytest's -k takes it: those that need no compiler.
WORSENED = {
    "channel": "structured and (num_params or macs) and not int8",
    "float": "test_file_bytes and int8",
    "error": "top1_error and (structured or lowrank) and not int8",
    "macs": "macs",
    "sleep": "cpu_latency and structured and not int8",
}
_TIMES = "test_latency.py"
_RED, _UNDECIDED, _HELD = "REGRESSED", "inconclusive", "ok"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A class of machine that this one can stand in for.

    Attributes:
        name: its two bounds.
        environment: the variables that make it so.
    """

    name: str
    environment: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one comparison came to: its verdicts by kind, and pytest's exit status."""

    red: int
    undecided: int
    held: int
    status: int

    def __str__(self) -> str:
        broken = f", exit status {self.status}" if self.status not in (0, 1) else ""
        return f"{self.red} red, {self.undecided} undecided, {self.held} held{broken}"


Cells = dict[tuple[str, str], Cell]


def machines(wanted: list[str]) -> list[Machine]:
    """The machines that this one can stand in for, of which those named if any are.

    Raises:
        CompressError: if one that is named is none of them.
    """
    found: dict[tuple[tuple[str, bool], ...], Machine] = {}
    for aten, onednn in BOUNDS:
        environment = {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn}
        # What each bound comes to alone: one beyond what the machine has would be obeyed all the same, and crash it.
        found.setdefault(
            tuple(_class_under(name, value) for name, value in environment.items()),
            Machine(name=f"{aten}-{onednn}", environment=environment),
        )
    names = [machine.name for machine in found.values()]
    if unknown := set(wanted) - set(names):
        raise CompressError(f"a class must be one of {', '.join(names)} on this machine, got {min(unknown)!r}")
    return [machine for machine in found.values() if not wanted or machine.name in wanted]


def _class_under(variable: str, value: str) -> tuple[str, bool]:
    # Two machines of one class may train in other precisions, which makes other models of the same recipe.
    with mock.patch.dict(os.environ, {variable: value}):
        return cpu_class(1), has_bfloat16()


def project(folder: Path) -> Path:
    """A copy of the benchmarks whose compressed models are made worse by what WORSENED names."""
    tests = folder / "benchmarks"
    tests.mkdir(parents=True)
    for file in HERE.glob("test_*.py"):
        shutil.copy(file, tests)
    shutil.copy(HERE / "worsened.py", tests / "conftest.py")
    return tests


def run(machine: Machine, tests: Path, folder: Path, *options: str, worsened: str = "") -> tuple[int, str]:
    """One pytest run as on that class of machine, with a cache of its own; its exit status and all it printed."""
    environment = {
        **os.environ,
        **machine.environment,
        "WORSENED": worsened,
        "XDG_CACHE_HOME": str(folder / machine.name / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / machine.name / "inductor"),
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    recipes = f"--compress-recipe={HERE / 'recipes'}"
    command = [sys.executable, "-m", "pytest", str(tests), "-q", "-p", "no:cacheprovider", "--rootdir", str(tests)]
    if not any(option.startswith("--compress-recipe") for option in options):
        command.append(recipes)
    done = subprocess.run(  # noqa: S603 - this interpreter
        [*command, *options], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def compared(now: Machine, recorded: Machine, tests: Path, folder: Path, *options: str, worsened: str) -> Cell:
    """The verdicts on one class's models against another's baseline."""
    report = folder / f"{now.name}-{recorded.name}.md"
    report.unlink(missing_ok=True)
    baselines = f"--compress-baselines={folder / recorded.name}"
    compare = ("--benchmark-compare=portability", "--compress-partial", f"--compress-report={report}")
    status, text = run(now, tests, folder, baselines, *compare, *options, worsened=worsened)
    found = re.search(r"verdicts: (.*)", report.read_text(encoding="utf-8")) if report.exists() else None
    if found is None:
        raise CompressError(f"no verdicts under {now.name} against {recorded.name}: {text[-2000:]}")
    counts = {mark: int(count) for count, mark in re.findall(r"(\d+) ([A-Za-z ]+)", found[1])}
    return Cell(red=counts.get(_RED, 0), undecided=counts.get(_UNDECIDED, 0), held=counts.get(_HELD, 0), status=status)


def record(classes: list[Machine], tests: Path, folder: Path, *options: str) -> None:
    """Build the models under each class, from an empty cache, and record a baseline.

    Raises:
        CompressError: if a recording does not succeed.
    """
    for machine in classes:
        print(f"recording under {machine.name}", flush=True)
        (folder / machine.name).mkdir()
        baselines = f"--compress-baselines={folder / machine.name}"
        status, text = run(machine, tests, folder, baselines, "--benchmark-save=portability", *options)
        if status != 0:
            raise CompressError(f"the recording under {machine.name} ended with status {status}: {text[-2000:]}")


def matrix(classes: list[Machine], tests: Path, folder: Path, *options: str, worsened: str = "") -> Cells:
    """(recorded under, compared under) to what that came to."""
    cells = {}
    if worsened:
        options = (*options, "-k", WORSENED[worsened])
        print(f"made worse on purpose: {worsened}", flush=True)
    for recorded in classes:
        for now in classes:
            cell = compared(now, recorded, tests, folder, *options, worsened=worsened)
            cells[recorded.name, now.name] = cell
            print(f"recorded under {recorded.name}, compared under {now.name}: {cell}", flush=True)
    return cells


def render(classes: list[Machine], matrices: Mapping[str, Cells], command: str) -> str:
    """The matrices as Markdown, with the command that made them.

    Args:
        classes: in the order of rows and columns.
        matrices: by how the models were made worse, "" for as they are.
        command: stands above them.
    """
    names = [machine.name for machine in classes]
    heads = ["recorded under", *(f"compared under `{name}`" for name in names)]
    parts = ["# The gate over classes of machine", f"`{command}`"]
    for worsened, cells in matrices.items():
        parts.append(f"## Made worse on purpose: {worsened}" if worsened else "## The models as they are")
        rows = [[f"`{row}`", *(str(cells[row, column]) for column in names)] for row in names]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows)))
    return "\n\n".join(parts) + "\n"


def is_as_it_should_be(worsened: str, cells: Cells) -> bool:
    """Nothing red as the models are, and every cell of worse ones; no run that came to anything else."""
    return all(cell.status in (0, 1) and bool(cell.red) == bool(worsened) for cell in cells.values())


def main() -> int:
    """Print the matrices; 0 if nothing is red, or, of worsened models, every cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", default=[], help="only these, as avx2-AVX2")
    parser.add_argument("--no-times", action="store_true", help="leave times out, but for models that sleep")
    parser.add_argument("--worsened", nargs="+", choices=WORSENED, default=[], help="how the models are made worse")
    parser.add_argument("--output", type=Path, help="write the matrices to this file too")
    parser.add_argument("options", nargs="*", help="for pytest, after --, such as --compress-train-dense")
    options = parser.parse_args()
    times = ("--ignore-glob=*test_latency.py",) if options.no_times else ()
    try:
        classes = machines(options.classes)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tests = project(folder)
            record(classes, tests, folder, *times, *options.options)
            matrices = {"": matrix(classes, tests, folder, *times, *options.options)}
            for worsened in options.worsened:
                matrices[worsened] = matrix(classes, tests, folder, *options.options, worsened=worsened)
        text = render(classes, matrices, f"python benchmarks/portability.py {' '.join(sys.argv[1:])}")
        print(f"\n{text}", end="")
        if options.output:
            write_atomically(options.output, text.encode(), CompressError)
    except CompressError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(is_as_it_should_be(worsened, cells) for worsened, cells in matrices.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
