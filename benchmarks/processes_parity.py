"""How far is what several processes compute from what one does?

Trains BN-VAE for two epochs in 1, 2 and 4 processes that share the same batches, without noise, as
each process draws its own: no dropout, and the posterior's mean for a draw. Tells the greatest
relative difference to one process in losses, in figures of validation, in the statistics of batch
norm and in weights.

    python benchmarks/processes_parity.py [--json FILE] [--tiny]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from processes_launch import launch
from speed_machine import describe
from speed_settings import SEED, Settings, corpus, prepare, sentences, tokenizer

COUNTS = (2, 4)
KINDS = {  # of numbers, and how the table calls them
    "losses": "losses of training",
    "validation": "figures of validation",
    "batch norm": "statistics of batch norm",
    "weights": "weights",
}
BATCH = 32
EPOCHS = 2


def train(settings: Settings, size: int) -> dict[str, Any]:
    """Train in this process, perhaps with others: the figures of all epochs, and the weights."""
    import torch

    from uncollapse.distributions.gaussian import DiagonalGaussian
    from uncollapse.latents.priors.standard_normal import StandardNormal
    from uncollapse.model import Model
    from uncollapse.objectives import Objective
    from uncollapse.recipes import load_recipe
    from uncollapse.training.fit import fit

    torch.set_num_threads(1)
    sizes = {"embedding_dim": settings.embedding_dim, "hidden_dim": settings.hidden_dim}
    changes = [f"{side}.{key}={n}" for side in ("encoder", "decoder") for key, n in sizes.items()]
    changes += ["encoder.embedding_dropout=0", "decoder.embedding_dropout=0"]
    changes += ["decoder.output_dropout=0", f"latents.z.dim={settings.latent_dim}"]
    changes += ["training.optimizer=adam", "training.learning_rate=0.001"]
    changes += [f"training.batch_size={BATCH}", f"training.max_epochs={EPOCHS}"]
    recipe = load_recipe("bn-vae", [*changes, "training.precision=f32"])
    parts = {"train": size, "validation": size // 4}
    data = [sentences(corpus(settings, "lstm", part), 0, n) for part, n in parts.items()]
    torch.manual_seed(SEED)
    model = Model(recipe, len(tokenizer(settings, "lstm")))
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(DiagonalGaussian, "rsample", lambda posterior: posterior.mean),
        patch.object(StandardNormal, "sample", lambda prior, n, *_: torch.zeros(n, prior.dim)),
    ):
        history = fit(
            model, Objective(recipe.objective), recipe, data[0], data[1], folder, seed=SEED,
            device="cpu", show_progress=False,
        )  # fmt: skip
    return {"rows": history.rows, "weights": model.state_dict()}


def differences(found: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, float]:
    """The greatest relative difference to one process, a kind of number each."""
    worst = dict.fromkeys(KINDS, 0.0)
    assert len(found["rows"]) == len(one["rows"])
    for own, other in zip(found["rows"], one["rows"], strict=True):
        for name, value in other.items():
            kind = {"train": "losses", "validation": "validation"}.get(name.partition("/")[0])
            if kind is not None and "/" in name:
                off = abs(own[name] - value) / max(abs(value), 1e-12)
                worst[kind] = max(worst[kind], off)
    for name, values in one["weights"].items():
        kind = "batch norm" if "running_" in name else "weights"
        off = (found["weights"][name] - values).abs().max() / values.abs().max()
        worst[kind] = max(worst[kind], float(off))
    return worst


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Differences by number of processes."""
    lines = [f"| processes | {' | '.join(KINDS.values())} |", "|---" * (len(KINDS) + 1) + "|"]
    for count, worst in found.items():
        lines.append(f"| {count} | {' | '.join(f'{worst[kind]:.0e}' for kind in KINDS)} |")
    return "\n".join(lines)


def page(found: Mapping[str, Any]) -> str:
    """What was compared, and the table."""
    facts = (
        f"Commit {found['commit']}, {found['date']}, PyTorch {found['torch']}: BN-VAE without "
        f"noise, {found['epochs']} epochs of {found['sentences']:,} sentences ({found['corpus']}), "
        f"{found['batch']} a batch. Greatest relative difference to one process:"
    )
    return f"{facts}\n\n{table(found['differences'])}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also keep the results")
    parser.add_argument("--tiny", action="store_true", help="for a test: two processes alone")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    import torch

    if chosen.work:
        values, size, result = json.loads(chosen.work)
        found = train(Settings(**{**values, "folder": Path(values["folder"])}), size)
        if os.environ["RANK"] == "0":
            torch.save(found, result)
        print("done")
        return
    width, latent, size = (8, 2, 64) if chosen.tiny else (64, 16, 1024)
    counts = COUNTS[:1] if chosen.tiny else COUNTS
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), embedding_dim=width, hidden_dim=width, latent_dim=latent)
        name = prepare(settings, few=chosen.tiny)
        one = train(settings, size)
        for count in counts:
            result = Path(folder) / f"{count}.pt"
            values = {**asdict(settings), "folder": folder}
            launch(__file__, json.dumps([values, size, str(result)]), count)
            several = torch.load(result, weights_only=True)
            found[str(count)] = differences(several, one)
    print(table(found))
    if chosen.json:
        about = {**describe(), "corpus": name, "sentences": size, "batch": BATCH, "epochs": EPOCHS}
        text = json.dumps({**about, "differences": found}, indent=1)
        chosen.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
