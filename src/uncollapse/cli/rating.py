"""Verbs with which people judge responses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uncollapse.cli.app import (
    Device,
    Greedy,
    Json,
    MaxLength,
    Temperature,
    TopP,
    app,
    as_json_text,
    decoding,
    say,
)
from uncollapse.errors import UserError

rate_app = typer.Typer(help="Have people rate responses, blind, and count what they say.")
app.add_typer(rate_app, name="rate")


@rate_app.command("export")
def rate_export(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders.")],
    data: Annotated[
        str, typer.Option("--data", metavar="F", help="Dialogues: a file, or a hub name.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder that must not exist.")],
    contexts: Annotated[int, typer.Option(help="Contexts, picked at random.")] = 50,
    raters: Annotated[int, typer.Option(help="People; each rates everything.")] = 3,
    criteria: Annotated[
        str,
        typer.Option(
            help="Comma-separated: fluency, relevance, informativeness, quality, consistency."
        ),
    ] = "fluency,relevance,informativeness",
    scale: Annotated[int, typer.Option(help="The highest rating; the lowest is 1.")] = 3,
    n: Annotated[int, typer.Option("--n", "-n", help="Responses to each context.")] = 1,
    actions: Annotated[int, typer.Option(help="Actions of each run, for consistency.")] = 20,
    seed: Annotated[int, typer.Option(help="Of contexts and responses.")] = 0,
    greedy: Greedy = False,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_length: MaxLength = 40,
    device: Device = "auto",
) -> None:
    """Write sheets and forms on which people rate the responses of several runs."""
    from uncollapse.rating import export

    names = [name.strip() for name in criteria.split(",")]
    if not all(names):
        raise UserError(f"--criteria {criteria!r} lacks a name; write names with commas between")
    export(
        runs,
        data,
        out,
        contexts=contexts,
        raters=raters,
        criteria=names,
        scale=scale,
        n=n,
        actions=actions,
        seed=seed,
        device=device,
        say=say,
        **decoding(greedy, temperature, top_p, max_length),
    )
    say("give each rater instructions.md and a form (or sheet); keep key.json to yourself")
    print(out)


@rate_app.command("score")
def rate_score(
    study: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What export made, or its key.json.")
    ],
    sheets: Annotated[
        list[Path], typer.Argument(metavar="SHEET…", help="CSV files that raters filled in.")
    ],
    accept: Annotated[
        int | None, typer.Option(help="Accepted from this rating on; default: the middle.")
    ] = None,
    high: Annotated[
        int | None, typer.Option(help="High from this rating on; default: the end of the scale.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Test the others against this; default: all pairs."),
    ] = None,
    level: Annotated[
        str, typer.Option(help="Ratings as α takes them: ordinal, nominal, interval or ratio.")
    ] = "ordinal",
    allow_holes: Annotated[
        bool, typer.Option("--allow-holes", help="Count sheets with missing ratings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count ratings: means, agreement of the raters, and which run is rated higher."""
    from uncollapse.rating import score

    found = score(
        study,
        sheets,
        accept=accept,
        high=high,
        baseline=baseline,
        level=level,  # type: ignore[arg-type]
        allow_holes=allow_holes,
    )
    print(as_json_text(found.to_dict()) if as_json else found.to_text())
