from __future__ import annotations

import pytest
import torch

from compress.data.storage import load_tensors, save_tensors
from compress.errors import ArtifactError, DataError


def test_tensors_come_back_as_they_were(tmp_path):
    """Types, shapes, values and metadata survive, the order of memory and missing folders do not matter."""
    tensors = {
        "bytes": torch.arange(6, dtype=torch.uint8).reshape(2, 3).t(),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 2),
    }
    path = tmp_path / "deep" / "file.safetensors"
    save_tensors(path, tensors, {"key": "value"}, DataError)
    loaded, metadata = load_tensors(path, DataError)
    assert metadata == {"key": "value"}
    assert {name: (value.dtype, value.tolist()) for name, value in loaded.items()} == {
        name: (value.dtype, value.tolist()) for name, value in tensors.items()
    }


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04pickle", b"\xff" * 64])
def test_what_cannot_be_read_is_the_error_asked_for(content, tmp_path):
    """A missing, empty or foreign file raises the caller's kind of error and names the file."""
    path = tmp_path / "file.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cannot read .*file\.safetensors"):
        load_tensors(path, ArtifactError)


def test_what_cannot_be_written_is_the_error_asked_for(tmp_path):
    """A folder that cannot be made raises the caller's kind of error and names the file."""
    (tmp_path / "taken").touch()
    with pytest.raises(DataError, match=r"cannot write .*taken/file"):
        save_tensors(tmp_path / "taken" / "file", {}, {}, DataError)
