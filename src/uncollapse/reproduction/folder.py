"""The folder that all reproductions share, and its trained runs as figures ask for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uncollapse import saving
from uncollapse.errors import RunError, UserError
from uncollapse.reproduction.inputs import Corpus
from uncollapse.reproduction.published import Published
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.tasks import system_name

if TYPE_CHECKING:
    from uncollapse.jobs.job import Outcome
    from uncollapse.text_vae import TextVAE

MARK = "reproductions.json"
FORMAT_VERSION = 1


def open_folder(out: Path) -> None:
    """Make the folder of the reproductions, or see that it is one.

    Raises
    ------
    UserError
        If it holds something else.
    RunError
        If it cannot be made.
    """
    mark = out / MARK
    if mark.is_file():
        try:
            known = json.loads(mark.read_text(encoding="utf-8"))["format_version"] == FORMAT_VERSION
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise RunError(f"{mark} is damaged, or of another version; choose another folder")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already and holds no reproductions; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out}: {error.strerror}") from None
    saving.write_text(mark, json.dumps({"format_version": FORMAT_VERSION}) + "\n")


@dataclass(frozen=True)
class FolderRuns:
    """The runs behind a figure.

    Attributes
    ----------
    published : Published
    corpora : mapping
        By the name in the figure, prepared.
    outcomes : sequence of Outcome
    seeds : tuple of int
    device : str
    """

    published: Published
    corpora: Mapping[str, Corpus]
    outcomes: Sequence[Outcome]
    seeds: tuple[int, ...]
    device: str = "auto"

    def outcome(self, row: str, corpus: str, seed: int) -> Outcome | None:
        """What became of the run of a row; None if there is none."""
        own = self.published.row(row)
        if own.recipe is None or corpus not in self.corpora:
            return None
        key = (self.corpora[corpus].edition, system_name(own.recipe, own.keep), seed)
        return next((found for found in self.outcomes if found.task.key == key), None)

    def record(self, row: str, corpus: str, seed: int) -> Record | None:
        """What was measured of a row; None if it failed."""
        found = self.outcome(row, corpus, seed)
        return None if found is None else found.record

    def model(self, row: str, corpus: str, seed: int) -> TextVAE:
        """The trained model of a row.

        Raises
        ------
        RunError
            If its run failed.
        """
        from uncollapse.text_vae import TextVAE

        found = self.outcome(row, corpus, seed)
        if found is None or found.record is None:
            raise RunError(f"{self.published.name} needs the run of {row}, which failed")
        return TextVAE.from_pretrained(found.task.run).to(self.device)

    def run(self, row: str, corpus: str, seed: int) -> Path:
        """The folder of the trained run of a row; as for `model`."""
        found = self.outcome(row, corpus, seed)
        if found is None or found.record is None:
            raise RunError(f"{self.published.name} needs the run of {row}, which failed")
        return Path(found.task.run)

    def files(self, corpus: str) -> dict[str, Path]:
        """Training, validation and test file."""
        return {split: Path(path) for split, path in self.corpora[corpus].files.items()}
