from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from compress.data import TensorSplit, files, folder, image_folder
from compress.data.files import FileSplit
from compress.errors import ConfigError, DataError
from compress.system.files import cache_folder


def write_image(path, *, size: tuple[int, int] = (8, 8), value: int = 0) -> None:
    """An RGB image of random pixels around ``value``; ``size`` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_folder(root, *, size: tuple[int, int] = (8, 8), train: int = 4, test: int = 2):
    """Two classes, ``train`` and ``test`` images in each."""
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                write_image(root / split / name / f"{number}.png", size=size, value=100 * label + number)
    return root


def test_small_images_are_held_in_memory(tmp_path):
    """Images of one small size come as they are, pixel for pixel, classes in alphabetical order."""
    data = image_folder(write_folder(tmp_path / "pets", size=(8, 6)))
    assert isinstance(data.test, TensorSplit)
    assert data.name == "imagefolder-pets"
    assert data.classes == ("cat", "dog")
    assert data.image_shape == (3, 6, 8)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    expected = np.asarray(Image.open(tmp_path / "pets/test/dog/1.png")).transpose(2, 0, 1)
    assert data.test.images[3].equal(torch.from_numpy(expected.copy()))


def test_a_second_start_decodes_nothing(tmp_path, monkeypatch):
    """What was decoded once comes from the cache, the same to the bit, without an image being opened."""
    first = image_folder(write_folder(tmp_path))

    def refuse(path):
        raise AssertionError(path)

    monkeypatch.setattr(files, "read_image", refuse)
    monkeypatch.setattr(folder, "read_image", refuse)
    second = image_folder(tmp_path)
    assert isinstance(first.train, TensorSplit)
    assert isinstance(second.train, TensorSplit)
    assert second.train.images.equal(first.train.images)
    assert (second.sha256, second.train_sha256) == (first.sha256, first.train_sha256)


def test_a_changed_file_is_read_again(tmp_path):
    """A file of the same length with other content and a later time is not taken from the cache."""
    before = image_folder(write_folder(tmp_path))
    path = tmp_path / "test" / "cat" / "0.png"
    write_image(path, value=7)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    after = image_folder(tmp_path)
    assert after.sha256 != before.sha256
    assert after.train_sha256 == before.train_sha256
    assert isinstance(before.test, TensorSplit)
    assert isinstance(after.test, TensorSplit)
    assert not after.test.images.equal(before.test.images)


def test_a_damaged_cache_is_made_anew(tmp_path):
    """A cut cache file costs time, nothing else."""
    before = image_folder(write_folder(tmp_path))
    (cached,) = cache_folder().iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    assert image_folder(tmp_path).sha256 == before.sha256
    assert cached.stat().st_size > 100


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    """Where the cache folder cannot be made, the images are read all the same."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(image_folder(write_folder(tmp_path / "pets")).train) == 8


def test_a_copy_elsewhere_has_the_same_digest(tmp_path):
    """The digest is over relative paths and content: where the folder lies makes no difference, a name does."""
    write_folder(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert image_folder(tmp_path / "a").sha256 == image_folder(tmp_path / "b").sha256
    (tmp_path / "b/test/cat/0.png").rename(tmp_path / "b/test/cat/00.png")
    assert image_folder(tmp_path / "a").sha256 != image_folder(tmp_path / "b").sha256


@pytest.mark.parametrize("break_it", ["larger", "another size", "asked for"])
def test_other_images_are_read_batch_by_batch(break_it, tmp_path):
    """Large images, images of several sizes, or a size asked for: square batches of that size, read when needed."""
    write_folder(tmp_path, size=(80, 70) if break_it == "larger" else (12, 12))
    if break_it == "another size":
        write_image(tmp_path / "train/dog/9.png", size=(12, 13))
    data = image_folder(tmp_path, image_size=10 if break_it == "asked for" else None)
    side = 10 if break_it == "asked for" else 224
    assert isinstance(data.test, FileSplit)
    assert data.image_shape == (3, side, side)
    batches = list(data.test.batches(3))
    assert [list(images.shape) for images, _ in batches] == [[3, 3, side, side], [1, 3, side, side]]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 1, 1]


