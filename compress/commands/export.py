"""``export``: a saved model as a folder that runs where there is no PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.commands.models import WORKLOAD_HELP


def add_export_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``export``."""
    export = commands.add_parser(
        "export", help="write a model as a folder that runs without PyTorch", description=_export.__doc__
    )
    export.add_argument("file", type=Path, help="a model that compress.save or python -m compress run wrote")
    export.add_argument("--workload", metavar="SPEC", default="digits", help=f"{WORKLOAD_HELP} (default: digits)")
    export.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder, which must not exist yet")
    export.add_argument(
        "--runtime",
        metavar="NAME",
        default="onnxruntime",
        help="onnxruntime, openvino or executorch (default: onnxruntime)",
    )
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    """Write the model's file for a runtime, a program that needs that runtime and numpy alone, and a check.

    In the folder are also the names of the classes, what is done to pixels, ten test inputs with the outputs of the
    model in PyTorch, and a manifest with sizes and hashes.
    """
    from compress.artifacts.artifact import load
    from compress.deploy import export
    from compress.workload.workload import load_workload

    workload = load_workload(options.workload)
    model = load(options.file, workload.build).eval()
    manifest = export(model, workload, options.to, runtime=options.runtime)
    size = sum(file["bytes"] for file in manifest["files"].values())
    print(f"{options.to}: {manifest['model']} and {len(manifest['files'])} files, {size / 1e6:.2f} MB")
    if manifest["delegation"]:
        print(manifest["delegation"])
    print(f"there: pip install {' '.join(manifest['requires'])}; python {options.to.name}/run.py check")
