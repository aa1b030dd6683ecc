"""Verbs that use a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from uncollapse.cli.app import (
    DataFile,
    Greedy,
    Index,
    Json,
    MaxLength,
    Run,
    Temperature,
    Texts,
    TopP,
    Variable,
    app,
    as_json_text,
    decoding,
    load,
    print_lines,
    say,
    sentences_of,
)
from uncollapse.errors import UserError


@app.command()
def sample(
    run: Run,
    n: Annotated[int, typer.Option("--n", "-n", help="Sentences, of each component.")] = 10,
    components: Annotated[
        list[str] | None,
        typer.Option(
            "--component",
            metavar="X",
            help="Hold a discrete variable at this code or name; can be repeated.",
        ),
    ] = None,
    variable: Variable = None,
    index: Index = None,
    greedy: Greedy = False,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_length: MaxLength = 100,
    seed: Annotated[int | None, typer.Option(help="Of the draws.")] = None,
    as_json: Json = False,
) -> None:
    """Write sentences from the prior, or from components of it."""
    how = decoding(greedy, temperature, top_p, max_length)
    vae = load(run)
    if not components:
        print_lines(vae.sample(n, variable=variable, index=index, seed=seed, **how), as_json)
        return
    from uncollapse.evaluation.codes import write_code
    from uncollapse.names import find_code

    headings = {}  # all of them, before any sentence is written
    for component in components:
        chosen, code = find_code(vae.model, vae.names, component, variable, index)
        written = write_code(code)
        name = vae.names.get(chosen, {}).get(written)
        headings[component] = written if name is None else f"{written}  {name}"
    held = {"variable": variable, "index": index}
    found = {
        component: vae.sample(n, component=component, seed=seed, **held, **how)
        for component in headings
    }
    if as_json:
        print(as_json_text(found))
        return
    blocks = ["\n  ".join([headings[component], *texts]) for component, texts in found.items()]
    print("\n\n".join(blocks))


@app.command()
def reconstruct(
    run: Run,
    texts: Texts = None,
    data: DataFile = "",
    max_length: MaxLength = 100,
    as_json: Json = False,
) -> None:
    """Encode sentences and decode them again."""
    vae = load(run)
    print_lines(vae.reconstruct(sentences_of(data, texts), max_length=max_length), as_json)


@app.command()
def interpolate(
    run: Run,
    start: Annotated[str, typer.Argument(help="The first sentence.")],
    end: Annotated[str, typer.Argument(help="The last sentence.")],
    steps: Annotated[int, typer.Option(help="Sentences, ends included.")] = 7,
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TURN",
            help="What was said before, oldest first; can be repeated. Both sentences, and those "
            "between them, are responses to it.",
        ),
    ] = None,
    max_length: MaxLength = 100,
    as_json: Json = False,
) -> None:
    """Write the sentences between two sentences."""
    vae = load(run)
    found = vae.interpolate(start, end, steps, context=context or None, max_length=max_length)
    print_lines(found, as_json)


@app.command()
def encode(
    run: Run,
    texts: Texts = None,
    data: DataFile = "",
    out: Annotated[
        Path | None, typer.Option(metavar="F", help="A .npy file that must not exist.")
    ] = None,
) -> None:
    """Turn sentences into vectors (posterior means): .npy, or a JSON list a line."""
    import numpy as np

    if out is not None and (out.exists() or out.suffix != ".npy"):
        raise UserError(f"{out} exists already" if out.exists() else f"{out} must end in .npy")
    if out is not None and not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}")
    vectors = load(run).encode(sentences_of(data, texts))
    if out is None:
        for vector in vectors.tolist():
            print(json.dumps(vector))
        return
    temporary = out.with_name(f".{out.name}.tmp.npy")
    try:
        np.save(temporary, vectors)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    say(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} numbers in {out}")
