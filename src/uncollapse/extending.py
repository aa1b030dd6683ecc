"""Pieces from outside the package: a posterior, prior or divergence in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union, get_args

from uncollapse.config import LatentConfig, Recipe, Section
from uncollapse.errors import UserError, unknown_name
from uncollapse.latents import divergences, posteriors, priors

AXES: dict[str, dict[str, Callable[..., Any]]] = {
    "posterior": posteriors.KINDS,
    "prior": priors.KINDS,
    "divergence": divergences.KINDS,
}


def add_piece(axis: str, config: type[Section], build: Callable[..., Any]) -> None:
    """Teach recipes a new kind of posterior, prior or divergence.

    Recipes that name the kind can be read, trained, saved and loaded from then on, in this
    process. A saved run names the kind alone: the piece must be added before it is loaded.

    Parameters
    ----------
    axis : str
        ``posterior``, ``prior`` or ``divergence``.
    config : type of Section
        Its keys in a recipe; ``kind: Literal["…"]`` is its name.
    build : callable
        Makes the module. A posterior's gets the configuration, the width H of the features and
        the dimensions D; a prior's the whole `LatentConfig` and the width C of a context's
        vector; a divergence's the configuration, H, D and C.

    Raises
    ------
    UserError
        For an unknown axis, a kind that exists already, or a configuration without a kind.
    """
    if axis not in AXES:
        raise unknown_name("axis", axis, AXES)
    kind = config.model_fields.get("kind")
    names = get_args(kind.annotation) if kind else ()
    if not names:
        raise UserError(f'{config.__name__} needs a kind: Literal["…"]')
    for name in names:
        if name in AXES[axis]:
            raise UserError(f"there is a {axis} of kind {name} already")
    field: Any = LatentConfig.model_fields[axis]
    field.annotation = Union[(*get_args(field.annotation), config)]
    # what holds the class of latents holds a copy of what it accepted
    LatentConfig.model_rebuild(force=True)
    Recipe.model_rebuild(force=True)
    AXES[axis].update(dict.fromkeys(names, build))
