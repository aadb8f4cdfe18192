"""``doctor``: what can be measured on this machine, what not and why, and whether it is quiet enough for times."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from compress.commands.arguments import add_json, positive_count, positive_seconds, print_json

if TYPE_CHECKING:
    from compress.selfcheck.quiet import Quietness

# Apart from "could not" (1) and a command line that makes no sense (2), as selfcheck has it.
NOISY = 3

PACKAGE = "pytest-compress"
_VERSIONS = (PACKAGE, "torch", "torchvision", "torchao", "onnxruntime", "pytest", "pytest-benchmark", "numpy", "scipy")
_FOR_DEVELOPERS = ("comparison", "dev", "docs", "plugins", "test", "zoo")
_DESCRIPTION = """\
Show versions, the class of this machine's processor, what can be measured here and what not and why, and which extras
are not installed. Then time one network against itself for 30 seconds, as a gated test would: on a quiet machine it
comes out as fast as itself.
"""


@dataclass(frozen=True, kw_only=True)
class Ability:
    """Something that this package can do where the machine and what is installed allow it.

    Attributes:
        what: a metric, a technique, a runtime.
        works: whether it does here.
        note: how, or why not.
    """

    what: str
    works: bool
    note: str


def add_doctor_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``doctor``."""
    parser = commands.add_parser(
        "doctor",
        help="show what can be measured on this machine, and whether it is quiet enough for times",
        description=_DESCRIPTION,
        epilog=f"exit status: 0; {NOISY} if this machine is not quiet enough to hold times on, 1 if that could not be"
        " measured",
    )
    parser.set_defaults(run=_doctor)
    add = parser.add_argument
    add("--seconds", metavar="S", type=positive_seconds, default=30.0, help="how long to time (default: 30)")
    add("--threads", metavar="N", type=positive_count, default=1, help="CPU threads of the network (default: 1)")
    add("--no-timing", action="store_true", help="leave the timing out")
    add_json(parser)


def _doctor(options: argparse.Namespace) -> int:
    """Find out, print, and say by the exit status whether times can be held here."""
    found = versions()
    can = list(abilities(options.threads))
    extras = missing_extras()
    if not options.json:
        print(_facts(found, can, extras), end="", flush=True)
    quiet = None if options.no_timing else _quietness(options.seconds, options.threads)
    if options.json:
        timing = None if quiet is None else {**asdict(quiet), "quiet": quiet.quiet}
        print_json(
            {
                "versions": found,
                "machine": machine(options.threads),
                "abilities": [asdict(one) for one in can],
                "missing_extras": extras,
                "timing": timing,
            }
        )
    elif quiet is not None:
        print(f"\n{in_words(quiet)}")
    return NOISY if quiet is not None and not quiet.quiet else 0


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that figures depend on; None of what is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _VERSIONS}}


def machine(threads: int) -> dict[str, str | int | float | None]:
    """The processor and its class, cores, load and GPU."""
    import torch

    from compress.system.cpu import cpu_class, cpu_name

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_class": cpu_class(threads),
        "cores": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def abilities(threads: int) -> Iterator[Ability]:
    """What works here, a metric, a technique or a runtime each."""
    import torch

    from compress.measure.memory import why_no_cpu_memory
    from compress.system.cpu import cpu_class, has_bfloat16, has_vnni

    has_cuda = torch.cuda.is_available()
    no_cuda = "torch sees no CUDA device"
    yield Ability(what="parameters, MACs, bytes, errors, live tensors", works=True, note="exact on every machine")
    yield Ability(what="CPU time", works=True, note=f"as a ratio, under the class {cpu_class(threads)}")
    why = why_no_cpu_memory()
    yield Ability(what="CPU memory", works=why is None, note=why or "in a fresh process")
    yield Ability(what="CUDA time and memory", works=has_cuda, note="on the current device" if has_cuda else no_cuda)
    yield _needing("CUDA clocks and other users of the GPU", "cuda", has_cuda, no_cuda)
    yield _needing("int8", "quantization")
    fast = "this processor has the instructions" if has_vnni() else "this processor lacks them: no faster than float"
    yield Ability(what="int8 faster than float (VNNI)", works=has_vnni(), note=fast)
    fast = "this processor has the instructions" if has_bfloat16() else "this processor lacks them: training in float32"
    yield Ability(what="bfloat16 in training", works=has_bfloat16(), note=fast)
    compiler = _compiler()
    note = compiler or "no C++ compiler: install g++ or clang, or set CXX"
    yield Ability(what="runtimes inductor, aotinductor", works=compiler is not None, note=note)
    yield _needing("runtime onnxruntime", "onnx")
    yield _needing("runtime openvino", "openvino")
    yield _needing("runtime executorch", "executorch")
    yield _needing("sweep", "sweep")


