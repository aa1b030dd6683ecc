"""What the benchmark of processes measures, a row each, and the table of what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

LINKS = (1.0, 10.0, 25.0, 100.0)  # Gbit/s
Rounds = Sequence[Mapping[str, float]]  # words a second by row, of what was measured together


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    name : str
    processes : int
    together : bool
        Whether they are one run; else each is its own.
    gigabits : float or None
        Speed of the simulated link; None: this machine's own, as it is.
    compressed : bool
        Whether gradients are summed in bf16.
    """

    name: str
    processes: int
    together: bool
    gigabits: float | None = None
    compressed: bool = False

    @property
    def apart(self) -> str:
        """The row of as many processes without a word to each other."""
        return "1" if self.processes == 1 else f"{self.processes}-apart"


def all_rows() -> list[Row]:
    """Those of a whole run."""
    rows = [Row("1", 1, True)]
    for count in (2, 4):
        rows += [Row(f"{count}-apart", count, False), Row(f"{count}", count, True)]
    rows.append(Row("2-bf16", 2, True, None, True))
    for gigabits in LINKS:
        for compressed in (False, True):
            name = f"2-{gigabits:g}G{'-bf16' if compressed else ''}"
            rows.append(Row(name, 2, True, gigabits, compressed))
    return rows


def table(rounds: Rounds) -> str:
    """Medians over the rounds, of rates and of shares of what the same processes do apart.

    A share is of the same round: a machine that others use as well has slow and fast minutes.
    """
    lines = ["| processes | link, Gbit/s | gradients | words/s | of as many apart |"]
    lines.append("|---|---|---|---|---|")
    for row in all_rows():
        rates = [found[row.name] for found in rounds if row.name in found]
        if not rates:
            continue
        both = [found for found in rounds if {row.name, row.apart} <= found.keys()]
        shares = [found[row.name] / found[row.apart] for found in both]
        share = f"{median(shares):.0%}" if shares else "–"
        if len(shares) > 1 and row.name != row.apart:
            share += f" ({min(shares):.0%} to {max(shares):.0%})"
        link = "this machine" if row.gigabits is None else f"{row.gigabits:g}"
        gradients = ("bf16" if row.compressed else "f32") if row.together else "not summed"
        if row.processes == 1:
            link = gradients = "–"
        cells = (row.processes, link, gradients, f"{median(rates):,.0f}", share)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def page(found: Mapping[str, Any]) -> str:
    """What was measured on which machine, and the table."""
    kernels = "with" if found["kernels"] else "without"
    commits, dates = sorted(set(found["commits"])), sorted(set(found["dates"]))
    facts = (
        f"Commit {' and '.join(commits)}, {' and '.join(dates)}: {found['hardware']}, "
        f"{found['cores']} cores, one thread a process, PyTorch {found['torch']}, {kernels} "
        f"kernels; {found['corpus']}, {found['sentences_a_process']} sentences a process and step, "
        f"a ring of {found['ring']}. Shares are of the same round (range over rounds)."
    )
    return f"{facts}\n\n{table(found['rounds'])}"
