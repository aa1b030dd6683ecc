"""The verb that answers in dialogues."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncollapse.cli.app import (
    Device,
    Greedy,
    Index,
    MaxLength,
    Run,
    Temperature,
    TopP,
    Variable,
    app,
    decoding,
    load,
)
from uncollapse.errors import UserError

if TYPE_CHECKING:
    from uncollapse.responding import Response
    from uncollapse.text_vae import TextVAE

NEW = "/new"
USER, MODEL = "user", "model"  # who speaks in a conversation


@app.command()
def respond(
    run: Run,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="F",
            help="Dialogues to answer in, a file or a hub name: after all of the turns, or "
            "after the context of rows with context and response.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Answer in the first N dialogues of --data.")
    ] = None,
    n: Annotated[
        int, typer.Option("--n", "-n", help="Answers to each turn, or in each dialogue.")
    ] = 1,
    component: Annotated[
        str | None,
        typer.Option(metavar="X", help="Hold a discrete variable at this code or name."),
    ] = None,
    variable: Variable = None,
    index: Index = None,
    greedy: Greedy = False,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_length: MaxLength = 40,
    seed: Annotated[int | None, typer.Option(help="Of the draws.")] = None,
    device: Device = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object a line: context and responses.")
    ] = False,
) -> None:
    """Answer in dialogues: what is typed, or those of a file.

    Without --data, every line of standard input is a turn of yours; of the answers, the first
    becomes a turn of the dialogue. A line /new begins another dialogue, an empty line is
    skipped, and the end of the input (Ctrl-D) ends it.

    In front of an answer is its action, the code that a discrete variable had, and the name of
    that code if it has one.
    """
    if limit is not None and (data is None or limit < 1):
        what = "is of use with --data only" if data is None else f"must be at least 1, not {limit}"
        raise UserError(f"--limit {what}")
    if data == "-":
        raise UserError("--data must be a file or a hub name; lines of stdin are turns without it")
    vae = load(run, device)
    how = {
        "n": n,
        "component": component,
        "variable": variable,
        "index": index,
        **decoding(greedy, temperature, top_p, max_length),
    }
    # wrong options are said before anything is typed or read
    vae.respond([[]], seed=seed, **how)
    if data is None:
        _converse(vae, how, seed, as_json)
    else:
        _answer_file(vae, data, limit, {**how, "seed": seed}, as_json)


def _answer_file(
    vae: TextVAE, data: str, limit: int | None, how: Mapping[str, Any], as_json: bool
) -> None:
    from uncollapse.dialogues import read_dialogues

    dialogues = list(islice(read_dialogues(data, vae.recipe), limit))
    answers = vae.respond(dialogues, **how)
    for number, (dialogue, responses) in enumerate(zip(dialogues, answers, strict=True)):
        turns = dialogue["turns"]
        if as_json:
            print(_as_json(turns, responses))
            continue
        context = [turn if isinstance(turn, str) else _said(turn) for turn in turns]
        block = [*context, *(f"  {_shown(response)}" for response in responses)]
        print("\n" * (number > 0) + "\n".join(block))


def _converse(vae: TextVAE, how: Mapping[str, Any], seed: int | None, as_json: bool) -> None:
    seeds = random.Random(seed)
    turns: list[dict[str, str]] = []
    for line in _lines():
        if line == NEW:
            turns = []
        if line in ("", NEW):
            continue
        turns.append({"speaker": USER, "text": line})
        dialogue = {"turns": turns, "speaker": MODEL}
        (responses,) = vae.respond([dialogue], seed=seeds.randrange(2**32), **how)
        if as_json:
            print(_as_json(turns, responses), flush=True)
        else:
            print("\n".join(map(_shown, responses)), flush=True)
        turns.append({"speaker": MODEL, "text": responses[0].text})


def _lines() -> Iterator[str]:
    """What is typed, as it comes; where a person types, after a prompt."""
    prompt = "> " if _is_typed() else ""
    number = 0
    while True:
        print(prompt, end="", file=sys.stderr, flush=True)
        raw = sys.stdin.buffer.readline()
        if not raw:
            print("\n" * bool(prompt), end="", file=sys.stderr)
            return
        number += 1
        try:
            yield raw.decode().strip()
        except UnicodeDecodeError:
            raise UserError(f"standard input, line {number}: not valid UTF-8") from None


def _is_typed() -> bool:
    return sys.stdin.isatty()


def _shown(response: Response) -> str:
    parts = (response.action, response.name, response.text)
    return "  ".join(part for part in parts if part is not None)


def _said(turn: Mapping[str, str]) -> str:
    return f"{turn['speaker']}: {turn['text']}"


def _as_json(turns: Sequence[Any], responses: Sequence[Response]) -> str:
    found = [vars(response) for response in responses]
    return json.dumps({"context": turns, "responses": found}, ensure_ascii=False)
