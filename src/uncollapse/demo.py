"""Collapse, and five ways to look at it, on the embedded grammar: what ``make demo`` runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from uncollapse.data.grammar import assistant_grammar, write_grammar

FOLDER = Path("demo")
RECIPES = ("lstm-lm", "vae", "bn-vae", "max-pool-vae", "twr-vae")
SPLITS = {"train": 8_000, "validation": 500, "test": 500}  # sentences
# the recipes are made for real corpora: here a tenth of the size, and Adam, are enough
OVERRIDES = (
    "encoder.embedding_dim=64",
    "encoder.hidden_dim=128",
    "decoder.embedding_dim=64",
    "decoder.hidden_dim=128",
    "training.optimizer=adam",
    "training.learning_rate=0.004",
    "training.max_epochs=10",
    "training.plateau=null",
)


def main() -> None:
    """Write the grammar's sentences, compare the recipes on them, say where the page is.

    What is there from an earlier call is kept and not computed again.
    """
    import torch

    from uncollapse.benchmark.compare import compare
    from uncollapse.plots import collapse_pair, save_figure
    from uncollapse.report.page import latent_panel

    torch.set_num_threads(1)  # layers this small lose more than they gain on several
    begin = time.monotonic()
    FOLDER.mkdir(exist_ok=True)
    files = {}
    for seed, (name, size) in enumerate(SPLITS.items()):
        files[name] = FOLDER / f"{name}.jsonl"
        if not files[name].exists():
            write_grammar(files[name], size, seed)
    entropy = assistant_grammar().entropy()
    found = compare(
        RECIPES,
        files["train"],
        files["test"],
        FOLDER / "comparison",
        validation=files["validation"],
        overrides=OVERRIDES,
        samples=500,
        entropy_floor=entropy,
        say=lambda line: print(line, file=sys.stderr),
    )
    runs = {run.name: latent_panel(run) for run in found.summaries}
    save_figure(collapse_pair(runs["vae"], runs["bn-vae"]), FOLDER / "collapse.png")
    print(found.to_text())
    print(f"\nThe grammar's exact entropy, {entropy:.2f} nats per sentence, is the floor of nll.")
    print(f"Page: {FOLDER / 'comparison' / 'index.html'}  ({time.monotonic() - begin:.0f} s)")


if __name__ == "__main__":
    from uncollapse.cli import report_errors

    with report_errors():
        main()
