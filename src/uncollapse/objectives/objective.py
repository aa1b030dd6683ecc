"""From per-sentence terms to the one number that training lowers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uncollapse.config import ObjectiveConfig
from uncollapse.objectives.schedules import Progress, final_weight, weight_at
from uncollapse.terms import Terms


@dataclass
class Loss:
    """What one batch costs.

    Parameters
    ----------
    total : Tensor
        Scalar: summed over this process's sentences, divided by the sentences of all
        processes, so that the processes' losses add up to the batch's mean.
    weight : float
        Weight of the divergence in this batch.
    parts : dict of str to Tensor
        ``(B,)`` each, unweighted, of all that counts: ``reconstruction``, unless its weight is
        0 ``divergence of NAME``, ``supervision by COLUMN``, and what else is added.
    """

    total: Tensor
    weight: float
    parts: dict[str, Tensor]


class Objective:
    """−reconstruction + weight · divergence + Σ weight · rest, mean over the batch, nats.

    The rest is the supervision, and whatever else is added. The weight of the divergence follows
    a schedule, those of the rest stay.
    """

    def __init__(self, config: ObjectiveConfig) -> None:
        self.schedule = config.weight
        self.supervision = {part.column: part.weight for part in config.supervision}
        self.extra: dict[str, float] = {}
        if config.bag_of_words is not None:
            self.extra["bag of words"] = config.bag_of_words.weight
        self.extra["policy"] = config.policy
        self.extra["attribute forcing"] = config.attribute_forcing
        self.adversarial = config.adversarial
        if config.adversarial is not None:
            self.extra["adversarial"] = config.adversarial.weight

    def __call__(self, terms: Terms, total_sentences: int, progress: Progress) -> Loss:
        """Weigh, reduce and add.

        Parameters
        ----------
        terms : Terms
            Of this process's sentences.
        total_sentences : int
            Sentences of the batch over all processes.
        progress : Progress
            Where in training this batch stands.
        """
        weight = weight_at(self.schedule, progress)
        per_sentence = self.per_sentence(terms, weight)
        parts = {"reconstruction": terms.reconstruction}
        if weight:
            parts |= {f"divergence of {name}": value for name, value in terms.divergence.items()}
        parts |= {f"supervision by {name}": value for name, value in terms.supervision.items()}
        parts |= {name: value for name, value in terms.extra.items() if self.extra.get(name)}
        return Loss(per_sentence.sum() / total_sentences, weight, parts)

    def per_sentence(self, terms: Terms, weight: float | None = None) -> Tensor:
        """The objective of every sentence, ``(B,)``; by default at the schedule's final weight."""
        weight = final_weight(self.schedule) if weight is None else weight
        loss = -terms.reconstruction
        for column, value in terms.supervision.items():
            loss = loss + self.supervision[column] * value
        for name, value in terms.extra.items():
            if self.extra.get(name):
                loss = loss + self.extra[name] * value
        if weight == 0:  # zero times infinity would not be zero
            return loss
        for divergence in terms.divergence.values():
            loss = loss + weight * divergence
        return loss
