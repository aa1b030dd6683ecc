"""The README.md that is written beside a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uncollapse import __version__
from uncollapse.config import Recipe


def model_card(recipe: Recipe, run: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Describe a trained model: what it is, what it was trained on, how it does.

    Parameters
    ----------
    recipe : Recipe
        Of the model.
    run : mapping
        ``config.json``'s facts about the run.
    metrics : mapping
        ``metrics.json``: name to figure, with unit, estimator and sample count.
    """
    rows = [
        f"| {name} | {_figure(metric)} | {metric['unit']} | {metric['estimator']} "
        f"| {metric['samples']:,} |"
        for name, metric in metrics.items()
    ]
    facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in run.items()]
    return "\n".join(
        [
            "---",
            "library_name: uncollapse",
            "pipeline_tag: text-generation",
            "tags: [variational-autoencoder, text]",
            "---",
            "",
            f"# {recipe.name}",
            "",
            f"{recipe.summary}.",
            "",
            f"Source of the system: {recipe.source}. Trained with uncollapse {__version__}; all",
            "settings are in `recipe.yaml`.",
            "",
            "## Training",
            "",
            *facts,
            "",
            "## Figures",
            "",
            "On the validation sentences, ± one standard error.",
            "",
            "| metric | value | unit | estimator | samples |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "## Use",
            "",
            "```python",
            "from uncollapse import TextVAE",
            "",
            'vae = TextVAE.from_pretrained("path/to/this/folder")',
            "print(vae.sample(5, seed=0))",
            "```",
            "",
            "## Limits",
            "",
            "The model has seen only its training text: it repeats that text's biases, knows no",
            "word outside its vocabulary, and its sentences are not facts.",
            "",
        ]
    )


def _figure(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "–"
    error = metric["standard_error"]
    return f"{metric['value']:.4g}" + (f" ± {error:.2g}" if error is not None else "")
