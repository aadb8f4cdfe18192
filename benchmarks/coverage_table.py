"""docs/coverage.md out of what was measured, and of what it said before of the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Row = Mapping[str, Any]
Rows = Mapping[str, Row]
Cells = Mapping[str, str]
"""Column to text, of one network; what was not measured is missing or empty."""

_LARGE = 100e6
_QUICK_S = 1.5
_ENDS = ("model output", "fed by values without channel labels", "not used by the forward pass", "put out by no layer")
_COLUMNS = (
    "network", "parameters", "left", "s", "equal", "batch", "size", "trains", "loads", "exports", "int8", "dB",
    "factorized", "stays whole", "T-P left", "T-P s",
)  # fmt: skip
_NUMBERS = ("parameters", "left", "s", "dB", "factorized", "T-P left", "T-P s")


def markdown(preface: str, families: Iterable[str], results: Rows, before: str = "") -> str:
    """The results as a document; what they do not speak of stays as it is in the document ``before``."""
    kept = dict(re.findall(r"^## (.+?)\n+(.*?)(?=^## |\Z)", before, flags=re.MULTILINE | re.DOTALL))
    lines = [preface]
    for family in families:
        measured = _by_network(results, family)
        if measured:
            known = _table_in(kept.get(family, ""))
            table = {name: {**known.get(name, {}), **measured.get(name, {})} for name in sorted({*known, *measured})}
            lines += [f"## {family}", "", _summary(table), "", *_table(table), ""]
        elif family in kept:
            lines += [f"## {family}", "", kept[family].rstrip("\n"), ""]
    return "\n".join(lines)


def _by_network(results: Rows, family: str) -> dict[str, dict[str, str]]:
    """Network -> the cells of all tools that it was tried with."""
    found: dict[str, dict[str, str]] = {}
    for key, row in results.items():
        tool, own, name = key.split(" ", 2)
        if own == family:
            found.setdefault(name, {}).update(_CELLS[tool](row))
    return found


def _table_in(section: str) -> dict[str, dict[str, str]]:
    """Network -> cells, of the table in a section of the document."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| ")]
    if not rows:
        return {}
    titles, _, *others = [[cell.strip() for cell in row] for row in rows]
    return {row[0]: dict(zip(titles[1:], row[1:], strict=True)) for row in others}


def _table(table: Mapping[str, Cells]) -> list[str]:
    rules = ["---:" if column in _NUMBERS else "---" for column in _COLUMNS]
    rows = [[name, *(cells.get(column, "") for column in _COLUMNS[1:])] for name, cells in table.items()]
    return [f"| {' | '.join(row)} |" for row in (_COLUMNS, rules, *rows)]


def _pruned(row: Row) -> dict[str, str]:
    if "error" in row:
        return {**dict.fromkeys(("left", "s", *_PROMISES), ""), "stays whole": _cell(row["error"])}
    return {
        "parameters": f"{row['parameters']:,}",
        "left": _share_left(row),
        "s": f"{row['seconds']:.2f}",
        **{what: _yes(row.get(what)) for what in _PROMISES},
        "stays whole": _cell("; ".join(f"{count}x {reason}" for reason, count in _inner(row["frozen"]).items())),
    }


def _inner(frozen: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in frozen.items() if not reason.startswith(_ENDS)}


def _exported(row: Row) -> dict[str, str]:
    if "error" in row:
        return {"exports": _cell(row["error"])}
    return {"exports": _yes(row["equal"] if row["equal"] is not True else row["batch"])}


def _int8(row: Row) -> dict[str, str]:
    """Kernels and layers in int8 of all, and the true decibels at two batch sizes."""
    if "error" in row:
        return {"int8": _cell(row["error"]), "dB": ""}
    decibels = [f"{row[what]:.1f}" if isinstance(row[what], float) else _cell(row[what]) for what in ("db_1", "db_3")]
    return {"int8": f"{row['kernels']} ({row['int8_layers']} of {row['layers']})", "dB": ", ".join(decibels)}


