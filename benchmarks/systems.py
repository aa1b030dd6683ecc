"""Every continuous-latent system at a size that two cores can do, trained and measured alike.

    python benchmarks/systems.py yelp --corpora FOLDER --runs runs/yelp
    python benchmarks/systems.py ptb --corpora FOLDER --runs runs/ptb

All get the same corpus, widths, optimiser, batches and epochs; what is scaled down with the
epochs, the annealing of the KL weight and the cycles, is listed in `reduced`. Finished runs are
kept, interrupted ones resumed. The figures go to ``benchmarks/results/systems-CORPUS.json``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from protocol import Cut, environment, inputs_of, reproduce, write_results

from uncollapse.recipes import load_recipe

RECIPES = (
    "lstm-lm",
    "autoencoder",
    "vae",
    "cyclical-vae",
    "free-bits-vae",
    "delta-vae",
    "bn-vae",
    "max-pool-vae",
    "vmf-vae",
    "skip-vae",
    "cnn-vae",
    "sa-vae",
    "lagging-vae",
    "pretrained-free-bits-vae",
    "pretrained-cyclical-vae",
    "pretrained-delta-vae",
    "pretrained-vmf-vae",
    "pretrained-bn-vae",
    "wae-rnf",
    "ivae",
    "ivae-mi",
    "transformer-vae",
    "transformer-bn-vae",
    "max-pool-bn-vae",
    "bn-flow-vae",
    "pretrained-free-bits-transformer-vae",
)
EPOCHS = 6
ANNEALED = 3  # epochs until the KL weight is 1
PERIOD = 3  # epochs of a cycle
PRETRAINED = 3  # epochs as an autoencoder, before the others
WIDTH = 128
# from the papers' U(±0.01) and with half of the words and states dropped, few epochs teach nothing
START = ("init_scale", "embedding_init_scale")  # PyTorch's own
DROPOUT = 0.2
SHAPE = ("interpolation_rouge_l", "cosine", "aggregate_kl")
CORPORA = {
    # training, validation and test file, how many sentences of each, figures, label column
    "yelp": (
        ("yelp_sentiment/train.jsonl", 10_000),
        ("yelp_sentiment/validation.jsonl", 1_000),
        ("yelp_sentiment/test.jsonl", 1_000),
        ("standard", "representation", *SHAPE),
        "label",
    ),
    "ptb": (
        ("ptb/train.txt", 5_000),
        ("ptb/valid.txt", 500),
        ("ptb/test.txt", 500),
        ("standard", *SHAPE),
        None,
    ),
}


def reduced(name: str) -> list[str]:
    """What differs from a recipe."""
    recipe = load_recipe(name)
    changes = [f"decoder.embedding_dim={WIDTH}", f"decoder.hidden_dim={WIDTH}"]
    changes += [f"decoder.{key}=null" for key in START]
    changes += [f"decoder.{kind}_dropout={DROPOUT}" for kind in ("embedding", "output")]
    if recipe.encoder is not None:
        changes += [f"encoder.embedding_dim={WIDTH}", f"encoder.hidden_dim={WIDTH}"]
        changes += [f"encoder.{key}=null" for key in START]
    transformer = recipe.decoder.kind == "transformer"
    changes += [
        "training.optimizer=adam",
        f"training.learning_rate={0.001 if transformer else 0.002}",
        "training.batch_size=32",
        "training.epsilon=1e-8",
        "training.weight_decay=0",
        "training.clip_norm=5.0",
        "training.plateau=null",
        f"training.max_epochs={EPOCHS}",
    ]
    if recipe.training.cosine_period_epochs is not None:
        changes.append(f"training.cosine_period_epochs={PERIOD}")
    if recipe.objective.weight.kind == "linear":
        changes.append(f"objective.weight.epochs={ANNEALED}")
    if recipe.objective.weight.kind == "cyclical":
        changes.append(f"objective.weight.period_epochs={PERIOD}")
    if recipe.strategy.kind == "pretrained":
        changes.append(f"strategy.epochs={PRETRAINED}")
    if name == "sa-vae":
        changes.append("latents.z.posterior.steps=3")  # of 10: each costs three passes
    return changes


def main() -> None:
    """Train and measure whatever is not measured yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus", choices=CORPORA)
    parser.add_argument("--corpora", type=Path, default=os.environ.get("UNCOLLAPSE_CORPORA"))
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--samples", type=int, default=50)
    given = parser.parse_args()
    *cuts, metrics, label_column = CORPORA[given.corpus]
    cuts = [Cut(*cut) for cut in cuts]
    changes = {name: reduced(name) for name in given.recipes}
    found = reproduce(
        changes,
        inputs_of(cuts, given.corpora, given.runs, parser.error),
        given.runs,
        metrics=metrics,
        label_column=label_column,
        seeds=given.seeds,
        samples=given.samples,
        generated=10_000,
    )
    protocol = {
        "command": f"python benchmarks/systems.py {given.corpus} --runs runs/{given.corpus}",
        "environment": environment(),
        "files": {cut.file: f"first {cut.sentences:,} sentences" for cut in cuts},
        "epochs": EPOCHS,
        "changes": changes,
    }
    write_results(f"systems-{given.corpus}", {**protocol, **found})


if __name__ == "__main__":
    main()
