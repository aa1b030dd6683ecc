"""One HTML page of a comparison: nothing to install, nothing to fetch, readable on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from uncollapse import __version__
from uncollapse.plots.latent_space import LatentPanel
from uncollapse.report.markup import figures
from uncollapse.report.pictures import accuracies, curves, latent_spaces, tradeoff_picture

if TYPE_CHECKING:
    from uncollapse.benchmark.summary import RunSummary
    from uncollapse.report.comparison import Comparison
    from uncollapse.report.table import Table

SUBJECTS = {
    "standard": "Figures",
    "mixtures": "Mixtures and codes",
    "generation": "Sentences from the prior, held against real ones",
    "representation": "What z knows of the labels",
    "supervised": "What labels alone give",
    "geometry": "The shape of the latent space",
    "clusters": "Clusters, held against the labels",
    "dialogue": "Responses, held against real ones",
}
# the page may load nothing at all, whatever the sentences in it are
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def comparison_page(comparison: Comparison) -> str:
    """The whole page as text.

    Pictures, sentences and interpolations are those of the first finished seed of each system;
    curves show every seed.
    """
    shown = {name: runs[0] for name, runs in comparison.runs.items() if runs}
    panels = [latent_panel(run) for run in shown.values() if run.has_latent]
    parameter = "" if comparison.sweep is None else comparison.sweep.parameter
    sections = [
        _facts(comparison),
        _failures(comparison),
        _section("Is the latent alive?", _verdicts(comparison.runs)),
        _section(f"The trade-off over {parameter}", tradeoff_picture(comparison)),
        *(
            _section(SUBJECTS[group], _subject(group, table))
            for group, table in comparison.tables.items()
        ),
        _section("Latent space", latent_spaces(panels)),
        _section("Training", curves(comparison)),
        _section("Sentences", "".join(map(_sentences, shown.values()))),
    ]
    title = escape(f"{comparison.title}: a comparison")
    style = resources.files("uncollapse.report").joinpath("style.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{escape(comparison.title)}</h1>
{"".join(sections)}</main>
<footer>uncollapse {escape(__version__)}, {escape(comparison.created)}</footer>
</body>
</html>
"""


def latent_panel(run: RunSummary) -> LatentPanel:
    """The latent space of a run, as `uncollapse.plots.collapse_pair` takes it."""
    return LatentPanel(
        run.name,
        run.means,
        None if run.labels is None else np.array(run.labels),
        run.label_names,
        run.value("kl"),
        run.value("active_units"),
    )


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}</section>\n" if content else ""


def _facts(comparison: Comparison) -> str:
    seeds = "seed 0" if comparison.seeds == 1 else f"seeds 0 to {comparison.seeds - 1}"
    facts = {
        **{name.capitalize(): what for name, what in comparison.data.items()},
        "Runs": f"{_counted(comparison)}, {seeds}",
        "Likelihood": f"{comparison.samples} importance samples a sentence",
        **({"Swept": comparison.sweep.line} if comparison.sweep else {}),
        **({"Changed": ", ".join(comparison.overrides)} if comparison.overrides else {}),
        "Made": f"{comparison.created} with uncollapse {__version__}",
    }
    pairs = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>\n" for k, v in facts.items())
    return f'<dl class="facts">\n{pairs}</dl>\n'


def _counted(comparison: Comparison) -> str:
    systems = len(comparison.recipes)
    recipes = "1 recipe" if systems == 1 else f"{systems} recipes"
    return recipes if comparison.sweep is None else f"{systems} systems"


def _failures(comparison: Comparison) -> str:
    lines = "".join(f"<li>{escape(line)}</li>\n" for line in comparison.failure_lines())
    return f'<ul class="failures">\n{lines}</ul>\n' if lines else ""


# --- verdicts and figures -----------------------------------------------------------------


def _verdicts(runs: Mapping[str, Sequence[RunSummary]]) -> str:
    items = []
    for name, seeds in runs.items():
        for run in seeds:
            state = str(run.verdict["state"])
            label = name if len(seeds) == 1 else f"{name}, seed {run.seed}"
            advice = str(run.verdict["advice"])
            items.append(
                f'<li><span class="state {_state_class(state)}">{escape(state)}</span> '
                f"<strong>{escape(label)}</strong> {escape(str(run.verdict['evidence']))}"
                + (f'<span class="advice">{escape(advice)}</span>' if advice else "")
                + "</li>\n"
            )
    return f'<ul class="verdicts">\n{"".join(items)}</ul>\n' if items else ""


def _subject(group: str, table: Table) -> str:
    return figures(table) + (accuracies(table) if group == "representation" else "")


def _state_class(state: str) -> str:
    return state if state in ("alive", "collapsed") else "other"


# --- sentences ----------------------------------------------------------------------------


def _sentences(run: RunSummary) -> str:
    # what a model of dialogue says first would say little of it
    parts = [f"<h4>From the prior</h4>\n{_list(run.samples)}"] if not run.responses else []
    if run.responses:
        rows = "".join(
            f"<tr><td>{_list(turns, ordered=True)}</td><td>{escape(real)}</td>"
            f"<td>{_list(answers)}</td></tr>\n"
            for turns, real, answers in run.responses
        )
        parts.append(
            "<h4>In context</h4>\n"
            '<div class="scroll" tabindex="0" role="region" aria-label="Responses">\n'
            '<table class="sentences"><thead><tr><th scope="col">said before</th>'
            '<th scope="col">really said</th><th scope="col">answers</th></tr></thead>\n'
            f"<tbody>\n{rows}</tbody></table>\n</div>\n"
        )
    if run.reconstructions:
        rows = "".join(
            f"<tr><td>{escape(before)}</td><td>{escape(after)}</td></tr>\n"
            for before, after in run.reconstructions
        )
        parts.append(
            "<h4>Reconstructed</h4>\n"
            '<div class="scroll" tabindex="0" role="region" aria-label="Reconstructions">\n'
            '<table class="sentences"><thead><tr><th scope="col">test sentence</th>'
            '<th scope="col">what z keeps of it</th></tr></thead>\n'
            f"<tbody>\n{rows}</tbody></table>\n</div>\n"
        )
    if run.interpolations:
        lists = "".join(_list(steps, ordered=True) for steps in run.interpolations)
        parts.append(f'<h4>Between two test sentences</h4>\n<div class="columns">{lists}</div>\n')
    facts = (
        f"seed {run.seed}, {run.parameters:,} weights, trained for {run.seconds / 60:,.1f} minutes"
    )
    return (
        f"<article>\n<h3>{escape(run.name)} <small>{facts}</small></h3>\n"
        f"{''.join(parts)}</article>\n"
    )


def _list(sentences: Iterable[str], *, ordered: bool = False) -> str:
    tag = "ol" if ordered else "ul"
    items = "".join(f"<li>{escape(text) or '<em>(empty)</em>'}</li>\n" for text in sentences)
    return f'<{tag} class="sentences">\n{items}</{tag}>\n'
