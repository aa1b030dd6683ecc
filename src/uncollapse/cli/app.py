"""The program itself, its options, and how errors reach the user."""

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

SHARED = ("train", "evaluate")  # verbs that are meant for several processes at once


@app.callback()
def refuse_several_processes(context: typer.Context) -> None:
    """Every process would write the same files, or ask the same of the same machine."""
    world = os.environ.get("WORLD_SIZE", "1")  # as torchrun sets it
    verb = context.invoked_subcommand
    if verb not in SHARED and world.isdecimal() and int(world) > 1:
        raise UserError(
            f"{verb} is for one process, and WORLD_SIZE is {world}; "
            f"under torchrun, {' and '.join(SHARED)} alone may run"
        )


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
Metrics = Annotated[
    str,
    typer.Option(
        help="Figures, comma-separated, or groups: standard, generation, representation, "
        "supervised, geometry, clusters, dialogue."
    ),
]
LabelColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Where the labels are, for probes and clusters.")
]
Variable = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Discrete variable, e.g. z.component; default: the first."),
]
Index = Annotated[
    int | None, typer.Option(metavar="I", help="One index of the variable; default: all together.")
]
Generated = Annotated[
    int, typer.Option(help="Sentences that generation probes write; responses of dialogue's.")
]
Vectors = Annotated[
    Path | None,
    typer.Option(metavar="F", help="Word vectors for dialogue; default: trained on --train."),
]
Jobs = Annotated[int, typer.Option(help="Runs side by side.")]
Cluster = Annotated[
    str | None, typer.Option(metavar="NAME", help="slurm or local: hand the runs to submitit.")
]
ClusterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster-option",
        metavar="KEY=VALUE",
        help="For submitit, e.g. slurm_partition=gpu, timeout_min=600; can be repeated.",
    ),
]
Texts = Annotated[list[str] | None, typer.Argument(metavar="TEXT…", help="Sentences.")]


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


def say(line: str) -> None:
    """Write a line to stderr."""
    print(line, file=sys.stderr)


def load(run: Path, device: str = "auto") -> TextVAE:
    """Open a run."""
    from uncollapse import TextVAE

    return TextVAE.from_pretrained(run).to(device)


def decoding(greedy: bool, temperature: float, top_p: float, max_length: int) -> dict[str, Any]:
    """Options of decoding, as TextVAE takes them."""
    method = "greedy" if greedy else "sample"
    return {
        "method": method,
        "temperature": temperature,
        "top_p": top_p,
        "max_length": max_length,
    }


def sentences_of(data: str, texts: Sequence[str] | None) -> str | list[str]:
    """Sentences given on the command line, on stdin, or as a source."""
    if data and texts:
        raise UserError("give sentences or --data, not both")
    if texts:
        return list(texts)
    if data == "-":
        try:
            lines = sys.stdin.buffer.read().decode().splitlines()
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise UserError(f"standard input, line {line}: not valid UTF-8") from None
        return [line for line in lines if line.strip()]
    if not data:
        raise UserError("give sentences, or --data FILE (- for stdin)")
    return data


def names_in(text: str) -> list[str]:
    """Names separated by commas.

    Raises
    ------
    UserError
        If one is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"--metrics {text!r} lacks a name; write names with commas between them")
    return names


def options_of(given: list[str] | None) -> dict[str, Any]:
    """Options of a cluster: numbers, ``true``, ``false``, and text, such as ``24:00:00``.

    Raises
    ------
    UserError
        If one has no ``=``.
    """
    found: dict[str, Any] = {}
    for option in given or ():
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise UserError(f"cannot read --cluster-option {option!r}; write KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def print_lines(lines: Sequence[str], as_json: bool) -> None:
    """Print sentences, a line each."""
    print(as_json_text(list(lines)) if as_json else "\n".join(lines))


def as_json_text(value: Any) -> str:
    """JSON for stdout."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
