"""The corpora of the papers: where they are published, which editions there are, what is here."""

from __future__ import annotations

from uncollapse.corpora.fetching import fetch
from uncollapse.corpora.finding import FoundCorpus, find
from uncollapse.corpora.overview import CorpusStatus, describe, page_table, status, tables_of
from uncollapse.corpora.registry import corpus_names, load_corpus, load_edition

__all__ = [
    "CorpusStatus",
    "FoundCorpus",
    "corpus_names",
    "describe",
    "fetch",
    "find",
    "load_corpus",
    "load_edition",
    "page_table",
    "status",
    "tables_of",
]
