"""What each figure of a run is drawn from, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uncollapse.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from uncollapse.data.corpus import Corpus
    from uncollapse.evaluation.snapshot import Snapshot
    from uncollapse.loading import Data
    from uncollapse.plots.components import By
    from uncollapse.text_vae import TextVAE


@dataclass(frozen=True)
class Request:
    """What a figure is drawn from: a run, sentences, and a seed; what of its components."""

    vae: TextVAE
    data: Data | None
    seed: int
    batch_size: int
    group: int = 0
    by: By | None = None
    beside: TextVAE | None = None

    @property
    def sentences(self) -> Data:
        """The sentences; `plot_run` has made sure that there are some."""
        assert self.data is not None
        return self.data

    @property
    def corpus(self) -> Corpus:
        """The sentences as the model reads them."""
        return self.vae._corpus(self.sentences, None)


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

    from uncollapse.benchmark.measuring import pictured
    from uncollapse.benchmark.summary import TestSentences
    from uncollapse.evaluation.passes import posterior_pass
    from uncollapse.evaluation.standard import evaluate
    from uncollapse.plots.latent_space import LatentPanel, latent_space

    vae, config = request.vae, request.vae.recipe.data
    found = TestSentences.read(request.sentences, config.text_column, config.label_column)
    labels = None if found.labels is None else np.array(found.labels)
    corpus = pictured(vae, request.sentences, found)
    passed = posterior_pass(vae.model, corpus, batch_size=request.batch_size)
    assert passed is not None
    means = passed.relative_means.numpy()
    names = ("kl", "active_units") if vae.model.has_likelihood else ("active_units",)
    figures = evaluate(
        vae.model, corpus, vae.tokenizer, metrics=names, batch_size=request.batch_size
    )
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


def _components(request: Request) -> Figure:
    from uncollapse.evaluation.snapshot import take_snapshot
    from uncollapse.latents import COMPONENT
    from uncollapse.loading import available_columns, corpus_of
    from uncollapse.names import names_at
    from uncollapse.plots.component_geometry import group_of
    from uncollapse.plots.components import component_pair, component_space

    found, names = [], []
    for vae in filter(None, (request.vae, request.beside)):
        config = vae.recipe.data
        columns = available_columns(request.sentences, config, [config.label_column or "label"])
        config = config.model_copy(update={"label_column": None})  # where there are none
        corpus = corpus_of(request.sentences, vae.tokenizer, config, columns=columns)
        snapshot = take_snapshot(vae.model, corpus, batch_size=request.batch_size)
        variable = f"{snapshot.latent}{COMPONENT}"
        called = vae.names.get(variable, {})
        group_of(snapshot, request.group)  # refuses one that there is not
        if called:
            called = names_at(called, vae.model.variable_sizes()[variable], request.group)
        found.append(snapshot)
        names.append({int(number): name for number, name in called.items()})
    vaes = filter(None, (request.vae, request.beside))
    titles = [
        title_of(vae, snapshot, request.group) for vae, snapshot in zip(vaes, found, strict=True)
    ]
    if request.beside is None:
        return component_space(
            found[0], request.group, title=titles[0], by=request.by, names=names[0]
        )
    return component_pair(
        found[0], found[1], request.group, titles=(titles[0], titles[1]), by=request.by,
        names=(names[0], names[1]),
    )  # fmt: skip


def _components_over_training(request: Request) -> Figure:
    from uncollapse.plots.components import components_over_training

    snapshots = snapshots_of(request)
    title = f"{title_of(request.vae, snapshots[0], request.group)}, validation set"
    return components_over_training(snapshots, request.group, title=title, by=request.by)


def title_of(vae: TextVAE, snapshot: Snapshot, group: int) -> str:
    """The system, and which of several groups."""
    return f"{vae.recipe.name}, group {group}" if snapshot.groups > 1 else vae.recipe.name


def snapshots_of(request: Request) -> list[Snapshot]:
    """What the run kept of its training; a UserError if that is nothing."""
    from uncollapse.evaluation.snapshot import read_snapshots

    folder = request.vae._run
    found = [] if folder is None else read_snapshots(folder)
    if not found:
        raise UserError(
            f"{folder or request.vae.recipe.name} has no snapshots of its training: train with "
            "--set 'training.snapshots=[0, 200, 1000]'"
        )
    return found


FIGURES: dict[str, Callable[[Request], Figure]] = {
    "training": _training,
    "latent-space": _latent_space,
    "kl-per-dimension": _kl_per_dimension,
    "aggregate-posterior": _aggregate_posterior,
    "interpolation": _interpolation,
    "lagging": _lagging,
    "components": _components,
    "components-over-training": _components_over_training,
}