def _factorized(row: Row) -> dict[str, str]:
    if "error" in row:
        return {"factorized": _cell(row["error"])}
    return {"factorized": _share_left(row) if row["runs"] is True else _cell(row["runs"])}


def _their(row: Row) -> dict[str, str]:
    if "error" in row:
        return {"T-P left": _cell(row["error"][:60]), "T-P s": ""}
    return {"T-P left": _share_left(row), "T-P s": f"{row['seconds']:.2f}"}


_CELLS: Mapping[str, Callable[[Row], dict[str, str]]] = {
    "compress": _pruned,
    "exports": _exported,
    "int8": _int8,
    "factorizes": _factorized,
    "torch_pruning": _their,
}


def _share_left(row: Row) -> str:
    return f"{row['left'] / row['parameters']:.3f}"


def _yes(value: object) -> str:
    return "" if value is None else "yes" if value is True else _cell(str(value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _summary(table: Mapping[str, Cells]) -> str:
    """What the table comes to, read off its cells."""
    tried = {name: cells for name, cells in table.items() if cells.get("left") or cells.get("stays whole")}
    done = {name: cells for name, cells in tried.items() if cells.get("left")}
    said = [] if done or not tried else [f"None of {len(tried)} networks was pruned."]
    if done:
        said += _summary_of_pruning(tried, done)
    for column, (text, holds) in _OTHERS.items():
        cells = [one[column] for one in table.values() if one.get(column)]
        said += [f"{text} {sum(map(holds, cells))} of {len(cells)}."] if cells else []
    return " ".join([*said, *_comparison(table, done)])


def _summary_of_pruning(tried: Mapping[str, Cells], done: Mapping[str, Cells]) -> list[str]:
    seconds = {name: float(cells["s"]) for name, cells in done.items()}
    slowest = ", ".join(f"{name} {seconds[name]:.1f}" for name in sorted(seconds, key=lambda n: -seconds[n])[:5])
    small = [seconds[name] for name, cells in done.items() if int(cells["parameters"].replace(",", "")) < _LARGE]
    left = {name: float(cells["left"]) for name, cells in done.items()}
    most = ", ".join(f"{name} {left[name]:.3f}" for name in sorted(left, key=lambda n: -left[n])[:3])
    kept = {what: [cells[what] for cells in done.values() if cells.get(what)] for what in _PROMISES}
    return [
        f"{len(done)} of {len(tried)} networks pruned; median {median(seconds.values()):.2f} s; slowest: {slowest}.",
        f"Left: median {median(left.values()):.3f}; most: {most}.",
        f"Under 100 M parameters {sum(s <= _QUICK_S for s in small)} of {len(small)} took at most {_QUICK_S} s.",
        *(f"{text} {_share(kept[what])}." for what, text in _PROMISES.items() if kept[what]),
    ]


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[\d.]+", cell) is not None


_PROMISES = {
    "equal": "Equal to the masked network:",
    "batch": "The same at another batch:",
    "size": "At another size:",
    "trains": "Trained:",
    "loads": "Saved and loaded:",
}
_OTHERS: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "exports": ("Exported:", lambda cell: cell == "yes"),
    "int8": ("With int8 kernels:", lambda cell: re.match(r"[1-9]\d* \(", cell) is not None),
    "factorized": ("Factorized:", _is_number),
}


def _share(cells: Sequence[str]) -> str:
    asked = [cell for cell in cells if cell != "fixed"]
    return f"{asked.count('yes')} of {len(asked)}"


def _comparison(table: Mapping[str, Cells], done: Mapping[str, Cells]) -> list[str]:
    theirs = {name: cells for name, cells in table.items() if cells.get("T-P left")}
    pruned = [name for name, cells in theirs.items() if _is_number(cells["T-P left"])]
    both = [name for name in pruned if name in done]
    if not both:
        return []
    other, ours = (sum(float(table[name][column]) for name in both) for column in ("T-P s", "s"))
    return [
        f"Torch-Pruning pruned {len(pruned)} of {len(theirs)}.",
        f"Over the {len(both)} that both did it took {other:.1f} s in sum, this {ours:.1f} s:",
        f"{other / ours:.1f} times as long.",
    ]
