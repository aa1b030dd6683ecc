"""A key that is varied: how it is written, which recipes it fits, what its values are called."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import yaml

from uncollapse.config import Recipe
from uncollapse.errors import UserError, unknown_name

OPEN, CLOSE, QUOTES = "[{", "]}", "'\""


def read_sweep(text: str) -> tuple[str, tuple[str, ...]]:
    """Split ``"section.key=value,value,…"`` into its key and values.

    Raises
    ------
    UserError
        If a part is missing.
    """
    key, equals, rest = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise UserError(f"cannot read sweep {text!r}; write section.key=value,value,…")
    values = _split(rest)
    if not all(values):
        raise UserError(f"sweep {text!r} lacks a value; write values with commas between them")
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"sweep {text!r} has the value {value} twice")
    return key, tuple(values)


def _split(text: str) -> list[str]:
    """Split at commas that are in no bracket and in no quotes."""
    values, depth, quote = [""], 0, ""
    for sign in text:
        if sign == "," and not quote and depth <= 0:
            values.append("")
            continue
        if quote:
            quote = "" if sign == quote else quote
        elif sign in QUOTES and (depth > 0 or not values[-1].strip()):  # else an apostrophe
            quote = sign
        else:
            depth += (sign in OPEN) - (sign in CLOSE)
        values[-1] += sign
    return [value.strip() for value in values]


def is_of_latents(key: str) -> bool:
    """Whether a key, or an override, is of a section that a language model has not."""
    return key.strip().startswith(("encoder.", "latents."))


def fitting(recipes: Mapping[str, Recipe], key: str) -> set[str]:
    """The recipes that have a key; if none has it, those whose optional sections may have it.

    Raises
    ------
    UserError
        If it can be a key of none, with the nearest right one where there is one.
    """
    having = {name for name, recipe in recipes.items() if key in _keys(recipe)}
    if having:
        return having
    latent = {name for name, recipe in recipes.items() if recipe.latents}
    may = latent if is_of_latents(f"{key}.") else set(recipes)
    if not may:
        raise UserError(f"nothing to sweep: a language model has no {key}")
    for name, recipe in recipes.items():
        if name in may:
            _refuse_misspelt(recipe, key)
    return may


def _refuse_misspelt(recipe: Recipe, key: str) -> None:
    values: Any = recipe.model_dump(mode="json")
    parts = key.split(".")
    for place, part in enumerate(parts):
        if not isinstance(values, dict):
            return
        if part not in values:
            close = get_close_matches(part, values, n=1, cutoff=0.5)
            right = [*parts[:place], *close, *parts[place + 1 :]]
            if close:
                hint = f"did you mean {'.'.join(right)!r}?"
                raise UserError(f"unknown key {key!r} in the sweep; {hint}")
            if parts[:place] == ["latents"]:  # an override would make a latent of this name
                raise unknown_name("latent", part, values)
            return  # what is wrong with it, the recipe's own check says best
        values = values[part]


def _keys(recipe: Recipe) -> dict[str, Any]:
    """Every section and value of a recipe by its dotted path."""

    def below(value: Any, path: str) -> dict[str, Any]:
        found = {path: value} if path else {}
        for key, part in value.items() if isinstance(value, dict) else ():
            found |= below(part, f"{path}.{key}".lstrip("."))
        return found

    return below(recipe.model_dump(mode="json", exclude={"published"}), "")


def short_name(recipe: Recipe, key: str) -> str:
    """The last part of a key, unless another key of the recipe ends in the same."""
    last = key.rpartition(".")[2]
    alike = {path for path in _keys(recipe) if path.rpartition(".")[2] == last} - {key}
    return key if alike else last


def shown_value(recipe: Recipe, key: str, text: str) -> str:
    """A value as the recipe understood it, so that 0.20 and 0.2 have one name."""
    value = _keys(recipe).get(key)
    if isinstance(value, dict):  # spelled out with all its defaults it would be no name
        return text
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    flow = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return flow.removesuffix("...\n").strip()
