"""Every key that a recipe can have, from the configuration's own classes."""

from __future__ import annotations

import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from uncollapse.config import Recipe, Section


def reference() -> str:
    """All sections, as Markdown with a heading each; `kind` tells those of an axis apart."""
    places: dict[type[Section], list[str]] = {}
    _walk(Recipe, "", places)
    return "\n\n".join(_one(section, paths) for section, paths in places.items())


def _walk(section: type[Section], path: str, places: dict[type[Section], list[str]]) -> None:
    known = section in places
    if path not in places.setdefault(section, []):
        places[section].append(path)
    if known:  # what lies below is shown with the first place
        return
    for name, field in section.model_fields.items():
        below = f"{path}.{name}" if path else name
        for part in _sections(field.annotation):
            nested = f"{below}.NAME" if _origin(field.annotation) is dict else below
            _walk(part, nested, places)


def _one(section: type[Section], paths: list[str]) -> str:
    kind = section.model_fields.get("kind")
    kinds = get_args(kind.annotation) if kind else ()
    heading = f"`{paths[0]}`" if paths[0] else "The recipe"
    if kinds:
        heading += f", kind {' or '.join(f'`{name}`' for name in kinds)}"
    prose = re.sub(r"``(.+?)``", r"`\1`", section.__doc__ or "").replace("*", "\\*")
    rows = [
        f"| `{name}` | {_type(field.annotation)} | {_default(field)} |"
        for name, field in section.model_fields.items()
        if name != "kind"
    ]
    parts = [f"## {heading}"]
    if paths[1:]:
        parts.append(f"Also: {', '.join(f'`{path}`' for path in paths[1:])}.")
    parts.append("\n".join(line.strip() for line in prose.strip().splitlines()))
    if rows:
        parts.append("\n".join(["| key | value | default |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _origin(annotation: Any) -> Any:
    origin = get_origin(annotation)
    return _origin(get_args(annotation)[0]) if origin is Annotated else origin


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        found = dict.fromkeys(_type(part) for part in parts)
        return " or ".join(found)
    if origin in (tuple, list):
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return "by name: " + _type(parts[1])
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    return {"int": "integer", "float": "number", "str": "text", "bool": "true or false"}[
        annotation.__name__
    ]


def _default(field: Any) -> str:
    if field.is_required():
        return "*needed*"
    value = field.default
    if value is PydanticUndefined:
        value = field.default_factory()
    if isinstance(value, Section):
        kind = getattr(value, "kind", None)
        return f"kind `{kind}`" if kind else "its defaults"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
    return "none" if not value else f"`{list(value)}`"
