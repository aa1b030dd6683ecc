"""A table of two systems at a size for tests, hand-made records, and the program at that size.

As a program, ``reproduction_support.py reproduce …`` is ``uncollapse reproduce …`` with the table
``tiny-table1`` in place of the papers', and runs of a second or two.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from uncollapse import cli
from uncollapse.data.grammar import assistant_grammar
from uncollapse.reproduction import reproduce, scaled_down
from uncollapse.reproduction.published import Published, parse_published
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.scaled_down import Cut

TABLE = "tiny-table1"
CONTENT: dict[str, Any] = {
    "kind": "table",
    "title": "Language modelling on PTB and Yahoo",
    "source": "Nobody 2019, Table 1",
    "corpora": {"ptb": "PTB", "yahoo": "Yahoo"},
    "columns": {"nll": {"label": "NLL", "better": "lower"}, "kl": {"label": "KL"}},
    "rows": [
        {"label": "VAE", "recipe": "vae", "values": {"ptb": [101.4, 0.0]}},
        {"label": "LM", "recipe": "lstm-lm", "values": {"ptb": [100.0, None]}},
    ],
    "claims": [
        {
            "text": "The plain VAE loses its latent variable",
            "left": {"row": "VAE", "column": "kl"},
            "relation": "~",
            "within": 0.5,
            "right": {},
        }
    ],
}
SPLITS = {"train": 60, "valid": 20, "test": 20}


def table(**changed: Any) -> Published:
    """The table of these tests, with parts replaced; other rows have no claims of their own."""
    claims = {} if "rows" not in changed else {"claims": []}
    return parse_published(TABLE, {**CONTENT, **claims, **changed})


def shrink(patch: pytest.MonkeyPatch, epochs: int = 1, sentences: int = 60) -> None:
    """Make the small protocol tiny; tasks carry that into the processes of the runs."""
    cut = Cut(sentences, 20, 20)
    patch.setattr(scaled_down, "SENTENCES", dict.fromkeys(scaled_down.SENTENCES, cut))
    patch.setattr(scaled_down, "WIDTH", 8)
    patch.setattr(scaled_down, "EPOCHS", epochs)
    patch.setattr(scaled_down, "SAMPLES", 4)
    patch.setattr(scaled_down, "GENERATED", {"sentences": 10, "dialogues": 20})


def use_table(patch: pytest.MonkeyPatch, published: Published) -> None:
    """Let ``reproduce`` find this table under its name."""
    find = reproduce.load_published
    patch.setattr(
        reproduce, "load_published", lambda name: published if name == TABLE else find(name)
    )


def write_corpora(folder: Path) -> Path:
    """A folder of corpora that has PTB alone, of sentences of the grammar."""
    (folder / "ptb").mkdir(parents=True)
    for number, (split, count) in enumerate(SPLITS.items()):
        texts = [sample.text for sample in assistant_grammar().sample(count, number)]
        (folder / "ptb" / f"{split}.txt").write_text("".join(f"{text}\n" for text in texts))
    return folder


def metric(value: float | None, error: float | None = None, **facts: Any) -> dict[str, Any]:
    """A figure as a record keeps it."""
    return {
        "value": value,
        "unit": "nats/sentence",
        "standard_error": error,
        "estimator": "by hand",
        "samples": 10,
        "definition": "a number",
        **facts,
    }


def record(
    system: str = "vae",
    seed: int = 0,
    figures: Mapping[str, float | None] | None = None,
    **changed: Any,
) -> Record:
    """A record made by hand."""
    values: dict[str, Any] = {
        "preset": "small",
        "edition": "ptb",
        "system": system,
        "recipe": system,
        "changes": [],
        "seed": seed,
        "metrics": {name: metric(value) for name, value in (figures or {}).items()},
        "cost": cost(),
        "history": [],
        "environment": {"hardware": "x86_64, 2 cores, no GPU", "torch": "2.13.0"},
        "protocol": {"data": "first 60", "samples": 4, "generated": 10},
    }
    return Record(**{**values, **changed})


def cost(
    seconds: float = 100.0, until: float | None = 50.0, busy: float | None = None
) -> dict[str, float | None]:
    """What a run has cost: in all, until the epoch that was kept, of the processor."""
    return {
        "seconds": seconds,
        "cpu_seconds": busy,
        "seconds_to_best": until,
        "epochs": 6,
        "best_epoch": 3,
        "updates": 12,
        "updates_to_best": 6,
        "parameters": 1000,
        "peak_memory_mb": 300,
    }


class Program:
    """The program in a process of its own, at the size of these tests."""

    def __init__(self, *arguments: object, epochs: int = 1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            env={**os.environ, "TINY_EPOCHS": str(epochs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=200)
        return self.process.returncode, out, err


def children(of: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for task in Path(f"/proc/{of}/task").glob("*/children"):
        found += [int(number) for number in task.read_text().split()]
    return found


def alive(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def main() -> None:
    """The program with the tiny table."""
    patch = pytest.MonkeyPatch()
    shrink(patch, epochs=int(os.environ.get("TINY_EPOCHS", "1")))
    use_table(patch, table())
    cli.main()


if __name__ == "__main__":
    main()
