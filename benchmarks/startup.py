"""What the plugin adds to a pytest session that does not use it.

    python benchmarks/startup.py

A session of one empty test is timed with pytest alone, with pytest-benchmark, on which the plugin builds, and with the
plugin as well: all in turn, in fresh processes, so that a machine that drifts favours none.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROUNDS = 40

# The plugins of each session; no other that may be installed is loaded.
SESSIONS: Mapping[str, Sequence[str]] = {
    "pytest alone": (),
    "with pytest-benchmark": ("pytest_benchmark.plugin",),
    "with pytest-compress": ("pytest_benchmark.plugin", "compress.pytest_plugin"),
}


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_empty.py").write_text("def test_empty():\n    pass\n", encoding="utf-8")
        for plugins in SESSIONS.values():
            _seconds(folder, plugins)  # leaves compiled files behind for those that count
        times = [{name: _seconds(folder, plugins) for name, plugins in SESSIONS.items()} for _ in range(ROUNDS)]
    print(f"| a session of one empty test, {ROUNDS} times in turn | median | more than the line above, and quartiles |")
    print("| :-- | --: | --: |")
    previous = None
    for name in SESSIONS:
        median = statistics.median(one[name] for one in times)
        print(f"| {name} | {1e3 * median:.0f} ms | {_difference(times, previous, name) if previous else ''} |")
        previous = name


def _seconds(folder: str, plugins: Sequence[str]) -> float:
    options = [option for plugin in plugins for option in ("-p", plugin)]
    command = [sys.executable, "-m", "pytest", "-q", *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
    return time.perf_counter() - start


def _difference(times: Sequence[Mapping[str, float]], before: str, name: str) -> str:
    low, middle, high = statistics.quantiles([1e3 * (one[name] - one[before]) for one in times], n=4)
    return f"{middle:.0f} ms ({low:.0f} to {high:.0f})"


if __name__ == "__main__":
    main()
