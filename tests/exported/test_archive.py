from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress.artifacts import artifact
from compress.errors import ArtifactError, ModelError
from compress.exported import ExportedModel, capture, from_archive, to_archive
from tests.nets import conv_bn
from tests.workloads import tiny_net

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))

# Loads every graph in a folder, in a process that has never seen the networks' source code; the interpreter itself
# reports every name that an unpickler looks up.
FRESH_PROCESS = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
import compress

torch.set_num_threads(1)
unpickled = []
sys.addaudithook(lambda event, args: unpickled.append(args) if event == "pickle.find_class" else None)
folder = Path(sys.argv[1])
expected = load_file(folder / "expected")
for path in sorted(folder.glob("model-*")):
    model = compress.load(path)
    run = getattr(model, "graph", model)
    with torch.no_grad():
        difference = float((run(expected["images"]) - expected[path.stem]).abs().max())
    print(path.name, difference)
assert "tests.workloads" not in sys.modules
print("unpickled", unpickled)
"""


@pytest.fixture
def network():
    """The tiny network in eval mode."""
    torch.manual_seed(0)
    return tiny_net().eval()


@pytest.fixture
def archive(network):
    """The tiny network's file."""
    return to_archive(capture(network, IMAGES), {"said": [1, "two"]})


def edited(content: bytes, name: str, edit) -> bytes:
    """The archive with one record passed through ``edit``; added if it is not there; dropped for None."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(changed, "w") as target:
        records = {record: source.read(record) for record in source.namelist()}
        records[name] = edit(records.get(name, b""))
        for record, value in records.items():
            if value is not None:
                target.writestr(record, value)
    return changed.getvalue()


def with_graph(content: bytes, edit) -> bytes:
    """The archive with its graph's text passed through ``edit``."""
    return edited(content, "archive/models/model.json", lambda text: edit(text.decode()).encode())


def test_a_graph_comes_back_to_the_bit(archive, network):
    """The same outputs for any batch size, the notes as they were, the parameters under their names."""
    program, notes = from_archive(archive, "the file")
    model = ExportedModel(program, notes)
    assert model.notes == {"said": [1, "two"]}
    with torch.no_grad():
        for images in (IMAGES, IMAGES[:1]):
            assert model(images).equal(network(images))
    assert dict(model.graph.named_parameters())["classifier.weight"].equal(network.classifier.weight)


def test_equal_graphs_give_equal_bytes(archive, network):
    """Written again, captured again, or read and written: not a bit differs."""
    assert to_archive(capture(network, IMAGES), {"said": [1, "two"]}) == archive
    assert to_archive(*from_archive(archive, "the file")) == archive


# What torch 2.11 says of its own reader.
@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")
def test_torch_reads_what_we_write(archive, network):
    """The file is an ordinary one: ``torch.export.load`` gives the same outputs."""
    loaded = torch.export.load(io.BytesIO(archive)).module()
    with torch.no_grad():
        assert loaded(IMAGES).equal(network(IMAGES))


def test_we_read_what_torch_writes(network):
    """An archive of ``torch.export.save``, example inputs and all."""
    written = io.BytesIO()
    torch.export.save(capture(network, IMAGES), written)
    program, notes = from_archive(written.getvalue(), "the file")
    assert notes == {}
    with torch.no_grad():
        assert ExportedModel(program)(IMAGES).equal(network(IMAGES))


def test_a_shared_tensor_is_stored_once():
    """Two layers with one weight: its bytes are in the file once, and one storage again in memory."""
    pair = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)).eval()
    pair[1].weight = pair[0].weight
    content = to_archive(capture(pair, torch.zeros(2, 64)))
    assert len(content) < 1.5 * 64 * 64 * 4
    model = ExportedModel(from_archive(content, "the file")[0])
    assert len({parameter.data_ptr() for parameter in model.parameters()}) == 1


def test_the_file_says_nothing_of_the_source(archive):
    """No path of the machine it was written on."""
    with zipfile.ZipFile(io.BytesIO(archive)) as content:
        assert not any(b".py" in content.read(name) for name in content.namelist())


