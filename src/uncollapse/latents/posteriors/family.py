"""Posteriors of any exponential family but those that have a file of their own."""

from __future__ import annotations

from torch import Tensor, nn

from uncollapse.config import (
    BernoulliPosteriorConfig,
    CategoricalPosteriorConfig,
    DirichletPosteriorConfig,
    FamilyPosteriorConfig,
    KnownVariancePosteriorConfig,
)
from uncollapse.distributions.exponential import FiniteFamily, Member
from uncollapse.latents.families import family_of
from uncollapse.latents.posteriors.base import Posterior
from uncollapse.latents.posteriors.relaxation import GumbelSoftmax

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}

AnyFamilyConfig = (
    BernoulliPosteriorConfig
    | CategoricalPosteriorConfig
    | DirichletPosteriorConfig
    | FamilyPosteriorConfig
    | KnownVariancePosteriorConfig
)


class FamilyPosterior(Posterior):
    """q(z|x) = Π over units of one family, its natural parameters read from the features.

    Samples of discrete families are relaxed in training, and codes in evaluation.

    Parameters
    ----------
    config : section of a recipe
        ``kind`` names the family.
    feature_dim, dim : int
        H, and the number of units U.
    """

    def __init__(self, config: AnyFamilyConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.family = family_of(config, dim)
        self.width = self.family.width
        self.head = head(feature_dim, dim * self.family.parameters, config.hidden)
        self.relaxation = None
        if isinstance(config, BernoulliPosteriorConfig | CategoricalPosteriorConfig):
            assert isinstance(self.family, FiniteFamily)
            self.relaxation = GumbelSoftmax(self.family, config.relaxation)

    def forward(self, features: Tensor, _mask: Tensor | None = None) -> Member:
        """Posterior of features ``(..., H)``."""
        free = self.head(features).unflatten(-1, (-1, self.family.parameters))  # (..., U, P)
        relaxation = self.relaxation if self.training else None
        return Member(self.family, self.family.natural(free), relaxation)

    def schedule(self, epochs: float) -> None:
        """The temperature follows its schedule."""
        if self.relaxation is not None:
            self.relaxation.schedule(epochs)


def head(feature_dim: int, outputs: int, hidden: str | None, width: int | None = None) -> nn.Module:
    """A linear map of the features, or a classifier with one hidden layer.

    It is as wide as the features are, unless ``width`` says otherwise.
    """
    if hidden is None:
        return nn.Linear(feature_dim, outputs)
    activation = ACTIVATIONS[hidden]()
    width = width or feature_dim
    return nn.Sequential(nn.Linear(feature_dim, width), activation, nn.Linear(width, outputs))
