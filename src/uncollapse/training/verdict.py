"""Judge whether latents live and codes are used, on what evidence, and what helps if not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from uncollapse.training.advice import EARLY_ADVICE, LATE_ADVICE, Kind, code_advice

Vital = Literal[
    "no latent",
    "alive",
    "dying",
    "z ignores c",
    "codes ignored",
    "mode collapse",
    "collapsed",
]
# from good to bad: where z says nothing, whether its components are apart is no question
STATES: tuple[Vital, ...] = get_args(Vital)

DEAD_KL = 0.1  # nats; below this z says next to nothing of the sentence
DYING_KL = 0.5
FINAL_WEIGHT = 0.9  # share of the final weight from which a low KL is the final state
FALLING_EPOCHS = 3

# components in effective use, near ones counted as one, mean over mixtures: of even halves there
# are 2, of one with nine tenths 1.4; below, most mixtures have melted into one component
MELTED = 1.5
# nats an index, and in all: q(c|x) differs from its mean by a third of it (I ≈ χ² / 2), and all
# indexes together say less than what makes a latent a live one
IGNORED, IGNORED_IN_ALL = 0.05, DYING_KL
# share of what the component says of the sentence that z keeps
LOST = 0.1


@dataclass(frozen=True)
class Verdict:
    """The state of a latent, or of the worst one of a model.

    Attributes
    ----------
    state : str
        *no latent*, *alive*, *dying*, or how it failed: *collapsed* (z says nothing of the
        sentence), *mode collapse* (the components of a mixture have melted into one), *codes
        ignored* (discrete variables say nothing of the sentence) or *z ignores c* (z is the same
        whatever its component is).
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
    kind: Kind = "continuous",
) -> Verdict:
    """Judge z, by what it says of the sentence.

    Parameters
    ----------
    kl : float or None
        Mean KL(q ‖ p), nats per sentence; None if the posterior has no density.
    mi : float or None
        Mutual information of sentence and z, nats.
    active_units : float or None
        Dimensions whose posterior mean varies over sentences (variance 0.01 of the
        prior's or more).
    dim : int
        Dimensions of the latent, D; 0 if there is none.
    weight : float
        Weight of the divergence, as a share of its final value: while it is small, a latent
        that falls is only about to die.
    previous_kl : sequence of float
        KL after earlier epochs, oldest first.
    kind : str
        What the latent is made of, which the advice depends on.

    Returns
    -------
    Verdict
        *Collapsed*: without active units, and KL or mutual information below ``DEAD_KL``. *Dying*:
        the same before the weight has reached ``FINAL_WEIGHT``; or, at full weight, KL below
        ``DYING_KL``, or mutual information below it without an active unit, or a KL that halved
        over ``FALLING_EPOCHS`` epochs in each of which it fell. Else *alive*, also without an
        active unit: what units that are each too weak to count say together, or what variances
        say, is as good.
    """
    if dim == 0 or active_units is None:
        return Verdict("no latent", "the model has no latent variable", "")
    numbers = f"{active_units:.0f} of {dim} units active"
    if mi is not None:
        numbers = f"mutual information {mi:z.2f} nats, {numbers}"
    if kl is not None:
        numbers = f"KL {kl:z.2f} nats, {numbers}"
    # a floor may hold the KL up although z says nothing of the sentence
    known = [value for value in (kl, mi) if value is not None]
    says = min(known, default=0.0)
    at_full_weight = weight >= FINAL_WEIGHT
    early, late = EARLY_ADVICE[kind], LATE_ADVICE[kind]
    if active_units == 0 and says < DEAD_KL:
        if at_full_weight:
            return Verdict("collapsed", numbers, late)
        return Verdict("dying", f"{numbers} at KL weight {weight:.2f}", early)
    if not at_full_weight:
        return Verdict("alive", numbers, "")
    if kl is not None:
        course = [*previous_kl[-FALLING_EPOCHS:], kl]
        falls = len(course) > FALLING_EPOCHS and all(
            later < earlier for earlier, later in pairwise(course)
        )
        if falls and kl < course[0] / 2:
            fall = f"{numbers}; KL fell from {course[0]:.2f} in {FALLING_EPOCHS} epochs"
            return Verdict("dying", fall, early)
    if (kl is not None and kl < DYING_KL) or (active_units == 0 and says < DYING_KL):
        return Verdict("dying", numbers, late)
    return Verdict("alive", numbers, "")


