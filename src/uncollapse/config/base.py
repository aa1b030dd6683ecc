"""What every section of a recipe shares."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _no_truth(value: Any) -> Any:
    # YAML reads a bare yes, no, on or off as a truth value, and pydantic that as 1 or 0
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


Size = Annotated[int, Field(ge=1), BeforeValidator(_no_truth)]
Rate = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_no_truth)]
Positive = Annotated[float, Field(gt=0), BeforeValidator(_no_truth)]
NonNegative = Annotated[float, Field(ge=0), BeforeValidator(_no_truth)]


class Section(BaseModel):
    """Base of every part of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
