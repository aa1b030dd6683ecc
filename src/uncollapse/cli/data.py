"""Verbs that look at recipes and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uncollapse.cli.app import Json, Seed, app, as_json_text, say

Corpora = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the corpora; default: UNCOLLAPSE_CORPORA."),
]

data_app = typer.Typer(help="Look at data, or make some.")
app.add_typer(data_app, name="data")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipe files, for editors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the recipes, or show one with every default spelled out."""
    from uncollapse.recipes import load_recipe, recipe_names, recipe_schema, recipe_to_yaml

    if schema:
        print(as_json_text(recipe_schema()))
        return

    if name is not None:
        recipe = load_recipe(name)
        print(
            as_json_text(recipe.model_dump(mode="json"))
            if as_json
            else recipe_to_yaml(recipe).rstrip()
        )
        return
    found = [load_recipe(known) for known in recipe_names()]
    if as_json:
        rows = [{"name": r.name, "summary": r.summary, "source": r.source} for r in found]
        print(as_json_text(rows))
        return
    width = max(len(recipe.name) for recipe in found)
    for recipe in found:
        print(f"{recipe.name:<{width}}  {recipe.summary}")


@data_app.command("check")
def data_check(
    file: Annotated[str, typer.Argument(metavar="FILE")],
    tokenizer: Annotated[str, typer.Option(help="whitespace, words or bpe.")] = "whitespace",
    text_column: Annotated[str, typer.Option()] = "text",
    label_column: Annotated[str | None, typer.Option()] = None,
    max_length: Annotated[int, typer.Option(help="Count longer sentences.")] = 200,
    vocabulary_size: Annotated[int | None, typer.Option()] = 20_000,
    min_count: Annotated[int, typer.Option()] = 1,
    train: Annotated[str | None, typer.Option(help="Learn the vocabulary from this file.")] = None,
    context_turns: Annotated[
        int | None, typer.Option(min=0, help="Count longer contexts, in dialogues.")
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Another split: count shared sentences.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what was understood of a file: columns, lengths, unknown words, duplicates."""
    from uncollapse.data.check import check

    report = check(
        file,
        tokenizer,  # type: ignore[arg-type]
        text_column,
        label_column,
        max_length,
        against=against or (),
        train=train,
        vocabulary_size=vocabulary_size,
        min_count=min_count,
        context_turns=context_turns,
    )
    print(as_json_text(report.to_dict()) if as_json else report.to_text())


@data_app.command("grammar")
def data_grammar(
    out: Annotated[Path, typer.Option(metavar="F", help=".jsonl, .csv or .txt; must not exist.")],
    n: Annotated[int, typer.Option("--n", "-n", help="Sentences.")] = 10_000,
    seed: Seed = 0,
) -> None:
    """Write sentences of the embedded grammar, with intents and exact log-probabilities."""
    from uncollapse.data.grammar import assistant_grammar, write_grammar

    write_grammar(out, n, seed)
    entropy = assistant_grammar().entropy()
    say(f"{n:,} sentences in {out}; entropy of the grammar {entropy:.4f} nats per sentence")


@data_app.command("corpora")
def data_corpora(
    name: Annotated[str | None, typer.Argument(help="Say all that is known of this one.")] = None,
    corpora: Corpora = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compute every checksum anew.")] = False,
    as_json: Json = False,
) -> None:
    """List the papers' corpora: which are here, where the others are."""
    from dataclasses import asdict

    from uncollapse.corpora.overview import describe, describe_text, status, status_table

    if name is not None:
        values = describe(name, corpora, fresh=verify)
        print(as_json_text(values) if as_json else describe_text(values))
        return
    rows = status(corpora, fresh=verify)
    print(as_json_text([asdict(row) for row in rows]) if as_json else status_table(rows))


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A corpus whose licence allows it.")],
    corpora: Corpora = None,
    archive: Annotated[
        Path | None,
        typer.Option(metavar="F", help="A copy of the published archive, not the network."),
    ] = None,
) -> None:
    """Fetch a corpus, where its licence allows it."""
    from uncollapse.corpora import fetch, load_corpus, load_edition

    found = fetch(name, corpora, archive=archive, say=say)
    corpus, edition = load_corpus(name), load_edition(found.edition)
    sizes = " / ".join(f"{count:,}" for count in edition.sizes.values())
    say(f"{found.files['train'].parent}: {sizes} {edition.unit}")
    say(f"licence: {corpus.licence}; please cite {corpus.paper}")
