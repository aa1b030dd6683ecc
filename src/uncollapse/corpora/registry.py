"""What is known of every corpus and of its editions, as data: ``registry.yaml``.

A corpus is what a paper names. An edition is files that somebody may have of it: the original, a
re-split of a part, another corpus that stands in for it.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from uncollapse.errors import unknown_name

SPLITS = ("train", "validation", "test")
Kind = Literal["original", "re-split", "stand-in"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(_Section):
    """What `fetch` makes an edition from.

    Attributes
    ----------
    name : str
        Of the file, as it was published.
    format : str
        Which reader it needs.
    address : str or None
        None: it is nowhere that can be relied on; who has it gives it by hand.
    sha256 : str
        Of the whole archive.
    bytes : int
    source : str
        Where checksum and size were published.
    """

    name: str
    format: Literal["dailydialog-text", "dailydialog-json"]
    address: str | None = None
    sha256: str
    bytes: int
    source: str


class Edition(_Section):
    """Files that a corpus may be on disk.

    Attributes
    ----------
    name : str
    folder : str
        In the folder of corpora.
    files : dict of str to str
        By split.
    form : str
        What a line is.
    sizes : dict of str to int
        Lines by split; empty: not known.
    unit : str
        What a line is, in a word.
    labels : list of str
        Columns of class labels.
    tokenised : bool
        Whether splitting at spaces gives the tokens of published figures.
    dialogues : bool
    reason : str
        Why figures on it are not comparable with published ones; empty: they are.
    sha256 : dict of str to list of str
        By split, the contents that are known to be this edition; empty: not known.
    notes : str
    archive : Archive or None
        What it can be made from.
    """

    name: str
    folder: str
    files: dict[str, str]
    form: str
    sizes: dict[str, int] = {}
    unit: str
    labels: list[str] = []
    tokenised: bool = False
    dialogues: bool = False
    reason: str = ""
    sha256: dict[str, list[str]] = {}
    notes: str = ""
    archive: Archive | None = None

    @property
    def paths(self) -> dict[str, str]:
        """By split, the file within the folder of corpora."""
        return {split: f"{self.folder}/{file}" for split, file in self.files.items()}


class Choice(_Section):
    """An edition as one of a corpus.

    Attributes
    ----------
    edition : str
    kind : {'original', 're-split', 'stand-in'}
    reason : str
        Why figures on it are not comparable with those of this corpus, if for another reason
        than the edition's own.
    """

    edition: str
    kind: Kind
    reason: str = ""


class KnownCorpus(_Section):
    """A corpus of the papers.

    Attributes
    ----------
    name, title : str
    paper : str
        That made it.
    used_by : list of str
        Papers whose tables need it.
    published : str
        Address.
    licence : str
        In words.
    permission : bool
        Whether it allows to fetch a copy.
    by_hand : str
        What to do with what is published, where it cannot be fetched.
    editions : list of Choice
        Best first: originals, then re-splits, then stand-ins.
    """

    name: str
    title: str
    paper: str
    used_by: list[str]
    published: str
    licence: str
    permission: bool
    by_hand: str = ""
    editions: list[Choice]

    @model_validator(mode="after")
    def _consistent(self) -> KnownCorpus:
        kinds = [("original", "re-split", "stand-in").index(c.kind) for c in self.editions]
        if kinds != sorted(kinds):
            raise ValueError(f"{self.name}: a better edition comes after a worse one")
        if not self.permission and not self.by_hand:
            raise ValueError(f"{self.name}: neither to fetch nor to get by hand")
        return self


@cache
def _registry() -> dict[str, Any]:
    file = resources.files("uncollapse.corpora").joinpath("registry.yaml")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def corpus_names() -> list[str]:
    """Names of all corpora, in the order of the registry."""
    return list(_registry()["corpora"])


def edition_names() -> list[str]:
    """Names of all editions."""
    return list(_registry()["editions"])


def load_corpus(name: str) -> KnownCorpus:
    """A corpus by its name.

    Raises
    ------
    UserError
        If there is none of that name.
    """
    if name not in corpus_names():
        raise unknown_name("corpus", name, corpus_names())
    return KnownCorpus.model_validate({"name": name, **_registry()["corpora"][name]})


def load_edition(name: str) -> Edition:
    """An edition by its name.

    Raises
    ------
    UserError
        If there is none of that name.
    """
    if name not in edition_names():
        raise unknown_name("edition", name, edition_names())
    return Edition.model_validate({"name": name, **_registry()["editions"][name]})
