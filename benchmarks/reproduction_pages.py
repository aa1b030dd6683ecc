"""The reproduction report and the leaderboard as pages of the docs, from committed results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uncollapse.corpora import load_corpus, load_edition
from uncollapse.reproduction.inputs import GRAMMAR, PRESETS
from uncollapse.reproduction.leaderboard import to_markdown
from uncollapse.reproduction.published import Published, load_published, published_names
from uncollapse.reproduction.purposes import PURPOSES
from uncollapse.reproduction.ranking import entries_of, rank
from uncollapse.reproduction.records import Record, read_results, read_sealed
from uncollapse.reproduction.report import CorpusUsed, Report
from uncollapse.reproduction.tasks import runs_of
from uncollapse.reproduction.verdicts import MARKS, Judgement

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "reproduction"
INTRODUCTION = """\
# What reproduces, and what does not

Every table and figure of the papers, repeated under one estimator. {preset}

`uncollapse reproduce NAME` makes each of these pages; its runs go on where they were stopped, and
are shared between tables. The numbers here are generated from the committed files in
`benchmarks/results`, which say commit, seeds, hardware and date of each run. Those of commits
53df744, d242797 and 92a2895 were measured by programs of that time, with the same recipes, data and
seeds, before there was this command; some have no history or times.

A claim is a sentence of the paper as a comparison of two figures. It is *reproduced* if ours
differ the same way by more than two standard errors over seeds; *not reproduced* if they differ
the other way; else *undecided*. Of a system with one seed the spread over seeds is taken from
the systems of the same table and corpus that have several; where there are none, the error is that
over the test sentences. For a likelihood that errs on the side of "undecided"; for a KL, a mutual
information or a time it can be smaller than the spread over seeds, or not be there at all. That two
figures are about the same (~) is a matter of the margin that stands there, and of no error. *Cannot
be compared* is a claim of which a figure is lacking, *not run* one of which a run is not made yet.
"""
PAPERS = {
    "bn": "BN-VAE (Zhu et al. 2020)",
    "dem": "DEM-VAE (Shi et al. 2020)",
    "pool": "Pooling (Long et al. 2019)",
    "twr": "TWR-VAE (Li et al. 2020)",
}
WHAT = {
    "small": "These are the results of the small protocol: real corpora cut to a stated size, "
    "layers of 128, six epochs, the same budget for each system. Values cannot be compared with "
    "published ones, orderings can.",
    "paper": "These are the results at the papers' own settings.",
}


def records_of(preset: str) -> list[Record]:
    """All committed records of a preset."""
    files = sorted((RESULTS / preset).glob("*.json"))
    return [record for path in files for record in read_results(path)]


def report_from(published: Published, preset: str, records: Sequence[Record]) -> Report | None:
    """What committed results say of a table or figure; None if they have nothing of it."""
    here = {record.edition: record for record in records}
    editions: dict[str, str] = {}
    used = []
    others = [row.trained_on for row in published.rows if row.trained_on]
    for name in dict.fromkeys([*published.corpora, *others]):
        found = _edition(name, published.reads == "dialogues", here)
        if found is None:
            continue
        edition, reason = found
        editions[name] = edition
        if name in published.corpora:
            data = here[edition].protocol["data"]
            label = published.corpora[name]
            used.append(CorpusUsed(name, label, edition, data, not reason, reason))
    runs = runs_of(published, editions, preset, records)
    stored = RESULTS / "figures" / f"{published.name}-{preset}.json"
    if not stored.is_file():
        return Report(published, preset, used, {}, runs) if runs else None
    content = read_sealed(stored)
    picture = f"{published.name}-{preset}.png"
    return Report(
        published,
        preset,
        used,
        {},
        runs,
        drawn=[Judgement(**one) for one in content["drawn"]],
        markdown=content["markdown"],
        pictures=[picture] if (PAGES / picture).is_file() else [],
    )


def _edition(name: str, dialogues: bool, here: dict[str, Record]) -> tuple[str, str] | None:
    if name == GRAMMAR:
        return (GRAMMAR, "") if GRAMMAR in here else None
    for choice in load_corpus(name).editions:
        edition = f"{choice.edition}:dialogues" if dialogues else choice.edition
        if edition in here:
            return edition, choice.reason or load_edition(choice.edition).reason
    return None


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    found: dict[Path, str] = {}
    for preset in PRESETS:
        records = records_of(preset)
        if not records:
            continue
        folder = PAGES if preset == "small" else PAGES / preset
        reports = {}
        for name in published_names():
            report = report_from(load_published(name), preset, records)
            if report is not None:
                reports[name] = report
                found[folder / f"{name}.md"] = report.to_markdown() + "\n"
        found[folder / "index.md"] = index(preset, reports)
        board = "leaderboard.md" if preset == "small" else f"leaderboard-{preset}.md"
        found[ROOT / "docs" / board] = to_markdown(records) + "\n"
    return found


def index(preset: str, reports: dict[str, Report]) -> str:
    """The first page: how many claims of each table hold."""
    rows, sums = [], dict.fromkeys(MARKS, 0)
    for name, report in reports.items():
        counted = {v: sum(one.verdict == v for one in report.judgements) for v in MARKS}
        sums = {verdict: sums[verdict] + count for verdict, count in counted.items()}
        cells = " | ".join(str(count or "") for count in counted.values())
        rows.append(f"| [{name}]({name}.md) | {report.published.title} | {cells} |")
    total = " | ".join(str(count) for count in sums.values())
    head = " | ".join(MARKS)
    lines = [INTRODUCTION.format(preset=WHAT[preset]), f"| | | {head} |", "|---" * 6 + "|"]
    lines += [*rows, f"| **all** | | {total} |"]
    missing = [name for name in published_names() if name not in reports]
    if missing:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def answers() -> str:
    """For each purpose the three best systems, for the README."""
    entries = entries_of(records_of("small"))
    rows = []
    for purpose in PURPOSES:
        best = rank(purpose, entries)[:3]
        if best:
            named = ", ".join(f"`{one.system}`" for one in best)
            figure = purpose.figure.replace("_", " ")
            rows.append(f"| {purpose.name} | {named} | {figure} |")
    return "\n".join(["| you want | first try | ranked by |", "|---|---|---|", *rows])


def verdict_counts() -> str:
    """How many claims of each paper hold, for the README."""
    records, counts = records_of("small"), {}
    for name in published_names():
        report = report_from(load_published(name), "small", records)
        if report is not None:
            paper = PAPERS[name.partition("-")[0]]
            tables, sums = counts.setdefault(paper, ([], dict.fromkeys(MARKS, 0)))
            tables.append(name)
            for one in report.judgements:
                sums[one.verdict] += 1
    rows = [
        f"| {paper} | {len(tables)} | {' | '.join(str(count) for count in sums.values())} |"
        for paper, (tables, sums) in counts.items()
    ]
    head = f"| paper | tables and figures | {' | '.join(MARKS)} |"
    return "\n".join([head, "|---" * (len(MARKS) + 2) + "|", *rows])


def write_pages() -> None:
    """Write all of them."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
