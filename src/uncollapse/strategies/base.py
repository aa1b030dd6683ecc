"""What a strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn
from torch.optim import Optimizer


class Strategy(ABC):
    """Who learns when: owns the optimiser and its step size."""

    @abstractmethod
    def optimizer(self, module: nn.Module) -> Optimizer:
        """Build the optimiser over the parameters of ``module`` that learn."""

    @abstractmethod
    def learning_rate(self, epoch: int, decays: int) -> float:
        """Step size in ``epoch`` (from 0) after ``decays`` decays of the plateau rule."""
