"""What helps a latent that fails, by what it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from uncollapse.latents import Latent

# what is left when nothing charges z for what it says: "uncharged"
Kind = Literal["continuous", "conditional", "discrete", "mixture", "uncharged"]

_UNCHARGED = (
    "nothing is charged for what z says, so the decoder does without it: weaken the decoder "
    "(decoder.word_dropout, a smaller decoder.hidden_dim), or train longer or with another "
    "training.learning_rate"
)

# at the final KL weight
LATE_ADVICE: dict[Kind, str] = {
    "continuous": (
        "it cannot recover by itself: use recipe bn-vae (KL bounded from below), free-bits-vae or "
        "max-pool-vae, or weaken the decoder (word-dropout-vae)"
    ),
    "conditional": (
        "it cannot recover by itself: use recipe bn-cvae (KL bounded from below), free-bits-cvae, "
        "max-pool-bn-cvae or cvae-bow, or weaken the decoder (decoder.word_dropout)"
    ),
    "discrete": (
        "it cannot recover by itself: use recipe di-vae or semi-vae-mi (divergence aggregated-kl), "
        "or weaken the decoder (decoder.word_dropout)"
    ),
    "mixture": (
        "it cannot recover by itself: use recipe dgm-vae-mi, gm-vae-free-bits or readout max, "
        "raise the KL weight more slowly (objective.weight), or weaken the decoder "
        "(decoder.word_dropout)"
    ),
    "uncharged": _UNCHARGED,
}

# while the weight still rises
EARLY_ADVICE: dict[Kind, str] = {
    "continuous": (
        "raise the KL weight more slowly or in cycles (objective.weight, recipe cyclical-vae), "
        "or use recipe bn-vae, free-bits-vae or max-pool-vae"
    ),
    "conditional": (
        "raise the KL weight more slowly or in cycles (objective.weight), or use recipe bn-cvae, "
        "free-bits-cvae, max-pool-bn-cvae or cvae-bow"
    ),
    "discrete": (
        "raise the KL weight more slowly (objective.weight), or use recipe di-vae or semi-vae-mi"
    ),
    "mixture": (
        "raise the KL weight more slowly (objective.weight), or use recipe dgm-vae-mi or "
        "gm-vae-free-bits"
    ),
    "uncharged": _UNCHARGED,
}


def kind_of(latent: Latent) -> Kind:
    """What a latent's failure is to be mended by."""
    if not latent.is_charged:
        return "uncharged"
    if latent.classifier is not None:
        return "mixture"
    if latent.is_discrete:
        return "discrete"
    return "conditional" if latent.is_conditional else "continuous"


def is_informed(latent: Latent) -> bool:
    """Whether the objective has the mutual information of sentence and component already."""
    # by name: this module is read by those who have no use for PyTorch
    return bool(getattr(latent.divergence, "mutual_information", False))


def code_advice(variable: str, state: str, informed: bool = False) -> str:
    """What helps a discrete variable in a state; empty for a live one.

    ``informed``: the mutual information of its components is in the objective already.
    """
    latent, _, component = variable.partition(".")
    apart = f"use recipe dgm-vae or raise latents.{latent}.divergence.beta (kind dispersed)"
    slower = "raise the KL weight more slowly (objective.weight)"
    if state == "mode collapse":
        return f"the KL pulls components together: {apart}; {slower}"
    if state == "dying":
        return f"components are melting: {slower}, or {apart}"
    if state == "codes ignored" and component and informed:
        return f"{slower}, or weaken the decoder (decoder.word_dropout, decoder.hidden_dim)"
    if state == "codes ignored" and component:
        return (
            f"add latents.{latent}.divergence.mutual_information: true (recipe dgm-vae-mi), or "
            f"{slower}"
        )
    if state == "codes ignored":
        return (
            "under a uniform prior, divergence aggregated-kl (recipes di-vae, semi-vae-mi) charges "
            f"nothing for what codes say; with it, lower latents.{latent}.posterior.relaxation."
            f"temperature, weaken the decoder (decoder.word_dropout), or {slower}"
        )
    if state == "z ignores c":
        return (
            "only the KL ties z to its component: raise its weight (objective.weight), or lower "
            f"latents.{latent}.divergence.beta and its floor"
        )
    return ""
