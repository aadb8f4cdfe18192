"""The plugin's options: each may be given on the command line or, as a default, in the ini file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from compress.device.address import Address, parse_address
from compress.errors import ConfigError

# What a project without recipes is measured with; init writes the same file into a project.
DEFAULT_RECIPE = Path(__file__).parents[1] / "commands" / "project" / "structured.toml"

# Beyond pytest's own statuses, which end at 6.
COULD_NOT_MEASURE = 8

GROUP_HELP = (
    "compressed models: measure, compare, gate"
    f" (exit status 0: all limits and baselines held; 1: a test failed, so a metric regressed; {COULD_NOT_MEASURE}:"
    " nothing regressed, but something that was to be held could not be measured)"
)


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option, and the key of its default in the ini file.

    Attributes:
        flag: on the command line.
        ini: in the ini file.
        help: what it does.
        kind: whether it takes a text, any number of texts, or nothing.
        metavar: what stands for its text.
    """

    flag: str
    ini: str
    help: str
    kind: Literal["text", "list", "switch"] = "text"
    metavar: str = ""


OPTIONS = (
    Option(
        flag="--compress-workload",
        ini="compress_workload",
        metavar="SPEC",
        help="model and data: digits, cifar10, cifar100, imagefolder:DIR, or module:function returning a"
        " compress.Workload (default: digits)",
    ),
    Option(
        flag="--compress-train-dense",
        ini="compress_train_dense",
        kind="switch",
        help="train the dense model as the workload's fit= says, though the workload brings trained weights; it is kept"
        " in the user's cache directory",
    ),
    Option(
        flag="--compress-recipe",
        ini="compress_recipes",
        kind="list",
        metavar="FILE",
        help="recipe to run, or folder of recipes; may be given more than once, and then nothing is demanded of the"
        " other recipes of a baseline (default: benchmarks/recipes, or where there is no such folder a fifth of the"
        " channels removed, which is what python -m compress init begins with)",
    ),
    Option(
        flag="--compress-model",
        ini="compress_model",
        kind="list",
        metavar="[NAME=]FILE",
        help="hold the model in FILE (.safetensors, .pt2, .onnx, .pte; a path or a URL), whatever made it, by the"
        " limits of the recipe NAME, whose steps are not run; without NAME by those of the recipe that is called as the"
        " file is, or by none; may be given more than once, and then no other model is held",
    ),
    Option(
        flag="--compress-models",
        ini="compress_models",
        metavar="DIR",
        help="take what each recipe makes from DIR (a path or a URL), where python -m compress run wrote it as"
        " RECIPE.safetensors, .pt2, .onnx or .pte, and run no recipe",
    ),
    Option(
        flag="--compress-baselines",
        ini="compress_baselines",
        metavar="DIR",
        help="folder of the baselines that --benchmark-compare reads and --benchmark-save writes (default: baselines)",
    ),
    Option(
        flag="--compress-threads",
        ini="compress_threads",
        metavar="N",
        help="CPU threads that latency is measured with (default: 1)",
    ),
    Option(
        flag="--compress-seconds",
        ini="compress_seconds",
        metavar="S",
        help="how long a test may measure a latency, a second look included; longer only where 30 pairs in each process"
        " are (default: 10)",
    ),
    Option(
        flag="--compress-processes",
        ini="compress_processes",
        metavar="N",
        help="fresh processes that CPU latency is measured in, all of which must agree; 0 measures in pytest's own"
        " (default: 3)",
    ),
    Option(
        flag="--compress-device",
        ini="compress_device",
        metavar="URL",
        help="measure CPU latency and memory on another machine, ssh://user@host[:port][/path/of/python]: for recipes"
        " whose runtime is onnxruntime, openvino or executorch, which must be installed there with numpy"
        " (default: this machine)",
    ),
    Option(
        flag="--compress-report",
        ini="compress_report",
        metavar="FILE",
        help="write the table of the results to FILE as Markdown",
    ),
    Option(
        flag="--compress-html",
        ini="compress_html",
        metavar="FILE",
        help="write a page of the results to FILE: table, verdicts, trade-offs, layers, history; it needs no network",
    ),
    Option(
        flag="--compress-sweep",
        ini="compress_sweep",
        metavar="FILE",
        help="draw on that page the models of a sweep too, from the .json that python -m compress sweep --output wrote",
    ),
    Option(
        flag="--compress-inconclusive",
        ini="compress_inconclusive",
        metavar="warn|fail",
        help="whether a verdict that the measurement leaves open only shows in the table, or fails its test"
        " (default: warn)",
    ),
    Option(
        flag="--compress-excuse",
        ini="compress_excuse",
        kind="list",
        metavar="NAME",
        help="let METRIC, METRIC:RECIPE or the test FILE::NAME go unmeasured, which is said aloud; may be given more"
        " than once; never excuses what regressed",
    ),
    Option(
        flag="--compress-build-tolerance",
        ini="compress_build_tolerance",
        metavar="X",
        help="how far counts and bytes of another build of a recipe may lie above the baseline's, as a fraction, where"
        " the recipe's limits state no build_tolerance; the same model is held exactly (default: 0.01)",
    ),
    Option(
        flag="--compress-partial",
        ini="compress_partial",
        kind="switch",
        help="with --benchmark-compare: hold the tests that are selected, and demand nothing of the rest of the"
        " baseline and of the recipes' limits",
    ),
    Option(
        flag="--compress-widen",
        ini="compress_widen",
        kind="switch",
        help="with --benchmark-save: let the recorded interval of each time reach over what was recorded before, if"
        " steps, dense model, versions and machine are the same; recorded again at another hour, it covers how far the"
        " machine drifts",
    ),
    Option(
        flag="--require-cuda",
        ini="compress_require_cuda",
        kind="switch",
        help="fail, rather than skip, what needs a CUDA device if there is none",
    ),
    Option(
        flag="--require-baseline",
        ini="compress_require_baseline",
        kind="switch",
        help="with --benchmark-compare: fail what has no baseline for this class of device, though its limit holds",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the options come to; see :data:`OPTIONS`.

    Attributes:
        train_dense: whether to train the dense model though the workload brings weights.
        recipes: files and folders of recipes.
        device: where CPU latency and memory are measured; None for this machine.
        recipes_named: whether the command line names them.
        models: files of models to hold, as they were given: ``[NAME=]FILE``.
        models_folder: of files of what recipes made; None where they are run.
        strict: whether what is inconclusive fails.
        excuses: as they were given.
    """

    workload: str
    train_dense: bool
    recipes: tuple[Path, ...]
    recipes_named: bool
    models: tuple[str, ...]
    models_folder: str | None
    baselines: Path
    threads: int
    processes: int
    seconds: float
    device: Address | None
    report: Path | None
    html: Path | None
    sweep: Path | None
    strict: bool
    excuses: tuple[str, ...]
    build_tolerance: float
    partial: bool
    widen: bool
    require_cuda: bool
    require_baseline: bool


def add_options(parser: pytest.Parser) -> None:
    """The group "compress" of ``pytest --help``, and the keys of the ini file."""
    group = parser.getgroup("compress", GROUP_HELP)
    types: dict[str, Literal["string", "linelist", "bool"]] = {"text": "string", "list": "linelist", "switch": "bool"}
    for option in OPTIONS:
        parser.addini(option.ini, f"default of {option.flag}", type=types[option.kind], default=None)
        if option.kind == "switch":
            group.addoption(option.flag, action="store_true", default=None, help=option.help)
        else:
            action = "append" if option.kind == "list" else "store"
            group.addoption(option.flag, action=action, metavar=option.metavar, help=option.help)


def read_settings(config: pytest.Config) -> Settings:
    """What the options come to: the command line's word, else the ini file's, else the default.

    Raises:
        pytest.UsageError: if a value is out of range; it names the option or the key that states it.
    """
    recipes = _paths(config, "--compress-recipe")
    baselines = _paths(config, "--compress-baselines")
    models, folder = _places(config, "--compress-model"), _places(config, "--compress-models")
    if models and folder:
        raise pytest.UsageError("models come from --compress-model or from --compress-models, got both")
    return Settings(
        workload=str(_given(config, "--compress-workload")[0] or "digits"),
        train_dense=bool(_given(config, "--compress-train-dense")[0]),
        recipes=recipes or (_recipes_by_default(config),),
        recipes_named=bool(config.getoption("--compress-recipe")),
        models=models,
        models_folder=next(iter(folder), None),
        baselines=baselines[0] if baselines else _below_root(config, "baselines"),
        threads=_whole(config, "--compress-threads", default=1, least=1),
        processes=_whole(config, "--compress-processes", default=3, least=0),
        seconds=_seconds(config),
        device=_device(config),
        report=_path(config, "--compress-report"),
        html=_path(config, "--compress-html"),
        sweep=_path(config, "--compress-sweep"),
        strict=_strict(config),
        excuses=tuple(_given(config, "--compress-excuse")[0] or ()),
        build_tolerance=_fraction(config, "--compress-build-tolerance", default=0.01),
        partial=bool(_given(config, "--compress-partial")[0]),
        widen=bool(_given(config, "--compress-widen")[0]),
        require_cuda=bool(_given(config, "--require-cuda")[0]),
        require_baseline=bool(_given(config, "--require-baseline")[0]),
    )


def _given(config: pytest.Config, flag: str) -> tuple[Any, str]:
    """The value, None if there is none, and the option or key that states it."""
    value = config.getoption(flag)
    if value is not None:
        return value, flag
    key = next(option.ini for option in OPTIONS if option.flag == flag)
    try:
        return config.getini(key), key
    except (ValueError, TypeError, pytest.UsageError) as error:
        raise pytest.UsageError(f"{key} cannot be read: {error}") from error


def _paths(config: pytest.Config, flag: str) -> tuple[Path, ...]:
    """Paths as they were given: on the command line from where pytest runs, in the ini file from the root."""
    value, where = _given(config, flag)
    given = [value] if isinstance(value, str) else value or ()
    return tuple(Path(text) if where == flag else _below_root(config, text) for text in given if text)


def is_remote(place: str) -> bool:
    """Whether a place is a URL and no path."""
    return "://" in place


def named_file(text: str) -> tuple[str, str]:
    """The name, "" for none, and the file of ``[NAME=]FILE``; a name holds no slash, so a path may hold a ``=``."""
    name, equals, file = text.partition("=")
    return (name, file) if equals and Path(name).name == name else ("", text)


def _places(config: pytest.Config, flag: str) -> tuple[str, ...]:
    """Paths and URLs, each with or without a name in front of it; paths as :func:`_paths` gives them."""
    value, where = _given(config, flag)
    given = [value] if isinstance(value, str) else value or ()
    if where == flag:
        return tuple(given)
    parts = [named_file(text) for text in given if text]
    return tuple(
        f"{name}{'=' * bool(name)}{place if is_remote(place) else _below_root(config, place)}" for name, place in parts
    )


def _recipes_by_default(config: pytest.Config) -> Path:
    """The project's own; where it has none, the one that ``init`` would write."""
    folder = _below_root(config, "benchmarks/recipes")
    return folder if folder.exists() else DEFAULT_RECIPE


def _path(config: pytest.Config, flag: str) -> Path | None:
    return next(iter(_paths(config, flag)), None)


def _below_root(config: pytest.Config, text: str) -> Path:
    """As a user would write it: relative to where pytest runs, if it lies below."""
    path = config.rootpath / text
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _whole(config: pytest.Config, flag: str, *, default: int, least: int) -> int:
    text, where = _given(config, flag)
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise pytest.UsageError(f"{where} must be a whole number of {least} or more, got {text!r}")
    return int(text)


def _seconds(config: pytest.Config) -> float:
    text, where = _given(config, "--compress-seconds")
    if not text:
        return 10.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise pytest.UsageError(f"{where} must be a number above 0, got {text!r}")
    return seconds


def _device(config: pytest.Config) -> Address | None:
    text, where = _given(config, "--compress-device")
    if not text:
        return None
    try:
        return parse_address(text)
    except ConfigError as error:
        raise pytest.UsageError(f"{where}: {error}") from error


def _fraction(config: pytest.Config, flag: str, *, default: float) -> float:
    text, where = _given(config, flag)
    if not text:
        return default
    try:
        fraction = float(text)
    except ValueError:
        fraction = math.nan
    if not 0 <= fraction < 1:
        raise pytest.UsageError(f"{where} must be a number in [0, 1), got {text!r}")
    return fraction


def _strict(config: pytest.Config) -> bool:
    text, where = _given(config, "--compress-inconclusive")
    if text not in (None, "", "warn", "fail"):
        raise pytest.UsageError(f"{where} must be warn or fail, got {text!r}")
    return bool(text == "fail")
