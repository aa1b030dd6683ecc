"""Studies of systems that say anything, and raters who fill in their sheets."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from uncollapse.errors import UserError
from uncollapse.rating import export
from uncollapse.rating.key import read_key

EVIL = '</script><b>no</b> & "yes", it\'s'
RESPONSES = ("i do n't know .", "yes , at nine .", "", EVIL, "=1+1", "- well", "so <unk> it is")
DIALOGUES = [
    {
        "turns": [
            {"speaker": "A", "text": f"hello number {number}"},
            {"speaker": "B", "text": "how are you, really?"},
            {"text": f"fine,\nand {EVIL}"},
            {"speaker": "A", "text": "good"},
        ],
        "topic": "health",
    }
    for number in range(10)
]
SEED = 918273


class Fake:
    """A system that says anything, and remembers what it was asked."""

    def __init__(
        self, actions: int = 6, turns: int = 2, fails: str = "", columns: Sequence[str] = ()
    ) -> None:
        config = SimpleNamespace(context_turns=turns, text_column="text")
        features = [SimpleNamespace(column=column) for column in columns]
        self.recipe = SimpleNamespace(data=config, condition=SimpleNamespace(features=features))
        sizes = {"z.component": (1, actions)} if actions else {}
        self.model = SimpleNamespace(variable_sizes=lambda: sizes)
        self.asked: list[tuple[Sequence[Any], dict[str, Any]]] = []
        self._actions, self._fails = actions, fails

    def respond(self, dialogues: Sequence[Any], *, n: int = 1, **how: Any) -> list[list[Any]]:
        if self._fails:
            raise UserError(self._fails)
        self.asked.append((dialogues, {"n": n, **how}))
        chance = random.Random(how.get("seed"))
        return [[self._reply(chance, how.get("component")) for _ in range(n)] for _ in dialogues]

    def _reply(self, chance: random.Random, component: str | None) -> SimpleNamespace:
        action = str(chance.randrange(self._actions)) if self._actions else None
        return SimpleNamespace(text=chance.choice(RESPONSES), action=component or action)


def make(out: Path, systems: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A study of two systems with 6 contexts."""
    systems = systems or {"bn-cvae": Fake(), "plain-cvae": Fake()}
    return export(systems, DIALOGUES, out, **{"contexts": 6, "seed": SEED, **settings})


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def write_rows(path: Path, rows: list[list[str]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def fill(study: Path, rater: int, rate: Callable[[Any, str], int | str], **how: Any) -> Path:
    """The sheet of a rater, from 1, who rates an item by a criterion as ``rate`` says."""
    key = read_key(study)
    head, *rows = rows_of(study / f"rater-{rater}.csv")
    for row in rows:
        item = key.items[key.sheets[rater - 1][row[0]]]
        row[3:] = [
            cell or str(rate(item, name)) for cell, name in zip(row[3:], head[3:], strict=True)
        ]
    return write_rows(study / f"filled-{rater}.csv", [head, *rows], **how)
