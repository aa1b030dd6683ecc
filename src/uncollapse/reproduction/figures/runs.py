"""What a figure of a paper is made from: finished runs, whoever keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uncollapse.reproduction.published import Published
    from uncollapse.reproduction.records import Record
    from uncollapse.text_vae import TextVAE


class Runs(Protocol):
    """The runs behind one figure, by the label of its row, the corpus and the seed.

    Attributes
    ----------
    seeds : sequence of int
        Those that were trained.
    """

    @property
    def seeds(self) -> Sequence[int]: ...

    def record(self, row: str, corpus: str, seed: int) -> Record | None:
        """What was measured; None if the run is not there, and nothing else of it is."""
        ...

    def model(self, row: str, corpus: str, seed: int) -> TextVAE:
        """The trained model."""
        ...

    def run(self, row: str, corpus: str, seed: int) -> Path:
        """The folder of the run, with its snapshots."""
        ...

    def files(self, corpus: str) -> Mapping[str, Path]:
        """``train``, ``validation`` and ``test``, as the runs read them."""
        ...


def seeds_of(runs: Runs, row: str, corpus: str) -> list[int]:
    """The seeds with which a row was trained to the end."""
    return [seed for seed in runs.seeds if runs.record(row, corpus, seed) is not None]


def about(published: Published, runs: Runs, seeds: Sequence[int], *facts: str) -> str:
    """Which texts, which preset, which seeds, and further facts, for the head of a figure."""
    records = [
        record
        for corpus in published.corpora
        for row in published.rows
        for seed in runs.seeds
        if (record := runs.record(row.label, corpus, seed)) is not None
    ]
    places = {record.edition: record.protocol.get("data") for record in records}
    places = places or dict.fromkeys(published.corpora)
    texts = [f"{place} ({data})" if data else place for place, data in places.items()]
    presets = list(dict.fromkeys(f"preset {record.preset}" for record in records))
    which = f"seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}"
    return ", ".join([*texts, *presets, which, *facts])
