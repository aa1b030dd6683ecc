"""The recipes: one YAML file a system, and how a recipe is found, extended and overridden."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from uncollapse.config import DISCRETE, Recipe, parse_recipe
from uncollapse.errors import UserError, unknown_name
from uncollapse.recipes.layers import Layers, leaves


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
        A name of `recipe_names`; such a name with ``@corpus`` for the papers' settings on
        another corpus than PTB (``vae@yahoo``); or the path of a ``.yaml`` file. A file may
        extend a named recipe or another file, whose path is relative to its own folder.
    overrides : iterable of str
        ``"section.key=value"``; the value is read as YAML.

    Raises
    ------
    UserError
        Unknown recipe, corpus or key, a value that does not fit, or recipes that extend each
        other.
    """
    return parse_recipe(_layers(str(name_or_path), overrides).values)


def explain_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> str:
    """The resolved recipe as text: a line a value, with the layer that it came from."""
    layers = _layers(str(name_or_path), overrides)
    values = parse_recipe(layers.values).model_dump(mode="json")
    lines = [(f"{path}: {_flow(value)}", layers.origin(path)) for path, value in leaves(values)]
    width = min(60, max(len(line) for line, _ in lines))
    return "\n".join(f"{line:<{width}}  # {origin}" for line, origin in lines)


def with_latent_dim(recipe: Recipe, dim: int) -> Recipe:
    """Give every latent of a recipe ``dim`` dimensions in each group; codes keep their size."""
    values = recipe.model_dump(mode="json")
    for name, latent in values["latents"].items():
        if recipe.latents[name].posterior.kind not in DISCRETE:
            latent["dim"] = dim
    return parse_recipe(values)


def recipe_to_yaml(recipe: Recipe) -> str:
    """The whole recipe, every default spelled out, in a form that `load_recipe` reads."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe file, which may also say ``extends`` and ``corpora``."""
    schema = Recipe.model_json_schema()
    schema["properties"] |= {
        "extends": {"type": "string", "description": "A recipe's name, or a file."},
        "corpora": {
            "type": "object",
            "description": "By corpus, the sections that differ there: NAME@CORPUS.",
            "additionalProperties": {"type": "object"},
        },
    }
    schema["required"] = []  # a recipe that extends another may leave out anything
    return schema


def recipe_source(name: str) -> str:
    """The YAML text of a packaged recipe, as written."""
    if name not in _files():
        raise unknown_name("recipe", name, _files())
    return _files()[name].read_text(encoding="utf-8")


def _layers(name_or_path: str, overrides: Iterable[str]) -> Layers:
    is_file = name_or_path.endswith((".yaml", ".yml"))
    name, at, corpus = (name_or_path, "", "") if is_file else name_or_path.partition("@")
    documents = _read(name, ())
    layers = Layers()
    settings: list[tuple[str, dict[str, Any]]] = []
    for origin, document in documents:
        corpora = document.pop("corpora", None) or {}
        settings.append((origin, corpora))
        if document is not documents[-1][1]:
            document.pop("published", None)  # figures of the recipe that it extends
        layers.lay(document, origin)
    if at:
        known = {key for _, corpora in settings for key in corpora}
        if not known:
            raise UserError(f"recipe {name} has the same settings on every corpus")
        if corpus not in known:
            raise unknown_name(f"corpus of recipe {name}", corpus, known)
        for origin, corpora in settings:
            layers.lay(_present(corpora.get(corpus, {}), layers.values), f"{origin}, {corpus}")
    own_name = documents[-1][1].get("name")
    layers.values["name"] = own_name or (Path(name).stem if is_file else name_or_path)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise UserError(f"cannot read override {override!r}; write section.key=value")
        layers.put(path.strip().split("."), _parse(text, f"override {override!r}"), "--set")
    return layers


def _present(changes: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Changes without those of parts that the recipe has set to null: it has them on no corpus."""
    return {
        key: _present(change, values[key])
        if isinstance(change, dict) and isinstance(values.get(key), dict)
        else change
        for key, change in changes.items()
        if not (isinstance(change, dict) and key in values and values[key] is None)
    }


def _read(name_or_path: str, extended_by: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """The documents that make up a recipe, what is extended first, with their names."""
    is_file = name_or_path.endswith((".yaml", ".yml"))
    place = str(Path(name_or_path).resolve()) if is_file else name_or_path
    if place in extended_by:
        raise UserError(f"recipe {name_or_path} extends itself")
    if is_file:
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot read recipe {name_or_path}: {reason}") from None
    else:
        text = recipe_source(name_or_path)
    values = _parse(text, f"recipe {name_or_path}")
    if not isinstance(values, dict):
        raise UserError(f"recipe {name_or_path} is not a mapping of sections")
    base = values.pop("extends", None)
    own = (f"recipe {name_or_path}", values)
    if base is None:
        return [own]
    base = str(base)
    if base.endswith((".yaml", ".yml")):
        base = str(Path(name_or_path).parent / base)
    return [*_read(base, (*extended_by, place)), own]


def _flow(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    )


def _parse(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    # beside its own errors, PyYAML lets those of wrong dates and wrong tagged scalars through
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{what} is not valid YAML{where}") from None
