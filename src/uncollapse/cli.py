"""The same verbs from a shell. Data goes to stdout, everything else to stderr.

Nothing heavy is imported until a verb needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from uncollapse.errors import UncollapseError, UserError

if TYPE_CHECKING:
    from uncollapse.text_vae import TextVAE

# typer brings its own copy of click, or uses the installed one; both hang below this class
ClickException: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="uncollapse",
    help="Variational autoencoders of text whose latent variables stay alive.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at data, or make some.")
app.add_typer(data_app, name="data")

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder or saved model.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, e.g. "
                 "training.max_epochs=5; can be repeated."),
]  # fmt: skip
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Most probable words, not draws.")]
Temperature = Annotated[float, typer.Option(help="Divides the logits before a draw.")]
TopP = Annotated[float, typer.Option(help="Draw from the nucleus of this probability.")]
MaxLength = Annotated[int, typer.Option(help="Words after which a sentence is cut.")]
DataFile = Annotated[
    str, typer.Option("--data", metavar="F", help="Sentences: a file, - for stdin, or a hub name.")
]
Texts = Annotated[list[str] | None, typer.Argument(metavar="TEXT…", help="Sentences.")]


def main() -> None:
    """Run the program."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    with report_errors():
        sys.exit(app(standalone_mode=False) or 0)


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn every error that a user can mend into one line on stderr and an exit code."""
    try:
        yield
    except UncollapseError as error:
        _fail(str(error), error.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except ClickException as error:
        _fail(error.format_message(), error.exit_code)  # type: ignore[attr-defined]
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)


def _fail(message: str, code: int) -> NoReturn:
    print(f"uncollapse: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


# --- recipes and data -----------------------------------------------------------------------


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
        print(_json(recipe_schema()))
        return

    if name is not None:
        recipe = load_recipe(name)
        print(_json(recipe.model_dump(mode="json")) if as_json else recipe_to_yaml(recipe).rstrip())
        return
    found = [load_recipe(known) for known in recipe_names()]
    if as_json:
        rows = [{"name": r.name, "summary": r.summary, "source": r.source} for r in found]
        print(_json(rows))
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
    )
    print(_json(report.to_dict()) if as_json else report.to_text())


@data_app.command("grammar")
def data_grammar(
    out: Annotated[Path, typer.Option(metavar="F", help=".jsonl, .csv or .txt; must not exist.")],
    n: Annotated[int, typer.Option("--n", help="Sentences.")] = 10_000,
    seed: Seed = 0,
) -> None:
    """Write sentences of the embedded grammar, with intents and exact log-probabilities."""
    from uncollapse.data.grammar import assistant_grammar, write_grammar

    write_grammar(out, n, seed)
    entropy = assistant_grammar().entropy()
    _say(f"{n:,} sentences in {out}; entropy of the grammar {entropy:.4f} nats per sentence")


# --- training ---------------------------------------------------------------------------------


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
    vae.fit(
        train, validation=validation, out=out, seed=seed, device=device, resume=resume, say=_say
    )
    print(out)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE…")],
    train: Annotated[str, typer.Option("--train", metavar="F", help="Training sentences.")],
    test: Annotated[str, typer.Option(metavar="F", help="Sentences to measure on.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Finished runs in it are kept.")],
    validation: Annotated[str | None, typer.Option(metavar="F")] = None,
    overrides: Set = None,
    seeds: Annotated[int, typer.Option(help="Runs of each recipe.")] = 1,
    samples: Annotated[int, typer.Option(help="Importance samples.")] = 500,
    entropy_floor: Annotated[
        float | None, typer.Option(help="Known entropy of the language, nats per sentence.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train several recipes, print one table and write one page."""
    from uncollapse.benchmark.compare import IncompleteComparison, compare

    failure = None
    try:
        result = compare(
            recipes,
            train,
            test,
            out,
            validation=validation,
            overrides=overrides or (),
            seeds=seeds,
            samples=samples,
            entropy_floor=entropy_floor,
            device=device,
            say=_say,
        )
    except IncompleteComparison as error:
        result, failure = error.comparison, error
    print(_json(result.to_dict()) if as_json else result.to_text())
    _say(f"page: {out / 'index.html'}")
    if failure is not None:
        raise failure


