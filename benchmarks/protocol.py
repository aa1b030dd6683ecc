"""What the reduced reproductions share: cut corpora, spelled-out recipes, one result file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from uncollapse import __version__
from uncollapse.benchmark.compare import IncompleteComparison, compare
from uncollapse.recipes import load_recipe, recipe_to_yaml

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


class Part(Protocol):
    """A part of a file of a corpus."""

    @property
    def file(self) -> str:
        """The file, within the corpora's folder."""
        ...

    def write(self, corpora: Path, folder: Path) -> Path:
        """The part as a file of its own, once."""
        ...


@dataclass(frozen=True)
class Cut:
    """The first sentences of a file of a corpus; of a file of dialogues, the first utterances."""

    file: str
    sentences: int

    def write(self, corpora: Path, folder: Path) -> Path:
        """The sentences as a file of their own, once."""
        source = corpora / self.file
        target = folder / f"{self.sentences}-{source.parent.name}-{source.name}"
        if not target.exists():
            with source.open(encoding="utf-8") as lines:
                rows = utterances(lines) if '"turns"' in lines.readline() else lines
                lines.seek(0)
                text = "".join(line for _, line in zip(range(self.sentences), rows, strict=False))
            target.write_text(text, encoding="utf-8")
        return target


def utterances(dialogues: Any) -> Any:
    """Every turn as a JSON line: text, and what labels it and its dialogue have."""
    for line in dialogues:
        dialogue = json.loads(line)
        shared = {key: dialogue[key] for key in ("topic", "domain") if key in dialogue}
        for turn in dialogue["turns"]:
            labels = {
                key: turn[key] for key in ("act", "emotion") if isinstance(turn.get(key), str)
            }
            yield json.dumps({"text": turn["text"], **labels, **shared}, ensure_ascii=False) + "\n"


def write_recipe(name: str, changes: Sequence[str], folder: Path) -> Path:
    """A recipe with its changes, every value spelled out; ``NAME@CORPUS`` keeps its name.

    ``OTHER:NAME`` is called by the other name.
    """
    alias, _, name = name.rpartition(":")
    plain = alias or name.partition("@")[0]
    target = folder / f"{plain}.yaml"
    recipe = load_recipe(name, [*changes, f"name={plain}"])
    target.write_text(recipe_to_yaml(recipe), encoding="utf-8")
    return target


def environment() -> dict[str, Any]:
    """Where and with what the figures were made."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "uncollapse": __version__,
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "hardware": gpu or f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def reproduce(
    recipes: Mapping[str, Sequence[str]],
    files: Sequence[Path],
    runs: Path,
    *,
    metrics: Sequence[str],
    label_column: str | None,
    seeds: int,
    samples: int,
    generated: int,
) -> dict[str, Any]:
    """Train and measure whatever is not measured yet.

    Parameters
    ----------
    recipes : mapping
        Names, and what is changed in each.
    files : sequence of Path
        Training, validation and test sentences.
    runs : Path
        Folder of the runs; recipes are written beside it.

    Returns
    -------
    dict
        What a result file holds of it.
    """
    train, validation, test = files
    inputs = runs.with_name(f"{runs.name}-inputs")
    try:
        result = compare(
            [write_recipe(name, changes, inputs) for name, changes in recipes.items()],
            train,
            test,
            runs,
            validation=validation,
            seeds=seeds,
            metrics=metrics,
            label_column=label_column,
            samples=samples,
            generated=generated,
            say=lambda line: print(line, flush=True),
        )
    except IncompleteComparison as error:
        result = error.comparison
        print(error)
    print(result.to_text())
    found = result.to_dict()
    costs = [
        {k: run[k] for k in ("name", "seed", "seconds", "parameters")} for run in found["runs"]
    ]
    kept = {name: found[name] for name in ("data", "seeds", "samples", "systems", "failures")}
    return {**kept, "costs": costs}


def inputs_of(
    cuts: Sequence[Part], corpora: Path | None, runs: Path, fail: Any
) -> tuple[Path, ...]:
    """The cut files, written beside the runs; ``fail`` is told of a corpus that is not there."""
    if corpora is None or not all((corpora / cut.file).is_file() for cut in cuts):
        fail(f"--corpora must name a folder with {', '.join(cut.file for cut in cuts)}")
    assert corpora is not None
    folder = runs.with_name(f"{runs.name}-inputs")
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(cut.write(corpora, folder) for cut in cuts)


def write_results(name: str, values: Mapping[str, Any]) -> None:
    """Write ``benchmarks/results/NAME.json``."""
    text = json.dumps(values, indent=1, allow_nan=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
