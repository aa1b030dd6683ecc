"""Every continuous-latent system at a size that two cores can do, trained and measured alike.

    python benchmarks/systems.py yelp --corpora FOLDER --runs runs/yelp
    python benchmarks/systems.py ptb --corpora FOLDER --runs runs/ptb

All get the same corpus, widths, optimiser, batches and epochs; what is scaled down with the
epochs, the annealing of the KL weight and the cycles, is listed in `reduced`. Finished runs are
kept, interrupted ones resumed. The figures go to ``benchmarks/results/systems-CORPUS.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from uncollapse import __version__
from uncollapse.benchmark.compare import IncompleteComparison, compare
from uncollapse.recipes import load_recipe, recipe_to_yaml

ROOT = Path(__file__).parents[1]
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


def head(source: Path, count: int, folder: Path) -> Path:
    """The first sentences of a file, as a file."""
    target = folder / f"{count}-{source.parent.name}-{source.name}"
    if not target.exists():
        with source.open(encoding="utf-8") as lines:
            text = "".join(line for _, line in zip(range(count), lines, strict=False))
        target.write_text(text, encoding="utf-8")
    return target


def write_recipe(name: str, folder: Path) -> Path:
    """The reduced recipe, every value spelled out."""
    target = folder / f"{name}.yaml"
    target.write_text(recipe_to_yaml(load_recipe(name, reduced(name))), encoding="utf-8")
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
    files = CORPORA[given.corpus][:3]
    if given.corpora is None or not all((Path(given.corpora) / f).is_file() for f, _ in files):
        parser.error(f"--corpora must name a folder with {', '.join(f for f, _ in files)}")
    *_, metrics, label_column = CORPORA[given.corpus]
    inputs = given.runs.with_name(f"{given.runs.name}-inputs")
    inputs.mkdir(parents=True, exist_ok=True)
    train, validation, test = (
        head(Path(given.corpora) / file, count, inputs) for file, count in files
    )
    try:
        result = compare(
            [write_recipe(name, inputs) for name in given.recipes],
            train,
            test,
            given.runs,
            validation=validation,
            seeds=given.seeds,
            metrics=metrics,
            label_column=label_column,
            samples=given.samples,
            say=lambda line: print(line, flush=True),
        )
    except IncompleteComparison as error:
        result = error.comparison
        print(error)
    found = result.to_dict()
    protocol = {
        "command": f"python benchmarks/systems.py {given.corpus} --runs runs/{given.corpus}",
        "environment": environment(),
        "files": {file: f"first {count:,} sentences" for file, count in files},
        "epochs": EPOCHS,
        "changes": {name: reduced(name) for name in given.recipes},
    }
    target = ROOT / "benchmarks" / "results" / f"systems-{given.corpus}.json"
    kept = {name: found[name] for name in ("data", "seeds", "samples", "systems", "failures")}
    costs = [
        {k: run[k] for k in ("name", "seed", "seconds", "parameters")} for run in found["runs"]
    ]
    target.write_text(
        json.dumps({**protocol, **kept, "costs": costs}, indent=1, allow_nan=False) + "\n"
    )
    print(result.to_text())


if __name__ == "__main__":
    main()
