"""All systems on all corpora under one estimator, ranked by what one wants of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from statistics import mean
from typing import Any

from uncollapse.config import Recipe
from uncollapse.evaluation.metric import DASH
from uncollapse.recipes import load_recipe, recipe_names
from uncollapse.reproduction.published import Row
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.verdicts import ERRORS, Figure, figure_of, show_number, time_to_best

SENTENCES = ("grammar", "ptb", "yahoo", "yelp15", "short-yelp", "dailydialog", "smd")
DIALOGUES = ("dailydialog", "switchboard", "smd")
SHOWN = 5  # systems named for a purpose
CHEAP = 0.02  # share of the best likelihood that a latent may cost


@dataclass(frozen=True)
class Purpose:
    """What somebody wants of a system.

    Attributes
    ----------
    name : str
        As a question is asked.
    figure : str
        What answers it.
    better : {'lower', 'higher'}
    reads : {'sentences', 'dialogues'}
    within : float or None
        Share of the best likelihood on a corpus that it may be behind.
    explanation : str
        What the figure says, and what it does not.
    unlabelled : bool
        Whether systems that learn from labels are left out: the figure asks for the same labels.
    """

    name: str
    figure: str
    better: str
    reads: str
    explanation: str
    within: float | None = None
    unlabelled: bool = False


PURPOSES = (
    Purpose(
        "The best model of the text",
        "nll",
        "lower",
        "sentences",
        "NLL alone. A language model without a latent is hard to beat: a collapsed VAE is one.",
    ),
    Purpose(
        "A latent that knows the sentence, at no loss of likelihood",
        "mi",
        "higher",
        "sentences",
        f"Mutual information of sentence and z, of those whose NLL is within {CHEAP:.0%} of the "
        "best of that corpus.",
        within=CHEAP,
    ),
    Purpose(
        "To get a sentence back, or to change it",
        "bleu",
        "higher",
        "sentences",
        "BLEU of greedy reconstructions. Systems with a poor NLL are not left out.",
    ),
    Purpose(
        "Representations, where labels are few",
        "accuracy_100",
        "higher",
        "sentences",
        "Accuracy of a linear classifier on posterior means, learnt from 100 labels. Systems that "
        "learn from labels themselves are left out.",
        unlabelled=True,
    ),
    Purpose(
        "Clusters that mean something",
        "cluster_ami",
        "higher",
        "sentences",
        "Adjusted mutual information of codes and labels. Systems that learn from labels "
        "themselves are left out.",
        unlabelled=True,
    ),
    Purpose(
        "Sentences like those of the corpus",
        "reverse_ppl",
        "lower",
        "sentences",
        "Perplexity on real sentences of a language model trained on generated ones.",
    ),
    Purpose(
        "Responses as likely as can be",
        "nll",
        "lower",
        "dialogues",
        "NLL of a response given its context. SeqGAN is HRED with two epochs more.",
    ),
    Purpose(
        "Responses that match the real one",
        "bleu_f1_wae",
        "higher",
        "dialogues",
        "Harmonic mean of BLEU precision and recall over ten responses.",
    ),
    Purpose(
        "Responses that differ from one another",
        "distinct_2_inter",
        "higher",
        "dialogues",
        "Different word pairs among ten responses to one context. Nonsense differs too, and "
        "systems without z (HRED, SeqGAN) draw their words, where the others draw z alone.",
    ),
)


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


def rows_for(dialogues: bool, label_columns: Sequence[str]) -> list[Row]:
    """Every packaged recipe that can be trained on a corpus, as rows without printed figures."""
    rows = []
    for name in recipe_names():
        recipe: Recipe = load_recipe(name)
        if (recipe.condition is not None) != dialogues:
            continue
        wanted = {part.column for part in recipe.objective.supervision}
        if not wanted <= set(label_columns):
            continue  # it learns from labels that are not there
        rows.append(Row(label=name, recipe=name))
    return rows


def figures_for(dialogues: bool, labelled: bool) -> tuple[str, ...]:
    """What is measured on a corpus: whatever a purpose asks for."""
    reads = "dialogues" if dialogues else "sentences"
    names = [purpose.figure for purpose in PURPOSES if purpose.reads == reads]
    standard = {"nll", "mi", "bleu"}
    left_out = standard if labelled else standard | {"accuracy_100", "cluster_ami"}
    return ("standard", *(name for name in names if name not in left_out))


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
        costs = {key: _mean(record.cost.get(key) for record in own) for key in own[0].cost}
        time, base = (_mean(map(time_to_best, group)) for group in (own, plain))
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


def _mean(values: Iterable[float | None]) -> float | None:
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


def to_markdown(records: Sequence[Record], heading: str = "# Which should I use, and when?") -> str:
    """The page: an answer for each purpose, then every corpus whole."""
    entries = entries_of(records)
    lines = [heading, ""]
    lines += [
        "Ranked by the results below, all under the same estimator, data and budget. A rank is a "
        "share: 0.1 means that a system is in the first tenth, on average over the corpora. "
        "Only corpora on which most systems were measured count, and only systems that were "
        "measured on more than half of those. "
        f"Systems within {ERRORS:g} standard errors over seeds share their places.",
        "",
    ]
    if entries and all(entry.seeds == 1 for entry in entries):
        lines += [
            "All of it is one seed: how far another seed would be is not known, so that the order "
            "is that of the figures, and neighbours may well change places.",
            "",
        ]
    for purpose in PURPOSES:
        found = rank(purpose, entries)
        if not found:
            continue
        editions = sorted({edition for one in found for edition in one.values})
        lines += [f"## {purpose.name}", "", purpose.explanation, ""]
        plain = "cvae" if purpose.reads == "dialogues" else "vae"
        lines += [f"| | rank | {' | '.join(f'`{e}`' for e in editions)} | time / `{plain}` |"]
        lines += ["|---" * (len(editions) + 3) + "|"]
        for one in found[:SHOWN]:
            values = [show_number(one.values.get(edition)) for edition in editions]
            ratio = show_number(_ratio_of(one.system, entries))
            lines.append(f"| `{one.system}` | {one.rank:.2f} | {' | '.join(values)} | {ratio} |")
        lines.append("")
    for edition in sorted({entry.edition for entry in entries}):
        lines += _corpus_table(edition, [e for e in entries if e.edition == edition], records)
    return "\n".join(lines)


def _ratio_of(system: str, entries: Sequence[Entry]) -> float | None:
    return _mean(entry.time_ratio for entry in entries if entry.system == system)


def _corpus_table(edition: str, entries: Sequence[Entry], records: Sequence[Record]) -> list[str]:
    dialogues = edition.endswith(":dialogues")
    columns = ["nll", "ppl", "kl", "mi", "active_units"]
    columns += ["bleu_f1_wae", "distinct_2_inter"] if dialogues else ["bleu"]
    for purpose in PURPOSES:
        if any(purpose.figure in e.figures for e in entries) and purpose.figure not in columns:
            columns.append(purpose.figure)
    of = [record for record in records if record.edition == edition]
    head = [*(c.replace("_", " ") for c in columns), "time", "parameters", "MB", "seeds"]
    lines = [f"## {edition}", "", f"{of[0].protocol['data']}; {of[0].protocol['samples']} "
             "importance samples.", ""]  # fmt: skip
    lines += [f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]

    def likely(entry: Entry) -> float:
        return entry.figures["nll"].value if "nll" in entry.figures else float("inf")

    for entry in sorted(entries, key=likely):
        cells = [_cell(entry.figures.get(column)) for column in columns]
        cells += [
            show_number(entry.time_ratio),
            f"{entry.parameters:,.0f}" if entry.parameters else DASH,
            f"{entry.peak_memory_mb:,.0f}" if entry.peak_memory_mb else DASH,
            str(entry.seeds),
        ]
        lines.append(f"| `{entry.system}` | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(found: Figure | None) -> str:
    if found is None:
        return DASH
    text = show_number(found.value)
    return text if found.error is None else f"{text} ± {show_number(found.error)}"


def to_dict(records: Sequence[Record]) -> dict[str, Any]:
    """Entries and rankings as plain data."""
    entries = entries_of(records)
    return {
        "entries": [asdict(entry) for entry in entries],
        "purposes": [
            {**asdict(purpose), "ranking": [asdict(one) for one in rank(purpose, entries)]}
            for purpose in PURPOSES
        ],
    }


def to_csv(records: Sequence[Record]) -> str:
    """A line a system, corpus and figure."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(["edition", "system", "figure", "value", "standard_error", "seeds"])
    for entry in entries_of(records):
        for name, figure in entry.figures.items():
            rows.writerow(
                [entry.edition, entry.system, name, figure.value, figure.error, entry.seeds]
            )
        costs: Mapping[str, float | None] = {
            "time_ratio": entry.time_ratio,
            "parameters": entry.parameters,
            "peak_memory_mb": entry.peak_memory_mb,
        }
        for name, value in costs.items():
            rows.writerow([entry.edition, entry.system, name, value, None, entry.seeds])
    return written.getvalue()
