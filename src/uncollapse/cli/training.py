"""Verbs that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uncollapse.cli.app import (
    Cluster,
    ClusterOption,
    Device,
    Generated,
    Jobs,
    Json,
    LabelColumn,
    Metrics,
    Seed,
    Set,
    Vectors,
    app,
    as_json_text,
    names_in,
    options_of,
    say,
)
from uncollapse.errors import UserError


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a .yaml file.")],
    train: Annotated[str, typer.Option("--train", metavar="F", help="Training sentences.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run folder; must not exist.")],
    validation: Annotated[
        str | None, typer.Option(metavar="F", help="Default: 5 % of the training sentences.")
    ] = None,
    overrides: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print each value of the recipe and its origin.")
    ] = False,
) -> None:
    """Train a recipe on a file."""
    if dry_run:
        from uncollapse.recipes import explain_recipe

        print(explain_recipe(recipe, overrides or ()))
        return
    from uncollapse import TextVAE

    vae = TextVAE.from_recipe(recipe, overrides=overrides or ())
    vae.fit(train, validation=validation, out=out, seed=seed, device=device, resume=resume, say=say)
    print(out)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE…")],
    train: Annotated[str, typer.Option("--train", metavar="F", help="Training sentences.")],
    test: Annotated[str, typer.Option(metavar="F", help="Sentences to measure on.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Finished runs in it are kept.")],
    validation: Annotated[str | None, typer.Option(metavar="F")] = None,
    overrides: Set = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2…", help="Train once for each value of a key."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each recipe.")] = 1,
    metrics: Metrics = "standard",
    label_column: LabelColumn = None,
    samples: Annotated[int, typer.Option(help="Importance samples.")] = 500,
    generated: Generated = 10_000,
    vectors: Vectors = None,
    entropy_floor: Annotated[
        float | None, typer.Option(help="Known entropy of the language, nats per sentence.")
    ] = None,
    jobs: Jobs = 1,
    cluster: Cluster = None,
    cluster_option: ClusterOption = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train several recipes, print one table and write one page."""
    from uncollapse.benchmark.compare import IncompleteComparison, compare

    if len(sweep or []) > 1:
        raise UserError("give one --sweep: a comparison varies one key")
    failure = None
    try:
        result = compare(
            recipes,
            train,
            test,
            out,
            validation=validation,
            overrides=overrides or (),
            sweep=sweep[0] if sweep else None,
            seeds=seeds,
            metrics=names_in(metrics),
            label_column=label_column,
            samples=samples,
            generated=generated,
            vectors=vectors,
            entropy_floor=entropy_floor,
            jobs=jobs,
            cluster=cluster,
            cluster_options=options_of(cluster_option),
            device=device,
            say=say,
        )
    except IncompleteComparison as error:
        result, failure = error.comparison, error
    print(as_json_text(result.to_dict()) if as_json else result.to_text())
    say(f"page: {out / 'index.html'}")
    if failure is not None:
        raise failure
