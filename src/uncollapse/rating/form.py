"""A form for one rater: one HTML file that fetches nothing and gives back the rater's sheet."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from html import escape
from importlib import resources
from string import Template
from typing import Any

from uncollapse.rating.criteria import QUESTIONS, ends
from uncollapse.rating.key import Item, Key, Turn
from uncollapse.rating.sheet import (
    COLUMNS,
    EMPTY,
    NOT_ASKED,
    csv_line,
    header,
    sheet_name,
    sheet_rows,
)

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="color-scheme" content="light dark">
<title>Rating sheet $rater</title>
<style>
$style</style>
</head>
<body>
<main>
<header class="bar">
<div class="line">
<h1>Rating sheet $rater</h1>
<span id="left" role="status">$items</span>
<button type="button" id="unrated" class="scripted" hidden>Next unrated</button>
<button type="button" id="save" class="scripted" hidden>Save</button>
</div>
<progress id="progress" class="scripted" max="$count" value="0" aria-label="Items rated" hidden>
</progress>
<p id="warning" role="alert"></p>
</header>
<noscript><p class="note">Without scripts this page only shows the items: write your ratings into
the sheet $file.</p></noscript>
$articles<nav class="scripted" hidden>
<button type="button" id="back">Back</button>
<button type="button" id="next" class="main">Next</button>
</nav>
<p class="note scripted" hidden>Keys: $keys. The browser keeps your answers until you come back.
<em>Save</em> gives you the file $file; send it back when nothing is left.</p>
</main>
<script type="application/json" id="sheet">$data</script>
<script>$script</script>
</body>
</html>
""")


def form_page(key: Key, rater: int) -> str:
    """The whole page as text; it holds what the sheet of the rater holds, and nothing else."""
    script = _asset("uncollapse.rating", "form.js")
    style = _asset("uncollapse.report", "style.css") + _asset("uncollapse.rating", "form.css")
    rows: list[dict[str, Any]] = []
    articles: list[str] = []
    for name, item, row in sheet_rows(key, rater):
        articles.append(_article(key, name, item, len(articles) + 1))
        cells = [
            _field(name, number) if asked else None for number, asked in enumerate(key.asks(item))
        ]
        rows.append({"item": name, "start": csv_line(row[: len(COLUMNS)]), "cells": cells})
    file = sheet_name(rater, ".csv")
    data = {"file": file, "header": csv_line(header(key)), "not_asked": NOT_ASKED, "rows": rows}
    return PAGE.substitute(
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src '{_hash(script)}'",
        rater=rater + 1,
        style=style,
        items=f"{len(rows)} items",
        count=len(rows),
        articles="".join(articles),
        keys=_keys(key.scale),
        file=file,
        # no sentence can end the element that it is in
        data=json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
        script=script,
    )


def instructions(key: Key) -> str:
    """What every rater is told, as Markdown."""
    questions = "\n".join(f"- **{name}**: {QUESTIONS[name]}" for name in key.criteria)
    kinds = {item.kind for item in key.items}
    lines = []
    if "response" in kinds:
        lines.append(
            "Each item is the end of a conversation and a response to it. The response was "
            "written by a computer program; several programs take part, in no order."
        )
    if "group" in kinds:
        lines.append(
            "Some items are several responses, each to another conversation that is not shown: "
            "judge what they have in common."
            if "response" in kinds
            else "Each item is several responses, each to another conversation that is not shown. "
            "They were written by a computer program; several programs take part, in no order."
        )
    mixed = (
        f"\nA cell with `{NOT_ASKED}` is not to be rated: that question is of other items.\n"
        if len(kinds) > 1
        else ""
    )
    return f"""# How to rate

{" ".join(lines)}

Answer each question with a whole number, {ends(key.scale)}:

{questions}

Open your form (`rater-N.html`) in a browser; it works without a network. Keys:
{_plain_keys(key.scale)}.
The browser keeps your answers, so that you can stop and come back to the same file in the same
browser. When nothing is left, press *Save* and send the file `rater-N.csv` back.

Or fill in the sheet (`rater-N.csv`) with a spreadsheet program and save it as CSV (UTF-8). Leave
the columns {", ".join(f"`{name}`" for name in COLUMNS)} and the first row as they are.
{mixed}
Rate on your own, every item by itself, and the same way from the first to the last. `{EMPTY}` is a
response without a word. Words such as `<unk>` stand for a word that the program does not know.
"""


def _article(key: Key, name: str, item: Item, place: int) -> str:
    asked = [
        _question(name, number, criterion, key.scale)
        for number, (criterion, wanted) in enumerate(zip(key.criteria, key.asks(item), strict=True))
        if wanted
    ]
    if item.kind == "response":
        context = key.contexts[item.unit]
        turns = "".join(map(_turn, context.turns))
        whose = f"Response of {escape(context.answerer)}" if context.answerer else "Response"
        said = f'<ol class="turns" aria-label="Conversation">\n{turns}</ol>\n'
        text = _text(item.responses[0])
        answer = f'<div class="response"><small>{whose}</small><p>{text}</p></div>\n'
    else:
        responses = "".join(f"<li>{_text(text)}</li>\n" for text in item.responses)
        said = ""
        answer = (
            '<div class="response"><small>Responses, each to another conversation</small>'
            f"<ol>\n{responses}</ol></div>\n"
        )
    of = f"Item {place} of {len(key.items)}"
    return (
        f'<article id="{name}">\n<p class="place">{of}</p>\n{said}{answer}'
        f"{''.join(asked)}</article>\n"
    )


def _turn(turn: Turn) -> str:
    speaker = escape(turn.speaker) or "–"
    return f"<li><b>{speaker}</b><span>{escape(turn.text)}</span></li>\n"


def _text(response: str) -> str:
    return escape(response) if response else f'<span class="empty">{EMPTY}</span>'


def _question(name: str, number: int, criterion: str, scale: int) -> str:
    field = _field(name, number)
    low, high = (end.strip().partition(" = ")[2] for end in ends(scale).split(","))
    choices = "".join(
        f'<label><input type="radio" name="{field}" value="{value}"><span>{value}</span></label>'
        for value in range(1, scale + 1)
    )
    return (
        f"<fieldset>\n<legend><strong>{escape(criterion)}</strong>"
        f"<span>{escape(QUESTIONS[criterion])}</span></legend>\n"
        f'<div class="scale"><small>{low}</small>{choices}<small>{high}</small></div>\n'
        "</fieldset>\n"
    )


def _field(name: str, number: int) -> str:
    return f"{name}-{number + 1}"


def _keys(scale: int) -> str:
    last = "0 for 10" if scale == 10 else str(scale)
    digits = f"<kbd>1</kbd> … <kbd>{min(scale, 9)}</kbd>" + (
        ", <kbd>0</kbd> for 10" if last != str(scale) else ""
    )
    return (
        f"{digits} rate and go on, <kbd>n</kbd> next item, <kbd>b</kbd> back, "
        "<kbd>u</kbd> next unrated, <kbd>s</kbd> save"
    )


def _plain_keys(scale: int) -> str:
    return _keys(scale).replace("<kbd>", "`").replace("</kbd>", "`")


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
