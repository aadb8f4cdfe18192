"""What a small student learns more with the dense model for a teacher: writes docs/distillation.md.

    python benchmarks/distillation.py --workload cifar100 --seeds 3

For each seed the same student is trained twice for as many epochs, from the same initial weights, on the same batches:
on the labels alone, and taught. Results go to a JSON file; what stands there already is not trained again, and a
training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from compress import evaluate, fit
from compress.errors import CompressError
from compress.measure.size import count_params
from compress.models import googlenet
from compress.system.files import cache_folder, write_atomically
from compress.train import FitConfig
from compress.workload.workload import Workload, dense_model, load_workload

ROOT = Path(__file__).resolve().parent.parent
PREFACE = """# A student of the dense model

What `googlenet(width={width:g})`, with {params:,} parameters, gets wrong on the {num_test:,} test images of {workload}
after {epochs} epochs at {sizes} pixels: trained on the labels alone, and taught by the dense model ({dense})
with `temperature = 4` and `alpha = 0.9`. Few epochs show how much sooner a student learns, not where it ends.
Written by

    {command}

| seed | labels alone, top-1 / top-5 error | taught | gain, points |
| ---: | ---: | ---: | ---: |
"""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training is told apart by."""

    workload: str
    width: float
    epochs: int
    image_sizes: tuple[int, ...]
    seed: int
    taught: bool


@dataclass(frozen=True, kw_only=True)
class Errors:
    """What it came to, on the test images."""

    top1_error: float
    top5_error: float


Results = dict[Training, Errors]


def main() -> None:
    """Train what is missing, and write the table."""
    options = _options()
    workload = load_workload(options.workload)
    dense = dense_model(workload)
    results = _read(options.results)
    pairs: list[tuple[Errors, Errors]] = []
    for seed in range(options.seeds):
        pair = []
        for taught in (False, True):
            training = Training(
                workload=workload.name,
                width=options.width,
                epochs=options.epochs,
                image_sizes=tuple(options.image_sizes),
                seed=seed,
                taught=taught,
            )
            if training not in results:
                results[training] = _trained(training, workload, dense)
                _write(options.results, results)
            pair.append(results[training])
        pairs.append((pair[0], pair[1]))
    page = PREFACE.format(
        width=options.width,
        params=count_params(_student(workload, options.width)),
        num_test=len(workload.dataset.test),
        workload=workload.name,
        epochs=options.epochs,
        sizes=", ".join(map(str, options.image_sizes)),
        dense=_percent(evaluate(dense, workload.dataset.test).top1_error),
        command=_command(options),
    )
    write_atomically(options.output, (page + "\n".join(_lines(pairs)) + "\n").encode(), CompressError)


def _read(path: Path) -> Results:
    """What earlier runs found."""
    if not path.exists():
        return {}
    return {
        Training(**{**training, "image_sizes": tuple(training["image_sizes"])}): Errors(**errors)
        for training, errors in json.loads(path.read_text())
    }


def _write(path: Path, results: Results) -> None:
    pairs = [[asdict(training), asdict(errors)] for training, errors in results.items()]
    write_atomically(path, json.dumps(pairs, indent=1).encode(), CompressError)


def _trained(training: Training, workload: Workload, dense: nn.Module) -> Errors:
    """Train one student; its errors."""
    config = FitConfig(
        epochs=training.epochs,
        learning_rate=0.1,
        validation_fraction=0.0,
        image_sizes=training.image_sizes,
        seed=training.seed,
    )
    torch.manual_seed(training.seed)
    student = _student(workload, training.width)
    name = f"student-{workload.name}-{training.seed}-{'taught' if training.taught else 'alone'}.checkpoint"
    teacher = dense if training.taught else None
    trained = fit(student, workload.dataset, config, teacher=teacher, checkpoint=cache_folder() / name).model
    result = evaluate(trained, workload.dataset.test)
    return Errors(top1_error=result.top1_error, top5_error=result.top5_error)


def _student(workload: Workload, width: float) -> nn.Module:
    return googlenet(len(workload.dataset.classes), width)


def _lines(pairs: list[tuple[Errors, Errors]]) -> list[str]:
    """A line for each seed and their mean, each pair (alone, taught)."""
    gains = [100 * (alone.top1_error - taught.top1_error) for alone, taught in pairs]
    lines = [
        f"| {seed} | {_text(alone)} | {_text(taught)} | {gain:+.2f} |"
        for seed, ((alone, taught), gain) in enumerate(zip(pairs, gains, strict=True))
    ]
    alone, taught = (_mean(errors) for errors in zip(*pairs, strict=True))
    spread = f" ± {statistics.stdev(gains):.2f}" if len(gains) > 1 else ""
    return [*lines, f"| mean | {_text(alone)} | {_text(taught)} | {statistics.mean(gains):+.2f}{spread} |"]


def _mean(errors: tuple[Errors, ...]) -> Errors:
    return Errors(
        top1_error=statistics.mean(error.top1_error for error in errors),
        top5_error=statistics.mean(error.top5_error for error in errors),
    )


def _text(errors: Errors) -> str:
    return f"{_percent(errors.top1_error)} / {_percent(errors.top5_error)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _command(options: argparse.Namespace) -> str:
    sizes = " ".join(map(str, options.image_sizes))
    return (
        f"python benchmarks/distillation.py --workload {options.workload} --width {options.width:g}"
        f" --epochs {options.epochs} --image-sizes {sizes} --seeds {options.seeds}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", metavar="SPEC", default="cifar100", help="model and data (default: %(default)s)")
    parser.add_argument("--width", type=float, default=0.5, help="of the student (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="of each training (default: %(default)s)")
    parser.add_argument(
        "--image-sizes",
        type=int,
        nargs="+",
        default=[16, 20, 24],
        metavar="SIDE",
        help="of the training images, each for an equal share of the epochs (default: 16 20 24)",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (default: %(default)s)")
    parser.add_argument(
        "--results",
        type=Path,
        default=cache_folder() / "distillation.json",
        metavar="FILE",
        help="where each training's errors go, so that none is done twice (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "docs" / "distillation.md",
        metavar="FILE",
        help="the page (default: %(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
