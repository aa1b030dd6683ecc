"""Names that people give to clusters, and the codes that they stand for.

They are kept with a model in ``names.yaml``, ``{variable: {code: name}}``. A code there has one
place for each index of its variable; ``*`` leaves a place free, so that ``"*-3-*"`` is value 3 of
index 1 of a variable with three.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation.codes import (
    check_index,
    choose_variable,
    parse_code,
    write_code,
)
from uncollapse.latents import COMPONENT
from uncollapse.model import Model
from uncollapse.saving import write_text

Names = dict[str, dict[str, str]]
Sizes = Mapping[str, tuple[int, int]]  # {variable: (M, K)}

FILE = "names.yaml"
CODE = re.compile(r"[\d*]+(-[\d*]+)*")


def check_names(given: Any, sizes: Sizes, where: str, index: int | None = None) -> Names:
    """Names as they are kept, if they fit a model.

    Parameters
    ----------
    given : mapping
        ``{variable: {code: name}}``; a code may also be a number or a tuple of values.
    sizes : mapping
        How many indexes with how many values the model's discrete variables have.
    where : str
        What an error calls the names.
    index : int, optional
        To which index of a variable codes of one value belong.

    Raises
    ------
    UserError
    """
    found: Names = {}
    for variable, codes in _mapping(given, "{variable: {code: name}}", where).items():
        if not sizes:
            raise UserError(f"{where}: the model has no discrete variable whose codes have names")
        if variable not in sizes:
            raise UserError(f"{where}: {unknown_name('discrete variable', str(variable), sizes)}")
        found[variable] = {}
        shape = f"the names of {variable!r}, {{code: name}},"
        for code, name in _mapping(codes, shape, where).items():
            full = _kept_code(code, variable, sizes[variable], index, where)
            if full in found[variable]:
                raise UserError(f"{where}: code {full!r} of {variable!r} has two names")
            found[variable][full] = _checked(name, full, variable, where)
    return merged_names({}, found, where)


def merged_names(old: Names, new: Names, where: str) -> Names:
    """Both, the new names where a code has one in either.

    Raises
    ------
    UserError
        If two clusters of a variable would have the same name.
    """
    result = {variable: dict(names) for variable, names in old.items()}
    for variable, names in new.items():
        together = result.setdefault(variable, {})
        together.update(names)
        owners: dict[str, str] = {}
        for code, name in together.items():
            if name in owners:
                both = f"{owners[name]!r} and {code!r}"
                raise UserError(f"{where}: codes {both} of {variable!r} are both named {name!r}")
            owners[name] = code
    return {variable: names for variable, names in result.items() if names}


def names_at(names: Mapping[str, str], size: tuple[int, int], index: int | None) -> dict[str, str]:
    """The names of one variable by the codes of one index, or by joint codes if it is None."""
    if index is None:
        return dict(names)
    values = [str(value) for value in range(size[1])]
    codes = {write_code(_full_code(value, size, index)): value for value in values}
    return {codes[code]: name for code, name in names.items() if code in codes}


def find_code(
    model: Model,
    names: Names,
    component: str | int,
    variable: str | None,
    index: int | None,
) -> tuple[str, tuple[int, ...]]:
    """The variable that a component is of, and its code ``(M,)``, −1 for any value.

    Parameters
    ----------
    model : Model
    names : dict
        The names that are known.
    component : str or int
        A name or a code.
    variable : str, optional
        By default that of the name, or the first.
    index : int, optional
        The place of a code of one value.

    Raises
    ------
    UserError
        For an unknown name or variable, a code out of range, or a variable whose values cannot
        be chosen.
    """
    text = str(component).strip()
    chosen = choose_variable(model, variable)
    if variable is None:
        chosen = next(
            (known for known in (chosen, *names) if text in _codes_of(names, known)), chosen
        )
    sizes = model.variable_sizes()
    mixture = f"{chosen}{COMPONENT}"
    if mixture in sizes:
        raise UserError(f"{chosen!r} is drawn from a mixture; hold a component of {mixture!r}")
    size = sizes[chosen]
    check_index(index, size, chosen)
    known = _codes_of(names, chosen)
    if text in known:
        return chosen, parse_code(known[text], size, None)
    if CODE.fullmatch(text):
        return chosen, _full_code(text, size, index)
    if known:
        raise unknown_name(f"component of {chosen!r}:", text, known)
    raise UserError(f"component {text!r} is no code, and no component of {chosen!r} has a name")


def read_names(path: Path) -> Any:
    """What a YAML file says, every scalar as text; no names if it is empty.

    Raises
    ------
    UserError
        If it is not there or not valid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        found = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "unreadable characters"
        hint = "; codes with * need quotes" if "*" in text else ""
        raise UserError(f"{path} is not valid YAML{place}: {what}{hint}") from None
    return {} if found in (None, "") else found


def kept_names(folder: Path, sizes: Sizes) -> Names:
    """The names that are kept with a model; none if nobody has given any.

    Raises
    ------
    UserError
        If the file has been spoilt, or is another model's.
    """
    path = folder / FILE
    return check_names(read_names(path), sizes, str(path)) if path.is_file() else {}


def write_names(folder: Path, names: Names) -> Path:
    """Write ``names.yaml`` of a model, whole or not at all; gives its path.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    path = folder / FILE
    write_text(path, yaml.safe_dump(names, allow_unicode=True, sort_keys=False, width=1000))
    return path


class _Loader(yaml.BaseLoader):
    """Scalars stay text, ``no`` too; a key that is there twice is wrong."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(
                problem="a key is there twice", problem_mark=node.start_mark
            )
        return found


def _mapping(given: Any, what: str, where: str) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: {what} must be a mapping, not {type(given).__name__}")
    return given


def _kept_code(
    code: Any, variable: str, size: tuple[int, int], index: int | None, where: str
) -> str:
    """A code as it is kept, with a place for every index."""
    text = write_code(code) if isinstance(code, tuple) else str(code)
    try:
        return write_code(_full_code(text, size, index))
    except UserError as error:
        raise UserError(f"{where}: {variable!r}: {error}") from None


def _full_code(text: str, size: tuple[int, int], index: int | None) -> tuple[int, ...]:
    """The code ``(M,)``, −1 for any; ``index`` is where a value on its own belongs."""
    alone = "-" not in text and size[0] > 1
    if alone and index is None and CODE.fullmatch(text.strip()):
        others = "-*" * (size[0] - 1)
        raise UserError(
            f"{text!r} is of one index of {size[0]}: say which, or write {text}{others}"
        )
    code = parse_code(text, size, index if alone else None)
    if len(code) == size[0]:
        return code
    return tuple(code[0] if place == index else -1 for place in range(size[0]))


def _checked(name: Any, code: str, variable: str, where: str) -> str:
    if not isinstance(name, str):
        kind = type(name).__name__
        raise UserError(f"{where}: the name of code {code!r} of {variable!r} is {kind}, not text")
    words = " ".join(name.split())
    if not words:
        raise UserError(f"{where}: the name of code {code!r} of {variable!r} is empty")
    if CODE.fullmatch(words):
        raise UserError(f"{where}: {words!r}, the name of code {code!r}, looks like a code itself")
    return words


def _codes_of(names: Names, variable: str) -> dict[str, str]:
    """The codes of a variable by their names."""
    return {name: code for code, name in names.get(variable, {}).items()}
