"""Train five systems on the Penn Treebank at the papers' size, and measure them alike.

    python benchmarks/ptb.py --corpora FOLDER --runs runs/ptb --epochs 10

Runs in the folder are kept, and interrupted ones are resumed. The figures go to
``benchmarks/results/ptb.json`` after every system.
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

from uncollapse import TextVAE, __version__, saving
from uncollapse.errors import UserError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "ptb.json"
RECIPES = ("lstm-lm", "vae", "bn-vae", "max-pool-vae", "twr-vae")
# the papers train with SGD for up to 100 epochs: Adam gets further in the few that a
# processor allows
BUDGET = ("training.optimizer=adam", "training.learning_rate=0.001")
PLATEAU = "training.plateau={patience: 1, factor: 0.5, max_decays: 4, start_epoch: 6}"
ANNEALED = "objective.weight.epochs=5"


def overrides(recipe: str, epochs: int) -> list[str]:
    """What differs from the recipe; the KL weight reaches 1 halfway."""
    annealed = [ANNEALED] if recipe in ("vae", "bn-vae", "max-pool-vae") else []
    return [*BUDGET, f"training.max_epochs={epochs}", PLATEAU, *annealed]


def train(recipe: str, corpus: Path, folder: Path, epochs: int) -> TextVAE:
    """Train, go on with, or simply load a run."""
    try:
        if saving.read_config(folder)["finished"]:
            return TextVAE.from_pretrained(folder)
        resume = True
    except UserError:  # there is no run yet
        resume = False
    vae = TextVAE.from_recipe(recipe, overrides=overrides(recipe, epochs))
    return vae.fit(
        corpus / "train.txt", validation=corpus / "valid.txt", out=folder, resume=resume, say=print
    )


def measure(vae: TextVAE, recipe: str, corpus: Path, samples: int, epochs: int) -> dict[str, Any]:
    """All figures of one system, and how they came about."""
    found = vae.evaluate(corpus / "test.txt", samples=samples)
    sets = " ".join(f"--set '{override}'" for override in overrides(recipe, epochs))
    return {
        "recipe": recipe,
        "command": f"uncollapse train {recipe} --train ptb/train.txt --validation ptb/valid.txt "
        f"--out runs/ptb/{recipe} --seed 0 {sets}",
        "epochs": len(vae.history_),
        "training_seconds": round(sum(row["seconds"] for row in vae.history_)),
        "parameters": sum(parameter.numel() for parameter in vae.model.parameters()),
        "metrics": {name: metric.to_dict() for name, metric in found.items()},
        "history": [
            {key: row.get(key) for key in ("epoch", "validation/elbo", "validation/kl")}
            for row in vae.history_
        ],
    }


def environment() -> dict[str, Any]:
    """Where and with what the figures were made."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "uncollapse": __version__,
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, no GPU"
        if not torch.cuda.is_available()
        else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
        "seed": 0,
    }


def main() -> None:
    """Train and measure whatever is not measured yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, default=os.environ.get("UNCOLLAPSE_CORPORA"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ptb"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    given = parser.parse_args()
    if given.corpora is None or not (given.corpora / "ptb").is_dir():
        parser.error("--corpora must name a folder with ptb/train.txt, valid.txt and test.txt")
    corpus = given.corpora / "ptb"
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"systems": {}}
    for recipe in given.recipes:
        vae = train(recipe, corpus, given.runs / recipe, given.epochs)
        print(f"{recipe}: measuring", flush=True)
        row = measure(vae, recipe, corpus, given.samples, given.epochs)
        results["systems"][recipe] = row | {"environment": environment()}
        RESULTS.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
        print(recipe, {name: metric["value"] for name, metric in row["metrics"].items()})


if __name__ == "__main__":
    main()
