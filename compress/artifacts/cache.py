"""Trained and compressed models, kept between runs under a hash of everything that determines them."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from compress.artifacts import artifact
from compress.errors import ArtifactError
from compress.exported import ExportedModel
from compress.modules.fingerprint import fingerprint
from compress.system.files import made_cache_folder


def cache_path(name: str, ingredients: Mapping[str, Any], sources: Iterable[ModuleType | Callable[..., Any]]) -> Path:
    """Where a model made from ``ingredients`` by the code in ``sources`` is kept; another of either, another path.

    Args:
        name: for the eyes of who looks into the folder.
        ingredients: settings and digests, of types that JSON knows.
        sources: modules, packages and functions whose source code the model depends on.
    """
    recipe = {
        **ingredients,
        "torch": torch.__version__,
        "python": sys.version_info[:2],
        "sources": sorted(_source_digest(source) for source in sources),
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()
    readable = "".join(character if character.isalnum() else "-" for character in name)[:60]
    return made_cache_folder(ArtifactError) / f"{readable}-{digest[:16]}.safetensors"


def cached_model(path: Path, build: Callable[[], nn.Module], make: Callable[[], nn.Module]) -> nn.Module:
    """The model at ``path``, or, if there is none that can be read, what ``make`` returns, which is then kept there.

    Args:
        path: from :func:`cache_path`.
        build: the network before it was compressed, into which the file is loaded.
        make: makes the model anew; may take hours.
    """
    if path.exists():
        try:
            return artifact.load(path, build)
        except ArtifactError:
            # A cache may be damaged or from a release with another format: making it anew loses nothing.
            path.unlink(missing_ok=True)
    model = make()
    artifact.save(model, path)
    # What the next run will load is what this run returns: masks made permanent, and nothing else attached.
    loaded = artifact.load(path, build)
    # But of two equal graphs the one at hand, which may have been compiled already.
    if isinstance(model, ExportedModel) and fingerprint(model) == fingerprint(loaded):
        return model
    return loaded


def _source_digest(source: ModuleType | Callable[..., Any]) -> str:
    """Digest of the file ``source`` is written in; of all files for a package."""
    try:
        file = inspect.getsourcefile(source)
    except TypeError:  # built into Python or torch
        file = None
    if file is None:
        return repr(source)
    path = Path(file)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