def code_verdict(
    variable: str,
    size: tuple[int, int],
    mi: float,
    usage: float,
    *,
    components: float | None = None,
    kept: float | None = None,
    weight: float = 1.0,
    details: str = "",
    informed: bool = False,
) -> Verdict:
    """Judge a discrete variable: the units of a latent, or the components of its mixture.

    Parameters
    ----------
    variable : str
        Its name; ``LATENT.component`` for the components of a mixture.
    size : (int, int)
        Indexes M and values K.
    mi : float
        Mutual information of sentence and value, mean over the indexes, nats.
    usage : float
        Values in effective use, mean over the indexes.
    components : float, optional
        Of a mixture: ``usage`` if near components count as one, mean over the mixtures.
    kept : float, optional
        Of a mixture: share of the mutual information that z keeps, where it is known.
    weight : float
        Weight of the divergence, as a share of its final value: nothing but the divergence ties
        components to the sentence, so that while it is small only melting is a sign.
    details : str
        More numbers, for the evidence.
    informed : bool
        Whether the objective has the mutual information of components: then that is no advice.

    Returns
    -------
    Verdict
        In this order. *Mode collapse*: at least ``MELTED`` components in use, but fewer that are
        distinct; before the weight has reached ``FINAL_WEIGHT``, *dying*. *Codes ignored*: mutual
        information below ``IGNORED`` an index and ``IGNORED_IN_ALL`` in all. *z ignores c*: z
        keeps less than ``LOST`` of it.
    """
    indexes, values = size
    numbers = (
        f"{variable}: mutual information {mi:z.2f} of at most {math.log(values):.2f} nats, "
        f"{usage:.1f} of {values} values in use"
    )
    if components is not None:
        numbers += f", {components:.1f} of them distinct"
    if indexes > 1:
        numbers += f", means of {indexes}"
    if kept is not None and not _ignored(mi, indexes):
        numbers += f"; z keeps {kept:.0%} of the mutual information"
    numbers += details
    at_full_weight = weight >= FINAL_WEIGHT
    state: Vital = "alive"
    if components is not None and components < MELTED <= usage:
        state = "mode collapse" if at_full_weight else "dying"
        if not at_full_weight:
            numbers += f" at KL weight {weight:.2f}"
    elif at_full_weight and _ignored(mi, indexes):
        state = "codes ignored"
    elif at_full_weight and kept is not None and kept < LOST:
        state = "z ignores c"
    return Verdict(state, numbers, code_advice(variable, state, informed))


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of several verdicts on the same latent, with the evidence of all."""
    found = max(verdicts, key=lambda one: STATES.index(one.state))
    evidence = "; ".join(one.evidence for one in verdicts)
    return Verdict(found.state, evidence, found.advice)


def worst_latent(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on a model: the worst of its latents', which the evidence names."""
    if len(verdicts) < 2:
        return next(iter(verdicts.values()), verdict(None, None, None, 0))
    found = max(verdicts.values(), key=lambda one: STATES.index(one.state))
    alike = {name: one for name, one in verdicts.items() if one.state == found.state}
    evidence = "; ".join(f"latent {name}: {one.evidence}" for name, one in alike.items())
    return Verdict(found.state, evidence, found.advice)


def latent_of(variable: str) -> str:
    """The latent that a discrete variable belongs to."""
    return variable.partition(".")[0]


def _ignored(mi: float, indexes: int) -> bool:
    return mi < IGNORED and mi * indexes < IGNORED_IN_ALL
