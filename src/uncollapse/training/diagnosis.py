"""The verdict on a model, from a pass over sentences."""

from __future__ import annotations

import torch
from torch import Tensor

from uncollapse.data.corpus import Corpus
from uncollapse.distributions.base import Distribution
from uncollapse.errors import UserError
from uncollapse.evaluation.information import active_units, mutual_information
from uncollapse.evaluation.mode_collapse import code_use, mixture_evidence
from uncollapse.evaluation.passes import PosteriorPass, posterior_pass
from uncollapse.evaluation.standard import INFORMATION_SENTENCES
from uncollapse.latents import Latent
from uncollapse.latents.priors import Mixture
from uncollapse.model import Model
from uncollapse.training.advice import is_informed, kind_of
from uncollapse.training.verdict import (
    Verdict,
    code_verdict,
    latent_of,
    verdict,
    worst,
    worst_latent,
)


def diagnose(model: Model, corpus: Corpus, *, seed: int = 0, batch_size: int = 32) -> Verdict:
    """Say whether the latents of a model are alive and its codes used, and what helps if not.

    Parameters
    ----------
    model : Model
    corpus : Corpus
        At least two sentences, preferably not those of training.
    seed : int
        Of the draws behind mutual information.
    batch_size : int
        Does not change the verdict.

    Raises
    ------
    UserError
        If there are fewer than two sentences.
    """
    found = posterior_pass(model, corpus, batch_size=batch_size, seed=seed)
    if found is None:
        return worst_latent({})
    if len(corpus) < 2:
        raise UserError("a verdict needs at least two sentences")
    sizes = model.variable_sizes()
    verdicts: dict[str, Verdict] = {}
    latents = model.named_latents()
    widths = [latent.dim for latent in latents.values()]
    means = found.relative_means.split(widths, 1)  # (N, D) each
    for (name, latent), own in zip(latents.items(), means, strict=True):
        of_codes = [
            _judge_codes(variable, size, latent, found, seed)
            for variable, size in sizes.items()
            if latent_of(variable) == name
        ]
        of_z = _judge_z(latent, found.latents[name], own, found.kls.get(name), seed)
        verdicts[name] = worst([of_z, *of_codes])
    return worst_latent(verdicts)


def _judge_z(
    latent: Latent, posterior: Distribution, means: Tensor, kl: Tensor | None, seed: int
) -> Verdict:
    mi = mean_kl = None
    if kl is not None:
        count = len(means)
        # spread evenly: neighbours in a file are often alike
        rows = torch.linspace(0, count - 1, min(count, INFORMATION_SENTENCES)).round().long()
        mi = mutual_information(posterior[rows], seed=seed).value
        mean_kl = float(kl.double().sum(1).mean())
    active = active_units(means, latent.prior.deviation).value
    return verdict(mean_kl, mi, active, latent.dim, kind=kind_of(latent))


def _judge_codes(
    variable: str, size: tuple[int, int], latent: Latent, found: PosteriorPass, seed: int
) -> Verdict:
    log_probs, name = found.variables[variable], latent_of(variable)
    if variable == name:  # its units
        use = code_use(log_probs)
        return code_verdict(variable, size, use.mutual_information, use.usage)
    assert isinstance(latent.prior, Mixture)
    evidence = mixture_evidence(latent.prior, found.latents[name], log_probs, seed=seed)
    return code_verdict(
        variable,
        size,
        evidence.use.mutual_information,
        evidence.use.usage,
        components=evidence.distinct,
        kept=evidence.kept,
        details=(
            f"; components {evidence.nearest:.2f} to {evidence.farthest:.2f} nats apart, half of "
            f"the pairs {evidence.median:.2f} or less; Var {evidence.variance:.3g}, dispersion "
            f"{evidence.dispersion:.2f} nats"
        ),
        informed=is_informed(latent),
    )
