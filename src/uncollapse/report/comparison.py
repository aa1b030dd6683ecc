"""What a comparison found: as a table, as data, and as the files that keep it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uncollapse import __version__, saving
from uncollapse.evaluation.dialogue_figures import DIALOGUE, HEADLINE
from uncollapse.evaluation.mixtures import ACCURACY, ORDER
from uncollapse.evaluation.suite import PROBES
from uncollapse.plots import to_svg
from uncollapse.report.page import comparison_page
from uncollapse.report.sweep import Sweep, TradeOff, draw_tradeoff
from uncollapse.report.table import Table, build_table

if TYPE_CHECKING:
    from uncollapse.benchmark.summary import RunSummary

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Failure:
    """A run that did not finish, and why in one line."""

    name: str
    seed: int
    message: str


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    recipes : tuple of str
        The systems in the order of the table: recipes, and those of a sweep with their value,
        e.g. ``dgm-vae, beta=0.2``.
    data : dict of str to str
        What ``train``, ``validation`` and ``test`` are.
    seeds, samples : int
        Seeds a recipe; importance samples a sentence.
    overrides : tuple of str
        What was changed in every recipe.
    entropy_floor : float or None
        Exact entropy of the language, nats per sentence.
    created : str
        Date, ISO 8601.
    summaries : tuple of RunSummary
        The runs that finished, by system and seed.
    failures : tuple of Failure
        Those that did not.
    sweep : Sweep or None
        The key that varies, if one does.
    """

    recipes: tuple[str, ...]
    data: dict[str, str]
    seeds: int
    samples: int
    overrides: tuple[str, ...]
    entropy_floor: float | None
    created: str
    summaries: tuple[RunSummary, ...]
    failures: tuple[Failure, ...] = ()
    sweep: Sweep | None = None

    @property
    def title(self) -> str:
        """The recipes, such as ``vae and bn-vae``, or ``vae and gm-vae over beta``."""
        *others, last = dict.fromkeys(map(self._shown, self.recipes))
        return f"{', '.join(others)} and {last}" if others else last

    @property
    def runs(self) -> dict[str, list[RunSummary]]:
        """The finished runs of every system; possibly none."""
        return {name: [s for s in self.summaries if s.name == name] for name in self.recipes}

    @property
    def table(self) -> Table:
        """Systems by metrics, averaged over seeds."""
        return self._table(None)

    @property
    def tables(self) -> dict[str, Table]:
        """The same by subject.

        ``standard`` figures, those of ``mixtures`` and codes, and of each group of probes; of
        all figures of ``dialogue``, which are too many to read, the main ones.
        """
        found = dict.fromkeys(metric for run in self.summaries for metric in run.metrics)
        probes = {metric for members in PROBES.values() for metric in members}
        supervised = [name for name in found if name.startswith(ACCURACY) and name not in probes]
        groups = {"mixtures": (*ORDER, *supervised), **PROBES}
        others = {metric for members in groups.values() for metric in members}
        groups = {"standard": [name for name in found if name not in others], **groups}
        if found.keys() >= set(DIALOGUE):
            groups["dialogue"] = HEADLINE
        return {
            group: self._table([name for name in members if name in found])
            for group, members in groups.items()
            if group == "standard" or found.keys() & set(members)
        }

    @property
    def tradeoff(self) -> TradeOff | None:
        """What the varied key trades; None without a sweep, or without figures to hold."""
        return None if self.sweep is None else draw_tradeoff(self.sweep, self.table)

    @property
    def _further(self) -> str:
        """Where to find what no table shows; empty if there is nothing."""
        hidden = len(self.table.columns) - sum(len(t.columns) for t in self.tables.values())
        return f"{hidden} more figures are in comparison.json." if hidden else ""

    def _shown(self, system: str) -> str:
        if self.sweep is None:
            return system
        recipe = self.sweep.recipe_of(system)
        return system if recipe == system else f"{recipe} over {self.sweep.parameter}"

    def _table(self, chosen: Sequence[str] | None) -> Table:
        metrics = {
            name: [
                run.metrics
                if chosen is None
                else {metric: run.metrics[metric] for metric in chosen if metric in run.metrics}
                for run in runs
            ]
            for name, runs in self.runs.items()
        }
        return build_table(metrics, self.seeds, self.entropy_floor, chosen)

    def to_text(self) -> str:
        """The tables for a terminal, with what must be known to read them."""
        tables = self.tables.values()
        lines = [line for table in tables for line in (table.to_text(), "")]
        notes = filter(None, [self.table.errors, self._further])
        return "\n".join([*lines, *notes, *self.failure_lines()])

    def to_markdown(self) -> str:
        """The tables and the definitions of their columns."""
        table = self.table
        lines = [f"# {self.title}", ""]
        lines += [f"- {name}: {what}" for name, what in self.data.items()]
        lines += [f"- sweep: {self.sweep.line}"] if self.sweep else []
        for part in self.tables.values():
            lines += ["", part.to_markdown()]
        lines += ["", f"{table.errors}.", ""]
        shown = [column for part in self.tables.values() for column in part.columns]
        lines += [f"- **{column.heading}**: {column.definition}" for column in shown]
        lines += ["", self._further] if self._further else []
        lines += ["", *(f"- {line}" for line in self.failure_lines())] if self.failures else []
        return "\n".join(lines).replace("<", "&lt;") + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as it goes to ``comparison.json``."""
        table = self.table
        systems = {
            row.system: {
                column.name: {**asdict(cell), "unit": column.unit}
                for column, cell in zip(table.columns, row.cells, strict=True)
            }
            for row in table.rows
        }
        runs = [
            {
                "name": run.name,
                "seed": run.seed,
                "verdict": run.verdict,
                "metrics": run.metrics,
                "seconds": run.seconds,
                "parameters": run.parameters,
            }
            for run in self.summaries
        ]
        return {
            "format_version": FORMAT_VERSION,
            "uncollapse": __version__,
            "created": self.created,
            "data": self.data,
            "seeds": self.seeds,
            "samples": self.samples,
            "overrides": list(self.overrides),
            "sweep": None if self.sweep is None else asdict(self.sweep),
            "entropy_floor": self.entropy_floor,
            "errors": table.errors,
            "systems": systems,
            "runs": runs,
            "failures": [asdict(failure) for failure in self.failures],
        }

    def failure_lines(self) -> list[str]:
        """One line for each run that did not finish."""
        return [f"{f.name}, seed {f.seed}: failed: {f.message}" for f in self.failures]

    def write(self, out: Path) -> None:
        """Write ``comparison.json``, ``comparison.md`` and ``index.html``, each whole.

        After a sweep also ``sweep.svg``, the trade-off, where there is one to draw.
        """
        saving.write_text(out / "comparison.json", json.dumps(self.to_dict(), indent=1) + "\n")
        saving.write_text(out / "comparison.md", self.to_markdown())
        saving.write_text(out / "index.html", comparison_page(self))
        found = self.tradeoff
        if found is not None:
            saving.write_text(out / "sweep.svg", to_svg(found.figure, found.title))
