"""Systems on corpora, seeds together, and their order for a purpose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean

from uncollapse.recipes import load_recipe, recipe_names
from uncollapse.reproduction.purposes import Purpose
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.verdicts import ERRORS, Figure, figure_of, time_to_best


@dataclass(frozen=True)
class Entry:
    """A system on a corpus.

    Attributes
    ----------
    system, edition : str
    seeds : int
    figures : dict of str to Figure
    time_ratio : float or None
        Time until the epoch that was kept, over that of ``vae`` (of ``cvae`` in dialogue).
    parameters : float or None
    peak_memory_mb : float or None
    """

    system: str
    edition: str
    seeds: int
    figures: dict[str, Figure]
    time_ratio: float | None
    parameters: float | None
    peak_memory_mb: float | None


@dataclass(frozen=True)
class Ranked:
    """A system's place for a purpose: over corpora, the mean share of systems up to it."""

    system: str
    rank: float
    corpora: int
    values: dict[str, float]


def entries_of(records: Iterable[Record]) -> list[Entry]:
    """The systems of some records, seeds together; variants of tables are left out."""
    known = set(recipe_names())
    grouped: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.system in known:
            grouped.setdefault((record.edition, record.system), []).append(record)
    found = []
    for (edition, system), own in grouped.items():
        plain = grouped.get((edition, "cvae" if edition.endswith(":dialogues") else "vae"), [])
        names = dict.fromkeys(name for record in own for name in record.metrics)
        figures = {name: f for name in names if (f := figure_of(own, name)) is not None}
        costs = {key: mean_of(record.cost.get(key) for record in own) for key in own[0].cost}
        time, base = (mean_of(map(time_to_best, group)) for group in (own, plain))
        found.append(
            Entry(
                system,
                edition,
                len(own),
                figures,
                time / base if time and base else None,
                costs.get("parameters"),
                costs.get("peak_memory_mb"),
            )
        )
    return sorted(found, key=lambda entry: (entry.edition, entry.system))


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def rank(purpose: Purpose, entries: Sequence[Entry]) -> list[Ranked]:
    """Systems by their mean rank over the corpora on which most systems were measured.

    Systems within two standard errors over seeds of each other share a rank on a corpus. A corpus
    counts if at least half of all systems with the figure were measured there, and a system is
    ranked if it was measured on more than half of those corpora: else who was measured where would
    decide.
    """
    if purpose.unlabelled:
        entries = [entry for entry in entries if entry.system not in _supervised()]
    places: dict[str, dict[str, tuple[float, float]]] = {}
    ranked_on = 0
    for edition in shared_editions(purpose, entries):
        all_here = [e for e in entries if e.edition == edition]
        here = [e for e in all_here if purpose.figure in e.figures]
        # the best may be a language model, which has no latent to ask
        nll = [e.figures["nll"].value for e in all_here if "nll" in e.figures]
        if purpose.within is not None and nll:
            worst = min(nll) * (1 + purpose.within)
            here = [e for e in here if "nll" in e.figures and e.figures["nll"].value <= worst]
        if len(here) < 2:
            continue
        ranked_on += 1
        sign = 1.0 if purpose.better == "lower" else -1.0
        for entry in here:
            own = entry.figures[purpose.figure]
            # half a place for each that cannot be told apart
            place = 1.0
            for other in here:
                if other is entry:
                    continue
                against = other.figures[purpose.figure]
                gap = sign * (own.value - against.value)
                error = ERRORS * ((own.error or 0.0) ** 2 + (against.error or 0.0) ** 2) ** 0.5
                place += 0.5 if abs(gap) <= error else float(gap > 0)
            places.setdefault(entry.system, {})[edition] = (place / len(here), own.value)
    found = [
        Ranked(
            system,
            mean(share for share, _ in own.values()),
            len(own),
            {edition: value for edition, (_, value) in own.items()},
        )
        for system, own in places.items()
        if 2 * len(own) > ranked_on
    ]
    return sorted(found, key=lambda one: (one.rank, -one.corpora, one.system))


@cache
def _supervised() -> frozenset[str]:
    """The recipes that learn from labels."""
    return frozenset(n for n in recipe_names() if load_recipe(n).objective.supervision)


def shared_editions(purpose: Purpose, entries: Sequence[Entry]) -> list[str]:
    """The corpora on which at least half of the systems with a figure have it; one at least."""
    dialogues = purpose.reads == "dialogues"
    systems: dict[str, set[str]] = {}
    for entry in entries:
        if entry.edition.endswith(":dialogues") == dialogues and purpose.figure in entry.figures:
            systems.setdefault(entry.edition, set()).add(entry.system)
    if not systems:
        return []
    every = set.union(*systems.values())
    most = max(len(here) for here in systems.values())
    enough = min(most, len(every) / 2)
    return sorted(edition for edition, here in systems.items() if len(here) >= enough)
