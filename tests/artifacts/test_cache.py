from __future__ import annotations

import importlib
import sys

import pytest
from torch import nn

from compress import models
from compress.artifacts import artifact, cache
from compress.artifacts.cache import cache_path, cached_model
from compress.errors import ArtifactError
from compress.pruning.unstructured import prune_weights
from compress.system.files import cache_folder
from tests.workloads import tiny_net


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pytest-compress"


def never() -> nn.Module:
    """What must not be called."""
    raise AssertionError("made again")


def test_the_folder_is_made_where_the_user_says(folder):
    """``XDG_CACHE_HOME`` moves the cache, and the folder is there once a path in it is asked for."""
    assert cache_folder() == folder
    cache_path("name", {}, ())
    assert folder.is_dir()


def test_a_folder_that_cannot_be_made_is_named(folder):
    """A file in the folder's place is one sentence, not a traceback."""
    folder.write_bytes(b"")
    with pytest.raises(ArtifactError, match=f"^cannot make the cache folder {folder}: File exists$"):
        cache_path("name", {}, ())


def test_equal_ingredients_have_one_path_in_any_order(folder):
    """Neither the order of settings nor that of sources matters; the path can be read by people."""
    first = cache_path("tiny: 20 %", {"a": 1, "b": [2.5]}, (models, tiny_net))
    assert first == cache_path("tiny: 20 %", {"b": [2.5], "a": 1}, (tiny_net, models))
    assert first.parent == folder
    assert first.name.startswith("tiny--20---")


@pytest.mark.parametrize("ingredients", [{"a": 2}, {"a": "1"}, {"a": 1, "b": None}, {}])
def test_another_ingredient_has_another_path(ingredients):
    """A setting that changes, changes its type, comes or goes leads elsewhere."""
    assert cache_path("name", ingredients, ()) != cache_path("name", {"a": 1}, ())


def test_another_torch_has_another_path(monkeypatch):
    """What an older release of torch computed is not taken for what this one would."""
    path = cache_path("name", {}, ())
    monkeypatch.setattr(cache.torch, "__version__", "0.1")
    assert cache_path("name", {}, ()) != path


def test_changed_source_code_has_another_path(tmp_path, monkeypatch):
    """Editing a function's own file, or any file of a package however deep, leads elsewhere; nothing else does."""
    package = tmp_path / "sourced"
    (package / "deep").mkdir(parents=True)
    for file in ("__init__.py", "deep/__init__.py", "deep/part.py", "deep/other.py"):
        (package / file).write_text("def function(): ...\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    part = importlib.import_module("sourced.deep.part")

    def paths():
        return [cache_path("name", {}, [source]) for source in (sys.modules["sourced"], part.function)]

    first = paths()
    assert paths() == first
    (package / "deep/other.py").write_text("def function(): return 1\n", encoding="utf-8")
    second = paths()
    assert second[0] != first[0]
    assert second[1] == first[1]
    (package / "deep/part.py").write_text("def function(): return 1\n", encoding="utf-8")
    third = paths()
    assert third[0] != second[0]
    assert third[1] != second[1]


def test_a_model_is_made_once(folder):
    """The second time the file is read; both times the model is the same, and of the factory's type."""
    path = cache_path("name", {}, ())
    made = tiny_net()
    first = cached_model(path, tiny_net, lambda: made)
    second = cached_model(path, tiny_net, never)
    assert artifact.digest(first) == artifact.digest(second) == artifact.digest(made)
    assert list(folder.iterdir()) == [path]


def test_the_first_run_returns_what_the_next_will_load():
    """Masks are permanent in the model that was just made too, so that two runs cannot differ."""
    path = cache_path("name", {}, ())
    first = cached_model(path, tiny_net, lambda: prune_weights(tiny_net(), 0.5))
    assert "weight_mask" not in first.classifier._buffers
    assert int((first.classifier.weight == 0).sum()) == 15


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_a_damaged_file_is_made_anew(content):
    """A file that cannot be read costs time, never a result."""
    path = cache_path("name", {}, ())
    path.write_bytes(content)
    made = tiny_net()
    assert artifact.digest(cached_model(path, tiny_net, lambda: made)) == artifact.digest(made)
    cached_model(path, tiny_net, never)


def test_nothing_is_kept_of_what_failed(folder):
    """An error while making passes through and leaves no file behind."""
    with pytest.raises(AssertionError, match="made again"):
        cached_model(cache_path("name", {}, ()), tiny_net, never)
    assert not list(folder.iterdir())


def test_a_quantized_model_is_kept(tmp_path, tiny_int8):
    """It is made once, and comes back as a quantized model with the same bytes."""
    path = tmp_path / "int8.safetensors"
    made = []

    def make() -> nn.Module:
        made.append(1)
        return tiny_int8.model

    first, second = (cached_model(path, tiny_net, make) for _ in range(2))
    assert made == [1]
    assert type(second) is type(tiny_int8.model)
    assert artifact.digest(first) == artifact.digest(second) == artifact.digest(tiny_int8.model)
    assert second.report == tiny_int8.report
