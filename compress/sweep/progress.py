"""How far a sweep is, on stderr: a line for each model that is made, and below them a bar."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from compress.report.pareto import Candidate, Failure
from compress.report.scatter import describe
from compress.system.progress import stderr_console

Done = Candidate | Failure


@dataclass(kw_only=True)
class SweepProgress:
    """Told of all that is done, says what is new.

    Attributes:
        say: prints a line.
        advance: told how many are done.
        told: labels of those that need no line any more.
    """

    say: Callable[[str], None]
    advance: Callable[[int], None]
    told: set[str] = field(default_factory=set)

    def begin(self, done: Sequence[Done]) -> None:
        """Take note of what a study holds already."""
        if done:
            self.say(f"the study holds {len(done)} models already")
        self.told.update(one.label for one in done)
        self.advance(len(done))

    def update(self, done: Sequence[Done]) -> None:
        """Show what is new, whichever process did it."""
        for one in done:
            if one.label not in self.told:
                self.told.add(one.label)
                self.say(f"{len(self.told)}: {_line(one)}")
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


def _line(one: Done) -> str:
    return f"{one.label}: failed: {one.reason}" if isinstance(one, Failure) else describe(one)


def _lines(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
