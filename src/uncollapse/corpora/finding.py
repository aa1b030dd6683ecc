"""Which edition of a corpus is in a folder, and whether figures on it can be compared."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from uncollapse.corpora.checking import difference
from uncollapse.corpora.registry import Choice, KnownCorpus, load_corpus, load_edition
from uncollapse.errors import UserError

VARIABLE = "UNCOLLAPSE_CORPORA"


@dataclass(frozen=True)
class FoundCorpus:
    """A corpus on disk.

    Attributes
    ----------
    name : str
        As tables name it.
    edition : str
    files : dict of str to Path
        ``train``, ``validation`` and ``test``.
    label_columns : tuple of str
    tokenised : bool
        Whether splitting at spaces gives the tokens of published figures.
    dialogues : bool
    comparable : bool
        Whether figures on it can be compared with published ones.
    reason : str
        Why not, in a sentence; empty if they can.
    difference : str
        In what the files are not the edition that is known; empty: they are, as far as is known.
    """

    name: str
    edition: str
    files: dict[str, Path]
    label_columns: tuple[str, ...]
    tokenised: bool
    dialogues: bool
    comparable: bool
    reason: str
    difference: str = ""


def find(name: str, folder: Path | None = None) -> FoundCorpus:
    """Find the best edition of a corpus that is whole.

    An original comes before a re-split, and that before a stand-in. Files with another content
    than is known are found too, but not as comparable.

    Parameters
    ----------
    name : str
        As tables name it. The embedded ``grammar`` is in no folder and has no edition.
    folder : Path, optional
        Where the corpora are; default: the environment variable ``UNCOLLAPSE_CORPORA``.

    Raises
    ------
    UserError
        If there is no such corpus or folder, or which file is lacking and where it comes from.
    RunError
        If a file cannot be read.
    """
    corpus = load_corpus(name)
    folder = corpora_folder(folder)
    choice = whole_choice(corpus, folder)
    if choice is None:
        raise UserError(_missing(corpus, folder))
    return found(corpus, choice, folder)


def whole_choice(corpus: KnownCorpus, folder: Path) -> Choice | None:
    """The best edition of which no file is lacking."""
    return next((c for c in corpus.editions if not lacking(c.edition, folder)), None)


def corpora_folder(folder: Path | None) -> Path:
    """The folder that is given, or else that of the environment.

    Raises
    ------
    UserError
        If there is none.
    """
    if folder is None:
        named = os.environ.get(VARIABLE)
        if not named:
            raise UserError(f"where the corpora are is not known: give --corpora or set {VARIABLE}")
        folder = Path(named)
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"the folder of corpora {folder} {what}")
    return folder


def lacking(edition: str, folder: Path) -> list[str]:
    """Files of an edition that are not in the folder, or empty."""
    files = load_edition(edition).paths.values()
    return [file for file in files if not _has_content(folder / file)]


def found(corpus: KnownCorpus, choice: Choice, folder: Path, *, fresh: bool = False) -> FoundCorpus:
    """An edition whose files are there, checked; `fresh` as in `difference`."""
    edition = load_edition(choice.edition)
    files = {split: folder / file for split, file in edition.paths.items()}
    other = difference(edition, files, fresh=fresh)
    reason = "; ".join(part for part in (choice.reason or edition.reason, other) if part)
    return FoundCorpus(
        corpus.name,
        edition.name,
        files,
        tuple(edition.labels),
        edition.tokenised,
        edition.dialogues,
        not reason,
        reason,
        other,
    )


def _has_content(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def nearest_choice(corpus: KnownCorpus, folder: Path) -> Choice | None:
    """The edition of which most is there, the better one first; None: nothing of any."""

    def there(choice: Choice) -> int:
        return len(load_edition(choice.edition).files) - len(lacking(choice.edition, folder))

    best = max(corpus.editions, key=there)
    return best if there(best) else None


def _missing(corpus: KnownCorpus, folder: Path) -> str:
    """One line: what is lacking, and where it comes from."""
    start = nearest_choice(corpus, folder)
    if start is not None:
        lack = ", ".join(lacking(start.edition, folder))
        text = f"{corpus.name} in {folder} lacks {lack}"
    else:
        folders = dict.fromkeys(load_edition(choice.edition).folder for choice in corpus.editions)
        text = f"{corpus.name} is not in {folder} (none of {', '.join(folders)})"
        if len(folders) == 1:
            text = f"{corpus.name} is not in {folder} (no {next(iter(folders))})"
    get = f"uncollapse data fetch {corpus.name}"
    return f"{text}; it comes from {get if corpus.permission else corpus.published}"
