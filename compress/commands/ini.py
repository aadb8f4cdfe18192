"""Settings for pytest, added to the file in which a project keeps them; nothing that stands there is changed."""

from __future__ import annotations

import configparser
import contextlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import ConfigError

Value = str | list[str]

_TOML_SECTIONS = {"pyproject.toml": ("tool.pytest", "tool.pytest.ini_options"), "pytest.toml": ("pytest",)}
# In the order in which pytest looks.
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "pytest.toml": _TOML_SECTIONS["pytest.toml"],
    "pytest.ini": ("pytest",),
    "pyproject.toml": _TOML_SECTIONS["pyproject.toml"],
    "tox.ini": ("pytest",),
    "setup.cfg": ("tool:pytest",),
}


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is to become of a project's settings.

    Attributes:
        path: of the file.
        text: its new content; None where it says all already.
        by_hand: what only its owner can add, a line each.
    """

    path: Path
    text: str | None
    by_hand: tuple[str, ...] = ()


def added_settings(folder: Path, settings: Mapping[str, Value]) -> Edit:
    """How the settings of pytest in ``folder`` come to hold ``settings``.

    A key that is there already keeps its value; where that is a list which lacks one of ours, its owner has to add it.

    Raises:
        ConfigError: if a file cannot be read, or the settings cannot be added without a change to what stands there.
    """
    path, section = _home(folder)
    text = _read(path) if path.exists() else ""
    before = _table(path, text, section) or {}
    missing = {key: value for key, value in settings.items() if key not in before}
    by_hand = tuple(
        f"{key}: add {item!r}"
        for key, value in settings.items()
        if key in before and isinstance(value, list)
        for item in value
        if item not in _items(before[key])
    )
    if not missing:
        return Edit(path=path, text=None, by_hand=by_hand)
    lines = "".join(_line(path, key, value) for key, value in missing.items())
    after = _with_lines(text, section, lines)
    # Whatever is odd about the file, no other setting may have become another one.
    with contextlib.suppress(ConfigError):
        if _table(path, after, section) == {**before, **_as_read(path, missing)}:
            return Edit(path=path, text=after, by_hand=by_hand)
    wanted = "; ".join(lines.splitlines())
    raise ConfigError(f"the form of [{section}] is not understood, add to it by hand: {wanted} ({path})")


def _home(folder: Path) -> tuple[Path, str]:
    """The file and section that pytest reads there, or will."""
    for name, sections in _SECTIONS.items():
        path = folder / name
        if not path.exists():
            continue
        text = _read(path)
        for section in sections:
            table = _table(path, text, section)
            # A table that only holds another one is no section of its own.
            if table and not set(table) <= {"ini_options"}:
                return path, section
        if name in ("pytest.ini", "pytest.toml"):
            return path, sections[0]
    pyproject = folder / "pyproject.toml"
    return (pyproject, "tool.pytest.ini_options") if pyproject.exists() else (folder / "pytest.ini", "pytest")


def _with_lines(text: str, section: str, lines: str) -> str:
    """The lines below the section's header, or with it at the end."""
    header = re.search(rf"^\[{re.escape(section)}\][^\n]*(\n|\Z)", text, re.MULTILINE)
    if header is None:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}[{section}]\n{lines}"
    begun = text[: header.end()] if header[1] else f"{text}\n"
    return begun + lines + text[header.end() :]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the project's settings: {error} ({path})") from error


def _table(path: Path, text: str, section: str) -> dict[str, Any] | None:
    """The section's keys and values; None if there is none."""
    try:
        if path.suffix == ".toml":
            found: Any = tomllib.loads(text)
            for name in section.split("."):
                found = found.get(name) if isinstance(found, dict) else None
            return found if isinstance(found, dict) else None
        parser = configparser.RawConfigParser()
        parser.read_string(text)
        return dict(parser[section]) if parser.has_section(section) else None
    except (tomllib.TOMLDecodeError, configparser.Error) as error:
        raise ConfigError(f"cannot read the project's settings: {error} ({path})") from error


def _line(path: Path, key: str, value: Value) -> str:
    if path.suffix == ".toml":
        quoted = ", ".join(f'"{item}"' for item in value) if isinstance(value, list) else f'"{value}"'
        return f"{key} = [{quoted}]\n" if isinstance(value, list) else f"{key} = {quoted}\n"
    return f"{key} = {' '.join(value) if isinstance(value, list) else value}\n"


def _as_read(path: Path, settings: Mapping[str, Value]) -> dict[str, Value]:
    if path.suffix == ".toml":
        return dict(settings)
    return {key: " ".join(value) if isinstance(value, list) else value for key, value in settings.items()}


def _items(value: Any) -> list[str]:
    return value if isinstance(value, list) else str(value).split()