# --- measuring --------------------------------------------------------------------------------


@app.command()
def evaluate(
    run: Run,
    data: DataFile,
    metrics: Annotated[str | None, typer.Option(help="Names, comma-separated.")] = None,
    samples: Annotated[int, typer.Option(help="Importance samples S.")] = 500,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Does not change the figures.")] = 32,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model: NLL, PPL, KL, MI, active units …, with standard errors."""
    names = [name.strip() for name in metrics.split(",")] if metrics is not None else None
    found = _load(run, device).evaluate(
        _sentences(data, None), names, samples=samples, seed=seed, batch_size=batch_size
    )
    if as_json:
        print(_json({name: metric.to_dict() for name, metric in found.items()}))
        return
    shown = {name: metric.format() for name, metric in found.items()}
    widths = [max(map(len, column)) for column in (shown, shown.values())]
    for name, metric in found.items():
        cells = f"{name:<{widths[0]}}  {shown[name]:<{widths[1]}}  {metric.unit}"
        print(f"{cells}  [{metric.estimator}; {metric.samples:,} samples]")


@app.command()
def diagnose(run: Run, data: DataFile, device: Device = "auto", as_json: Json = False) -> None:
    """Say whether the latent is alive, on what evidence, and what helps."""
    verdict = _load(run, device).diagnose(_sentences(data, None))
    if as_json:
        found = {"state": verdict.state, "evidence": verdict.evidence, "advice": verdict.advice}
        print(_json(found))
        return
    print(f"verdict   {verdict.state}\nevidence  {verdict.evidence}")
    if verdict.advice:
        print(f"advice    {verdict.advice}")


# --- using ------------------------------------------------------------------------------------


@app.command()
def sample(
    run: Run,
    n: Annotated[int, typer.Option("--n", "-n", help="Sentences.")] = 10,
    greedy: Greedy = False,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_length: MaxLength = 100,
    seed: Annotated[int | None, typer.Option(help="Of the draws.")] = None,
    as_json: Json = False,
) -> None:
    """Write sentences from the prior."""
    how = _how(greedy, temperature, top_p, max_length)
    _print_lines(_load(run).sample(n, seed=seed, **how), as_json)


@app.command()
def reconstruct(
    run: Run,
    texts: Texts = None,
    data: DataFile = "",
    max_length: MaxLength = 100,
    as_json: Json = False,
) -> None:
    """Encode sentences and decode them again."""
    vae = _load(run)
    _print_lines(vae.reconstruct(_sentences(data, texts), max_length=max_length), as_json)


@app.command()
def interpolate(
    run: Run,
    start: Annotated[str, typer.Argument(help="The first sentence.")],
    end: Annotated[str, typer.Argument(help="The last sentence.")],
    steps: Annotated[int, typer.Option(help="Sentences, ends included.")] = 7,
    max_length: MaxLength = 100,
    as_json: Json = False,
) -> None:
    """Write the sentences between two sentences."""
    _print_lines(_load(run).interpolate(start, end, steps, max_length=max_length), as_json)


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
    vectors = _load(run).encode(_sentences(data, texts))
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
    _say(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} numbers in {out}")


def _load(run: Path, device: str = "auto") -> TextVAE:
    from uncollapse import TextVAE

    return TextVAE.from_pretrained(run).to(device)


def _how(greedy: bool, temperature: float, top_p: float, max_length: int) -> dict[str, Any]:
    method = "greedy" if greedy else "sample"
    return {
        "method": method,
        "temperature": temperature,
        "top_p": top_p,
        "max_length": max_length,
    }


def _sentences(data: str, texts: Sequence[str] | None) -> str | list[str]:
    if data and texts:
        raise UserError("give sentences or --data, not both")
    if texts:
        return list(texts)
    if data == "-":
        lines = sys.stdin.buffer.read().decode("utf-8", errors="strict").splitlines()
        return [line for line in lines if line.strip()]
    if not data:
        raise UserError("give sentences, or --data FILE (- for stdin)")
    return data


def _print_lines(lines: Sequence[str], as_json: bool) -> None:
    print(_json(list(lines)) if as_json else "\n".join(lines))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)


if __name__ == "__main__":
    main()
