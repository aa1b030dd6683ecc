"""Values of a recipe laid over one another, each remembering where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from uncollapse.config import keys_of_kind
from uncollapse.errors import UserError


class Layers:
    """A recipe in the making.

    Attributes
    ----------
    values : dict
        What the layers say so far.
    origins : dict of str to str
        ``"section.key"`` of every value to the layer that it came from.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def lay(self, changes: Mapping[str, Any], origin: str) -> None:
        """Lay ``changes`` over the values; a part of another kind replaces the whole part."""
        self._lay(self.values, changes, "", origin)

    def put(self, path: list[str], value: Any, origin: str) -> None:
        """Set one value.

        Raises
        ------
        UserError
            If the path leads through something that is not a section.
        """
        *parents, last = path
        section = self.values
        for key in parents:
            if section.get(key) is None:
                section[key] = {}
            section = section[key]
            if not isinstance(section, dict):
                raise UserError(f"cannot set {'.'.join(path)}: {key} is not a section")
        if last == "kind" and section.get("kind") != value and (known := keys_of_kind(value)):
            for key in section.keys() - known:  # of the old kind; an unknown one is refused later
                del section[key]
                self._forget(".".join([*parents, key]))
        self._set(section, last, value, ".".join(path), origin)

    def origin(self, path: str) -> str:
        """The layer of a value of the finished recipe; what no layer set is a default."""
        return self.origins.get(path, "default")

    def _lay(
        self, below: dict[str, Any], changes: Mapping[str, Any], prefix: str, origin: str
    ) -> None:
        for key, value in changes.items():
            old = below.get(key)
            if isinstance(value, Mapping) and isinstance(old, dict) and _same_kind(old, value):
                self._lay(old, value, f"{prefix}{key}.", origin)
            else:
                self._set(below, key, value, f"{prefix}{key}", origin)

    def _set(self, section: dict[str, Any], key: str, value: Any, path: str, origin: str) -> None:
        self._forget(path)
        section[key] = value
        self.origins |= dict.fromkeys((leaf for leaf, _ in leaves(value, path)), origin)

    def _forget(self, path: str) -> None:
        for known in [p for p in self.origins if p == path or p.startswith(f"{path}.")]:
            del self.origins[known]


def _same_kind(below: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    return "kind" not in changes or changes["kind"] == below.get("kind")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below ``value`` that is not a section, with its dotted path."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
