from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image

from compress.data import TensorSplit, cifar, cifar10, cifar100
from compress.errors import DataError


def record(label_bytes: bytes, red: int, green: int, blue: int) -> bytes:
    """One image, each channel of one value but for its first pixel, which is 1, 2 and 3."""
    planes = [bytes([first]) + bytes([value]) * 1023 for first, value in ((1, red), (2, green), (3, blue))]
    return label_bytes + b"".join(planes)


def write_archive(path, members: dict[str, bytes]) -> None:
    """A gzipped tar of ``members``: name -> content."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


CIFAR100_MEMBERS = {
    "cifar-100-binary/fine_label_names.txt": b"apple\nbear\ncloud\n",
    "cifar-100-binary/coarse_label_names.txt": b"fruit\nother\n",
    "cifar-100-binary/train.bin": record(b"\x01\x02", 10, 20, 30) + record(b"\x00\x00", 40, 50, 60),
    "cifar-100-binary/test.bin": record(b"\x01\x01", 70, 80, 90),
}


def test_cifar100_records_are_read_by_their_fine_label(tmp_path, monkeypatch):
    """An archive that is there is read without a network: planes become channels, the second byte is the class."""
    path = tmp_path / "cifar-100-binary.tar.gz"
    write_archive(path, CIFAR100_MEMBERS)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()  # noqa: S324 - the sum that the archive is published under
    monkeypatch.setattr(cifar, "_CIFAR100", dataclasses.replace(cifar._CIFAR100, md5=md5))
    data = cifar100(tmp_path)
    assert isinstance(data.train, TensorSplit)
    assert data.classes == ("apple", "bear", "cloud")
    assert data.train.labels.tolist() == [0, 2]
    assert data.test.labels.tolist() == [1]
    assert data.image_shape == (3, 32, 32)
    assert data.train.images[0, :, 0, 0].tolist() == [1, 2, 3]
    assert data.train.images[0, :, 0, 1].tolist() == [40, 50, 60]
    assert data.train.images[1, :, 31, 31].tolist() == [10, 20, 30]


def test_cifar10_joins_its_five_training_files(tmp_path):
    """The five training batches come in their order, each image under its only label byte."""
    path = tmp_path / "cifar-10-binary.tar.gz"
    batches = {
        f"cifar-10-batches-bin/data_batch_{number}.bin": record(bytes([number % 2]), number, 0, 0)
        for number in range(1, 6)
    }
    others = {
        "cifar-10-batches-bin/test_batch.bin": record(b"\x01", 9, 9, 9),
        "cifar-10-batches-bin/batches.meta.txt": b"airplane\nbird\n\n",
    }
    write_archive(path, {**batches, **others})
    data = cifar._read(path, cifar._CIFAR10)
    assert isinstance(data.train, TensorSplit)
    assert data.name == "cifar10"
    assert data.classes == ("airplane", "bird")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.train.images[:, 0, 5, 5].tolist() == [2, 4, 1, 3, 5]


def write_images(root, records: list[tuple[str, str, bytes]]) -> None:
    """PNG files of ``(split, class, record)``, named so that their order is the opposite of the records'."""
    for number, (split, name, content) in enumerate(records):
        planes = np.frombuffer(content[-3072:], dtype=np.uint8).reshape(3, 32, 32)
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(planes.transpose(1, 2, 0)).save(folder / f"{99 - number}.png")


def test_image_files_give_the_same_data_set_as_the_archive(tmp_path, monkeypatch):
    """Files in another order than the archive's records: the same examples in the same order, so the same digests."""
    monkeypatch.setattr(cifar, "_NUM_TRAIN", 4)
    monkeypatch.setattr(cifar, "_NUM_TEST", 3)
    names = ("apple", "bear", "cloud")
    train = [(2, 1), (0, 2), (1, 3), (0, 4)]
    test = [(0, 7), (2, 6), (1, 5)]

    def joined(examples):
        return b"".join(record(bytes([9, label]), shade, 0, shade) for label, shade in examples)

    archive = tmp_path / "archive.tar.gz"
    write_archive(
        archive,
        {
            **CIFAR100_MEMBERS,
            "cifar-100-binary/train.bin": joined(train),
            "cifar-100-binary/test.bin": joined(test),
        },
    )
    write_images(
        tmp_path / "cifar100",
        [
            (split, names[label], record(b"", shade, 0, shade))
            for split, examples in (("train", train), ("test", test))
            for label, shade in examples
        ],
    )
    from_archive, from_images = cifar._read(archive, cifar._CIFAR100), cifar100(tmp_path)
    assert from_images.name == from_archive.name == "cifar100"
    assert from_images.train.images.equal(from_archive.train.images)
    assert from_images.sha256 == from_archive.sha256
    assert from_images.train_sha256 == from_archive.train_sha256


def test_a_folder_of_other_images_is_no_cifar(tmp_path):
    """A part of the data set, or another one, is refused, with both numbers."""
    examples = [(split, name, record(b"", 1, 2, 3)) for split in ("train", "test") for name in ("apple", "bear")]
    write_images(tmp_path / "cifar100", examples)
    with pytest.raises(DataError, match=r"must be 50,000 training and 10,000 test .* holds 2 and 2 of 32x32$"):
        cifar100(tmp_path)


@pytest.mark.parametrize("load", [cifar10, cifar100])
@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), RuntimeError("File not found or corrupted.")])
def test_without_a_network_one_sentence_says_what_to_do(load, error, tmp_path, monkeypatch):
    """Where nothing can be downloaded, or what came is corrupt, the user learns of the two other ways."""

    def download(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    with pytest.raises(
        DataError, match=r"could not be downloaded .* put cifar-10.*tar\.gz into .* or its images .*<class>$"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cifar-100-binary/train.bin": None}, r"must hold a file cifar-100-binary/train\.bin"),
        ({"cifar-100-binary/train.bin": b"\0" * 3073}, "must hold records of 3074 bytes, got 3073 bytes"),
        ({"cifar-100-binary/test.bin": b""}, "must hold records of 3074 bytes, got 0 bytes"),
        ({"cifar-100-binary/test.bin": record(b"\0\x07", 0, 0, 0)}, r"labels must be in \[0, 3\), got 7 to 7"),
        ({"cifar-100-binary/fine_label_names.txt": b"\xff\xfe"}, "must be a whole cifar-100-binary"),
    ],
)
def test_an_archive_that_is_not_what_it_must_be(change, message, tmp_path):
    """A missing or cut member, a label without a name: one sentence each."""
    path = tmp_path / "archive.tar.gz"
    members = {**CIFAR100_MEMBERS, **change}
    write_archive(path, {name: content for name, content in members.items() if content is not None})
    with pytest.raises(DataError, match=message):
        cifar._read(path, cifar._CIFAR100)


def test_a_truncated_archive_is_refused(tmp_path):
    """Half an archive is a DataError that names the file."""
    path = tmp_path / "archive.tar.gz"
    noise = torch.randint(0, 256, (30740,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_archive(path, {**CIFAR100_MEMBERS, "cifar-100-binary/train.bin": noise.numpy().tobytes()})
    path.write_bytes(path.read_bytes()[:15000])
    with pytest.raises(DataError, match=r"must be a whole cifar-100-binary.tar.gz, got .*archive\.tar\.gz"):
        cifar._read(path, cifar._CIFAR100)
