"""All systems on all corpora under one estimator, ranked by what one wants of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from uncollapse.evaluation.metric import DASH
from uncollapse.reproduction.purposes import PURPOSES
from uncollapse.reproduction.ranking import Entry, entries_of, mean_of, rank
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.verdicts import ERRORS, Figure, show_number

SHOWN = 5  # systems named for a purpose


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
    return mean_of(entry.time_ratio for entry in entries if entry.system == system)


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