def missing_extras() -> dict[str, list[str]]:
    """Extra to what it still needs; those of which all is installed, and those of developers, are left out."""
    try:
        names = importlib.metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {extra: lacking for extra in names if extra not in _FOR_DEVELOPERS and (lacking := _lacking(extra))}


def in_words(quiet: Quietness) -> str:
    """What the timing says, in a sentence or two."""
    spans = ", ".join(f"x{low:.3f} to x{high:.3f}" for low, high in quiet.processes)
    measured = (
        f"timing: a network of {quiet.latency_ms:.3g} ms against itself came out at x{quiet.ratio:.3f}"
        f" (in each process: {spans})"
    )
    if quiet.quiet:
        return f"{measured}.\nQuiet enough: the gate can tell a model from one that is 5 % slower."
    return (
        f"{measured}.\nNOT quiet enough: these reach beyond x{quiet.bound:.3f}, where the gate draws its line, so it"
        " would leave times undecided. Stop what else runs, or give it more time with --compress-seconds."
    )


def _facts(found: Mapping[str, str | None], can: list[Ability], extras: Mapping[str, list[str]]) -> str:
    """Everything but the timing, in three blocks."""
    lines = ["versions"]
    lines += [f"  {name:20} {version or '- (not installed)'}" for name, version in found.items()]
    lines += ["", "machine"]
    lines += [f"  {name:20} {'-' if value is None else value}" for name, value in machine(1).items()]
    lines += ["", "what works here"]
    lines += [f"  {'yes' if one.works else 'NO':4} {one.what}: {one.note}" for one in can]
    if extras:
        lines += ["", "extras that are not complete"]
        lines += [f"  pip install '{PACKAGE}[{name}]'  (lacks {', '.join(lacks)})" for name, lacks in extras.items()]
    return "\n".join([*lines, ""])


def _quietness(seconds: float, threads: int) -> Quietness:
    from compress.measure.children import Conditions
    from compress.selfcheck.quiet import measure_quietness
    from compress.workload.workload import load_workload

    workload = load_workload("digits")
    conditions = Conditions(
        model_factory=workload.model_factory,
        model_args=workload.model_args,
        example_input=workload.example_input,
        threads=threads,
    )
    if sys.stderr.isatty():
        print(f"timing for {seconds:g} s ...", file=sys.stderr)
    return measure_quietness(workload.build().eval(), conditions, seconds=seconds)


def _needing(what: str, extra: str, works: bool = True, why: str = "") -> Ability:  # noqa: FBT001, FBT002 - private
    """Something that an extra brings."""
    lacking = _lacking(extra)
    if lacking:
        return Ability(what=what, works=False, note=f"lacks {', '.join(lacking)}: pip install '{PACKAGE}[{extra}]'")
    return Ability(what=what, works=works, note="installed" if works else why)


def _lacking(extra: str) -> list[str]:
    """What the extra asks for that is not installed, or too old."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires(PACKAGE) or []]
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    wanted = [
        one for one in requirements if one.marker and one.marker.evaluate({"extra": extra}) and one.name != PACKAGE
    ]
    return [
        f"{one.name}{one.specifier}"
        for one in wanted
        if not (version := _version(one.name)) or not one.specifier.contains(version, prereleases=True)
    ]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler() -> str | None:
    """The C++ compiler that Inductor would take; None if there is none."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return get_cpp_compiler()
    # Whatever it raises, it found none.
    except Exception:  # noqa: BLE001
        return None
