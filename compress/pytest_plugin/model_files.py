"""``--compress-model`` and ``--compress-models``: models that come from files, and are held as what recipes make is.

Kept in every pytest session of its environment, so nothing here imports torch: what a file holds is found out once a
test asks for the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import ArtifactError, ConfigError, first_line
from compress.pytest_plugin.options import Settings, is_remote, named_file
from compress.system.files import made_cache_folder, write_atomically

_SUFFIXES = (".safetensors", ".pt2", ".onnx", ".pte")
# Under which alone such a file runs, where a recipe does not choose.
_RUNTIMES = {".onnx": "onnxruntime", ".pte": "executorch"}


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model that is measured as it stands in a file.

    Attributes:
        place: path or URL, as the user gave it.
        option: of the command line, that names it.
        recipe: whose limits hold it; None for a model that goes by its file's name and has none.
        built: whether the recipe's steps made it; where not, nobody knows what did.
    """

    place: str
    option: str
    recipe: Path | None
    built: bool

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return Path(self.place).name

    def runtime(self, stated: str) -> str:
        """What runs it, where the recipe states a runtime; "eager" is what one says that states none."""
        return _RUNTIMES.get(Path(self.place).suffix, stated) if stated == "eager" else stated

    def local(self) -> Path:
        """The file on this machine; one behind a URL is copied into the user's cache folder, anew each time.

        Raises:
            ArtifactError: if it cannot be read there, or written here.
        """
        if not is_remote(self.place):
            return Path(self.place)
        digest = hashlib.sha256(self.place.encode()).hexdigest()
        path = made_cache_folder(ArtifactError) / f"{digest[:16]}-{self.name}"
        write_atomically(path, _ask(self.place, "cat_file"), ArtifactError)
        return path


def model_files(settings: Settings, recipes: Sequence[Path]) -> dict[Path, ModelFile]:
    """The files that take the place of what recipes make, by the path that tests are made for; none without options.

    Args:
        settings: with the options.
        recipes: their files, of different names.

    Raises:
        ConfigError: if a file is missing, there are several for one recipe, or a name is that of no recipe.
    """
    if settings.models_folder is not None:
        return {recipe: _built(settings.models_folder, recipe) for recipe in recipes}
    known = {path.stem: path for path in recipes}
    files: dict[Path, ModelFile] = {}
    for given in settings.models:
        named, place = named_file(given)
        name = named or Path(place).stem
        recipe = known.get(name)
        if recipe is None and (named or settings.recipes_named):
            raise ConfigError(
                f"--compress-model must be NAME=FILE with the name of a recipe, one of {', '.join(known) or 'none'},"
                f" got {given!r}"
            )
        if name in [path.stem for path in files]:
            raise ConfigError(f"--compress-model must give one file for each name, got several for {name!r}")
        if not _exists(place):
            raise ConfigError(f"no model at {place} (--compress-model)")
        option = f"--compress-model={given}"
        files[recipe or Path(place)] = ModelFile(place=place, option=option, recipe=recipe, built=False)
    return files


def _built(folder: str, recipe: Path) -> ModelFile:
    """The one file of the recipe's name in the folder."""
    places = [f"{folder.rstrip('/')}/{recipe.stem}{suffix}" for suffix in _SUFFIXES]
    found = [place for place in places if _exists(place)]
    if len(found) != 1:
        raise ConfigError(
            f"--compress-models must hold one file for each recipe, for {recipe.stem} one of"
            f" {', '.join(Path(place).name for place in places)}, got"
            f" {' and '.join(Path(place).name for place in found) or 'none'} in {folder}"
        )
    return ModelFile(place=found[0], option=f"--compress-models={folder}", recipe=recipe, built=True)


def _exists(place: str) -> bool:
    return bool(_ask(place, "isfile")) if is_remote(place) else Path(place).is_file()


def _ask(url: str, what: str) -> Any:
    """What the file system of a URL says of it."""
    try:
        import fsspec  # comes with torch

        files, path = fsspec.core.url_to_fs(url)
        return getattr(files, what)(path)
    # Each file system has its own kinds of error, and those of its network.
    except Exception as cause:
        raise ArtifactError(f"cannot read {url}: {type(cause).__name__}: {first_line(cause)}") from cause
