"""The record of a run: one row an epoch, as JSON lines and as CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

from uncollapse.errors import RunError
from uncollapse.training.state import Row


@dataclass(frozen=True)
class History:
    """What :func:`uncollapse.training.fit.fit` returns.

    Attributes
    ----------
    rows : list of dict
        One an epoch: ``epoch`` (from 1), ``batches_seen``, ``seconds`` (training alone),
        ``tokens_per_second`` (predicted tokens), ``learning_rate``, ``kl_weight`` (of the last
        batch), ``train/…`` (means over the epoch, dropout on) and ``validation/…``; nats per
        sentence. A strategy may add to them: ``aggressive`` (1 or 0) and ``inner_steps`` (the
        encoder's own updates, mean over the batches).
    best_epoch : int
        Epoch of the returned weights.
    best_score : float
        Its validation score; lower is better.
    stopped : str
        Why the run ended.
    pretraining : list of dict
        The rows of stages before the run itself.
    """

    rows: list[Row]
    best_epoch: int
    best_score: float
    stopped: str
    pretraining: list[Row] = field(default_factory=list)


def write_history(rows: list[Row], folder: Path) -> None:
    """Write ``history.jsonl`` and ``history.csv`` whole, each in one rename.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    contents = {
        "history.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "history.csv": table.getvalue(),
    }
    for name, text in contents.items():
        temporary = folder / f".{name}.tmp"
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(folder / name)
        except OSError as error:
            raise RunError(f"cannot write {folder / name}: {error.strerror}") from error
