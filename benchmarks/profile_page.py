"""The page of the profile, from its results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profile_events import OPTIMIZER, WHOLE
from profile_marks import BACKWARD, OUTSIDE, STEP

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "profile.md"
RESULTS = ROOT / "benchmarks" / "results" / "profile.json"
EXTRAS, REST = "extras", "rest"
PLACES = (STEP, BACKWARD, OUTSIDE)  # that no layer covers
COLUMNS: tuple[str, ...] = (
    "softmax",
    "decoder",
    "encoder",
    "contexts",
    "word vectors",
    "latents",
    "divergence",
    EXTRAS,
    "clipping",
    OPTIMIZER,
    "data",
    REST,
)
PRECISIONS = {"f32": "In f32", "bf16": "In bf16"}
MUCH = 0.15  # share of a step that the rest should stay below
Recipes = Mapping[str, Mapping[str, Any]]


def column_of(layer: str) -> str:
    """The column of the table in which a layer counts.

    Raises
    ------
    ValueError
        For a layer that has none.
    """
    whole = layer.split("/")[0]
    if whole in PLACES:
        return REST
    if whole in COLUMNS:
        return whole
    if whole in WHOLE:
        return EXTRAS
    raise ValueError(f"unknown layer {layer!r}")


def shares(facts: Mapping[str, Any]) -> dict[str, float]:
    """Of a profile, the share of every column in the step."""
    whole = sum(facts["layers"].values())
    found = dict.fromkeys(COLUMNS, 0.0)
    for layer, milliseconds in facts["layers"].items():
        found[column_of(layer)] += milliseconds / whole
    return found


def machine(found: Mapping[str, Any]) -> str:
    """What the profile was measured on."""
    sizes = found["sizes"]
    kernels = "with" if found["kernels"] else "without"
    threads = f"{found['threads']} thread{'s' if found['threads'] != 1 else ''}"
    return (
        f"Measured on {found['date']} at commit {found['commit']}: {found['hardware']}, {threads}, "
        f"PyTorch {found['torch']}, {kernels} [kernels](speed.md). E = "
        f"{sizes['embedding_dim']}, H = {sizes['hidden_dim']}, D = {sizes['latent_dim']} unless "
        f"the latent is discrete or a mixture, {sizes['batch_size']} sentences a batch."
    )


def table(recipes: Recipes, precision: str) -> str:
    """All recipes in one precision, a line each; shares in per cent."""
    head = ["recipe", "ms a step", "tokens/s", *COLUMNS]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for name, facts in recipes.items():
        own = shares(facts[precision])
        largest = max(own, key=lambda column: own[column])
        cells = [f"{100 * share:.0f}" if share >= 0.005 else "" for share in own.values()]
        cells = [
            f"**{cell}**" if column == largest else cell
            for column, cell in zip(own, cells, strict=True)
        ]
        rates = (f"{facts[precision]['ms']:,.0f}", f"{facts[precision]['tokens_per_second']:,.0f}")
        lines.append(f"| `{name}` | {' | '.join([*rates, *cells])} |")
    return "\n".join(lines)


def extras(recipes: Recipes, precision: str = "bf16") -> str:
    """What extras consist of, and how often encoder and decoder run."""
    lines = ["| recipe | encoder | decoder | extras |", "|---|--:|--:|---|"]
    for name, facts in recipes.items():
        own = facts[precision]
        whole = sum(own["layers"].values())
        kept = {
            layer: milliseconds / whole
            for layer, milliseconds in own["layers"].items()
            if column_of(layer) == EXTRAS and milliseconds >= 0.01 * whole
        }
        listed = ", ".join(
            f"{layer.replace('/', ': ')} {share:.0%}"
            for layer, share in sorted(kept.items(), key=lambda item: -item[1])
        )
        runs = [own["runs"].get(part, 0) for part in ("encoder", "decoder")]
        if listed or max(runs) > 1:
            lines.append(f"| `{name}` | {runs[0]:g} | {runs[1]:g} | {listed} |")
    return "\n".join(lines)


def summary(recipes: Recipes) -> str:
    """What dominates, and what follows from it."""
    texts = []
    for precision, name in (("f32", "f32"), ("bf16", "bf16")):
        softmax = [shares(facts[precision])["softmax"] for facts in recipes.values()]
        first = sum(
            max(own, key=lambda column: own[column]) == "softmax"
            for own in (shares(facts[precision]) for facts in recipes.values())
        )
        texts.append(
            f"in {name} it is the largest layer of {first} of {len(softmax)} recipes, with up to "
            f"{max(softmax):.0%} of a step"
        )
    small, rest = {}, {}
    for name, facts in recipes.items():
        own = [shares(facts[precision]) for precision in PRECISIONS]
        small[name] = max(o["latents"] + o["divergence"] for o in own)
        rest[name] = max(o[REST] for o in own)
    many = {
        name: max(facts[p]["runs"].get("decoder", 0) for p in PRECISIONS)
        for name, facts in recipes.items()
    }
    often = [f"`{name}`, {runs:g} times" for name, runs in many.items() if runs > 1]
    return (
        f"**The softmax over the vocabulary** is what most recipes pay for: {'; '.join(texts)}. "
        "A smaller `data.vocabulary_size` and `training.precision: bf16` shorten it; the size of "
        "the latent does not.\n\n"
        "**How often the networks run** decides between recipes"
        + (f": a step runs the decoder more than once in {'; '.join(often)}" if often else "")
        + ". What such a recipe costs is that number, not its formulas.\n\n"
        "**The latent costs little**: posterior, draws and divergence together take "
        f"{_range(small)} of a step. Choose posterior, prior and divergence for what they do, "
        f"not for their speed. {_too_much(rest)}"
    )


def _range(values: Mapping[str, float]) -> str:
    least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return f"from {values[least]:.0%} (`{least}`) to {values[most]:.0%} (`{most}`)"


def _too_much(rest: Mapping[str, float]) -> str:
    over = [f"`{name}` ({share:.0%})" for name, share in rest.items() if share > MUCH]
    if over:
        return f"More than {MUCH:.0%} of a step is the rest in {', '.join(over)}."
    return f"The rest, Python and PyTorch Lightning, is at most {max(rest.values()):.0%}."


def filled(text: str, found: Mapping[str, Any]) -> str:
    """The page with everything between its markers made from results."""
    recipes = found["recipes"]
    parts = {
        "machine": machine(found),
        "summary": summary(recipes),
        "f32": table(recipes, "f32"),
        "bf16": table(recipes, "bf16"),
        "extras": extras(recipes),
    }
    for name, new in parts.items():
        marked = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(marked, lambda m, new=new: f"{m[1]}{new}\n{m[2]}", text, flags=re.S)
        assert count == 1, f"{PAGE.name} needs one place for {name}"
    return text


def write_page() -> None:
    """Write the page from the committed results."""
    found = json.loads(RESULTS.read_text("utf-8"))
    PAGE.write_text(filled(PAGE.read_text("utf-8"), found), "utf-8")
