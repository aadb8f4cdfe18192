"""How far a training is, on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from compress.system.progress import stderr_console

# Where stderr is a file, a line at most this often: a log says that it goes on, and stays short.
_SECONDS_BETWEEN_LINES = 10.0
_BAR_WIDTH = 16


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch came to.

    Attributes:
        train_loss: mean over the epoch's steps, while the weights were changing.
        validation: what the held-out examples came to after the epoch; None where nothing is held out.
        learning_rate: of the epoch's last step.
        judged_by: what that is: the title of a quality, or "loss".
    """

    train_loss: float
    validation: float | None
    learning_rate: float
    judged_by: str = "loss"

    def __str__(self) -> str:
        figure = "" if self.validation is None else f"{self.validation:.4g}"
        validation = f", validation {self.judged_by} {figure}" if figure else ""
        return f"train loss {self.train_loss:.4f}{validation}, learning rate {self.learning_rate:.2g}"


@dataclass(frozen=True, kw_only=True)
class FitProgress:
    """Told of every step and every epoch."""

    step: Callable[[], None]
    epoch: Callable[[int, EpochRecord], None]


@contextlib.contextmanager
def fit_progress(*, epochs: int, first_epoch: int, steps_per_epoch: int, shown: bool) -> Iterator[FitProgress]:
    """A bar on a terminal, now and then a line elsewhere, nothing unless ``shown``."""
    console = stderr_console()
    if not shown:
        yield FitProgress(step=lambda: None, epoch=lambda _number, _record: None)
    elif not console.is_terminal:
        yield FitProgress(step=lambda: None, epoch=_lines(console, epochs))
    else:
        with Progress(
            TextColumn("training"),
            BarColumn(_BAR_WIDTH),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            # What the last epoch came to is cut where there is no room, not how far it is.
            TextColumn("{task.fields[last]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=console,
            expand=True,
            transient=True,
        ) as bar:
            done = first_epoch * steps_per_epoch
            task = bar.add_task("", total=epochs * steps_per_epoch, completed=done, last="")
            yield FitProgress(
                step=lambda: bar.advance(task),
                epoch=lambda number, record: bar.update(task, last=f"epoch {number}: {record}"),
            )


def _lines(console: Console, epochs: int) -> Callable[[int, EpochRecord], None]:
    last = time.monotonic()

    def epoch(number: int, record: EpochRecord) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            console.print(f"epoch {number}/{epochs}: {record}", highlight=False, soft_wrap=True)

    return epoch
