"""Schedules of the divergence's weight: pure functions of how far training has come."""

from __future__ import annotations

import math
from dataclasses import dataclass

from uncollapse.config import (
    ConstantScheduleConfig,
    CyclicalScheduleConfig,
    LinearScheduleConfig,
    LogisticScheduleConfig,
    ScheduleConfig,
)


@dataclass(frozen=True)
class Progress:
    """How far training has come.

    Parameters
    ----------
    batches_seen : int
        Training batches before this one.
    batches_per_epoch : int
        At least 1.
    """

    batches_seen: int
    batches_per_epoch: int

    @property
    def epochs(self) -> float:
        """Epochs before this batch, fractions included."""
        return self.batches_seen / self.batches_per_epoch


def constant(config: ConstantScheduleConfig, _progress: Progress) -> float:
    """The same weight throughout."""
    return config.value


def linear(config: LinearScheduleConfig, progress: Progress) -> float:
    """From ``start`` to 1, a step a batch (Bowman et al. 2016; He et al. 2019)."""
    return min(1.0, config.start + (1 - config.start) * progress.epochs / config.epochs)


def logistic(config: LogisticScheduleConfig, progress: Progress) -> float:
    """1 / (1 + exp(−slope (batch − midpoint))) (Bowman et al. 2016)."""
    exponent = -config.slope * (progress.batches_seen - config.midpoint)
    return 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0


def cyclical(config: CyclicalScheduleConfig, progress: Progress) -> float:
    """Up, hold, and again from the start (Fu et al. 2019, eq. 6 with its ratio R)."""
    # in batches: 0.9 epochs % 0.3 epochs is not 0 in floating point
    period = config.period_epochs * progress.batches_per_epoch
    share = progress.batches_seen % period / period
    return min(1.0, config.start + (1 - config.start) * share / config.rising)


KINDS = {"constant": constant, "linear": linear, "logistic": logistic, "cyclical": cyclical}


def weight_at(config: ScheduleConfig, progress: Progress) -> float:
    """Weight of the divergence for the next batch."""
    return KINDS[config.kind](config, progress)  # type: ignore[arg-type]


def final_weight(config: ScheduleConfig) -> float:
    """Weight that the schedule ends in: what validation weighs with."""
    return config.value if isinstance(config, ConstantScheduleConfig) else 1.0
