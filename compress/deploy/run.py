"""Runs the model beside this file: `python run.py check`, or `python run.py predict IMAGES.npy`, uint8 [n, h, w, c]."""

import json
import sys
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from timeit import timeit

import numpy as np

HERE = Path(__file__).resolve().parent
MANIFEST = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))


def load(threads=1):
    """The model as a function of one input, float32 [1, ...], to its logits [1, classes]."""
    path, output, runtime = str(HERE / MANIFEST["model"]), MANIFEST["output"], MANIFEST["runtime"]
    library = import_module("executorch.runtime" if runtime == "executorch" else runtime)
    if runtime == "onnxruntime":
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda value: session.run(None, {session.get_inputs()[0].name: value})[output]
    if runtime == "openvino":
        model = library.Core().read_model(path)
        model.reshape(MANIFEST["input"]["shape"])
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": MANIFEST["precision"]}
        request = library.compile_model(model, "CPU", settings).create_infer_request()
        return lambda value: request.infer([value])[output]
    torch = import_module("torch")  # ExecuTorch's Python package is built upon it; its C++ runtime is not
    method = library.Runtime.get().load_program(path).load_method("forward")
    return lambda value: method.execute([torch.from_numpy(value)])[output].numpy()


def preprocess(images):
    """Images uint8 [n, h, w, c] as the model takes them: float32 [n, c, h, w]."""
    mean, std = (np.float32(MANIFEST["preprocessing"][name]) for name in ("mean", "std"))
    return np.ascontiguousarray(((np.float32(images) / 255 - mean) / std).transpose(0, 3, 1, 2))


def check(model):
    """Hold files against their hashes and outputs against those of the model it was made of; 0 if all is well."""
    hashes = {name: sha256((HERE / name).read_bytes()).hexdigest() for name in MANIFEST["files"]}
    damaged = [name for name, told in MANIFEST["files"].items() if hashes[name] != told["sha256"]]
    inputs, expected = np.load(HERE / "inputs.npy"), np.load(HERE / "expected.npy")
    found = np.concatenate([model(one[None]) for one in inputs])
    ms, same = timeit(lambda: model(inputs[:1]), number=50) * 20, found.argmax(1) == expected.argmax(1)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{same.sum()} of {len(same)} answers agree, largest difference {difference:.1e}, {ms:.2f} ms for each input")
    print(f"damaged: {', '.join(damaged)}" if damaged else "all files are as they were written")
    return int(bool(damaged) or not difference <= MANIFEST["tolerance"] or not same.all())


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        sys.exit(check(load()))
    logits = map(load(), preprocess(np.load(sys.argv[2]))[:, None])
    print("\n".join(MANIFEST["labels"][int(one.argmax())] for one in logits))
