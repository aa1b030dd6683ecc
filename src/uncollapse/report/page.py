"""One HTML page of a comparison: nothing to install, nothing to fetch, readable on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from uncollapse import __version__
from uncollapse.evaluation.representation import LINEAR
from uncollapse.plots import common_limit, kl_per_dimension, latent_space, to_svg, training_curves
from uncollapse.plots.latent_space import LatentPanel
from uncollapse.plots.probes import accuracy_by_labels
from uncollapse.plots.style import LINES, MARKERS, colour, shape

if TYPE_CHECKING:
    from uncollapse.benchmark.summary import RunSummary
    from uncollapse.report.comparison import Comparison
    from uncollapse.report.table import Row, Table

SUBJECTS = {
    "generation": "Sentences from the prior, held against real ones",
    "representation": "What z knows of the labels",
    "supervised": "What labels alone give",
    "geometry": "The shape of the latent space",
}
CURVES = ("kl", "mi", "active_units", "elbo", "reconstruction")
# the page may load nothing at all, whatever the sentences in it are
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def comparison_page(comparison: Comparison) -> str:
    """The whole page as text.

    Pictures, sentences and interpolations are those of the first finished seed of each recipe;
    curves show every seed.
    """
    shown = {name: runs[0] for name, runs in comparison.runs.items() if runs}
    numbers = {name: number for number, name in enumerate(comparison.recipes)}
    tables = comparison.tables
    sections = [
        _facts(comparison),
        _failures(comparison),
        _section("Is the latent alive?", _verdicts(comparison.runs)),
        _section("Figures", _figures(tables["standard"])),
        *(
            _section(SUBJECTS[group], _probes(group, table))
            for group, table in tables.items()
            if group != "standard"
        ),
        _section("Latent space", _latent_spaces(list(shown.values()))),
        _section("Training", _curves(comparison, numbers)),
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
        "Runs": f"{len(comparison.recipes)} recipes, {seeds}",
        "Likelihood": f"{comparison.samples} importance samples a sentence",
        **({"Changed": ", ".join(comparison.overrides)} if comparison.overrides else {}),
        "Made": f"{comparison.created} with uncollapse {__version__}",
    }
    pairs = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>\n" for k, v in facts.items())
    return f'<dl class="facts">\n{pairs}</dl>\n'


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


def _state_class(state: str) -> str:
    return state if state in ("alive", "collapsed") else "other"


def _figures(table: Table) -> str:
    return _table(table) + _definitions(table)


def _probes(group: str, table: Table) -> str:
    picture = _accuracies(table) if group == "representation" else ""
    return _figures(table) + picture


def _accuracies(table: Table) -> str:
    """The accuracy of linear classifiers over the labels that they saw, as a picture."""
    systems = {}
    for row in table.rows:
        points = {
            LINEAR[column.name]: (cell.value, cell.standard_error)
            for column, cell in zip(table.columns, row.cells, strict=True)
            if column.name in LINEAR and cell.value is not None
        }
        if points:
            systems[row.system] = points
    if not systems:
        return ""
    figure = accuracy_by_labels(systems)
    svg = to_svg(figure, "Accuracy of a linear classifier of z over the labels it learned from")
    return f'<div class="pictures wide">\n{_card(svg)}</div>\n'


def _table(table: Table) -> str:
    if not table.columns:
        return "<p>No run has finished.</p>\n"
    headings = "".join(
        f'<th scope="col">{escape(column.heading)}<small>{escape(column.shown_unit)}</small></th>'
        for column in table.columns
    )
    rows = "".join(f"<tr>{_row(table, row)}</tr>\n" for row in table.rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Figures">\n<table>\n'
        f'<thead><tr><th scope="col">system</th>{headings}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
        f'<p class="note">{escape(table.errors)}. A dash: there is no such figure.</p>\n'
    )


def _row(table: Table, row: Row) -> str:
    note = f"<small>{escape(row.note)}</small>" if row.note else ""
    cells = []
    for column, cell in zip(table.columns, row.cells, strict=True):
        value, error = column.format(cell)
        cells.append(f"<td>{value}{f'<small>{error}</small>' if error else ''}</td>")
    return f'<th scope="row">{escape(row.system)}{note}</th>{"".join(cells)}'


def _definitions(table: Table) -> str:
    pairs = "".join(
        f"<dt>{escape(c.heading)}</dt><dd>{escape(c.definition)}"
        + (f' <span class="estimator">{escape(c.estimator)}</span>' if c.estimator else "")
        + "</dd>\n"
        for c in table.columns
    )
    return (
        f"<details>\n<summary>What the figures are</summary>\n<dl>\n{pairs}</dl>\n</details>\n"
        if pairs
        else ""
    )


# --- pictures -----------------------------------------------------------------------------


def _latent_spaces(runs: Sequence[RunSummary]) -> str:
    runs = [run for run in runs if run.has_latent]
    if not runs:
        return ""
    limit = common_limit(run.means for run in runs if run.value("kl") is not None)
    alike = len({tuple(run.label_names) for run in runs}) == 1  # then one legend serves all
    pictures = []
    for run in runs:
        panel = latent_panel(run)
        prior = panel.kl is not None
        figure = latent_space(
            panel.means,
            panel.labels,
            panel.label_names,
            title=panel.title,
            limit=limit if prior else None,
            prior=prior,
            legend=not alike,
        )
        pictures.append(_card(to_svg(figure, f"Latent space of {panel.title}")))
    signs = [
        (shape(number, MARKERS)[1], colour(number), name)
        for number, name in enumerate(runs[0].label_names)
    ]
    return (
        (_legend(signs) if alike else "")
        + f'<div class="pictures">\n{"".join(pictures)}</div>\n'
        + '<p class="note">Posterior means of the same test sentences, on the two principal axes '
        "of each system. Axes are in standard deviations of the prior and alike in all pictures; "
        "circles are one and two of them. A collapsed latent is a dot in the middle.</p>\n"
    )


def _curves(comparison: Comparison, numbers: Mapping[str, int]) -> str:
    pictures = []
    for quantity in CURVES:
        histories = {
            # an autoencoder's epochs have an "ELBO" without a KL, which is none
            name: [run.history for run in runs if run.value(quantity) is not None]
            for name, runs in comparison.runs.items()
        }
        if not any(histories.values()):
            continue
        figure = training_curves(histories, quantity, legend=False)
        what = f"{quantity.replace('_', ' ')} of the validation set over the epochs"
        pictures.append(_card(to_svg(figure, what)))
    shares = {name: runs[0].kl_per_dimension for name, runs in comparison.runs.items() if runs}
    if any(shares.values()):
        in_order = {name: shares.get(name, []) for name in comparison.recipes}
        figure = kl_per_dimension(in_order, legend=False)
        pictures.append(_card(to_svg(figure, "KL of every latent dimension")))
    if not pictures:
        return ""
    signs = [
        (shape(number, LINES)[1], colour(number), name)
        for name, number in numbers.items()
        if comparison.runs[name]
    ]
    return (
        _legend(signs)
        + f'<div class="pictures wide">\n{"".join(pictures)}</div>\n'
        + '<p class="note">On the validation set after every epoch'
        + (", a line a seed" if comparison.seeds > 1 else "")
        + "; KL per dimension on the test set, after training.</p>\n"
    )


def _card(svg: str) -> str:
    return f"<figure>\n{svg}</figure>\n"


def _legend(signs: Iterable[tuple[str, str, str]]) -> str:
    items = "".join(
        f'<li><span style="color:{tint}" aria-hidden="true">{sign}</span> {escape(name)}</li>\n'
        for sign, tint, name in signs
    )
    return f'<ul class="legend">\n{items}</ul>\n' if items else ""


# --- sentences ----------------------------------------------------------------------------


def _sentences(run: RunSummary) -> str:
    parts = [f"<h4>From the prior</h4>\n{_list(run.samples)}"]
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
