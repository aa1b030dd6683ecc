"""What the validation set says of discrete variables, mixtures and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from uncollapse.evaluation.mode_collapse import (
    code_use_of_means,
    component_distances,
    distinct_components,
    entropy,
)
from uncollapse.latents import COMPONENT
from uncollapse.latents.priors import Mixture
from uncollapse.training.totals import Totals

if TYPE_CHECKING:
    from uncollapse.data.batches import Batch
    from uncollapse.model import Model
    from uncollapse.terms import Terms


class CodeTotals:
    """Sums over one validation pass; no names in, no figures out where a model has no codes.

    Parameters
    ----------
    model : Model
        Whose components are looked at as they are.
    """

    def __init__(self, model: Model) -> None:
        self._supervision = model.supervision
        self._sizes = model.variable_sizes()
        priors = {name: latent.prior for name, latent in model.named_latents().items()}
        self._priors = {name: p for name, p in priors.items() if isinstance(p, Mixture)}
        self.start()

    def start(self) -> None:
        """Forget the previous pass."""
        self._probs = {name: Totals() for name in self._sizes}
        self._mixtures = {name: Totals() for name in self._priors}
        self._labels: dict[str, Totals] = {}
        self._policies: dict[str, Totals] = {}

    def add(self, terms: Terms, batch: Batch) -> None:
        """Take one batch."""
        for name, log_probs in terms.variables.items():
            probs = log_probs.detach().double().exp()  # (B, M, K)
            together = [probs.sum(0).flatten(), entropy(probs).sum(0)]
            self._probs[name].add(_named(torch.cat(together)))
        for name, parts in terms.mixtures.items():
            log_weights = terms.variables[f"{name}{COMPONENT}"].detach()
            found = {
                "variance": self._priors[name].weighted_variance(log_weights),
                "dispersion": parts.dispersion,
                "kl_c": parts.component,
            }
            self._mixtures[name].add({key: values.double().sum() for key, values in found.items()})
        for part in self._supervision:
            if part.column not in terms.supervision:
                continue
            labels = batch.labels[part.column]
            guess = terms.variables[part.variable][:, part.index].argmax(-1)  # (B,)
            self._labels.setdefault(part.column, Totals()).add(
                {
                    "supervision": terms.supervision[part.column].double().sum(),
                    "accuracy": (guess == labels).sum(),
                    "labelled": (labels >= 0).sum(),
                }
            )

        for name, hits in terms.policy_hits.items():
            counts = {"policy_accuracy": (hits > 0).sum(), "foretold": (hits >= 0).sum()}
            self._policies.setdefault(name, Totals()).add(counts)

    def finish(self, sentences: float) -> dict[str, float]:
        """Means over all processes, as in `Validation.finish`; every process must ask."""
        result: dict[str, float] = {}
        means: dict[str, Tensor] = {}
        for name, (indexes, values) in self._sizes.items():
            sums = torch.tensor(list(self._probs[name].reduced().values()), dtype=torch.float64)
            mean, conditional = (sums / sentences).split([indexes * values, indexes])
            means[name] = mean.view(indexes, values)
            use = code_use_of_means(means[name], conditional)
            result |= {f"mi_c/{name}": use.mutual_information, f"usage/{name}": use.usage}
        for name, prior in self._priors.items():
            sums = self._mixtures[name].reduced()
            result |= {f"{key}/{name}": value / sentences for key, value in sums.items()}
            distances = component_distances(prior)
            distinct = distinct_components(distances, means[f"{name}{COMPONENT}"])
            result[f"components/{name}"] = distinct
        for column, totals in self._labels.items():
            sums = totals.reduced()
            labelled = sums.pop("labelled")
            if labelled:
                result |= {f"{key}/{column}": value / labelled for key, value in sums.items()}
        for name, totals in self._policies.items():
            sums = totals.reduced()
            if sums["foretold"]:
                result[f"policy_accuracy/{name}"] = sums["policy_accuracy"] / sums["foretold"]
        return result


def _named(values: Tensor) -> dict[str, Tensor]:
    return {str(number): value for number, value in enumerate(values.unbind())}
