"""Try structured pruning on many networks, and write docs/coverage.md.

    python benchmarks/coverage.py                            every family, with what was measured before kept
    python benchmarks/coverage.py --family timm --jobs 2     one family, two networks at a time
    python benchmarks/coverage.py --only resnet18 --compare  one network, and Torch-Pruning beside it

Each network runs in a fresh process of its own, with a time limit, after a tiny network has warmed it up. Results go to
a JSON file; what stands there already is not measured again.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks is no installed package

from benchmarks.coverage_models import FAMILIES, names_of
from compress.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RATIO = 0.2
THREADS = 2
_LARGE = 100e6
_QUICK_S = 1.5
_ENDS = ("model output", "fed by values without channel labels", "not used by the forward pass", "put out by no layer")

_PREFACE = f"""# Coverage of structured pruning

What `prune_channels` makes of each network at `pruning_ratio` {RATIO}, importance l1, weights random; written by
`python benchmarks/coverage.py --compare`.

- **left**: parameters after / before. **s**: seconds to trace, cut, verify and build, with {THREADS} threads, one
  network at a time.
- **batch**, **size**: whether the pruned network runs at another batch size and image size than it was traced on;
  *fixed* where the dense network does not either.
- **stays whole**: groups of channels kept for another reason than being the network's input or output.
- **T-P**: Torch-Pruning in the same run, where it was asked for.
"""

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the table."""
    options = _parser().parse_args(arguments)
    results: dict[str, Row] = json.loads(options.results.read_text()) if options.results.exists() else {}
    tools = ["compress", *(["torch_pruning"] if options.compare else [])]
    jobs = [
        (tool, family, name)
        for family in options.family or FAMILIES
        for name in names_of(family)
        if not options.only or name in options.only
        for tool in tools
        if options.again or f"{tool} {family} {name}" not in results
    ]
    with Progress(console=Console(stderr=True)) as progress, ThreadPoolExecutor(options.jobs) as pool:
        task = progress.add_task("networks", total=len(jobs))
        for key, row in pool.map(lambda job: _measured(*job, limit=options.limit), jobs):
            results[key] = row
            progress.update(task, advance=1, description=key)
            write_atomically(options.results, json.dumps(results, indent=1, sort_keys=True).encode(), OSError)
    write_atomically(options.output, markdown(results).encode(), OSError)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this family; may be repeated")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this network; may be repeated")
    parser.add_argument("--compare", action="store_true", help="Torch-Pruning too (the extra 'comparison')")
    parser.add_argument("--again", action="store_true", help="measure also what the results hold already")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time; times are honest only with 1")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a network may take (default %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "coverage.json", help="default %(default)s")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "coverage.md", help="default %(default)s")
    return parser


# A process of each network's own, with the memory of none before it, but with the libraries imported once.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch._dynamo", "torchvision", "timm", "torch_pruning", "compress.pruning.structured", "compress.channels.rules"]
)


def _measured(tool: str, family: str, name: str, *, limit: float) -> tuple[str, Row]:
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_child, args=(sender, tool, family, name), daemon=True)
    process.start()
    sender.close()
    try:
        row: Row = receiver.recv() if receiver.poll(limit) else {"error": f"more than {limit:g} s"}
    except EOFError:
        row = {"error": "the process died, perhaps for want of memory"}
    process.kill()
    process.join()
    return f"{tool} {family} {name}", row


def _child(sender: Connection, tool: str, family: str, name: str) -> None:
    gc.freeze()  # or a collection would copy every page of the parent that it walks
    warnings.simplefilter("ignore")
    try:
        row = _row(tool, family, name)
    except Exception as error:  # noqa: BLE001 - whatever a network or a tool raises is the finding
        row = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    sender.send(row)


def _row(tool: str, family: str, name: str) -> Row:
    import torch  # noqa: PLC0415 - the parent does without

    from benchmarks.coverage_models import Subject, subject  # noqa: PLC0415

    torch.set_num_threads(THREADS)
    prune: Callable[[Subject], tuple[Any, Row]] = {"compress": _by_compress, "torch_pruning": _by_torch_pruning}[tool]
    tiny = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    prune(Subject(model=tiny, example=(torch.zeros(1, 3, 8, 8),), others={}))
    one = subject(family, name)
    before = sum(parameter.numel() for parameter in one.model.parameters())
    # What else differs from a plain run is torch's own first time.
    runs = {what: tool == "compress" and _runs(one.model, inputs) for what, inputs in one.others.items()}
    started = time.perf_counter()
    smaller, row = prune(one)
    row |= {"seconds": time.perf_counter() - started}
    row |= {"parameters": before, "left": sum(parameter.numel() for parameter in smaller.parameters())}
    if tool == "compress":
        row |= {what: _runs(smaller, one.others[what]) if may is True else "fixed" for what, may in runs.items()}
    return row


def _runs(model: Any, inputs: tuple[Any, ...]) -> bool | str:
    import torch  # noqa: PLC0415 - the parent does without

    try:
        with torch.no_grad():
            model(*inputs)
    except Exception as error:  # noqa: BLE001 - whatever a network raises is the finding
        return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
    return True


