"""What is timed without turns: starts of fresh processes, and a whole epoch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from speed_settings import SEED, Settings, build_model, corpus, recipe
from speed_turns import peak_mb, start

TIMES = 5
FIRST_BATCH = """
from pathlib import Path
from uncollapse.data.batches import BucketedBatches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
folder = Path({folder!r})
tokenizer = Tokenizer.load(folder / "tokenizer.json")
corpus = Corpus.build(folder / "train.txt", tokenizer, cache=folder / "cache")
next(BucketedBatches(corpus, 32).epoch(0))
"""


def starts(folder: Path, times: int = TIMES) -> dict[str, list[float]]:
    """Seconds of whole processes, from their start to their end, turn and turn about."""
    commands = {
        "uncollapse --help": ["-m", "uncollapse", "--help"],
        "import uncollapse": ["-c", "import uncollapse"],
        "import torch": ["-c", "import torch"],
        "first batch of a cached corpus": ["-c", FIRST_BATCH.format(folder=str(folder))],
        "python alone": ["-c", "pass"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(times):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def show_starts(seconds: dict[str, list[float]]) -> None:
    """Print them."""
    print(f"\n{'start-up':34}{'median s':>10}   range")
    for name, own in seconds.items():
        print(f"  {name:32}{median(own):10.3f}   {min(own):.3f} to {max(own):.3f}")


def epoch(settings: Settings) -> dict[str, Any]:
    """One epoch of the common configuration by the package's own function, in bf16.

    Batch assembly, logging, validation, checkpoints and the choice of the best weights count.
    """
    end, worker = start(_epoch, settings)
    try:
        found = end.recv()
    except EOFError:
        raise SystemExit("error: the epoch stopped; what it said is above") from None
    worker.join()
    return found


def show_epoch(found: dict[str, Any]) -> None:
    """Print it."""
    rate = found["tokens"] / found["seconds"]
    print(
        f"\nepoch: {found['sentences']:,} sentences, {found['tokens']:,} tokens in "
        f"{found['seconds']:.1f} s ({rate:,.0f} tokens/s); of these "
        f"{found['validation_seconds']:.1f} s validation and after; "
        f"validation loss {found['validation_loss']:.2f}; peak {found['peak_mb']:,.0f} MB"
    )


def _epoch(settings: Settings, connection: Connection) -> None:
    from lightning.pytorch import Callback

    from uncollapse.objectives.objective import Objective
    from uncollapse.training.fit import fit

    class Clock(Callback):
        trained = 0.0

        def on_validation_start(self, *_: Any) -> None:
            self.trained = time.perf_counter()

    base = recipe(settings, "lstm", "bf16")
    training = base.training.model_copy(update={"max_epochs": 1})
    chosen = base.model_copy(update={"training": training})
    train = corpus(settings, "lstm", "train")
    validation = corpus(settings, "lstm", "validation")
    model, clock = build_model(settings, "lstm"), Clock()
    folder = settings.folder / "epoch"
    begin = time.perf_counter()
    fit(
        model,
        Objective(chosen.objective),
        chosen,
        train,
        validation,
        folder,
        seed=SEED,
        device="cpu",
        show_progress=False,
        callbacks=[clock],
    )
    end = time.perf_counter()
    row = json.loads((folder / "history.jsonl").read_text("utf-8").splitlines()[-1])
    facts = {
        "sentences": len(train),
        "tokens": int(train.lengths.sum()) + len(train),
        "seconds": end - begin,
        "validation_seconds": end - clock.trained,
        "validation_loss": row["validation/objective"],
        "peak_mb": peak_mb(),
    }
    connection.send(facts)
