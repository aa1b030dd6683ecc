"""A training run as a list of stages: who learns how, towards what, and what starts anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from uncollapse.config import (
    ConstantScheduleConfig,
    ObjectiveConfig,
    PretrainedStrategyConfig,
    Recipe,
    TrainingConfig,
)
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
    """

    name: str
    strategy: Strategy
    training: TrainingConfig
    objective: ObjectiveConfig
    restart: bool = False


def alone(strategy: type[Strategy]) -> Callable[[Recipe], list[Stage]]:
    """Stages of a run that has but one."""

    def stages(recipe: Recipe) -> list[Stage]:
        return [Stage("", strategy(recipe.training), recipe.training, recipe.objective)]

    return stages


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


STAGES = {"joint": alone(Joint), "aggressive": alone(Aggressive), "pretrained": pretrained}


def build_stages(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe's strategy names; the last one is the run itself."""
    return STAGES[recipe.strategy.kind](recipe)
