"""How far a sweep is, on stderr: a line for each model that is made, and below them a bar."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from compress.pareto import Candidate, Failure
from compress.train.progress import stderr_console

Done = Candidate | Failure


@dataclass(kw_only=True)
class SweepProgress:
    """Told of all that is done, says what is new.

    Attributes:
        say: prints a line.
        advance: told how many are done.
        told: how many have a line already; None before the first time, when what is found done needs no lines.
    """

    say: Callable[[str], None]
    advance: Callable[[int], None]
    told: int | None = field(default=None)

    def update(self, done: Sequence[Done]) -> None:
        """Show what is done, whichever process did it."""
        if self.told is None and done:
            self.say(f"the study holds {len(done)} models already")
        for number, one in enumerate(done[self.told or 0 :] if self.told is not None else (), (self.told or 0) + 1):
            self.say(f"{number}: {describe(one)}")
        self.told = len(done)
        self.advance(len(done))


@contextlib.contextmanager
def sweep_progress(*, total: int, shown: bool) -> Iterator[SweepProgress]:
    """A bar on a terminal, lines elsewhere, nothing unless ``shown``."""
    console = stderr_console()
    if not shown:
        yield SweepProgress(say=lambda _: None, advance=lambda _: None)
    elif not console.is_terminal:
        yield SweepProgress(say=_lines(console), advance=lambda _: None)
    else:
        columns = (TextColumn("sweep"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield SweepProgress(say=_lines(console), advance=lambda done: bar.update(task, completed=done))


def describe(one: Done) -> str:
    """A model in one line."""
    if isinstance(one, Failure):
        settings = ", ".join(f"{name}={value}" for name, value in one.settings.items())
        return f"{one.recipe}{': ' if settings else ''}{settings}: failed: {one.reason}"
    ratio = "" if one.latency_ratio is None else f", time x{one.latency_ratio:.3f}"
    return f"{one.label}: top-1 error {one.top1_error:.2%}{ratio}, {one.file_bytes / 1e6:.2f} MB"


def _lines(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
