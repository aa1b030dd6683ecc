"""Every verb of the program with its arguments, options and help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from uncollapse.cli import app

WORDS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}  # of options without a metavar


def verbs() -> Iterator[tuple[str, Any]]:
    """Every verb as it is typed, after the program's name, and its command."""
    yield from _below("", typer.main.get_command(app))


def reference() -> str:
    """All verbs, as Markdown with a heading each."""
    return "\n\n".join(_one(name, command) for name, command in verbs())


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    members = getattr(command, "commands", None)
    if members is None:
        yield path, command
        return
    for name, member in members.items():
        yield from _below(f"{path} {name}".strip(), member)


def _one(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = [f"uncollapse {name}", *map(_argument, arguments)]
    values = {option.name: _value(option, command) for option in options}
    usage += [f"{option.opts[0]} {values[option.name]}" for option in options if option.required]
    parts = [f"## `uncollapse {name}`", "\n".join(_plain(command.help or "").splitlines())]
    parts.append(f"```text\n{' '.join(usage)}{' [OPTIONS]' if options else ''}\n```")
    rows = [f"| `{_argument(a)}` | | {_cell(getattr(a, 'help', '') or '')} |" for a in arguments]
    rows += [
        f"| {_names(o, values[o.name])} | {_default(o)} | {_cell(o.help or '')} |" for o in options
    ]
    if rows:
        parts.append("\n".join(["| | default | |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _value(option: Any, command: Any) -> str:
    """What stands for the value of an option in its usage."""
    if option.metavar:
        return option.metavar
    hint = get_type_hints(command.callback)[option.name]
    kinds = [kind for kind in (hint, *get_args(hint)) if kind in WORDS]
    return WORDS[kinds[0]] if kinds else option.name.upper()


def _names(option: Any, value: str) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.is_flag:
        return names
    return f"{names} `{value}`" + (" …" if option.multiple else "")


def _default(option: Any) -> str:
    if option.required:
        return "*needed*"
    if option.is_flag or option.multiple or option.default in (None, ""):
        return ""
    return f"`{option.default}`"


def _cell(text: str) -> str:
    return _plain(" ".join(text.split())).replace("|", "\\|")


def _plain(text: str) -> str:
    """Text in which Markdown sees nothing of its own but options, as code."""
    text = text.replace("*", "\\*").replace("<", "&lt;").replace("_", "\\_")
    return re.sub(r"(?<![`\w-])--[a-z][a-z-]*", r"`\g<0>`", text)
