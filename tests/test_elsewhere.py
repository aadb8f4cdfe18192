"""On a system without fcntl, process groups, /proc and the like: simulated, for no such machine is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import compress

ROOT = Path(compress.__file__).parents[1]

HIDING = """
import os, sys
import psutil  # has one implementation for each system, and this is Linux's

for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("killpg", "sched_getaffinity", "fchmod", "fork", "getloadavg", "setsid", "getpgid"):
    if hasattr(os, name):
        delattr(os, name)
real_access = os.access
os.access = lambda path, *args, **kwargs: "/proc/" not in str(path) and real_access(path, *args, **kwargs)
"""

IMPORTS = """
import importlib, pkgutil, warnings
import compress, compress.pytest_plugin
assert "torch" not in sys.modules
for module in pkgutil.walk_packages(compress.__path__, "compress."):
    # The last one is no module of the package's own: it goes out with a model, and reads what lies beside it.
    if not module.name.endswith("__main__") and module.name != "compress.deploy.run":
        importlib.import_module(module.name)
"""

MEASURES = """
from pathlib import Path
from compress.gate.lock import locked
from compress.measure import latency, memory, size
from compress.measure.children import Children, Conditions
from compress.errors import MeasureError
from tests.workloads import tiny_workload

workload = tiny_workload()
model = workload.build().eval()
conditions = Conditions(
    model_factory=workload.model_factory, model_args=workload.model_args, example_input=workload.example_input
)
assert size.num_params(model, model).ratio == 1
with Children(1) as children:
    measured = latency.cpu_latency(model, model, conditions, effort=latency.Effort(seconds=0.01), children=children)
assert measured.compressed > 0 and not measured.notes, measured.notes
try:
    memory.cpu_memory(model, model, conditions)
except MeasureError as error:
    print(error)
with locked(Path(sys.argv[1])):
    pass
"""


def run(tmp_path, *parts):
    """The parts as one program of a process of its own, after what hides the system."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", "\n".join((HIDING, *parts)), str(tmp_path / "file.json")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_can_be_imported(tmp_path):
    """The package, the plugin without torch, and then all that there is."""
    assert not run(tmp_path, IMPORTS)


def test_all_is_measured_but_cpu_memory_which_says_why(tmp_path):
    """Counts, times in fresh processes and the lock work; memory is not measured, with the reason."""
    said = run(tmp_path, MEASURES)
    assert said.startswith("CPU memory needs /proc/self/clear_refs, by which Linux sets a process's peak back; this")
    assert said.count("\n") == 1
