"""The key of a study: which system wrote what. Raters never see it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from uncollapse.errors import UserError
from uncollapse.rating.criteria import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    about,
    check_criteria,
)

FILE = "key.json"

Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(_Part):
    """One turn of a context; the speaker is empty where nobody knows."""

    speaker: str
    text: str


class Context(_Part):
    """What was said before a response.

    Attributes
    ----------
    turns : list of Turn
        Oldest first.
    answerer : str
        Who responds; empty where nobody knows.
    labels : dict of str to str
        What else systems are told, by column.
    """

    turns: Annotated[list[Turn], Field(min_length=1)]
    answerer: str
    labels: dict[str, str]


class Item(_Part):
    """What is rated at a time: a response, or a group of responses that share an action.

    Attributes
    ----------
    system : str
    unit : int
        What makes items of several systems pairs: the number of the context of a response, or
        that of the contexts of a group.
    responses : list of str
        One, or those of a group.
    action : str or None
        Code of the action that a group shares.
    """

    system: str
    kind: Literal["response", "group"]
    unit: Count
    responses: Annotated[list[str], Field(min_length=1)]
    action: str | None = None


class Key(_Part):
    """All that is known of a study, as ``key.json`` keeps it.

    Attributes
    ----------
    criteria : list of str
        In the order of the columns of a sheet.
    scale : int
        Ratings are 1 … scale.
    systems : dict of str to str
        By name, the run folder.
    settings : dict
        How contexts were picked and responses written.
    contexts : list of Context
    groups : list of list of int
        By group, the contexts that its responses answer; the same of every system.
    items : list of Item
    sheets : list of dict of str to int
        Of each rater, the items under the names that they have in that rater's sheet alone.
    """

    format_version: Literal[1] = 1
    criteria: list[str]
    scale: Annotated[int, Field(ge=SMALLEST_SCALE, le=LARGEST_SCALE)]
    systems: Annotated[dict[str, str], Field(min_length=1)]
    settings: dict[str, str | int | float | bool]
    contexts: list[Context]
    groups: list[list[Count]]
    items: list[Item]
    sheets: Annotated[list[dict[str, Count]], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_criteria(self.criteria)
        for item in self.items:
            units = self.contexts if item.kind == "response" else self.groups
            if item.system not in self.systems or item.unit >= len(units):
                raise ValueError("an item is of no system or of no context")
        everything = list(range(len(self.items)))
        if any(sorted(sheet.values()) != everything for sheet in self.sheets):
            raise ValueError("a sheet lacks items or has too many")
        if len(set().union(*self.sheets)) < len(self.items) * len(self.sheets):
            raise ValueError("two items have the same name")
        return self

    def asks(self, item: Item) -> list[bool]:
        """Which of the criteria an item is rated by."""
        return [about(criterion) == item.kind for criterion in self.criteria]

    def to_json(self) -> str:
        """The text of ``key.json``."""
        return self.model_dump_json(indent=1) + "\n"


def read_key(path: Path) -> Key:
    """Read the key of a study, given the file or the folder of the study.

    Raises
    ------
    UserError
        If there is none, or if it is damaged.
    """
    if path.is_dir():
        path = path / FILE
    try:
        return Key.model_validate_json(path.read_bytes())
    except OSError as error:
        hint = f"; give the folder that export made, or the {FILE} in it"
        raise UserError(f"cannot read {path}: {error.strerror}{hint}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserError(f"{path} is not the key of a study ({what})") from None
