"""The small protocol: every system at a size that two processor cores can do, on one budget.

Real corpora are cut to a stated size, layers to a stated width; optimiser, batches and epochs
are the same for all. What a schedule says in epochs (annealing, cycles, pretraining) shrinks
with them. Everything else is the recipe's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uncollapse.config import DISCRETE, Recipe
from uncollapse.errors import UserError
from uncollapse.recipes import load_recipe

WIDTH = 128  # of embeddings and hidden states; of both directions together in dialogue encoders
LATENT = 32  # where a dialogue's latent is continuous and the papers have 200 dimensions
EPOCHS = 6
ANNEALED = 3  # epochs until the KL weight is 1
PERIOD = 3  # epochs of a cycle
PRETRAINED = 3  # epochs as an autoencoder, before the others
ENCODER_UPDATES = 10  # for one of the decoder, in aggressive training
DROPOUT = 0.2
SAMPLES = 50  # importance samples
GENERATED = {"sentences": 2_000, "dialogues": 10_000}  # sentences from the prior; responses
# from the papers' U(±0.01) and with half of the words and states dropped, few epochs teach nothing
START = ("init_scale", "embedding_init_scale")  # null: PyTorch's own


@dataclass(frozen=True)
class Cut:
    """How much of a corpus is read.

    Attributes
    ----------
    train, validation, test : int
        Sentences; whole dialogues of a corpus of dialogues that is read as such.
    max_length : int or None
        Words after which a sentence is cut; None: as the recipe has it.
    """

    train: int
    validation: int
    test: int
    max_length: int | None = None

    def describe(self, unit: str = "sentences") -> str:
        """E.g. ``10,000 / 1,000 / 1,000 sentences``."""
        text = f"{self.train:,} / {self.validation:,} / {self.test:,} {unit}"
        return text if self.max_length is None else f"{text}, of {self.max_length} words at most"


SENTENCES = {
    "ptb": Cut(5_000, 500, 500),
    "yahoo": Cut(4_000, 400, 400, max_length=40),
    "yelp15": Cut(4_000, 400, 400, max_length=40),
    "short-yelp": Cut(10_000, 1_000, 1_000),
    "dailydialog": Cut(8_000, 1_000, 1_000),
    "smd": Cut(6_000, 1_000, 1_000),
    "grammar": Cut(8_000, 500, 1_000),
}
DIALOGUES = {
    "dailydialog": Cut(1_000, 100, 125),
    "switchboard": Cut(50, 5, 5),
    "smd": Cut(1_600, 100, 150),
}


def scaled_down(name: str, changes: Iterable[str] = ()) -> list[str]:
    """What the small protocol changes in a recipe, with the table's own changes first.

    Parameters
    ----------
    name : str
        A recipe, perhaps with ``@corpus``.
    changes : iterable of str
        ``"section.key=value"``: what makes the recipe a row of a table.
    """
    changes = list(changes)
    recipe = load_recipe(name, changes)
    return changes + (_dialogue(recipe) if recipe.condition is not None else _sentences(recipe))


def _sentences(recipe: Recipe) -> list[str]:
    changes = _widths("decoder", WIDTH)
    changes += [f"decoder.{kind}_dropout={DROPOUT}" for kind in ("embedding", "output")]
    if recipe.encoder is not None:
        changes += _widths("encoder", WIDTH)
    transformer = recipe.decoder.kind == "transformer"
    changes += _training(0.001 if transformer else 0.002, EPOCHS)
    changes.append("objective.samples=1")
    if recipe.training.cosine_period_epochs is not None:
        changes.append(f"training.cosine_period_epochs={PERIOD}")
    changes += _annealed(recipe)
    coded = any(
        latent.prior.kind == "mixture" or latent.posterior.kind in DISCRETE
        for latent in recipe.latents.values()
    )
    if coded and recipe.training.select_on == "objective":  # which favours the annealed epochs
        changes.append("training.select_on=elbo")
    if recipe.strategy.kind == "pretrained":
        changes.append(f"strategy.epochs={PRETRAINED}")
    if recipe.strategy.kind == "aggressive":  # of 99: an epoch would take as long as a table
        changes.append(f"strategy.most_updates={ENCODER_UPDATES}")
    for latent, config in recipe.latents.items():
        if config.posterior.kind == "refined":  # of 10 or 20 steps: each costs three passes
            changes.append(f"latents.{latent}.posterior.steps=3")
    return changes


def _dialogue(recipe: Recipe) -> list[str]:
    assert recipe.condition is not None
    changes = _widths("decoder", WIDTH)
    changes += [f"decoder.{part}_dropout={DROPOUT}" for part in ("embedding", "output")]
    for section, encoder in (
        ("encoder", recipe.encoder),
        ("condition.encoder", recipe.condition.encoder),
    ):
        if encoder is not None:
            changes += _widths(section, WIDTH, hidden=WIDTH // 2)
            changes += [f"{section}.bidirectional=true", f"{section}.embedding_dropout={DROPOUT}"]
    changes += [f"condition.hidden_dim={WIDTH}", "condition.dropout=0.0"]
    adversarial = recipe.discriminator is not None
    if adversarial:
        changes += [f"discriminator.encoder.embedding_dim={WIDTH}"]
        changes += [f"discriminator.encoder.hidden_dim={WIDTH // 2}"]
        changes += [f"discriminator.hidden_dim={WIDTH}"]
        changes += ["objective.adversarial.warmup_batches=100", "objective.adversarial.rollouts=1"]
    for latent, config in recipe.latents.items():
        if config.posterior.kind in ("gaussian", "implicit") and config.prior.kind != "mixture":
            changes.append(f"latents.{latent}.dim={LATENT}")
    changes += ["data.vocabulary_size=4004", "data.max_length=25", "data.label_column=null"]
    changes += _training(0.0002 if adversarial else 0.002, 2 if adversarial else EPOCHS)
    if recipe.objective.weight.kind != "constant":
        changes.append(f"objective.weight={{kind: linear, epochs: {ANNEALED}}}")
    if recipe.strategy.kind != "joint":  # its first stage
        changes += [f"strategy.epochs={EPOCHS}", "strategy.plateau=null"]
        changes.append("strategy.learning_rate=0.002")
    return changes


def _widths(section: str, width: int, hidden: int | None = None) -> list[str]:
    return [
        f"{section}.embedding_dim={width}",
        f"{section}.hidden_dim={hidden or width}",
        *(f"{section}.{key}=null" for key in START),
    ]


def _training(rate: float, epochs: int) -> list[str]:
    return [
        "training.optimizer=adam",
        f"training.learning_rate={rate}",
        "training.batch_size=32",
        "training.epsilon=1e-8",
        "training.weight_decay=0.0",
        "training.clip_norm=5.0",
        "training.plateau=null",
        f"training.max_epochs={epochs}",
    ]


def _annealed(recipe: Recipe) -> list[str]:
    kind = recipe.objective.weight.kind
    if kind == "linear":
        return [f"objective.weight.epochs={ANNEALED}"]
    if kind == "cyclical":
        return [f"objective.weight.period_epochs={PERIOD}"]
    if kind == "logistic":  # counted in updates, of which there are few
        return [f"objective.weight={{kind: linear, epochs: {ANNEALED}}}"]
    return []


def write_cut(source: Path, count: int, target: Path, *, whole_dialogues: bool) -> None:
    """Write part of a corpus's file as a file of its own.

    Parameters
    ----------
    source : Path
        Sentences a line, or a JSON object a line; with ``turns``, a dialogue.
    count : int
        Sentences, from the beginning on; of dialogues that are not read as such, utterances.
        Whole dialogues are spread evenly over the file: files are often sorted by topic.
    target : Path
    whole_dialogues : bool

    Raises
    ------
    UserError
        Naming the line that is no dialogue, or the file that is no text.
    """
    try:
        text = _cut(source, count, whole_dialogues)
    except UnicodeDecodeError:
        raise UserError(f"{source}: not valid UTF-8") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}")  # two programs may do the same
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)


def _cut(source: Path, count: int, whole_dialogues: bool) -> str:
    with source.open(encoding="utf-8") as lines:
        if whole_dialogues:
            every = lines.readlines()
            count = min(count, len(every))
            chosen: Iterable[str] = (every[row * len(every) // count] for row in range(count))
        else:
            rows = utterances(lines, source) if '"turns"' in lines.readline() else lines
            lines.seek(0)
            chosen = (line for _, line in zip(range(count), rows, strict=False))
        return "".join(chosen)


def utterances(dialogues: Iterable[str], source: Path) -> Iterator[str]:
    """Every turn as a JSON line: text, and what labels it and its dialogue have."""
    for number, line in enumerate(dialogues, 1):
        try:
            dialogue: dict[str, Any] = json.loads(line)
            texts = [turn["text"] for turn in dialogue["turns"]]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{source}, line {number}: not a dialogue with turns of text") from None
        shared = {key: dialogue[key] for key in ("topic", "domain") if key in dialogue}
        for text, turn in zip(texts, dialogue["turns"], strict=True):
            labels = {
                key: turn[key] for key in ("act", "emotion") if isinstance(turn.get(key), str)
            }
            yield json.dumps({"text": text, **labels, **shared}, ensure_ascii=False) + "\n"
