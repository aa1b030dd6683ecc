"""Figures of the probes: paths, inference against generation, the aggregate, order, labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from uncollapse.plots.style import FAINT, INK, LINES, MUTED, colour, shape, style

if TYPE_CHECKING:
    from uncollapse.evaluation.lagging import PosteriorMeans
    from uncollapse.evaluation.word_order import ShuffledLikelihood

PANELS = {"1": "ROUGE-1", "2": "ROUGE-2", "l": "ROUGE-L"}
ENDS = {"with the first sentence": "solid", "with the second": (0, (3, 1.5))}
SMALLEST_LIMIT, LARGEST_LIMIT = 2.5, 6.0  # prior standard deviations
VIOLINS = 32  # dimensions: more are too narrow to read
BINS = 48


class Curves(Protocol):
    """Of an `Interpolation`, what its picture needs."""

    @property
    def shares(self) -> np.ndarray:
        """α ``(A,)``."""
        ...

    def curves(self, name: str) -> np.ndarray:
        """Mean F1 against the first and the second sentence, ``(2, A)``."""
        ...

    def errors(self, name: str) -> np.ndarray:
        """Their standard errors, ``(2, A)``."""
        ...


def interpolation_curves(systems: Mapping[str, Curves]) -> Figure:
    """Draw the ROUGE of what is written between two sentences against either, over α.

    A smooth latent space goes from one curve to the other without a step; one that decodes well
    starts and ends high. Bands are one standard error over pairs.

    Parameters
    ----------
    systems : mapping of str to Interpolation
        Of each system, or another object with its curves.
    """
    with style():
        figure = Figure(figsize=(7.4, 3.2), layout="constrained")
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (name, title) in zip(panels, PANELS.items(), strict=True):
            axes.set_title(title)
            axes.grid(axis="y")
            axes.set(xlabel="α", xlim=(0, 1))
            axes.set_xticks((0, 0.5, 1), ("0", "½", "1"))
            for number, found in enumerate(systems.values()):
                curves, errors = found.curves(name), found.errors(name)  # (2, A)
                tint = colour(number)
                for curve, error, line in zip(curves, errors, ENDS.values(), strict=True):
                    axes.plot(found.shares, curve, color=tint, linestyle=line, linewidth=1.8)
                    axes.fill_between(
                        found.shares, curve - error, curve + error,
                        color=tint, alpha=0.18, linewidth=0,
                    )  # fmt: skip
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("F1 (0 to 100)")
        handles = [
            Line2D([], [], color=colour(number), linewidth=1.8, label=name)
            for number, name in enumerate(systems)
        ]
        handles += [
            Line2D([], [], color=MUTED, linewidth=1.8, linestyle=line, label=end)
            for end, line in ENDS.items()
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=5, handlelength=2.6)
    return figure


def lagging(found: PosteriorMeans, *, title: str = "") -> Figure:
    """Draw the mean of q(z|x) against the mean of the model's own posterior, a dot a sentence.

    On the diagonal inference agrees with the decoder. Dots along the horizontal axis: the
    decoder uses z, but inference lags behind. Dots at the origin: z is unused.
    """
    with style():
        figure = Figure(figsize=(3.9, 3.9), layout="constrained")
        axes = figure.subplots()
        points = np.stack([found.model, found.approximate]) / found.deviation  # (2, N)
        wanted = math.ceil(2.1 * float(np.quantile(np.abs(points).max(0), 0.995))) / 2
        limit = min(max(wanted, SMALLEST_LIMIT), LARGEST_LIMIT)
        axes.axhline(0, color=FAINT, linewidth=1, zorder=1)
        axes.axvline(0, color=FAINT, linewidth=1, zorder=1)
        axes.plot((-limit, limit), (-limit, limit), color=MUTED, linewidth=1, zorder=1)
        axes.annotate(
            "agreement", (0.8 * limit, 0.8 * limit), color=MUTED, fontsize=7, rotation=45,
            ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
        size = 5 + 130 / math.sqrt(points.shape[1])
        axes.scatter(*points, s=size, color=colour(0), alpha=0.7, linewidths=0, zorder=2)
        ticks = [t for t in range(-6, 7, 1 if limit <= 3 else 2) if abs(t) <= limit]
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes.set(xticks=ticks, yticks=ticks, title=title)
        axes.set(
            xlabel="mean of the model's posterior p(z|x) (σ of the prior)",
            ylabel="mean of inference's posterior q(z|x) (σ)",
        )
        outside = float((np.abs(points) > limit).any(0).mean())
        if outside > 0.005:
            axes.text(
                0.99, 0.01, f"{outside:.0%} of the sentences lie outside", color=MUTED, fontsize=7,
                ha="right", va="bottom", transform=axes.transAxes,
            )  # fmt: skip
    return figure


def aggregate_posterior(samples: np.ndarray, prior: np.ndarray, *, title: str = "") -> Figure:
    """Draw the marginals of the aggregate posterior, and the outlines of the prior's.

    Parameters
    ----------
    samples, prior : ndarray
        Draws ``(N, D)`` of either. Dimensions are ordered by how far apart the two are, in mean
        distance of their quantiles; at most `VIOLINS` are shown.
    title : str
    """
    distance = np.abs(np.sort(samples, 0) - np.sort(prior, 0)).mean(0)  # (D,)
    order = np.argsort(-distance, kind="stable")[:VIOLINS]
    both = np.concatenate([samples[:, order], prior[:, order]])
    limit = float(np.quantile(np.abs(both), 0.9995))
    edges = np.linspace(-limit, limit, BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    with style():
        width = max(3.6, 1.2 + 0.24 * len(order))
        figure = Figure(figsize=(width, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y")
        for place, dimension in enumerate(order):
            own, outline = (
                np.histogram(draws[:, dimension], edges, density=True)[0]
                for draws in (samples, prior)
            )
            scale = 0.46 / max(own.max(), outline.max())  # one for both, so that they compare
            left, right = place - scale * own, place + scale * own
            axes.fill_betweenx(middle, left, right, color=colour(0), alpha=0.75, linewidth=0)
            outline = np.where(outline > 0, outline, np.nan)  # tails are no lines
            for side in (-scale, scale):
                axes.plot(place + side * outline, middle, color=INK, linewidth=0.7)
        axes.set(xlim=(-0.7, len(order) - 0.3), ylim=(-limit, limit), title=title, ylabel="z")
        axes.set_xticks(range(len(order)), [str(number + 1) for number in order])
        axes.tick_params(axis="x", labelsize=7, length=0)
        some = "" if len(order) == len(distance) else f" ({len(order)} of {len(distance)})"
        axes.set_xlabel(f"latent dimension, farthest from the prior first{some}")
        handles = [
            Patch(color=colour(0), alpha=0.75, linewidth=0, label="aggregate posterior"),
            Line2D([], [], color=INK, linewidth=0.7, label="prior"),
        ]
        figure.legend(handles=handles, loc="outside lower right", ncols=2, fontsize=8)
    return figure


def accuracy_by_labels(systems: Mapping[str, Mapping[int, tuple[float, float | None]]]) -> Figure:
    """Draw the accuracy of a classifier of z over the labels that it learned from.

    Parameters
    ----------
    systems : mapping
        Of each system, ``{labels: (accuracy, standard error)}``; accuracies from 0 to 1.
    """
    with style():
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y")
        last = {}
        for number, (name, points) in enumerate(systems.items()):
            labels = sorted(points)
            values = np.array([points[n][0] for n in labels])
            errors = np.array([points[n][1] or 0.0 for n in labels])
            axes.errorbar(
                labels, values, errors, color=colour(number), linestyle=shape(number, LINES)[0],
                linewidth=1.8, elinewidth=1, capsize=2, marker="o", markersize=3.6,
            )  # fmt: skip
            last[name] = (labels[-1], float(values[-1]))
        every = sorted({n for points in systems.values() for n in points})
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(every, [f"{n:,}" for n in every])
        axes.set(xlabel="labelled sentences", ylabel="accuracy")
        heights = apart([height for _, height in last.values()], *axes.get_ylim())
        for number, (name, height) in enumerate(zip(last, heights, strict=True)):
            axes.annotate(
                name, (every[-1], height), xytext=(8, 0), textcoords="offset points",
                color=colour(number), va="center", annotation_clip=False,
            )  # fmt: skip
    return figure


def shuffled_likelihood(systems: Mapping[str, ShuffledLikelihood]) -> Figure:
    """Draw −log p(x) with the encoder's words in place and shuffled, a row a system.

    Parameters
    ----------
    systems : mapping of str to ShuffledLikelihood
        Of the same sentences. The difference written beside has the error of the pairs, which
        is much smaller than that of either.
    """
    with style():
        figure = Figure(figsize=(5.4, 0.9 + 0.34 * len(systems)), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="x")
        for row, found in enumerate(systems.values()):
            before, after = float(found.original.mean()), float(found.shuffled.mean())
            axes.plot((before, after), (row, row), color=MUTED, linewidth=1.2, zorder=1)
            axes.scatter(before, row, s=30, facecolor="white", edgecolor=colour(0), zorder=2)
            axes.scatter(after, row, s=30, color=colour(0), zorder=3)
            axes.annotate(
                _difference(found.shuffled - found.original), (1, row), xytext=(8, 0),
                xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                va="center", annotation_clip=False,
            )  # fmt: skip
        axes.set_yticks(range(len(systems)), list(systems), color=INK)
        axes.tick_params(axis="y", length=0)
        axes.set(ylim=(len(systems) - 0.5, -0.5), xlabel="−log p(x) (nats per sentence)")
        axes.margins(x=0.08)
        handles = [
            Line2D(
                [], [], linestyle="", marker="o", color=colour(0), markerfacecolor=face, label=name
            )
            for face, name in (("white", "words in place"), (colour(0), "words shuffled"))
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2, handletextpad=0.2)
    return figure


def _difference(values: np.ndarray) -> str:
    mean = f"{values.mean():+.2f}".replace("-", "−")
    if len(values) < 2:
        return mean
    return f"{mean} ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}"


def apart(heights: list[float], low: float, high: float) -> list[float]:
    """Heights of names beside lines, moved until none covers another."""
    least = 0.065 * (high - low)
    order = np.argsort(heights)
    placed = list(np.asarray(heights)[order])
    for _ in range(100):
        for below in range(len(placed) - 1):
            lack = least - (placed[below + 1] - placed[below])
            if lack > 0:
                placed[below] -= lack / 2
                placed[below + 1] += lack / 2
    result = [0.0] * len(placed)
    for place, number in enumerate(order):
        result[number] = placed[place]
    return result
