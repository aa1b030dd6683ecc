"""What is here of every corpus and what is not: tables for the program and for the docs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uncollapse.corpora.finding import (
    VARIABLE,
    corpora_folder,
    found,
    lacking,
    nearest_choice,
    whole_choice,
)
from uncollapse.corpora.registry import (
    Edition,
    KnownCorpus,
    corpus_names,
    load_corpus,
    load_edition,
)


@dataclass(frozen=True)
class CorpusStatus:
    """What is in a folder of a corpus.

    Attributes
    ----------
    name, title : str
    state : str
        ``here``, ``re-split``, ``stand-in``, ``other content``, ``incomplete: lacks FILE, …`` or
        ``missing``.
    edition : str or None
        Which is here, or partly here.
    comparable : bool
        Whether figures on it can be compared with published ones.
    reason : str
        Why not, if it is here.
    licence : str
    fetchable : bool
        Whether ``uncollapse data fetch`` can get it.
    published : str
        Address.
    """

    name: str
    title: str
    state: str
    edition: str | None
    comparable: bool
    reason: str
    licence: str
    fetchable: bool
    published: str


def status(folder: Path | None = None, *, fresh: bool = False) -> list[CorpusStatus]:
    """Look for every corpus.

    Parameters
    ----------
    folder : Path, optional
        Default: the environment variable ``UNCOLLAPSE_CORPORA``; without either, all is missing.
    fresh : bool
        Compute every checksum anew, even of files that have not changed since the last time.

    Raises
    ------
    UserError
        If the folder does not exist.
    RunError
        If a file cannot be read.
    """
    return [status_of(name, folder, fresh=fresh) for name in corpus_names()]


def status_of(name: str, folder: Path | None = None, *, fresh: bool = False) -> CorpusStatus:
    """Look for one corpus; as `status`."""
    corpus = load_corpus(name)
    state, edition, comparable, reason = "missing", None, False, ""
    if folder is not None or os.environ.get(VARIABLE):
        folder = corpora_folder(folder)
        whole, partly = whole_choice(corpus, folder), nearest_choice(corpus, folder)
        if whole is not None:
            here = found(corpus, whole, folder, fresh=fresh)
            state = "other content" if here.difference else whole.kind
            state = "here" if state == "original" else state
            edition, comparable, reason = here.edition, here.comparable, here.reason
        elif partly is not None:
            edition = partly.edition
            state = f"incomplete: lacks {', '.join(lacking(edition, folder))}"
    return CorpusStatus(
        name,
        corpus.title,
        state,
        edition,
        comparable,
        reason,
        corpus.licence,
        fetchable(corpus),
        corpus.published,
    )


def fetchable(corpus: KnownCorpus) -> bool:
    """Whether its licence allows a copy, and an edition has an address."""
    archives = [load_edition(choice.edition).archive for choice in corpus.editions]
    return corpus.permission and any(archive and archive.address for archive in archives)


def status_table(rows: list[CorpusStatus]) -> str:
    """The rows as text, in columns; and below, why figures cannot be compared."""
    cells = [("CORPUS", "STATE", "COMPARABLE", "LICENCE", "PUBLISHED")]
    for row in rows:
        compared = ("yes" if row.comparable else "no") if _is_here(row) else ""
        cells.append((row.name, row.state, compared, row.licence, row.published))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    lines += ["", *(f"{row.name}: {row.reason}" for row in rows if row.reason)]
    return "\n".join(lines).rstrip()


def _is_here(row: CorpusStatus) -> bool:
    return row.edition is not None and not row.state.startswith("incomplete")


def describe(name: str, folder: Path | None = None, *, fresh: bool = False) -> dict[str, Any]:
    """Everything about one corpus, as JSON; as `status`."""
    row = status_of(name, folder, fresh=fresh)
    corpus = load_corpus(name)
    values = corpus.model_dump(mode="json", exclude={"editions"})
    editions = []
    for choice in corpus.editions:
        edition = load_edition(choice.edition)
        known = edition.model_dump(mode="json")
        known |= {"kind": choice.kind, "reason": choice.reason or edition.reason}
        editions.append(known)
    return {
        **values,
        "state": row.state,
        "edition": row.edition,
        "comparable": row.comparable,
        "reason": row.reason,
        "tables": tables_of(name),
        "editions": editions,
    }


def describe_text(values: dict[str, Any]) -> str:
    """What `describe` gives, to be read."""
    fetched = f"uncollapse data fetch {values['name']}"
    lines = [
        f"{values['name']}: {values['title']}",
        f"paper:      {values['paper']}",
        f"used by:    {', '.join(values['used_by'])}; {', '.join(values['tables']) or 'no table'}",
        f"published:  {values['published']}",
        f"licence:    {values['licence']}",
        f"to get it:  {fetched if fetchable(load_corpus(values['name'])) else values['by_hand']}",
        f"here:       {values['state']}" + (f" ({values['edition']})" if values["edition"] else ""),
    ]
    if values["reason"]:
        lines.append(f"figures:    cannot be compared with published ones: {values['reason']}")
    for known in values["editions"]:
        edition = load_edition(known["name"])
        lines += ["", f"{known['kind']}: {edition.name}"]
        lines += [f"  {line}" for line in _layout(edition)]
        if known["reason"]:
            lines.append(f"  not comparable: {known['reason']}")
        if edition.notes:
            lines.append(f"  {edition.notes}")
    return "\n".join(lines)


def _layout(edition: Edition) -> list[str]:
    form = edition.form
    lines = [form[:1].upper() + form[1:]]
    for split, path in edition.paths.items():
        count = edition.sizes.get(split)
        size = f"{count:,} {edition.unit}" if count is not None else "size not known"
        sums = edition.sha256.get(split, [])
        lines.append(f"{path}  {size}  sha256 {' or '.join(sums) or 'not known'}")
    if edition.labels:
        lines.append(f"labels: {', '.join(edition.labels)}")
    if edition.archive is not None:
        archive = edition.archive
        where = archive.address or "no address that can be relied on"
        lines.append(f"made from {archive.name} ({where}), sha256 {archive.sha256}")
    return lines


def tables_of(name: str) -> list[str]:
    """Tables and figures of ``uncollapse reproduce`` that need a corpus."""
    from uncollapse.reproduction.published import load_published, published_names

    def corpora(table: str) -> set[str | None]:
        published = load_published(table)
        return {*published.corpora, *(row.trained_on for row in published.rows)}

    return [table for table in published_names() if name in corpora(table)]


def page_table() -> str:
    """What is known of the corpora and their editions, in Markdown: two tables."""
    lines = [
        "| corpus | published | licence | made by | papers | `data fetch` |",
        "|---|---|---|---|---|---|",
    ]
    rows = []
    for name in corpus_names():
        corpus = load_corpus(name)
        get = "yes" if fetchable(corpus) else "no"
        lines.append(
            f"| `{name}`: {corpus.title} | <{corpus.published}> | {corpus.licence} | "
            f"{corpus.paper} | {', '.join(corpus.used_by)} | {get} |"
        )
        for choice in corpus.editions:
            edition = load_edition(choice.edition)
            sizes = " / ".join(f"{count:,}" for count in edition.sizes.values())
            sizes = f"{sizes} {edition.unit}" if sizes else "not known"
            files = ", ".join(edition.files.values())
            reason = choice.reason or edition.reason
            rows.append(
                f"| `{name}` | `{edition.name}`, {choice.kind} | `{edition.folder}/`: {files} | "
                f"{sizes} | {f'no: {reason}' if reason else 'yes'} |"
            )
    lines += ["", "| corpus | edition | files | sizes | comparable |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *rows])
