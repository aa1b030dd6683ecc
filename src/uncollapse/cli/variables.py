"""Verbs about discrete variables: what their values stand for, and which a sentence has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncollapse.cli.app import (
    DataFile,
    Device,
    Index,
    Json,
    LabelColumn,
    Run,
    Texts,
    Variable,
    app,
    as_json_text,
    load,
    say,
    sentences_of,
)

if TYPE_CHECKING:
    import numpy as np

    from uncollapse.text_vae import TextVAE


@app.command()
def clusters(
    run: Run,
    data: DataFile,
    variable: Variable = None,
    index: Index = None,
    label_column: LabelColumn = None,
    names: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            help="Names to keep with the run: YAML, {variable: {code: name}}.",
        ),
    ] = None,
    examples: Annotated[int, typer.Option(help="Sentences of each cluster.")] = 5,
    words: Annotated[int, typer.Option(help="Words of each cluster.")] = 8,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say what values of a discrete variable stand for."""
    from uncollapse.names import FILE, write_names

    vae = load(run, device)
    known = vae.names
    if names is not None:
        vae.name_components(names, index=index)
    found = vae.clusters(
        sentences_of(data, None),
        variable,
        index,
        label_column=label_column,
        examples=examples,
        words=words,
    )
    if names is not None:
        if vae.names != known:
            write_names(run, vae.names)
        count = sum(map(len, vae.names.values()))
        say(f"{count:,} name{'' if count == 1 else 's'} in {run / FILE}")
    print(as_json_text(found.to_dict()) if as_json else found.to_text())


@app.command()
def predict(
    run: Run,
    texts: Texts = None,
    data: DataFile = "",
    variable: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Discrete variable, or supervised column."),
    ] = None,
    index: Index = None,
    proba: Annotated[
        bool, typer.Option("--proba", help="Probabilities of all values, a JSON value a line.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Tell which code or class each sentence has.

    A discrete variable gives codes, a supervised column classes.
    Behind a code is its name, where it has one.
    """
    vae = load(run, device)
    sentences = sentences_of(data, texts)
    rows: list[Any]
    if proba:
        rows = vae.predict_proba(sentences, variable, index).tolist()
        if variable in vae.classes and variable not in vae.model.variable_sizes():
            rows = [dict(zip(vae.classes[variable], row, strict=True)) for row in rows]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    else:
        values = vae.predict(sentences, variable, index)
        if values.dtype == object:
            rows = lines = values.tolist()
        else:
            rows = _with_names(vae, values, variable, index)
            lines = ["\t".join(filter(None, row.values())) for row in rows]
    print(as_json_text(rows) if as_json else "\n".join(lines))


def _with_names(
    vae: TextVAE, values: np.ndarray, variable: str | None, index: int | None
) -> list[dict[str, str | None]]:
    """Codes as they are written, and their names."""
    from uncollapse.evaluation.codes import choose_variable, write_code
    from uncollapse.names import names_at

    chosen = choose_variable(vae.model, variable)
    names = names_at(vae.names.get(chosen, {}), vae.model.variable_sizes()[chosen], index)
    codes = [write_code(tuple(code)) for code in values.reshape(len(values), -1).tolist()]
    return [{"code": code, "name": names.get(code)} for code in codes]