def _by_compress(one: Any) -> tuple[Any, Row]:
    from compress.pruning.structured import apply_plan, plan_pruning  # noqa: PLC0415 - the parent does without torch

    plan = plan_pruning(one.model, one.example, RATIO)
    reasons = Counter(_short(group.frozen) for group in plan.groups if group.frozen)
    groups = Counter("frozen" if g.frozen else "pruned" if g.kept < g.channels else "kept" for g in plan.groups)
    attributes = sorted({f"{repair.attribute}" for repair in plan.repairs})
    row = {"frozen": dict(reasons), "groups": dict(groups), "repairs": attributes}
    return apply_plan(one.model, plan), row


def _short(reason: str) -> str:
    """A reason without the layer, which differs from network to network."""
    return re.sub(r"(, layer|\(layer) '[^']*'\)?", "", reason).replace("(aten.", "(").rstrip(" )") + (
        ")" if "(aten." in reason else ""
    )


def _by_torch_pruning(one: Any) -> tuple[Any, Row]:
    import torch  # noqa: PLC0415 - the parent does without
    import torch_pruning as tp  # noqa: PLC0415 - an extra

    # As its own examples do it: the classifier keeps its outputs.
    last = [module for module in one.model.modules() if getattr(module, "out_features", 0) == 1000]  # noqa: PLR2004
    example = one.example[0] if len(one.example) == 1 and isinstance(one.example[0], torch.Tensor) else one.example
    pruner = tp.pruner.BasePruner(
        one.model,
        example,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=RATIO,
        ignored_layers=last,
    )
    pruner.step()
    return one.model, {}


def markdown(results: dict[str, Row]) -> str:
    """The results as a document."""
    lines = [_PREFACE]
    for family in FAMILIES:
        rows = {key.split(" ")[2]: row for key, row in results.items() if key.startswith(f"compress {family} ")}
        if rows:
            theirs = {name: results.get(f"torch_pruning {family} {name}") for name in rows}
            lines += _section(family, rows, theirs)
    return "\n".join(lines)


def _section(family: str, rows: dict[str, Row], theirs: dict[str, Row | None]) -> list[str]:
    lines = [f"## {family}", "", _summary(rows, theirs), ""]
    lines += ["| network | parameters | left | s | batch | size | stays whole | T-P left | T-P s |"]
    lines += ["| --- | ---: | ---: | ---: | --- | --- | --- | ---: | ---: |"]
    lines += [_line(name, row, theirs[name]) for name, row in sorted(rows.items())]
    return [*lines, ""]


def _line(name: str, row: Row, other: Row | None) -> str:
    if "error" in row:
        return f"| {name} | | | | | | {_cell(row['error'])} | {_their(other)} |"
    whole = "; ".join(f"{count}x {reason}" for reason, count in _inner(row["frozen"]).items())
    return (
        f"| {name} | {row['parameters']:,} | {row['left'] / row['parameters']:.3f} | {row['seconds']:.2f} "
        f"| {_runs_cell(row.get('batch'))} | {_runs_cell(row.get('size'))} | {_cell(whole)} | {_their(other)} |"
    )


def _inner(frozen: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in frozen.items() if not reason.startswith(_ENDS)}


def _runs_cell(value: object) -> str:
    return "" if value is None else "yes" if value is True else _cell(str(value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _their(row: Row | None) -> str:
    if row is None:
        return " | "
    if "error" in row:
        return f"{_cell(row['error'][:60])} | "
    return f"{row['left'] / row['parameters']:.3f} | {row['seconds']:.2f}"


def _summary(rows: dict[str, Row], theirs: dict[str, Row | None]) -> str:
    done = {name: row for name, row in rows.items() if "error" not in row}
    if not done:
        return f"None of {len(rows)} networks was pruned."
    seconds = {name: row["seconds"] for name, row in done.items()}
    slowest = ", ".join(f"{name} {seconds[name]:.1f}" for name in sorted(seconds, key=lambda n: -seconds[n])[:5])
    small = [seconds[name] for name, row in done.items() if row["parameters"] < _LARGE]
    text = (
        f"{len(done)} of {len(rows)} networks pruned; median {median(seconds.values()):.2f} s; slowest: {slowest}. "
        f"Under 100 M parameters {sum(s <= _QUICK_S for s in small)} of {len(small)} took at most {_QUICK_S} s. "
        f"{_runs_count(done, 'batch')} {_runs_count(done, 'size')}"
    )
    tried = {name: row for name, row in theirs.items() if row is not None}
    both = [name for name, row in tried.items() if "error" not in row and name in done]
    if both:
        ours, other = (sum(one[name]["seconds"] for name in both) for one in (done, tried))
        text += (
            f" Torch-Pruning pruned {len([row for row in tried.values() if 'error' not in row])} of {len(tried)}; over"
            f" the {len(both)} that both did it took {other:.1f} s in sum, this {ours:.1f} s: {other / ours:.1f} times"
            " as long."
        )
    return text


def _runs_count(rows: dict[str, Row], what: str) -> str:
    asked = [row[what] for row in rows.values() if row.get(what, "fixed") != "fixed"]
    return f"At another {what} run {_count(asked)} of {len(asked)}." if asked else ""


def _count(values: Iterable[object]) -> int:
    return sum(value is True for value in values)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
