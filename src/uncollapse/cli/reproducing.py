"""Verbs that repeat the papers' tables, and rank all systems."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from uncollapse.cli.app import (
    Cluster,
    ClusterOption,
    Device,
    Jobs,
    Json,
    app,
    as_json_text,
    options_of,
    say,
)
from uncollapse.errors import UserError

Preset = Annotated[
    str,
    typer.Option(help="small: two cores, about an hour a table; paper: the papers' own setting."),
]
Corpora = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar="UNCOLLAPSE_CORPORA",
        help="Folder of the corpora; see `uncollapse data corpora`.",
    ),
]
Seeds = Annotated[int, typer.Option(help="Runs a system.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder that all reproductions share.")]


@app.command()
def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="E.g. bn-table1; none: list them.")
    ] = None,
    preset: Preset = "small",
    corpora: Corpora = None,
    seeds: Seeds = 1,
    jobs: Jobs = 1,
    out: Out = Path("reproductions"),
    cluster: Cluster = None,
    cluster_option: ClusterOption = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Repeat a table or figure of the papers, and lay theirs and ours side by side."""
    if name is None:
        _list(as_json)
        return
    from uncollapse.reproduction.reproduce import reproduce as run

    _print(
        lambda: run(
            name,
            out,
            preset=preset,
            corpora=corpora,
            seeds=seeds,
            jobs=jobs,
            cluster=cluster,
            cluster_options=options_of(cluster_option),
            device=device,
            say=say,
        ),
        as_json,
    )


def _print(run: Callable[[], Any], as_json: bool) -> None:
    """Print what was found, also where some runs failed."""
    from uncollapse.reproduction.reproduce import Incomplete

    failed = None
    try:
        found = run()
    except Incomplete as error:
        found, failed = error.found, error
    print(as_json_text(found.to_dict()) if as_json else found.to_markdown())
    if failed is not None:
        sys.stdout.flush()
        raise failed


def _list(as_json: bool) -> None:
    from uncollapse.reproduction.published import load_published, published_names

    found = [load_published(name) for name in published_names()]
    if as_json:
        rows = [{"name": p.name, "title": p.title, "source": p.source} for p in found]
        print(as_json_text(rows))
        return
    width = max(len(p.name) for p in found)
    for published in found:
        print(f"{published.name:<{width}}  {published.title}")


@app.command()
def leaderboard(
    preset: Preset = "small",
    corpora: Corpora = None,
    on: Annotated[
        str, typer.Option(metavar="NAMES", help="Corpora, comma-separated; default: all here.")
    ] = "",
    systems: Annotated[
        str, typer.Option(metavar="NAMES", help="Recipes, comma-separated; default: all.")
    ] = "",
    seeds: Seeds = 1,
    jobs: Jobs = 1,
    out: Out = Path("reproductions"),
    cluster: Cluster = None,
    cluster_option: ClusterOption = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train all systems on all corpora, and say which to use when."""
    from uncollapse.reproduction.all_systems import leaderboard as run

    _print(
        lambda: run(
            out,
            preset=preset,
            corpora=corpora,
            on=_names(on, "--on"),
            systems=_names(systems, "--systems"),
            seeds=seeds,
            jobs=jobs,
            cluster=cluster,
            cluster_options=options_of(cluster_option),
            device=device,
            say=say,
        ),
        as_json,
    )


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else []
    if not all(names):
        raise UserError(f"{option} {text!r} lacks a name; write names with commas between them")
    return names
