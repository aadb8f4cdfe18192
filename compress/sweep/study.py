"""Where a sweep is kept: an Optuna study, in a journal file of JSON lines or in a database for many machines.

Nothing in it is pickled. A study belongs to what it was begun with: the workload and its test data, the dense model,
the class of device, the recipes and what of them varies. Another sweep is refused rather than mixed in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from compress.errors import ConfigError, first_line
from compress.sweep.plans import Plan

STUDY_NAME = "compress-sweep"
OBJECTIVES = ("quality", "latency_ratio", "file_bytes")

_BEGUN_WITH = "begun_with"
_SQLITE = b"SQLite format 3"

# Key of what a study was begun with, and what a sweep with another value is told.
_REFUSALS = {
    "workload": "is of the workload {old!r}, this sweep of {new!r}",
    "data_sha256": "was measured on other test data",
    "dense": "was begun from another dense model, and every machine must have the same; save it and name it as weights",
    "device": "was measured on {old}, whose ratios of times do not compare with those of {new}",
    "recipes": "is of the recipes {old}, this sweep of {new}",
    "steps": "was begun when a recipe had other steps",
    "parameters": "was begun with other parameters",
}


def open_study(target: str, begun_with: Mapping[str, object]) -> optuna.Study:
    """The study at ``target``, begun now if there is none.

    Args:
        target: path of a journal file, or URL of a database such as ``sqlite:///sweep.db``.
        begun_with: what a sweep must have in common with the study, see :func:`fingerprint`.

    Raises:
        ConfigError: if it cannot be opened, or is the study of something else.
    """
    storage = _open_storage(target)
    target = _without_password(target)
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME,
            directions=["minimize"] * len(OBJECTIVES),
            load_if_exists=True,
        )
        old = study.user_attrs.get(_BEGUN_WITH)
        num_trials = len(study.get_trials(deepcopy=False))
    except Exception as cause:
        reason = first_line(cause)
        raise ConfigError(f"cannot open a study: {reason} ({target})") from cause
    if old is None and num_trials:
        raise ConfigError(f"a study must be one that sweep began, this one is not ({target})")
    if old is None:
        study.set_user_attr(_BEGUN_WITH, dict(begun_with))
    else:
        _check_same(old, begun_with, target)
    return study


def fingerprint(plans: Sequence[Plan], about: Mapping[str, str]) -> dict[str, object]:
    """What a study is begun with, as plain JSON.

    Args:
        plans: of the sweep.
        about: values of the keys "workload", "data_sha256", "dense" and "device".
    """
    steps = {
        plan.recipe.name: [plan.recipe.runtime, [[type(step).__name__, asdict(step)] for step in plan.recipe.steps]]
        for plan in plans
    }
    spaces = {
        plan.recipe.name: {parameter.name: asdict(parameter.space) for parameter in plan.parameters} for plan in plans
    }
    begun_with = {**about, "recipes": sorted(steps), "steps": steps, "parameters": spaces}
    # As the study will give it back: tuples as lists.
    plain: dict[str, object] = json.loads(json.dumps(begun_with, default=str))
    return plain


def _open_storage(target: str) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" in target:
        try:
            return RDBStorage(target)
        except Exception as cause:
            reason = first_line(cause)
            raise ConfigError(f"cannot open a study's database: {reason} ({_without_password(target)})") from cause
    path = Path(target)
    _check_journal(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _without_password(target: str) -> str:
    """The study's place as a message may show it."""
    return re.sub(r"(://[^/@]*):[^@]*@", r"\1:***@", target)


def _check_journal(path: Path) -> None:
    """Refuse a file that is no journal: Optuna would write at the end of it."""
    if not path.parent.is_dir():
        raise ConfigError(f"a study needs a folder that exists ({path})")
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            first = file.readline()
    except OSError as cause:
        raise ConfigError(f"cannot read a study: {cause.strerror or cause} ({path})") from cause
    if first.startswith(_SQLITE):
        raise ConfigError(f"a SQLite database is named by its URL, sqlite:///{path} ({path})")
    try:
        is_journal = not first or "op_code" in json.loads(first)
    except (ValueError, TypeError):
        is_journal = False
    if not is_journal:
        raise ConfigError(f"a study must be a file that sweep wrote, this one holds something else ({path})")


def _check_same(old: Mapping[str, object], new: Mapping[str, object], target: str) -> None:
    for key, refusal in _REFUSALS.items():
        if old.get(key) != new[key]:
            words = refusal.format(old=_words(old.get(key)), new=_words(new[key]))
            raise ConfigError(f"the study {target} {words}; name another file with --study")


def _words(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
