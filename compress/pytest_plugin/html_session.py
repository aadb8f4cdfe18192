"""``--compress-html``: what a run must look at to draw its page, and the writing of it.

Kept in every pytest session of its environment, so nothing here imports the gate before a page is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compress.errors import CompressError
from compress.pytest_plugin.options import Settings

if TYPE_CHECKING:
    from compress.pytest_plugin.gate_session import GateSession
    from compress.report.pareto import Sweep
    from compress.results import LayerChange


@dataclass(kw_only=True)
class HtmlSession:
    """The page of one run.

    Attributes:
        path: the file to write.
        sweep: results of a sweep to be drawn with it; None for none.
        layers: recipe to what became of each layer, once a test with both models has run.
    """

    path: Path
    sweep: Sweep | None = None
    layers: dict[str, tuple[LayerChange, ...]] = field(default_factory=dict)

    def look_at(self, item: pytest.Item) -> None:
        """Compare the two models of a test layer by layer, once for each recipe."""
        models = getattr(item, "funcargs", {})
        if not {"recipe", "compressed", "dense"} <= models.keys() or models["recipe"].name in self.layers:
            return
        from compress.measure.layers import layer_changes

        self.layers[models["recipe"].name] = layer_changes(models["compressed"], models["dense"])

    def tell(self) -> str:
        """What the tests of this process saw, for the process that writes the page."""
        from compress.gate.transport import pack

        return json.dumps({recipe: [pack(layer) for layer in layers] for recipe, layers in self.layers.items()})

    def hear(self, text: str) -> None:
        """Take over what :meth:`tell` made in another process."""
        from compress.gate.transport import unpack
        from compress.results import LayerChange

        for recipe, layers in json.loads(text).items():
            self.layers[recipe] = tuple(unpack(LayerChange, layer) for layer in layers)

    def write(self, gate: GateSession, *, title: str = "", missing: Sequence[str] = ()) -> None:
        """Write the page.

        Args:
            gate: what was judged.
            title: what the run came to, "" for none.
            missing: what was not measured though no row shows it, one line each.

        Raises:
            CompressError: if the file cannot be written, or the sweep is of another workload or other test data.
        """
        from compress.gate.history import baseline_history
        from compress.report.html import Report, render_html
        from compress.system.files import write_atomically

        where = gate.provenance
        versions = (
            baseline_history(gate.folder, workload=where.workload, data_sha256=where.data_sha256) if where else ()
        )
        report = Report(
            workload=where.workload if where else "",
            data_sha256=where.data_sha256 if where else "",
            environment=where.environment if where else None,
            verdicts=gate.verdicts,
            title=title,
            missing=missing,
            layers=self.layers,
            versions=versions,
            sweep=self.sweep,
        )
        write_atomically(self.path, render_html(report).encode(), CompressError)


def html_session(settings: Settings) -> HtmlSession | None:
    """What the options ask for; None if they ask for no page.

    Raises:
        pytest.UsageError: if that could not be done, which is better known before hours of training.
    """
    path, results = settings.html, settings.sweep
    if path is None:
        if results is not None:
            raise pytest.UsageError("--compress-sweep is drawn on the page of --compress-html=FILE, which is missing")
        return None
    if not path.parent.is_dir():
        raise pytest.UsageError(f"--compress-html needs a folder that exists, got {path}")
    if results is None:
        return HtmlSession(path=path)
    from compress.report.sweep_file import read_sweep

    try:
        return HtmlSession(path=path, sweep=read_sweep(results))
    except CompressError as error:
        raise pytest.UsageError(f"--compress-sweep: {error}") from error


# Where the plugin keeps it in pytest's config.
HTML = pytest.StashKey[HtmlSession | None]()
