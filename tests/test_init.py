from __future__ import annotations

import subprocess
import sys

import pytest

import compress

LIGHT = """
import sys
import compress
assert "prune_channels" in dir(compress)
heavy = sorted({"torch", "torchvision", "numpy", "scipy", "sklearn", "rich"} & sys.modules.keys())
assert not heavy, f"import compress brought in {heavy}"
compress.CompressError
assert "torch" not in sys.modules
compress.prune_weights
assert "torch" in sys.modules
"""


def test_importing_the_package_imports_no_torch():
    """A fresh process has no torch after ``import compress``, and has it after the first name that needs it."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_images_in_memory_need_no_torchvision():
    """A workload whose images lie in memory never imports it: that takes longer than the rest of the package."""
    code = (
        "import sys; from compress.workload.workload import load_workload;"
        "assert len(load_workload('digits').dataset.test);"
        "assert 'torchvision' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", compress.__all__)
def test_every_public_name_resolves(name):
    """A name in ``__all__`` is found, twice the same, in the module that it is said to be defined in."""
    value = getattr(compress, name)
    assert value is getattr(compress, name)
    assert value is getattr(sys.modules[compress._HOME[name]], name)
    assert value.__doc__


def test_all_lists_are_one():
    """The names offered, those that resolve and those shown by ``dir`` are the same, in order."""
    assert compress.__all__ == sorted(compress._HOME) == dir(compress)


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name fails as on any module."""
    with pytest.raises(AttributeError, match=r"^module 'compress' has no attribute 'prune_chanels'$"):
        _ = compress.prune_chanels
