"""Judge whether a latent lives, on what evidence, and what helps if it does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Vital = Literal["alive", "dying", "collapsed", "no latent"]

DEAD_KL = 0.1  # nats; below this z says next to nothing of the sentence
DYING_KL = 0.5
FINAL_WEIGHT = 0.9  # share of the final weight from which a low KL is the final state
FALLING_EPOCHS = 3

ADVICE = (
    "it cannot recover by itself: use recipe bn-vae (KL bounded from below), free-bits-vae or "
    "max-pool-vae, or weaken the decoder (word-dropout-vae)"
)
EARLY_ADVICE = (
    "raise the KL weight more slowly or in cycles (objective.weight, recipe cyclical-vae), "
    "or use recipe bn-vae, free-bits-vae or max-pool-vae"
)


@dataclass(frozen=True)
class Verdict:
    """The state of one latent.

    Attributes
    ----------
    state : {"alive", "dying", "collapsed", "no latent"}
    evidence : str
        The numbers that it rests on, in words.
    advice : str
        What to change; empty for a live latent.
    """

    state: Vital
    evidence: str
    advice: str


def verdict(
    kl: float | None,
    mi: float | None,
    active_units: float | None,
    dim: int,
    *,
    weight: float = 1.0,
    previous_kl: Sequence[float] = (),
) -> Verdict:
    """Judge one latent.

    Parameters
    ----------
    kl : float or None
        Mean KL(q ‖ p), nats per sentence; None if the posterior has no density.
    mi : float or None
        Mutual information of sentence and z, nats.
    active_units : float or None
        Dimensions whose posterior mean varies over sentences (variance above 0.01).
    dim : int
        Dimensions of the latent, D; 0 if there is none.
    weight : float
        Weight of the divergence, as a share of its final value: while it is small, a latent
        that falls is only about to die.
    previous_kl : sequence of float
        KL after earlier epochs, oldest first.

    Returns
    -------
    Verdict
        *Collapsed*: without active units, and KL or mutual information below ``DEAD_KL``. *Dying*:
        the same before the weight has reached ``FINAL_WEIGHT``; or KL below ``DYING_KL``, or
        halved over ``FALLING_EPOCHS`` epochs in each of which it fell, at full weight.
    """
    if dim == 0 or active_units is None:
        return Verdict("no latent", "the model has no latent variable", "")
    numbers = f"{active_units:.0f} of {dim} units active"
    if mi is not None:
        numbers = f"mutual information {mi:z.2f} nats, {numbers}"
    if kl is not None:
        numbers = f"KL {kl:z.2f} nats, {numbers}"
    # a floor may hold the KL up although z says nothing of the sentence
    low = min(kl if kl is not None else 0.0, mi if mi is not None else math.inf) < DEAD_KL
    at_full_weight = weight >= FINAL_WEIGHT
    if low and active_units == 0:
        if at_full_weight:
            return Verdict("collapsed", numbers, ADVICE)
        return Verdict("dying", f"{numbers} at KL weight {weight:.2f}", EARLY_ADVICE)
    if kl is not None and at_full_weight:
        course = [*previous_kl[-FALLING_EPOCHS:], kl]
        falls = len(course) > FALLING_EPOCHS and all(
            later < earlier for earlier, later in pairwise(course)
        )
        if falls and kl < course[0] / 2:
            return Verdict(
                "dying",
                f"{numbers}; KL fell from {course[0]:.2f} in {FALLING_EPOCHS} epochs",
                EARLY_ADVICE,
            )
        if kl < DYING_KL:
            return Verdict("dying", numbers, ADVICE)
    return Verdict("alive", numbers, "")
