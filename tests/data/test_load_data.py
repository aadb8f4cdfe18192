from __future__ import annotations

import pytest

from compress import data
from compress.data import load_data
from compress.errors import ConfigError, DataError


def test_a_name_finds_its_data_set():
    """The spec "digits" is the embedded digits."""
    assert load_data("digits").name == "digits"


def test_a_folder_is_named_by_its_path(tmp_path, monkeypatch):
    """What follows "imagefolder:" is the folder, colons and all."""
    seen = []
    monkeypatch.setattr(data, "image_folder", seen.append)
    load_data(f"imagefolder:{tmp_path}/a:b")
    assert seen == [f"{tmp_path}/a:b"]


def test_a_missing_folder_is_a_data_error(tmp_path):
    """A folder that is not there is named."""
    with pytest.raises(DataError, match="nowhere/train"):
        load_data(f"imagefolder:{tmp_path}/nowhere")


@pytest.mark.parametrize("spec", ["mnist", "", "imagefolder:", "imagefolder", "Digits"])
def test_an_unknown_name_lists_the_known_ones(spec):
    """What names nothing is refused with everything that can be named."""
    with pytest.raises(ConfigError, match=r"one of digits, cifar10, cifar100, imagefolder:DIR, got '"):
        load_data(spec)
