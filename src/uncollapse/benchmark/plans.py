"""What a comparison trains: recipes as they are, or once for every value of one key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from uncollapse.benchmark.sweep import (
    fitting,
    is_of_latents,
    read_sweep,
    short_name,
    shown_value,
)
from uncollapse.config import Recipe
from uncollapse.errors import UserError
from uncollapse.recipes import load_recipe, with_latent_dim
from uncollapse.report.sweep import Sweep

LONGEST_NAME = 200  # characters: file systems take 255 bytes


@dataclass(frozen=True)
class Plan:
    """A system to be trained.

    Attributes
    ----------
    name : str
        In tables and pages: the recipe, or e.g. ``dgm-vae, beta=0.2``.
    folder : str
        Of its runs, a legal file name.
    recipe : Recipe
    """

    name: str
    folder: str
    recipe: Recipe


@dataclass(frozen=True)
class _Base:
    """A recipe before anything is swept, and what it is made of."""

    source: str | Path
    overrides: tuple[str, ...]
    recipe: Recipe


def make_plans(
    names: Sequence[str | Path],
    latent_dim: int | None,
    overrides: Sequence[str],
    sweep: str | None = None,
) -> tuple[list[Plan], Sweep | None]:
    """Resolve the recipes, each for every value of the swept key that fits it.

    Overrides and sweeps of ``encoder`` and ``latents`` pass by a language model.

    Parameters
    ----------
    names : sequence of str or Path
        Names or recipe files.
    latent_dim : int or None
        Dimensions of every latent.
    overrides : sequence of str
        ``"section.key=value"``.
    sweep : str, optional
        ``"section.key=value,value,…"``: YAML values; commas in brackets or quotes separate
        nothing. A recipe without the key, while others have it, is trained once.

    Returns
    -------
    plans : list of Plan
    sweep : Sweep or None

    Raises
    ------
    UserError
        No recipe, one given twice or with a name that no folder can have, a key that fits no
        recipe, or values that do not fit or make the same recipe twice.
    """
    bases: dict[str, _Base] = {}
    for source in names:
        latentless = not load_recipe(source).latents
        passed = tuple(o for o in overrides if not (latentless and is_of_latents(o)))
        try:
            recipe = _resolve(source, latent_dim, passed)
        except UserError as error:
            if len(names) == 1:
                raise
            raise UserError(f"{source}: {str(error).removeprefix('recipe: ')}") from None
        if recipe.name in bases:
            raise UserError(f"recipe {recipe.name!r} is given twice")
        if Path(recipe.name).name != recipe.name or not recipe.name.strip("."):
            raise UserError(f"recipe name {recipe.name!r} cannot be the name of a folder")
        bases[recipe.name] = _Base(source, passed, recipe)
    if not bases:
        raise UserError("there is no recipe to compare")
    if sweep is None:
        return [Plan(name, name, base.recipe) for name, base in bases.items()], None

    key, values = read_sweep(sweep)
    swept = fitting({name: base.recipe for name, base in bases.items()}, key)
    plans: list[Plan] = []
    systems: dict[str, dict[str, str]] = {}
    for name, base in bases.items():
        if name not in swept:
            plans.append(Plan(name, name, base.recipe))
            continue
        variants = {
            text: _resolve(base.source, latent_dim, (*base.overrides, f"{key}={text}"))
            for text in values
        }
        _refuse_equals(key, variants)
        short = short_name(base.recipe, key)
        systems[name] = {}
        for text, recipe in variants.items():
            value = shown_value(recipe, key, text)
            label = f"{name}, {short}={value}"
            systems[name][value] = label
            plans.append(Plan(label, _folder(f"{name},{short}={value}"), recipe))
    folders = [plan.folder for plan in plans]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"two systems would share the folder {folder!r}")
    return plans, Sweep(key, systems)


def _resolve(source: str | Path, latent_dim: int | None, overrides: Sequence[str]) -> Recipe:
    recipe = load_recipe(source, overrides)
    return recipe if latent_dim is None else with_latent_dim(recipe, latent_dim)


def _folder(name: str) -> str:
    """A legal file name, for every name another one."""
    folder = quote(name, safe=" ,=+@[]{}")
    if len(folder) > LONGEST_NAME:
        raise UserError(f"a value of the sweep is too long for the name of a folder: {name!r}")
    return folder


def _refuse_equals(key: str, variants: Mapping[str, Recipe]) -> None:
    seen: list[tuple[str, Recipe]] = []
    for text, recipe in variants.items():
        for other, before in seen:
            if recipe == before:
                raise UserError(f"sweep of {key}: {other} and {text} make the same recipe")
        seen.append((text, recipe))
