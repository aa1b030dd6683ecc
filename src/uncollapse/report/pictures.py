"""The pictures of a page: SVG elements, their legends and what must be known to read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from uncollapse.evaluation.representation import LINEAR
from uncollapse.plots import common_limit, kl_per_dimension, latent_space, to_svg, training_curves
from uncollapse.plots.latent_space import LatentPanel
from uncollapse.plots.probes import accuracy_by_labels
from uncollapse.plots.style import LINES, MARKERS, colour, shape

if TYPE_CHECKING:
    from uncollapse.report.comparison import Comparison
    from uncollapse.report.table import Table

CURVES = ("kl", "mi", "active_units", "elbo", "reconstruction")


def accuracies(table: Table) -> str:
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


def tradeoff_picture(comparison: Comparison) -> str:
    """What the varied key trades, and between which systems."""
    sweep, found = comparison.sweep, comparison.tradeoff
    if sweep is None:
        return ""
    if found is None:
        return (
            '<p class="note">No system has both figures that a trade-off is drawn from: NLL, and '
            "reverse perplexity or BLEU.</p>\n"
        )
    return (
        f'<div class="pictures wide">\n{_card(to_svg(found.figure, found.title))}</div>\n'
        f'<p class="note">A point for every value of <code>{escape(sweep.key)}</code>, joined in '
        f"their order; {escape(comparison.table.errors)}. Also in <code>sweep.svg</code>.</p>\n"
    )


def latent_spaces(panels: Sequence[LatentPanel]) -> str:
    """The latent space of every system, all with the same axes."""
    if not panels:
        return ""
    limit = common_limit(panel.means for panel in panels if panel.kl is not None)
    alike = len({tuple(panel.label_names) for panel in panels}) == 1  # then one legend serves all
    pictures = []
    for panel in panels:
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
        for number, name in enumerate(panels[0].label_names)
    ]
    return (
        (_legend(signs) if alike else "")
        + f'<div class="pictures">\n{"".join(pictures)}</div>\n'
        + '<p class="note">Posterior means of the same test sentences, on the two principal axes '
        "of each system. Axes are in standard deviations of the prior and alike in all pictures; "
        "circles are one and two of them around its mean. A collapsed latent is a dot, in the "
        "middle if its prior is no mixture.</p>\n"
    )


def curves(comparison: Comparison) -> str:
    """Training over the epochs, and where in the latent the information sits."""
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
        for number, name in enumerate(comparison.recipes)
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
