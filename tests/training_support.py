"""A run small enough for tests, in this process or in one of its own.

As a program, ``training_support.py FOLDER [--resume] [--signal-at N NAME] [--kill-in-save N]
[--at-the-mean]`` makes the same run as :func:`train`; and with ``--cases FILE``, a JSON object
of ``{name: [recipe, settings]}``, one such run after the other in ``FOLDER/name``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from uncollapse.config import Recipe
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.errors import UncollapseError
from uncollapse.latents.priors import StandardNormal
from uncollapse.model import Model
from uncollapse.objectives.objective import Objective
from uncollapse.recipes import load_recipe
from uncollapse.training import checkpoint
from uncollapse.training.checkpoint import CheckpointStore
from uncollapse.training.fit import fit
from uncollapse.training.history import History
from uncollapse.training.state import Row

TIMES = ("seconds", "tokens_per_second")
# a step size that overshoots, so that the stop rule has something to do within seven epochs
SETTINGS = [
    "encoder.embedding_dim=6",
    "encoder.hidden_dim=8",
    "encoder.init_scale=null",
    "latents.z.dim=3",
    "decoder.embedding_dim=6",
    "decoder.hidden_dim=8",
    "decoder.output_dropout=0.3",
    "decoder.init_scale=null",
    "training.max_epochs=7",
    "training.batch_size=16",
    "training.precision=f32",
    "training.optimizer=adam",
    "training.learning_rate=0.15",
]
RULE = "{patience: 1, factor: 0.5, max_decays: 9, start_epoch: 0}"
LEFT_OVER = 99  # exit code
SENTENCES, BATCHES = 100, 7  # 7 batches of 16, the last one of 4


def small_recipe(*overrides: str, name: str = "vae") -> Recipe:
    """A packaged recipe at the size of these tests."""
    known = SETTINGS if name == "vae" else [s for s in SETTINGS if s[0] in "dt"]
    return load_recipe(name, [*known, f"training.plateau={RULE}", *overrides])


def corpora(*, labelled: bool = False) -> tuple[Corpus, Corpus, int]:
    """Training and validation sentences of random words, and the vocabulary size.

    Labels ``topic`` of three classes are missing from every other sentence.
    """
    draw = random.Random(0)
    words = [f"w{number}" for number in range(20)]
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(SENTENCES + 30)]
    tokenizer = Tokenizer.train(texts, "whitespace", None)
    parts = []
    for chosen in (texts[:SENTENCES], texts[SENTENCES:]):
        topics = ["abc"[number // 2 % 3] if number % 2 else None for number in range(len(chosen))]
        labels, classes = {"topic": topics}, {"topic": ["a", "b", "c"]}
        told = {"labels": labels, "classes": classes} if labelled else {}
        parts.append(Corpus.from_texts(chosen, tokenizer, **told))
    return *parts, len(tokenizer)


def new_model(recipe: Recipe, vocabulary: int) -> Model:
    """The same initial weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Model(recipe, vocabulary)


def train(
    folder: Path,
    recipe: Recipe | None = None,
    *,
    resume: bool = False,
    callbacks: Any = (),
    alone: bool = False,
) -> tuple[Model, History]:
    """One run of the small recipe."""
    recipe = recipe or small_recipe()
    labelled = bool(recipe.objective.supervision)
    training, validation, vocabulary = corpora(labelled=labelled)
    model = new_model(recipe, vocabulary)
    return model, fitted(
        model,
        recipe,
        training,
        validation,
        folder,
        resume=resume,
        callbacks=callbacks,
        alone=alone,
    )


def fitted(
    model: Model,
    recipe: Recipe,
    training: Corpus,
    validation: Corpus,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Any = (),
    alone: bool = False,
) -> History:
    """Train a model in place, as all these tests do."""
    return fit(
        model,
        Objective(recipe.objective),
        recipe,
        training,
        validation,
        folder,
        seed=3,
        device="cpu",
        resume=resume,
        show_progress=False,
        callbacks=callbacks,
        alone=alone,
    )


def at_the_mean(patch: pytest.MonkeyPatch) -> None:
    """Take the mean of every Gaussian for a draw: of several processes, each draws its own."""
    patch.setattr(DiagonalGaussian, "rsample", lambda posterior: posterior.mean)
    patch.setattr(StandardNormal, "sample", lambda prior, n, *_: torch.zeros(n, prior.dim))


class SignalAt(Callback):
    """Sends this process a signal during a batch, of any stage or of the one in a folder."""

    def __init__(self, batch: int, number: int, folder: Path | None = None) -> None:
        self.batch = batch
        self.number = number
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        here = self.folder is None or Path(trainer.default_root_dir) == self.folder
        if here and module.state.batches_seen + 1 == self.batch:
            os.kill(os.getpid(), self.number)


def last_payload(folder: Path) -> dict[str, Any]:
    """Everything in the newest checkpoint, but for wall-clock times."""
    payload = CheckpointStore(folder / "training").load()
    assert payload is not None
    payload["state"]["seconds"] = 0.0
    payload["state"]["rows"] = without_times(payload["state"]["rows"])
    return payload


def without_times(rows: list[Row]) -> list[Row]:
    """A history, but for wall-clock times."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def same(a: Any, b: Any) -> bool:
    """Bit-for-bit equality of nested containers of tensors and numbers."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def main() -> None:
    """The run as a program, whose exit code is the error's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="vae")
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--signal-at", nargs=2)
    parser.add_argument("--kill-in-save", type=int)
    parser.add_argument("--at-the-mean", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    callbacks = []
    # of several processes, only one is signalled
    if chosen.signal_at and os.environ.get("RANK", "1") == "1":
        batch, name = chosen.signal_at
        callbacks.append(SignalAt(int(batch), signal.Signals[name]))
    if chosen.at_the_mean:
        at_the_mean(pytest.MonkeyPatch())
    if chosen.kill_in_save:
        _kill_in_save(chosen.kill_in_save)
    runs = {chosen.folder: (chosen.recipe, chosen.set)}
    if chosen.cases:
        cases = json.loads(chosen.cases.read_text())
        runs = {chosen.folder / name: case for name, case in cases.items()}
    for folder, (name, settings) in runs.items():
        recipe = small_recipe(*settings, name=name)
        try:
            model, _ = train(folder, recipe, resume=chosen.resume, callbacks=callbacks)
        except UncollapseError as error:
            print(error, file=sys.stderr)
            leave(error.exit_code)
        if os.environ.get("RANK", "0") == "0":
            torch.save(model.state_dict(), folder / "final.pt")
    leave(0)


def leave(code: int) -> NoReturn:
    """End the program; a thread of a process group that is left over might abort it."""
    tasks = Path("/proc/self/task")
    names = [path.read_text().strip() for path in tasks.glob("*/comm")]
    if any("gloo" in name for name in names):
        print(f"threads are left over: {names}", file=sys.stderr)
        code = LEFT_OVER
    sys.exit(code)


def _kill_in_save(number: int) -> None:
    """Die without a word in the middle of writing checkpoint ``number``."""
    write = checkpoint._manifest
    calls = []

    def dying(folder: Path) -> str:
        calls.append(folder)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(folder)

    checkpoint._manifest = dying


if __name__ == "__main__":
    main()
