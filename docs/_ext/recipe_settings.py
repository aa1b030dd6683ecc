"""The recipes of a family, as they are written and as they are resolved."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from uncollapse.recipes import explain_recipe, load_recipe, recipe_source

LISTED = re.compile(r"^<!-- recipes: (.*?) -->$", re.M)


def listed(names: str) -> list[str]:
    """Names that are separated by commas."""
    return [name.strip() for name in names.split(",")]


def families(folder: Path) -> dict[str, list[str]]:
    """The recipes that each page of a folder shows, ``{page: names}``, in their order."""
    found = {}
    for page in sorted(folder.glob("*.md")):
        lists = LISTED.findall(page.read_text(encoding="utf-8"))
        if lists:
            found[page.name] = [name for names in lists for name in listed(names)]
    return found


def settings(names: list[str]) -> str:
    """Everything about some recipes, as Markdown with a heading each."""
    return "\n\n".join(map(_one, names))


def index(pages: dict[str, list[str]]) -> str:
    """A table of all recipes with the pages that show them, which lie beside this one."""
    place = {name: page for page, names in pages.items() for name in names}
    rows = [
        f"| [`{name}`]({place[name]}#{name}) | {load_recipe(name).summary} |"
        for name in sorted(place)
    ]
    return "\n".join(["| recipe | what it is |", "|---|---|", *rows])


def _one(name: str) -> str:
    recipe = load_recipe(name)
    parts = [f"### `{name}`", f"{recipe.summary}. *{recipe.source}.*"]
    parts.append(f"```yaml\n{recipe_source(name).strip()}\n```")
    elsewhere = _corpora(name)
    if elsewhere:
        known = ", ".join(f"`{name}@{corpus}`" for corpus in elsewhere)
        parts.append(f"On other corpora: {known}.")
    parts.append("<details><summary>Every value, and where it comes from</summary>")
    parts.append(f"```yaml\n{explain_recipe(name)}\n```")
    parts.append("</details>")
    return "\n\n".join(parts)


def _corpora(name: str) -> list[str]:
    """Corpora for which the recipe, or one that it extends, has settings."""
    found: dict[str, None] = {}
    base: str | None = name
    while base is not None:
        document = yaml.safe_load(recipe_source(base))
        found |= dict.fromkeys(document.get("corpora", {}))
        base = document.get("extends")
    return sorted(found)
