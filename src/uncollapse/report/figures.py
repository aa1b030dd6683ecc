"""One figure of one run, by name, as a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uncollapse.errors import UserError, unknown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.data.corpus import Corpus
    from uncollapse.loading import Data
    from uncollapse.text_vae import TextVAE

SUFFIXES = (".svg", ".pdf", ".png")


@dataclass(frozen=True)
class Request:
    """What a figure is drawn from: a run, sentences, and a seed."""

    vae: TextVAE
    data: Data | None
    seed: int
    batch_size: int

    @property
    def sentences(self) -> Data:
        """The sentences; `plot_run` has made sure that there are some."""
        assert self.data is not None
        return self.data

    @property
    def corpus(self) -> Corpus:
        """The sentences as the model reads them."""
        from uncollapse.loading import corpus_of

        return corpus_of(self.sentences, self.vae.tokenizer, self.vae.recipe.data)


def plot_run(
    vae: TextVAE,
    what: str,
    data: Data | None,
    out: str | Path,
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> Path:
    """Draw one figure of a trained model.

    Parameters
    ----------
    vae : TextVAE
    what : str
        One of `FIGURES`.
    data : path, hub data set name or sequence of str, or None
        Sentences that the model has not seen; only ``training`` does without.
    out : path
        A new file, whose suffix says the format: ``.svg``, ``.pdf`` or ``.png``.
    seed : int
        Of everything drawn.
    batch_size : int
        Sentences encoded together.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UserError
        Before anything is computed: for an unknown figure, a file that exists or cannot be,
        missing data, a model without a latent where the figure is about one. Later, for bad
        data or a model that has no such figure.
    RunError
        If the file cannot be written.
    """
    out = Path(out)
    check_request(what, out, seed)
    if what != "training":
        if data is None:
            raise UserError(f"the figure {what} needs sentences: give them with --data")
        if vae.model.latent_dim == 0:
            raise UserError(f"{vae.recipe.name} is a language model: it has no latent variable")

    from uncollapse.plots import save_figure

    figure = FIGURES[what](Request(vae, data, seed, batch_size))
    save_figure(figure, out)
    return out


def check_request(what: str, out: Path, seed: int) -> None:
    """Refuse an unknown figure, a file that exists or cannot be, or a negative seed.

    Raises
    ------
    UserError
    """
    if what not in FIGURES:
        raise unknown_name("figure", what, FIGURES)
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"{out}: the name must end in {', '.join(SUFFIXES[:-1])} or .png")
    if out.exists():
        raise UserError(f"{out} exists already")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is no folder")
    if seed < 0:
        raise UserError(f"the seed must not be negative, but is {seed}")


def _training(request: Request) -> Figure:
    from uncollapse.plots.overview import training_overview
    from uncollapse.plots.training import QUANTITIES

    vae = request.vae
    missing: set[str] = set()
    if vae.model.latent_dim == 0:
        missing = {"kl", "mi", "active_units", "reconstruction"}
    elif not vae.model.has_likelihood:
        missing = {"kl", "mi", "elbo"}
    return training_overview(
        vae.history_,
        quantities=set(QUANTITIES) - missing,
        title=f"{vae.recipe.name}, validation set",
    )


def _latent_space(request: Request) -> Figure:
    import numpy as np

    from uncollapse.benchmark.summary import TestSentences
    from uncollapse.plots.latent_space import LatentPanel, latent_space

    vae, config = request.vae, request.vae.recipe.data
    found = TestSentences.read(request.sentences, config.text_column, config.label_column)
    labels = None if found.labels is None else np.array(found.labels)
    means = vae.encode(found.texts, batch_size=request.batch_size)
    names = ("kl", "active_units") if vae.model.has_likelihood else ("active_units",)
    figures = vae.evaluate(found.texts, names, batch_size=request.batch_size)
    panel = LatentPanel(
        vae.recipe.name,
        means,
        labels,
        found.label_names,
        **{name: metric.value for name, metric in figures.items()},
    )
    return latent_space(
        means, labels, found.label_names, title=panel.title, prior=vae.model.has_likelihood
    )


def _kl_per_dimension(request: Request) -> Figure:
    from uncollapse.evaluation import information
    from uncollapse.plots.training import kl_per_dimension

    vae = request.vae
    values = information.kl_per_dimension(vae.model, request.corpus, batch_size=request.batch_size)
    return kl_per_dimension({vae.recipe.name: values.tolist()})


def _aggregate_posterior(request: Request) -> Figure:
    from uncollapse.evaluation import aggregate
    from uncollapse.plots.probes import aggregate_posterior

    vae = request.vae
    found = aggregate.aggregate_posterior(
        vae.model, request.corpus, seed=request.seed, batch_size=request.batch_size
    )
    return aggregate_posterior(found.samples, found.prior, title=vae.recipe.name)


def _interpolation(request: Request) -> Figure:
    from uncollapse.evaluation.interpolation import interpolate_pairs
    from uncollapse.plots.probes import interpolation_curves

    vae = request.vae
    found = interpolate_pairs(
        vae.model,
        request.corpus,
        vae.tokenizer,
        seed=request.seed,
        batch_size=request.batch_size,
    )
    return interpolation_curves({vae.recipe.name: found})


def _lagging(request: Request) -> Figure:
    from uncollapse.evaluation.lagging import posterior_gap, posterior_means
    from uncollapse.plots.probes import lagging

    vae = request.vae
    found = posterior_means(vae.model, request.corpus, batch_size=request.batch_size)
    title = f"{vae.recipe.name}: mean gap {posterior_gap(found).format()} σ"
    return lagging(found, title=title)


FIGURES: dict[str, Callable[[Request], Figure]] = {
    "training": _training,
    "latent-space": _latent_space,
    "kl-per-dimension": _kl_per_dimension,
    "aggregate-posterior": _aggregate_posterior,
    "interpolation": _interpolation,
    "lagging": _lagging,
}
