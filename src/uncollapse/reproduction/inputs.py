"""The corpora as reproductions read them: found, cut once, and known by their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from uncollapse.corpora import FoundCorpus, find
from uncollapse.data.grammar import write_grammar
from uncollapse.errors import UserError, unknown_name
from uncollapse.reproduction import scaled_down as small

Preset = Literal["small", "paper"]
PRESETS = ("small", "paper")
SPLITS = ("train", "validation", "test")
# settings of the recipes (NAME@…) by corpus; those of PTB are the recipes' own
SETTINGS = {
    "yahoo": "yahoo",
    "yelp15": "yelp",
    "short-yelp": "short-yelp",
    "dailydialog": "dailydialog",
    "smd": "smd",
    "switchboard": "swda",
    "grammar": "dailydialog",  # 125 joint codes for its ten intents
}
GRAMMAR = "grammar"


@dataclass(frozen=True)
class Corpus:
    """A corpus as a reproduction reads it.

    Attributes
    ----------
    name : str
        As the tables call it.
    edition : str
        What is here; with ``:dialogues`` where the corpus is read as dialogues.
    files : dict
        ``train``, ``validation``, ``test``; empty until `prepare` has cut them.
    sources : dict
        The whole files of the corpus.
    data : str
        How much of it is read, in words.
    overrides : tuple of str
        What the corpus asks of every recipe.
    label_columns : tuple of str
    comparable : bool
        Whether published figures are of the same texts.
    reason : str
        Why not.
    settings : str
        Of the recipes: ``NAME@settings``.
    digest : str
        Of the files; empty until `prepare` has read them.
    """

    name: str
    edition: str
    files: dict[str, str]
    sources: dict[str, str]
    data: str
    overrides: tuple[str, ...]
    label_columns: tuple[str, ...]
    comparable: bool
    reason: str
    settings: str
    digest: str = ""


def open_corpus(name: str, preset: Preset, folder: Path | None, *, dialogues: bool) -> Corpus:
    """Find a corpus of the tables; nothing is written.

    Parameters
    ----------
    name : str
    preset : {'small', 'paper'}
    folder : Path or None
        Where the corpora are.
    dialogues : bool
        Whether dialogues are read as such, not as lone utterances.

    Raises
    ------
    UserError
        Naming the file that is lacking, and where it comes from.
    """
    overrides: list[str] = []
    cuts = small.DIALOGUES if dialogues else small.SENTENCES
    if name == GRAMMAR:
        cut = cuts[GRAMMAR]
        return Corpus(
            GRAMMAR, GRAMMAR, {}, {}, f"{cut.describe()} drawn from the embedded grammar",
            ("data.tokenizer=whitespace",), ("label",), True, "", SETTINGS[GRAMMAR],
        )  # fmt: skip
    found: FoundCorpus = find(name, folder)
    base = _base(found.edition)
    if not found.tokenised:
        overrides.append("data.tokenizer=words")
    elif not dialogues:
        overrides.append("data.tokenizer=whitespace")
    data = "all of the corpus"
    if preset == "small":
        cut = cuts[base]
        data = "first " + cut.describe()
        if dialogues:
            data = cut.describe("dialogues, evenly spread")
        if cut.max_length is not None:
            overrides.append(f"data.max_length={cut.max_length}")
    edition = f"{found.edition}:dialogues" if dialogues else found.edition
    return Corpus(
        name,
        edition,
        {},
        {split: str(path) for split, path in found.files.items()},
        data,
        tuple(overrides),
        found.label_columns,
        found.comparable,
        found.reason,
        SETTINGS.get(base, ""),
    )


def prepare(corpus: Corpus, preset: Preset, out: Path) -> Corpus:
    """The corpus with the files that are read, cut once into ``out/inputs``."""
    if preset == "paper" and corpus.name != GRAMMAR:
        return _sealed(replace(corpus, files=dict(corpus.sources)))
    edition, _, dialogues = corpus.edition.partition(":")
    cut = (small.DIALOGUES if dialogues else small.SENTENCES)[_base(edition)]
    files = {}
    for number, split in enumerate(SPLITS, 1):
        count = getattr(cut, split)
        if corpus.name == GRAMMAR:
            target = out / "inputs" / GRAMMAR / f"{count}-{split}.jsonl"
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_grammar(target, count, number)
        else:
            source = Path(corpus.sources[split])
            folder = out / "inputs" / folder_name(corpus.edition)
            target = folder / f"{count}-{source.name}"
            small.write_cut(source, count, target, whole_dialogues=bool(dialogues))
        files[split] = str(target)
    return _sealed(replace(corpus, files=files))


def _sealed(corpus: Corpus) -> Corpus:
    """With the digest of its files: another content under the same name is another corpus."""
    found = hashlib.sha256()
    for split in SPLITS:
        with Path(corpus.files[split]).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return replace(corpus, digest=found.hexdigest()[:16])


def folder_name(edition: str) -> str:
    """The folder of an edition: a colon is not welcome everywhere."""
    return edition.replace(":", "-")


def _base(edition: str) -> str:
    for name in sorted(SETTINGS | {"ptb": ""}, key=len, reverse=True):
        if edition == name or edition.startswith(f"{name}-"):
            return name
    raise UserError(f"no protocol for the edition {edition}")


def check_preset(preset: str) -> Preset:
    """The preset of a name.

    Raises
    ------
    UserError
        If there is none.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    return preset  # type: ignore[return-value]