def test_graphs_run_in_a_fresh_process_without_source_or_pickle(tmp_path, network, tiny_int8):
    """Float and int8, ``.pt2`` and ``.onnx``: the same outputs, without the class's module, and nothing unpickled."""
    with torch.no_grad():
        floats, ints = network(IMAGES), tiny_int8.model.graph(IMAGES)
    for suffix in ("pt2", "onnx"):
        artifact.save(network, tmp_path / f"model-float.{suffix}", IMAGES)
        artifact.save(tiny_int8.model, tmp_path / f"model-int8.{suffix}")
    save_file({"images": IMAGES, "model-float": floats, "model-int8": ints}, tmp_path / "expected")
    command = [sys.executable, "-c", FRESH_PROCESS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *differences, unpickled = done.stdout.splitlines()
    found = {name: float(difference) for name, difference in map(str.split, differences)}
    assert found.keys() == {f"model-{kind}.{suffix}" for kind in ("float", "int8") for suffix in ("pt2", "onnx")}
    assert found["model-float.pt2"] == found["model-int8.pt2"] == 0.0
    assert found["model-float.onnx"] < 1e-5
    # ONNX Runtime may round a value that lies between two integers to the other one.
    assert found["model-int8.onnx"] < 0.02 * float(ints.abs().max())
    assert unpickled == "unpickled []"


class Harmful:
    """Unpickled, it would end the test."""

    def __reduce__(self):
        return (sys.exit, ("unpickled",))


def test_what_would_be_unpickled_is_refused(archive):
    """A weight that declares itself a pickle is named and not read, though torch would load it."""
    config = "archive/data/weights/model_weights_config.json"
    harmful = edited(archive, config, lambda text: text.replace(b'"use_pickle": false', b'"use_pickle": true', 1))
    harmful = edited(harmful, "archive/data/weights/weight_0", lambda _: pickle.dumps(Harmful()))
    with pytest.raises(ArtifactError, match=r"^'.*' would have to be unpickled, which is never done \(the file\)$"):
        from_archive(harmful, "the file")


def test_example_inputs_are_never_read(archive):
    """They are pickled in files that torch writes; a harmful one does nothing."""
    harmful = edited(archive, "archive/data/sample_inputs/model.pt", lambda _: pickle.dumps(Harmful()))
    from_archive(harmful, "the file")


@pytest.mark.parametrize("target", ["torch.os.system", "torch.ops.aten", "torch.load", "_operator.call", "#x:y"])
def test_what_is_no_operator_is_refused(archive, target):
    """Torch would look up any name; only operators are taken."""
    harmful = with_graph(
        archive, lambda text: text.replace('"target": "torch.ops.aten.relu_.default"', f'"target": "{target}"')
    )
    with pytest.raises(ArtifactError, match=r"^operators must be those of torch or torchao, got '.*' \(the file\)$"):
        from_archive(harmful, "the file")


@pytest.mark.parametrize(
    "expression", ["__import__('os').system('true')", "exec(chr(49))", "s0.__class__", "Symbol(x)"]
)
def test_what_is_no_arithmetic_is_refused(archive, expression):
    """Torch would evaluate it."""

    def edit(text: str) -> str:
        graph = json.loads(text)
        replace_expressions(graph, expression)
        return json.dumps(graph)

    with pytest.raises(ArtifactError, match=r"^sizes must be arithmetic, got .* \(the file\)$"):
        from_archive(with_graph(archive, edit), "the file")


def replace_expressions(value, expression: str) -> None:
    """Put ``expression`` in place of every size."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "expr_str":
            value[key] = expression
        elif isinstance(item, (dict, list)):
            replace_expressions(item, expression)


def test_guards_are_not_run(archive):
    """Source code in the file stays text."""
    harmful = with_graph(
        archive, lambda text: json.dumps({**json.loads(text), "guards_code": ["__import__('sys').exit('run')"]})
    )
    program, _ = from_archive(harmful, "the file")
    ExportedModel(program)(IMAGES)


def test_a_damaged_file_is_said_to_be_one(archive):
    """Cut, overwritten, without its graph, or with a tensor too short: one sentence, never torch's traceback."""
    overwritten = bytearray(archive)
    middle = archive.index(b"archive/data/weights/weight_0") + 40
    overwritten[middle : middle + 60] = bytes(60)
    damaged = [
        archive[: len(archive) // 2],
        bytes(overwritten),
        edited(archive, "archive/models/model.json", lambda _: None),
        edited(archive, "archive/models/model.json", lambda text: text[:100]),
        edited(archive, "archive/models/model.json", lambda _: b"{}"),
        edited(archive, "archive/data/weights/weight_0", lambda _: b"123"),
        edited(archive, "archive/data/weights/weight_0", lambda _: b"1234"),
        edited(archive, "archive/data/weights/model_weights_config.json", lambda _: b'{"config": {}}'),
    ]
    for content in damaged:
        with pytest.raises(ArtifactError, match=r"^the file is ") as caught:
            from_archive(content, "the file")
        assert "\n" not in str(caught.value)


def test_norms_and_dropout_are_in_eval_mode_for_good(network):
    """An exported model cannot be trained; asked for eval mode it stays as it is."""
    model = ExportedModel(capture(network, IMAGES))
    assert model.eval() is model
    with pytest.raises(ModelError, match=r"^ExportedModel cannot be trained: train the network it was exported from$"):
        model.train()


def test_a_copy_is_a_model_of_its_own():
    """Weights changed in the copy leave the original's outputs."""
    model = ExportedModel(capture(nn.Sequential(conv_bn(3, 4)).eval(), IMAGES), {"a": [1]})
    twin = copy.deepcopy(model)
    before = model(IMAGES)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert model(IMAGES).equal(before)
    assert not twin(IMAGES).equal(before)
    assert twin.notes == model.notes


def test_a_file_that_torch_wrote_is_read(network, tmp_path):
    """Its records lie in a folder of the file's name, and the example inputs in it are not unpickled."""
    path = tmp_path / "theirs.pt2"
    torch.export.save(torch.export.export(network, (IMAGES,)), path)
    with zipfile.ZipFile(path) as file:
        assert "theirs/models/model.json" in file.namelist()
    with torch.no_grad():
        torch.testing.assert_close(artifact.load(path)(IMAGES), network(IMAGES))
