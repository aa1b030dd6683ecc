"""Dialogue systems at a size that two cores can do, measured alike.

    python benchmarks/dialogue.py dailydialog --corpora FOLDER --runs runs/dailydialog
    python benchmarks/dialogue.py swda --corpora FOLDER --runs runs/swda
    python benchmarks/dialogue.py smd --corpora FOLDER --runs runs/smd

All get the same dialogues, widths, optimiser, batches and epochs; a strategy with a first stage
has it besides. Finished runs are kept, interrupted ones resumed. The figures go to
``benchmarks/results/dialogue-CORPUS.json``.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol import environment, inputs_of, reproduce, write_results

from uncollapse import TextVAE
from uncollapse.errors import UserError
from uncollapse.recipes import load_recipe
from uncollapse.responding import Response

CONDITIONAL = ("hred", "cvae", "cvae-bow", "bn-cvae", "twr-cvae")
COMBINED = ("free-bits-cvae", "max-pool-bn-cvae")
ADVERSARIAL = ("dialog-wae", "ivae-dialogue", "seqgan")
TWO_STAGE = ("di-vae-dialogue", "dgm-vae-dialogue")
# with little training the papers' dispersion leaves the components where they are
VARIANTS = {"dgm-vae-dialogue-0.9": ("dgm-vae-dialogue", ["latents.z.divergence.beta=0.9"])}

WIDTH = 128
LATENT = 32  # where a latent is continuous and the papers have 200
RESPONSES = 10_000  # ten a context, as far as there are contexts


CONTEXTS = {
    "dailydialog": [
        ["What are you doing this weekend ?"],
        ["I lost my wallet on the bus .", "Oh no . Was there much money in it ?"],
        ["Can I help you ?", "Yes , I am looking for a coat .", "What size do you wear ?"],
    ],
    "swda": [
        ["Do you have any pets?"],
        ["Where do you live?", "Uh, in Texas, near Dallas."],
        ["I think the taxes are too high.", "Yeah, I agree.", "But what can you do?"],
    ],
    "smd": [
        ["remind me of my dentist appointment"],
        ["will it rain this week", "What city are you interested in?", "Boston please"],
        ["where is the nearest gas station", "There is one 3 miles away.", "give me the address"],
    ],
}


@dataclass(frozen=True)
class Dialogues:
    """So many dialogues of a file, spread evenly: files are often sorted by topic."""

    file: str
    dialogues: int

    def write(self, corpora: Path, folder: Path) -> Path:
        """The dialogues as a file of their own, once."""
        source = corpora / self.file
        target = folder / f"{self.dialogues}-{source.parent.name}-{source.name}"
        if not target.exists():
            lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
            rows = [i * len(lines) // self.dialogues for i in range(self.dialogues)]
            target.write_text("".join(lines[row] for row in rows), encoding="utf-8")
        return target


@dataclass(frozen=True)
class Corpus:
    """What is run on a corpus.

    Attributes
    ----------
    recipes : tuple of str
    cuts : tuple of Dialogues
        For training, validation and test.
    label_column : str
        That of the classifier of responses, and of the actions' homogeneity.
    epochs, annealed : int
        In all, and until the KL weight is 1.
    """

    recipes: tuple[str, ...]
    cuts: tuple[Dialogues, ...]
    label_column: str
    epochs: int = 6
    annealed: int = 3


CORPORA = {
    "dailydialog": Corpus(
        (*CONDITIONAL, *COMBINED, *ADVERSARIAL),
        (
            Dialogues("dailydialog/train.jsonl", 1_000),
            Dialogues("dailydialog/validation.jsonl", 100),
            Dialogues("dailydialog/test.jsonl", 125),
        ),
        "act",
    ),
    "swda": Corpus(
        CONDITIONAL,
        (
            Dialogues("swda/train.jsonl", 50),
            Dialogues("swda/validation.jsonl", 5),
            Dialogues("swda/test.jsonl", 5),
        ),
        "act",
    ),
    "smd": Corpus(
        ("hred", "cvae", *TWO_STAGE, *VARIANTS),
        (
            Dialogues("smd/train.jsonl", 1_600),
            Dialogues("smd/validation.jsonl", 100),
            Dialogues("smd/test.jsonl", 150),
        ),
        "domain",
    ),
}


def reduced(name: str, corpus: Corpus) -> list[str]:
    """What differs from a recipe."""
    name, further = VARIANTS.get(name, (name, []))
    recipe = load_recipe(name)
    changes = [*further, *(f"decoder.{part}_dim={WIDTH}" for part in ("embedding", "hidden"))]
    changes += [f"decoder.{key}=null" for key in ("init_scale", "embedding_init_scale")]
    changes += [f"decoder.{part}_dropout=0.2" for part in ("embedding", "output")]
    for section, encoder in (
        ("encoder", recipe.encoder),
        ("condition.encoder", recipe.condition.encoder if recipe.condition else None),
    ):
        if encoder is not None:
            changes += [f"{section}.embedding_dim={WIDTH}", f"{section}.hidden_dim={WIDTH // 2}"]
            changes += [f"{section}.bidirectional=true", f"{section}.embedding_dropout=0.2"]
            changes += [f"{section}.{key}=null" for key in ("init_scale", "embedding_init_scale")]
    changes += [f"condition.hidden_dim={WIDTH}", "condition.dropout=0.0"]
    if recipe.discriminator is not None:
        changes += [f"discriminator.encoder.embedding_dim={WIDTH}"]
        changes += [f"discriminator.encoder.hidden_dim={WIDTH // 2}"]
        changes += [f"discriminator.hidden_dim={WIDTH}"]
        changes += ["objective.adversarial.warmup_batches=100", "objective.adversarial.rollouts=1"]
    for latent, config in recipe.latents.items():
        if config.posterior.kind in ("gaussian", "implicit") and config.prior.kind != "mixture":
            changes.append(f"latents.{latent}.dim={LATENT}")
    changes += [
        "data.vocabulary_size=4004",
        "data.max_length=25",
        "data.label_column=null",
        "training.optimizer=adam",
        "training.learning_rate=0.002",
        "training.epsilon=1e-8",
        "training.weight_decay=0.0",
        "training.batch_size=32",
        "training.clip_norm=5.0",
        "training.plateau=null",
        f"training.max_epochs={corpus.epochs if recipe.discriminator is None else 2}",
    ]
    if recipe.objective.weight.kind != "constant":
        changes.append(f"objective.weight={{kind: linear, epochs: {corpus.annealed}}}")
    if recipe.strategy.kind != "joint":  # its first stage
        changes += [f"strategy.epochs={corpus.epochs}", "strategy.plateau=null"]
        changes.append("strategy.learning_rate=0.002")
        if recipe.discriminator is not None:
            changes.append("training.learning_rate=0.0002")
    return changes


def at(name: str, corpus: str) -> str:
    """The recipe with the papers' settings for a corpus, where it has any."""
    recipe = VARIANTS[name][0] if name in VARIANTS else name
    called = f"{name}:" if name in VARIANTS else ""
    try:
        load_recipe(f"{recipe}@{corpus}")
    except UserError:
        return f"{called}{recipe}"
    return f"{called}{recipe}@{corpus}"


