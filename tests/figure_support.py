"""Runs that tests of the papers' figures make up, and what they ask of what is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from uncollapse import TextVAE
from uncollapse.plots import to_svg
from uncollapse.reproduction.figures import FIGURES
from uncollapse.reproduction.figures.drawn import Drawn
from uncollapse.reproduction.published import Published
from uncollapse.reproduction.records import Record

Measure = Callable[[str, str, int], tuple[dict[str, float], list[dict[str, float]]] | None]


@dataclass
class Made:
    """Runs that a test has made up or fitted."""

    measure: Measure
    folder: Path = Path("nowhere")
    seeds: tuple[int, ...] = (0,)

    def record(self, row: str, corpus: str, seed: int) -> Record | None:
        found = self.measure(row, corpus, seed)
        if found is None:
            return None
        metrics = {name: {"value": v, "standard_error": 1.0} for name, v in found[0].items()}
        history = [{"epoch": n + 1.0, **epoch} for n, epoch in enumerate(found[1])]
        return Record("small", f"{corpus}-cut", row, "r", [], seed, metrics, {}, history, {})

    def model(self, row: str, corpus: str, seed: int) -> TextVAE:
        return TextVAE.from_pretrained(self.run(row, corpus, seed))

    def run(self, row: str, corpus: str, seed: int) -> Path:  # noqa: ARG002
        return self.folder / row.replace(" ", "_")

    def files(self, corpus: str) -> dict[str, Path]:  # noqa: ARG002
        return {split: self.folder / f"{split}.jsonl" for split in ("train", "validation", "test")}


def verdicts(drawn: Drawn) -> list[str]:
    return [judgement.verdict for judgement in drawn.judgements]


def redrawn(name: str, published: Published, drawn: Drawn) -> Figure:
    """The figure from what a file keeps."""
    values = json.loads(json.dumps(drawn.values, allow_nan=False))
    figure = FIGURES[name].draw(published, values)
    assert figure is not None
    return figure


def texts_of(figure: Figure) -> str:
    return to_svg(figure, "a figure")


def absent(_row: str, _corpus: str, _seed: int) -> None:
    return None
