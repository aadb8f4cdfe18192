"""Try this package on many networks, and write docs/coverage.md.

    python benchmarks/coverage.py                            every family that is installed, what was measured kept
    python benchmarks/coverage.py --family timm --jobs 2     one family, two networks at a time
    python benchmarks/coverage.py --only resnet18 --compare  one network, and Torch-Pruning beside it
    python benchmarks/coverage.py --tool int8 --only bert    one network, and one thing done to it

Torchvision's and timm's networks are pruned; those of the zoo (the extra 'zoo') are exported, quantized and factorized
too, unless --tool says what is to be done. Each network runs in a fresh process of its own, with a time limit. Results
go to a JSON file; what stands there already is not measured again.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks is no installed package

from benchmarks.coverage_models import FAMILIES, is_installed, module_of, names_of
from benchmarks.coverage_table import markdown
from benchmarks.zoo_models import ZOO
from compress.system.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
# What is done to a network. Those that are not small are pruned, unless more is asked for.
TOOLS = ("compress", "exports", "int8", "factorizes", "torch_pruning")

_PREFACE = """# Coverage

What this package makes of each network, its weights random; written by `python benchmarks/coverage.py --compare`.
First of `prune_channels` at `pruning_ratio` 0.2, importance l1:

- **left**: parameters after / before. **s**: seconds of processor time, in one thread, to trace, cut, verify and build:
  what else the machine does has little part in it.
- **equal**: whether the pruned network puts out what the dense one does with zeros in place of all that was removed, to
  1e-5 of the largest output; in float64 where rounding to float32 makes a detector choose other places. **batch**,
  **size**: the same at another batch, and at another size of image or length of sequence, than it was traced on;
  *fixed* where the dense network does not run there either.
- **trains**: a forward and a backward pass in train mode. **loads**: saved and loaded, its outputs are the same bit for
  bit, and a causal model generates the same tokens, with a cache and without.
- **stays whole**: groups of channels kept for another reason than being the network's input or output.

Then of the network as it was:

- **exports**: to a `.pt2` file, equal at two batch sizes.
- **int8**: int8 kernels that run (layers in int8, of all there are). **dB**: signal-to-noise ratio of the int8 model's
  outputs against the network's own, at batches 1 and 3.
- **factorized**: parameters after / before, at a quarter of each layer's ranks.
- **T-P**: Torch-Pruning at its defaults, told which outputs count, where it was asked for; an error too if what it made
  does not run.

What stands empty was not measured. A row without *equal* is older: its seconds are those of a clock, with 2 threads.
"""

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the table."""
    options = _parser().parse_args(arguments)
    results: dict[str, Row] = json.loads(options.results.read_text()) if options.results.exists() else {}
    families = options.family or [family for family in FAMILIES if is_installed(family)]
    # Once for all of their processes.
    _CONTEXT.set_forkserver_preload([*_PRELOADED, *map(module_of, families)])
    jobs = [
        (tool, family, name)
        for family in families
        for name in names_of(family)
        if not options.only or name in options.only
        for tool in options.tool or _tools_for(family, compare=options.compare)
        if options.again or f"{tool} {family} {name}" not in results
    ]
    with Progress(console=Console(stderr=True)) as progress, ThreadPoolExecutor(options.jobs) as pool:
        task = progress.add_task("networks", total=len(jobs))
        for key, row in pool.map(lambda job: _measured(*job, options.threads, limit=options.limit), jobs):
            results[key] = row
            progress.update(task, advance=1, description=key)
            write_atomically(options.results, json.dumps(results, indent=1, sort_keys=True).encode(), OSError)
    before = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
    write_atomically(options.output, markdown(_PREFACE, FAMILIES, results, before).encode(), OSError)
    return 0


def _tools_for(family: str, *, compare: bool) -> list[str]:
    done = list(TOOLS[:-1]) if family in ZOO else ["compress"]
    return [*done, *(["torch_pruning"] if compare else [])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this family; may be repeated")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this network; may be repeated")
    parser.add_argument("--tool", action="append", choices=TOOLS, help="only this; may be repeated")
    parser.add_argument("--compare", action="store_true", help="Torch-Pruning too (the extra 'comparison')")
    parser.add_argument("--again", action="store_true", help="measure also what the results hold already")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each network (default %(default)s)")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a network may take (default %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "coverage.json", help="default %(default)s")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "coverage.md", help="default %(default)s")
    return parser


# A process of each network's own, with the memory of none before it, but with the libraries imported once.
_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ("torch._dynamo", "torch_pruning", "benchmarks.coverage_checks")


def _measured(tool: str, family: str, name: str, threads: int, *, limit: float) -> tuple[str, Row]:
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_child, args=(sender, tool, family, name, threads), daemon=True)
    process.start()
    sender.close()
    try:
        row: Row = receiver.recv() if receiver.poll(limit) else {"error": f"more than {limit:g} s"}
    except EOFError:
        row = {"error": "the process died, perhaps for want of memory"}
    process.kill()
    process.join()
    return f"{tool} {family} {name}", row


def _child(sender: Connection, tool: str, family: str, name: str, threads: int) -> None:
    gc.freeze()  # or a collection would copy every page of the parent that it walks
    warnings.simplefilter("ignore")
    # The parent does without torch.
    from benchmarks.coverage_checks import check  # noqa: PLC0415

    try:
        row = check(tool, family, name, threads)
    except Exception as error:  # noqa: BLE001 - whatever a network or a tool raises is the finding
        row = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    sender.send(row)


if __name__ == "__main__":
    sys.exit(main())