def answers(runs: Path, corpus: str, names: Sequence[str]) -> dict[str, Any]:
    """What every system answers in a few contexts of our own; of actions, one at a time."""
    given = [
        {
            "turns": [{"speaker": "AB"[i % 2], "text": text} for i, text in enumerate(turns)],
            "speaker": "AB"[len(turns) % 2],
        }
        for turns in CONTEXTS[corpus]
    ]
    found: dict[str, Any] = {}
    for name in names:
        folder = runs / name / "seed-0"
        if not (folder / "summary.json").is_file():
            continue
        vae = TextVAE.from_pretrained(folder)
        method = "greedy" if vae.model.latent_dim else "sample"
        said = vae.respond(given, n=5, method=method, seed=0)
        rows: list[dict[str, Any]] = [
            {"context": turns, "answers": texts(own)}
            for turns, own in zip(CONTEXTS[corpus], said, strict=True)
        ]
        for groups, values in vae.model.variable_sizes().values():
            for row in rows:
                row["actions"] = {}
            for index, value in itertools.product(range(groups), range(values)):
                code = "-".join(str(value) if at == index else "*" for at in range(groups))
                held = vae.respond(given, n=2, component=code, method="greedy", seed=0)
                for row, own in zip(rows, held, strict=True):
                    row["actions"][code] = texts(own)
        found[name] = rows
    return found


def texts(responses: Sequence[Response]) -> list[str]:
    """Different texts, in their order."""
    return list(dict.fromkeys(response.text for response in responses))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure whatever is not measured yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus", choices=CORPORA)
    parser.add_argument("--corpora", type=Path, default=os.environ.get("UNCOLLAPSE_CORPORA"))
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--samples", type=int, default=50)
    given = parser.parse_args(arguments)
    corpus = CORPORA[given.corpus]
    names = given.recipes or corpus.recipes
    if unknown := [name for name in names if name not in corpus.recipes]:
        parser.error(f"{unknown[0]} is not run on {given.corpus}: {', '.join(corpus.recipes)}")
    files = inputs_of(corpus.cuts, given.corpora, given.runs, parser.error)
    changes = {name: reduced(name, corpus) for name in names}
    found = reproduce(
        {at(name, given.corpus): changes[name] for name in names},
        files,
        given.runs,
        metrics=("standard", "dialogue"),
        label_column=corpus.label_column,
        seeds=given.seeds,
        samples=given.samples,
        generated=RESPONSES,
    )
    protocol = {
        "command": f"python benchmarks/dialogue.py {given.corpus} --runs runs/{given.corpus}",
        "environment": environment(),
        "files": {cut.file: f"{cut.dialogues:,} dialogues, evenly spread" for cut in corpus.cuts},
        "epochs": corpus.epochs,
        "changes": changes,
    }
    said = answers(given.runs, given.corpus, list(names))
    write_results(f"dialogue-{given.corpus}", {**protocol, **found, "answers": said})


if __name__ == "__main__":
    main()