def test_batches_from_disk_do_not_depend_on_the_workers(tmp_path, monkeypatch):
    """Training batches repeat under their seed, whatever the number of workers, and differ under another."""
    data = image_folder(write_folder(tmp_path, size=(20, 20)), image_size=8)

    def epoch(seed: int, workers: int) -> torch.Tensor:
        monkeypatch.setattr(files, "num_workers", lambda: workers)
        return torch.cat([images for images, _ in data.train.batches(3, training=True, seed=seed)])

    torch.manual_seed(5)
    alone = epoch(1, 0)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert drawn.equal(torch.rand(1))
    assert epoch(1, 2).equal(alone)
    assert not epoch(2, 0).equal(alone)


def test_a_held_out_part_of_files_is_not_augmented(tmp_path):
    """Validation examples held out of a folder come resized and cropped the same way every time."""
    data = image_folder(write_folder(tmp_path, size=(20, 20)), image_size=8)
    train, validation = data.holdout(0.25)
    assert (len(train), len(validation)) == (6, 2)
    first, again = (torch.cat([images for images, _ in validation.batches(2)]) for _ in range(2))
    assert first.equal(again)


def test_the_size_asked_for_is_part_of_the_digest(tmp_path):
    """The same files cut to another size are another thing to measure accuracy on."""
    write_folder(tmp_path, size=(20, 20))
    assert image_folder(tmp_path, image_size=8).sha256 != image_folder(tmp_path, image_size=10).sha256


def test_grayscale_and_palette_images_become_rgb(tmp_path):
    """Every batch has three channels, whatever a file holds."""
    write_folder(tmp_path)
    Image.new("L", (8, 8), 77).save(tmp_path / "test/cat/0.png")
    Image.new("P", (8, 8)).save(tmp_path / "test/cat/1.png")
    data = image_folder(tmp_path)
    assert isinstance(data.test, TensorSplit)
    assert data.test.images[0].unique().tolist() == [77]


def test_hidden_files_and_other_endings_are_no_images(tmp_path):
    """What a file manager leaves behind is passed over."""
    write_folder(tmp_path)
    (tmp_path / "train/cat/._0.png").write_bytes(b"metadata")
    (tmp_path / "train/cat/notes.txt").write_text("notes")
    (tmp_path / "train/.cache").mkdir()
    assert len(image_folder(tmp_path).train) == 8


def remove(*parts: str):
    """Delete a folder."""
    return lambda root: shutil.rmtree(root.joinpath(*parts))


def empty(*parts: str):
    """Delete what is in a folder."""

    def change(root):
        shutil.rmtree(root.joinpath(*parts))
        root.joinpath(*parts).mkdir()

    return change


def corrupt(root):
    """Cut one image short."""
    path = root / "test" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:60])


def only_cats(root):
    """Leave one class."""
    shutil.rmtree(root / "train/dog")
    shutil.rmtree(root / "test/dog")


def no_image(root):
    """Put something else where the first image was."""
    (root / "train/cat/0.png").write_bytes(b"this is text")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("train"), r"there is no folder .*/train$"),
        (remove("test"), r"there is no folder .*/test$"),
        (empty("train"), r"a split must hold a folder for each class, .*/train holds none$"),
        (empty("train", "cat"), r"at least one image .*/train/cat has none$"),
        (remove("test", "dog"), r"the same classes, .*/test has no folder 'dog'$"),
        (remove("train", "cat"), r"the same classes, .*/train has no folder 'cat'$"),
        (only_cats, r"at least two classes, got only 'cat' \(in .*\)$"),
        (corrupt, r"whole and readable, .*/test/dog/1\.png is not$"),
        (no_image, r"whole and readable, .*/train/cat/0\.png is not$"),
    ],
)
def test_a_folder_that_is_no_data_set(change, message, tmp_path):
    """Everything that can be wrong with a folder is one sentence with the path of what is wrong."""
    root = write_folder(tmp_path / "pets")
    change(root)
    with pytest.raises(DataError, match=message) as raised:
        image_folder(root)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_large_image_is_one_sentence(workers, tmp_path, monkeypatch):
    """A file found damaged only when its batch is read is named just the same, from a worker process too."""
    monkeypatch.setattr(files, "num_workers", lambda: workers or 1)
    data = image_folder(write_folder(tmp_path, size=(80, 80)), image_size=8)
    corrupt(tmp_path)
    monkeypatch.setattr(files, "num_workers", lambda: workers)
    with pytest.raises(DataError, match=r"^an image file must be whole and readable, .*/test/dog/1\.png is not$"):
        list(data.test.batches(2))


def test_image_size_must_be_positive(tmp_path):
    """A side of 0 pixels is refused before anything is read."""
    with pytest.raises(ConfigError, match="image_size must be at least 1, got 0"):
        image_folder(tmp_path, image_size=0)
