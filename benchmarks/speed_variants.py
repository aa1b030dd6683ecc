"""All workloads of the speed benchmark, and the variants that each compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import speed_sampling
import speed_scoring
import speed_training
from speed_machine import BF16, F32, TUNED
from speed_settings import DIALOGUE, Settings
from speed_turns import Variant

# work of a round in a whole run: batches of training, sentences, batches of sampling
TRAINING = {
    "lstm": 9,
    "gru": 9,
    "bidirectional": 9,
    "twr": 9,
    "mixture": 1,
    DIALOGUE: 6,
    "transformer": 6,
}
LIKELIHOOD = {"gaussian": "lstm", "vmf": "vmf", "mixture": "mixture", "conditional": DIALOGUE}
SENTENCES = 4
# family, method, longest sentence, batches by the plain loop and by the package
SAMPLING: dict[str, tuple[str, str, int, int, int]] = {
    "lstm-ancestral": ("lstm", "ancestral", 100, 1, 8),
    "lstm-greedy": ("lstm", "greedy", 100, 1, 8),
    "lstm-nucleus": ("lstm", "nucleus", 40, 1, 8),
    "cnn-ancestral": ("cnn", "ancestral", 40, 1, 8),
    "transformer-ancestral": ("transformer", "ancestral", 40, 1, 8),
}


@dataclass(frozen=True)
class Workload:
    """What is compared.

    Attributes
    ----------
    kind : str
        ``training``, ``likelihood`` or ``sampling``.
    family : str
        Of the model.
    needs_weights : bool
        Whether the model is warmed up first.
    variants : dict of str to Variant
        The first is the plain one that the others are divided by.
    own_noise : bool
        Whether the plain one draws other numbers than the package.
    """

    kind: str
    family: str
    needs_weights: bool
    variants: dict[str, Variant]
    own_noise: bool = False


def workloads(settings: Settings) -> dict[str, Workload]:
    """Every workload by name."""
    found: dict[str, Workload] = {}
    for family, full in TRAINING.items():
        batches = settings.amount(full)
        own = {"settings": settings, "family": family, "batches": batches}
        name = "plain, 20 decoder passes" if family == "mixture" else "plain, bucketed batches"
        variants = {name: _plain(speed_training.plain, own | {"pool": 100})}
        if family == "lstm":
            variants["plain, random batches"] = _plain(speed_training.plain, own | {"pool": 1})
        variants |= _ours(settings, speed_training.ours, own)
        found[f"training-{family}"] = Workload("training", family, False, variants)
    for latent, family in LIKELIHOOD.items():
        own = {"settings": settings, "family": family, "count": settings.amount(SENTENCES)}
        variants = {"plain, one sentence at a time": _plain(speed_scoring.plain, own)}
        variants |= _ours(settings, speed_scoring.ours, own)
        name = f"likelihood-{latent}"
        found[name] = Workload("likelihood", family, True, variants, own_noise=family == "vmf")
    for name, (family, how, longest, few, many) in SAMPLING.items():
        own = {"settings": settings, "family": family, "how": how, "max_length": longest}
        of_plain = own | {"batches": settings.amount(few)}
        variants = {"plain, all rows to the end": _plain(speed_sampling.plain, of_plain)}
        if name == "lstm-ancestral":
            dropping = of_plain | {"drop_finished": True}
            variants["plain, finished rows dropped"] = _plain(speed_sampling.plain, dropping)
        of_ours = own | {"batches": settings.amount(many)}
        variants |= _ours(settings, speed_sampling.ours, of_ours)
        found[f"sampling-{name}"] = Workload("sampling", family, True, variants)
    return found


def _plain(work: Callable[..., None], options: dict[str, Any]) -> Variant:
    return Variant(work, options, F32)


def _ours(
    settings: Settings, work: Callable[..., None], options: dict[str, Any]
) -> dict[str, Variant]:
    """In f32 and bf16; where there are kernels, with them and without."""
    found = {}
    for precision, limit in (("f32", TUNED), ("bf16", BF16)):
        own = options | {"precision": precision}
        if settings.kernels:
            found[f"uncollapse {precision}, kernels"] = Variant(work, own, limit)
            found[f"uncollapse {precision}, no kernels"] = Variant(work, own, limit, kernels=False)
        else:
            found[f"uncollapse {precision}"] = Variant(work, own, limit)
    return found
