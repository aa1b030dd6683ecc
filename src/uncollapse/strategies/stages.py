"""A training run as a list of stages: who learns how, towards what, and what starts anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from uncollapse.config import (
    AdversarialStrategyConfig,
    AggressiveStrategyConfig,
    ConstantScheduleConfig,
    ObjectiveConfig,
    PretrainedStrategyConfig,
    Recipe,
    TrainingConfig,
    TwoStageStrategyConfig,
)
from uncollapse.objectives.schedules import final_weight
from uncollapse.strategies.aggressive import Aggressive
from uncollapse.strategies.base import Strategy
from uncollapse.strategies.joint import Joint


@dataclass(frozen=True)
class Stage:
    """One stage of a run. It ends with its best weights, from which the next one starts.

    Attributes
    ----------
    name : str
        Also that of its folder in the run folder. The last stage, the run itself, has none.
    strategy : Strategy
    training : TrainingConfig
    objective : ObjectiveConfig
    restart : bool
        Whether the decoder starts anew before this stage.
    learning : tuple of str, optional
        The players that learn (see `Model.players`), the others being frozen; None: all.
    blank : bool
        Whether contexts are held back, all of them.
    """

    name: str
    strategy: Strategy
    training: TrainingConfig
    objective: ObjectiveConfig
    restart: bool = False
    learning: tuple[str, ...] | None = None
    blank: bool = False


def alone(strategy: type[Strategy]) -> Callable[[Recipe], list[Stage]]:
    """Stages of a run that has but one."""

    def stages(recipe: Recipe) -> list[Stage]:
        return [Stage("", strategy(recipe.training), recipe.training, recipe.objective)]

    return stages


def aggressive(recipe: Recipe) -> list[Stage]:
    """The encoder learns ahead of the decoder, perhaps after a pretraining."""
    config = recipe.strategy
    if isinstance(config, PretrainedStrategyConfig):
        config = config.then
    assert isinstance(config, AggressiveStrategyConfig)
    strategy = Aggressive(recipe.training, config.most_updates)
    return [Stage("", strategy, recipe.training, recipe.objective)]


def pretrained(recipe: Recipe) -> list[Stage]:
    """An autoencoder first; then the decoder starts anew, and the recipe goes its own way.

    The autoencoder is the same model at weight 0. It keeps the noise of its posterior, whose
    variance is free to shrink, and is selected on reconstruction.

    References
    ----------
    Li et al. 2019, "A Surprisingly Effective Fix for Deep Latent Variable Modeling of Text".
    """
    config = recipe.strategy
    assert isinstance(config, PretrainedStrategyConfig)
    changes = {
        "max_epochs": config.epochs,
        "learning_rate": config.learning_rate or recipe.training.learning_rate,
        "cosine_period_epochs": None,  # the restarts belong to the cycles of the weight
        "plateau": config.plateau,
        "select_on": "reconstruction",
    }
    training = recipe.training.model_copy(update=changes)
    weightless = recipe.objective.model_copy(update={"weight": ConstantScheduleConfig(value=0)})
    first = Stage("pretraining", Joint(training), training, weightless)
    (rest,) = STAGES[config.then.kind](recipe)
    return [first, replace(rest, restart=True)]


def adversarial(recipe: Recipe) -> list[Stage]:
    """Maximum likelihood alone, selected on the objective; then the policy gradient beside it."""
    config = recipe.strategy
    assert isinstance(config, AdversarialStrategyConfig)
    changes = {
        "max_epochs": config.epochs,
        "learning_rate": config.learning_rate or recipe.training.learning_rate,
        "plateau": config.plateau,
        "select_on": "objective",
    }
    training = recipe.training.model_copy(update=changes)
    likelihood = recipe.objective.model_copy(update={"adversarial": None})
    first = Stage("pretraining", Joint(training), training, likelihood)
    # annealing is over
    constant = ConstantScheduleConfig(value=final_weight(recipe.objective.weight))
    annealed = recipe.objective.model_copy(update={"weight": constant})
    return [first, Stage("", Joint(recipe.training), recipe.training, annealed)]


def two_stage(recipe: Recipe) -> list[Stage]:
    """A VAE of responses first; frozen, it says what the decoder of a dialogue model is given.

    The first stage is the recipe's own objective without contexts. In the second the decoder
    starts anew, and learns with all that reads contexts: log p(response|z, context) at
    z ~ q(z|response), the policy and attribute forcing, and no divergence.

    References
    ----------
    Zhao et al. 2018, "Unsupervised Discrete Sentence Representation Learning for Interpretable
    Neural Dialog Generation", section 3.2; Shi et al. 2020, "Dispersed Exponential Family
    Mixture VAEs for Interpretable Text Generation", section 4.4.
    """
    config = recipe.strategy
    assert isinstance(config, TwoStageStrategyConfig)
    changes = {
        "max_epochs": config.epochs,
        "learning_rate": config.learning_rate or recipe.training.learning_rate,
        "plateau": config.plateau,
    }
    training = recipe.training.model_copy(update=changes)
    of_responses = recipe.objective.model_copy(update={"policy": 0.0, "attribute_forcing": 0.0})
    first = Stage("pretraining", Joint(training), training, of_responses, blank=True)
    weightless = recipe.objective.model_copy(update={"weight": ConstantScheduleConfig(value=0)})
    (rest,) = alone(Joint)(recipe)
    rest = replace(rest, objective=weightless, restart=True, learning=("generation",))
    return [first, rest]


STAGES = {
    "joint": alone(Joint),
    "aggressive": aggressive,
    "pretrained": pretrained,
    "two-stage": two_stage,
    "adversarial": adversarial,
}


def build_stages(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe's strategy names; the last one is the run itself."""
    return STAGES[recipe.strategy.kind](recipe)
