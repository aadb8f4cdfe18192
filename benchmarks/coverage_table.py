"""docs/coverage.md out of what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

Row = Mapping[str, Any]
Rows = Mapping[str, Row]

_LARGE = 100e6
_QUICK_S = 1.5
_ENDS = ("model output", "fed by values without channel labels", "not used by the forward pass", "put out by no layer")
_COLUMNS = (
    "network", "parameters", "left", "s", "equal", "batch", "size", "trains", "loads", "exports", "int8", "dB",
    "factorized", "stays whole", "T-P left", "T-P s",
)  # fmt: skip
_NUMBERS = ("parameters", "left", "s", "dB", "factorized", "T-P left", "T-P s")


def markdown(preface: str, families: Iterable[str], results: Rows, before: str = "") -> str:
    """The results as a document; families that they do not speak of stay as they are in the document ``before``."""
    kept = dict(re.findall(r"^## (.+?)\n+(.*?)(?=^## |\Z)", before, flags=re.MULTILINE | re.DOTALL))
    lines = [preface]
    for family in families:
        if any(key.split(" ", 2)[1] == family for key in results):
            lines += _section(family, _by_tool(results, family))
        elif family in kept:
            lines += [f"## {family}", "", kept[family].rstrip("\n"), ""]
    return "\n".join(lines)


def _by_tool(results: Rows, family: str) -> dict[str, dict[str, Row]]:
    """Tool -> network -> row."""
    found: dict[str, dict[str, Row]] = {}
    for key, row in results.items():
        tool, own, name = key.split(" ", 2)
        if own == family:
            found.setdefault(tool, {})[name] = row
    return found


def _section(family: str, tools: Mapping[str, Rows]) -> list[str]:
    lines = [f"## {family}", "", _summary(tools), ""]
    lines += [_table_row(_COLUMNS)]
    lines += [_table_row("---:" if column in _NUMBERS else "---" for column in _COLUMNS)]
    names = sorted(set().union(*tools.values()))
    lines += [_line(name, {tool: rows.get(name) for tool, rows in tools.items()}) for name in names]
    return [*lines, ""]


def _table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(name: str, rows: Mapping[str, Row | None]) -> str:
    *pruned, whole = _pruned(rows.get("compress"))
    others = [_exported(rows.get("exports")), *_int8(rows.get("int8")), _factorized(rows.get("factorizes"))]
    return _table_row([name, *pruned, *others, whole, *_their(rows.get("torch_pruning"))])


def _pruned(row: Row | None) -> list[str]:
    """What pruning made of a network, up to what stays whole."""
    if row is None or "error" in row:
        return [""] * 8 + ["" if row is None else _cell(row["error"])]
    sizes = [f"{row['parameters']:,}", f"{row['left'] / row['parameters']:.3f}", f"{row['seconds']:.2f}"]
    return [*sizes, *(_yes(row.get(what)) for what in _PROMISES), _stays_whole(row)]


def _stays_whole(row: Row) -> str:
    return _cell("; ".join(f"{count}x {reason}" for reason, count in _inner(row["frozen"]).items()))


def _inner(frozen: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in frozen.items() if not reason.startswith(_ENDS)}


def _exported(row: Row | None) -> str:
    if row is None or "error" in row:
        return "" if row is None else _cell(row["error"])
    return _yes(row["equal"] if row["equal"] is not True else row["batch"])


def _int8(row: Row | None) -> list[str]:
    """Kernels and layers in int8 of all, and the true decibels at two batch sizes."""
    if row is None or "error" in row:
        return ["" if row is None else _cell(row["error"]), ""]
    decibels = [f"{row[what]:.1f}" if isinstance(row[what], float) else _cell(row[what]) for what in ("db_1", "db_3")]
    return [f"{row['kernels']} ({row['int8_layers']} of {row['layers']})", ", ".join(decibels)]


def _factorized(row: Row | None) -> str:
    if row is None or "error" in row:
        return "" if row is None else _cell(row["error"])
    return f"{row['left'] / row['parameters']:.3f}" if row["runs"] is True else _cell(row["runs"])


def _their(row: Row | None) -> list[str]:
    if row is None or "error" in row:
        return ["" if row is None else _cell(row["error"][:60]), ""]
    return [f"{row['left'] / row['parameters']:.3f}", f"{row['seconds']:.2f}"]


def _yes(value: object) -> str:
    return "" if value is None else "yes" if value is True else _cell(str(value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _summary(tools: Mapping[str, Rows]) -> str:
    rows = tools.get("compress", {})
    done = {name: row for name, row in rows.items() if "error" not in row}
    if not done:
        return " ".join([f"None of {len(rows)} networks was pruned.", *_summary_of_others(tools)])
    seconds = {name: row["seconds"] for name, row in done.items()}
    slowest = ", ".join(f"{name} {seconds[name]:.1f}" for name in sorted(seconds, key=lambda n: -seconds[n])[:5])
    small = [seconds[name] for name, row in done.items() if row["parameters"] < _LARGE]
    left = {name: row["left"] / row["parameters"] for name, row in done.items()}
    most = ", ".join(f"{name} {left[name]:.3f}" for name in sorted(left, key=lambda n: -left[n])[:3])
    said = [
        f"{len(done)} of {len(rows)} networks pruned; median {median(seconds.values()):.2f} s; slowest: {slowest}.",
        f"Left: median {median(left.values()):.3f}; most: {most}.",
        f"Under 100 M parameters {sum(s <= _QUICK_S for s in small)} of {len(small)} took at most {_QUICK_S} s.",
        *(f"{text} {_share(done, what)}." for what, text in _PROMISES.items() if any(what in r for r in done.values())),
        *_summary_of_others(tools),
        *_comparison(done, tools.get("torch_pruning", {})),
    ]
    return " ".join(said)


_PROMISES = {
    "equal": "Equal to the masked network:",
    "batch": "The same at another batch:",
    "size": "At another size:",
    "trains": "Trained:",
    "loads": "Saved and loaded:",
}


def _share(rows: Rows, what: str) -> str:
    asked = [row[what] for row in rows.values() if row.get(what, "fixed") != "fixed"]
    return f"{sum(value is True for value in asked)} of {len(asked)}"


def _summary_of_others(tools: Mapping[str, Rows]) -> list[str]:
    texts: dict[str, tuple[str, Callable[[Row], bool]]] = {
        "exports": ("Exported:", lambda row: row.get("equal") is row.get("batch") is True),
        "int8": ("With int8 kernels:", lambda row: row.get("kernels", 0) > 0),
        "factorizes": ("Factorized:", lambda row: row.get("runs") is True),
    }
    return [
        f"{text} {sum(map(holds, tools[tool].values()))} of {len(tools[tool])}."
        for tool, (text, holds) in texts.items()
        if tool in tools
    ]


def _comparison(done: Rows, theirs: Rows) -> list[str]:
    both = [name for name, row in theirs.items() if "error" not in row and name in done]
    if not both:
        return []
    ours, other = (sum(one[name]["seconds"] for name in both) for one in (done, theirs))
    pruned = sum("error" not in row for row in theirs.values())
    return [
        f"Torch-Pruning pruned {pruned} of {len(theirs)}.",
        f"Over the {len(both)} that both did it took {other:.1f} s in sum, this {ours:.1f} s:",
        f"{other / ours:.1f} times as long.",
    ]
