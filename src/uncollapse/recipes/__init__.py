"""The recipes: one YAML file a system, and how a recipe is found, extended and overridden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from uncollapse.config import Recipe, keys_of_kind, parse_recipe
from uncollapse.errors import UserError, unknown_name


@cache
def _files() -> dict[str, Any]:
    folders = [entry for entry in resources.files(__name__).iterdir() if entry.is_dir()]
    found = [file for folder in folders for file in folder.iterdir()]
    return {file.name[: -len(".yaml")]: file for file in found if file.name.endswith(".yaml")}


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(_files())


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Find a recipe by name or file, apply overrides and check it.

    Parameters
    ----------
    name_or_path : str or Path
        A name of `recipe_names`, or the path of a ``.yaml`` file. It may extend
        a named recipe or another file, whose path is relative to its own folder.
    overrides : iterable of str
        ``"section.key=value"``; the value is read as YAML.

    Raises
    ------
    UserError
        Unknown recipe or key, a value that does not fit, or recipes that extend each other.
    """
    values = _read(str(name_or_path), ())
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise UserError(f"cannot read override {override!r}; write section.key=value")
        _put(values, path.strip().split("."), _parse(text, f"override {override!r}"))
    return parse_recipe(values)


def with_latent_dim(recipe: Recipe, dim: int) -> Recipe:
    """Give every latent of a recipe ``dim`` dimensions."""
    values = recipe.model_dump(mode="json")
    for latent in values["latents"].values():
        latent["dim"] = dim
    return parse_recipe(values)


def recipe_to_yaml(recipe: Recipe) -> str:
    """The whole recipe, every default spelled out, in a form that `load_recipe` reads."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_source(name: str) -> str:
    """The YAML text of a packaged recipe, as written."""
    if name not in _files():
        raise unknown_name("recipe", name, _files())
    return _files()[name].read_text(encoding="utf-8")


def _read(name_or_path: str, extended_by: tuple[str, ...]) -> dict[str, Any]:
    is_file = name_or_path.endswith((".yaml", ".yml"))
    place = str(Path(name_or_path).resolve()) if is_file else name_or_path
    if place in extended_by:
        raise UserError(f"recipe {name_or_path} extends itself")
    if is_file:
        path = Path(name_or_path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read recipe {path}: {error}") from None
        name = path.stem
    else:
        text, name = recipe_source(name_or_path), name_or_path
    values = _parse(text, f"recipe {name_or_path}")
    if not isinstance(values, dict):
        raise UserError(f"recipe {name_or_path} is not a mapping of sections")
    base = values.pop("extends", None)
    values.setdefault("name", name)
    if base is None:
        return values
    base = str(base)
    if base.endswith((".yaml", ".yml")):
        base = str(Path(name_or_path).parent / base)
    return _merge(_read(base, (*extended_by, place)), values)


def _parse(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    # beside its own errors, PyYAML lets those of wrong dates and wrong tagged scalars through
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{what} is not valid YAML{where}") from None


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``changes`` over ``base``; a part of another kind replaces the whole part."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        same_kind = (
            isinstance(value, dict)
            and isinstance(below, dict)
            and ("kind" not in value or value["kind"] == below.get("kind"))
        )
        merged[key] = _merge(below, value) if same_kind else value  # type: ignore[arg-type]
    return merged


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    *parents, last = path
    for key in parents:
        below = values.get(key)
        if below is None:
            below = values[key] = {}
        if not isinstance(below, dict):
            raise UserError(f"cannot set {'.'.join(path)}: {key} is not a section")
        values = below
    if last == "kind" and values.get("kind") != value and (known := keys_of_kind(value)):
        for key in values.keys() - known:  # of the old kind; an unknown kind is refused later
            del values[key]
    values[last] = value
