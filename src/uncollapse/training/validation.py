"""What the validation set says after each epoch: means per sentence, and signs of life."""

from __future__ import annotations

import math
from operator import methodcaller
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution, join, joined, tensors_of
from uncollapse.errors import RunError
from uncollapse.evaluation.geometry import cosine_similarity
from uncollapse.evaluation.information import active_units, mutual_information
from uncollapse.evaluation.metric import Metric
from uncollapse.training.code_totals import CodeTotals
from uncollapse.training.processes import gather_objects
from uncollapse.training.totals import Totals

if TYPE_CHECKING:
    from uncollapse.data.batches import Batch
    from uncollapse.model import Model
    from uncollapse.objectives.objective import Objective
    from uncollapse.terms import Terms

# enough for a mutual information of 7.6 nats, and milliseconds to compute
INFORMATION_SENTENCES = 2_000
COSINE_SENTENCES = 500


class Validation:
    """Sums over one validation pass.

    Parameters
    ----------
    objective : Objective
        Gives the objective at its final weight, whatever the weight in training is.
    sentences : int
        Size of the validation set.
    select_on : {"elbo", "objective", "reconstruction", "last"}
        What :meth:`score` is made of; of ``last`` it is the objective.
    model : Model
        Whose priors are looked at as they are.
    """

    def __init__(
        self,
        objective: Objective,
        sentences: int,
        select_on: str,
        model: Model,
    ) -> None:
        self.objective = objective
        self._model = model
        self._codes = CodeTotals(model)
        self.select_on = select_on
        self._stride = math.ceil(sentences / INFORMATION_SENTENCES)
        self._features_stride = math.ceil(sentences / COSINE_SENTENCES)
        self.start()

    def start(self) -> None:
        """Forget the previous pass."""
        self._totals = Totals()
        self._codes.start()
        self._known = True
        self._posteriors: dict[str, list[tuple[Tensor, Distribution]]] = {}
        self._features: list[tuple[Tensor, Tensor]] = []

    def add(self, terms: Terms, batch: Batch) -> None:
        """Take one batch; evenly spread sentences also give their posteriors."""
        sums = {
            "reconstruction": terms.reconstruction.sum(),
            "objective": self.objective.per_sentence(terms).sum(),
            "tokens": terms.tokens.sum(),
            "sentences": torch.tensor(batch.size),
        }
        sums |= {f"kl/{name}": kl.sum() for name, kl in terms.kl.items()}
        self._totals.add(sums)
        self._codes.add(terms, batch)
        self._known = terms.kl.keys() == terms.posteriors.keys()
        chosen = batch.index % self._stride == 0  # (B,)
        for name, posterior in terms.posteriors.items():
            kept = posterior[chosen].map(Tensor.detach)
            self._posteriors.setdefault(name, []).append((batch.index[chosen].cpu(), kept))
        if terms.features is not None:
            chosen = batch.index % self._features_stride == 0
            kept_rows = terms.features[chosen].detach().cpu()
            self._features.append((batch.index[chosen].cpu(), kept_rows))

    def finish(self) -> dict[str, float]:
        """Means over all processes; every process must ask.

        Returns
        -------
        dict
            Nats per sentence: ``reconstruction`` log p(x|z) of one posterior sample, ``kl`` and
            ``kl/NAME`` the true KL, ``elbo`` = reconstruction − kl, ``objective`` = what
            training minimises, at its final weight, supervision included; what is of a batch
            rather than of a sentence, such as an aggregated KL, is of the validation batches.
            ``ppl_elbo`` = exp(−elbo per predicted token). ``mi/NAME`` and
            ``active_units/NAME`` from at most ``INFORMATION_SENTENCES`` posteriors. ``cosine`` is
            the mean over pairs of at most ``COSINE_SENTENCES`` sentences, of what the first
            latent's posterior is read from.

            By discrete variable, means over its indexes: ``mi_c/VARIABLE`` the mutual
            information of sentence and value, and ``usage/VARIABLE`` the effective number of
            values in use, exp H(mean q). By latent under a mixture, sums over its mixtures:
            ``variance/NAME`` Var, ``dispersion/NAME`` L_d and ``kl_c/NAME`` KL(q(c|x) ‖ p(c));
            ``components/NAME`` is their usage if near components count as one, a mean over them.
            By supervised column, over labelled sentences: ``supervision/COLUMN`` −log q(label|x)
            and ``accuracy/COLUMN`` the share of labels that are the most probable value. Of codes
            that a policy foretells, ``policy_accuracy/VARIABLE``, over rows with a context: the
            share that are the most probable both given the context and given the sentence.

        Raises
        ------
        RunError
            If a mean is not finite.
        """
        sums = self._totals.reduced()
        sentences, tokens = sums.pop("sentences"), sums.pop("tokens")
        means = {name: value / sentences for name, value in sums.items()}
        kl = {name: value for name, value in means.items() if name.startswith("kl/")}
        elbo = means["reconstruction"] - sum(kl.values())
        result = {"reconstruction": means["reconstruction"]}
        if self._known:  # without every latent's KL there is no ELBO
            result |= {
                "kl": sum(kl.values()),
                **kl,
                "elbo": elbo,
                "ppl_elbo": math.exp(min(-elbo * sentences / tokens, 700.0)),
            }
        result |= {"objective": means["objective"], **self._information(), **self._cosine()}
        result |= self._codes.finish(sentences)
        for name, value in result.items():
            if not math.isfinite(value):
                raise RunError(f"non-finite validation {name}: {value}")
        return result

    def score(self, means: dict[str, float]) -> float:
        """The number that selects the best epoch; lower is better."""
        if self.select_on in ("objective", "last"):
            return means["objective"]
        return -means[self.select_on]

    def _information(self) -> dict[str, float]:
        found: dict[str, Metric] = {}
        deviations = self._model.prior_deviations()
        for name, parts in self._posteriors.items():
            index = torch.cat([part[0] for part in parts])
            posterior = join([part[1] for part in parts])
            tensors = tensors_of(posterior)
            # networks that a posterior refers to stay at home: each process's are on its device
            gathered = gather_objects((index, [values.cpu() for values in tensors]))
            order = torch.cat([part[0] for part in gathered]).argsort()
            # the same numbers whatever the number of processes
            posterior = joined(posterior, [part[1] for part in gathered])[order]
            posterior = posterior.map(methodcaller("to", tensors[0].device))
            if posterior.has_density:
                found[f"mi/{name}"] = mutual_information(posterior)
            found[f"active_units/{name}"] = active_units(posterior.mean, deviations[name])
        return {name: metric.value for name, metric in found.items() if metric.value is not None}

    def _cosine(self) -> dict[str, float]:
        if self._model.latent_dim == 0:
            return {}
        # of all processes, in the order of the sentences
        parts = [part for own in gather_objects(self._features) for part in own]
        order = torch.cat([index for index, _ in parts]).argsort()
        features = torch.cat([rows for _, rows in parts])[order]
        value = cosine_similarity(features, "").value
        return {} if value is None else {"cosine": value}
