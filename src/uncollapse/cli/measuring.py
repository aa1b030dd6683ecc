"""Verbs that measure and draw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uncollapse.cli.app import (
    DataFile,
    Device,
    Generated,
    Json,
    LabelColumn,
    Metrics,
    Run,
    Seed,
    Vectors,
    app,
    as_json_text,
    load,
    names_in,
    sentences_of,
)

NEW_FILE = ".svg, .pdf or .png; must not exist."


@app.command()
def evaluate(
    run: Run,
    data: DataFile,
    metrics: Metrics = "standard",
    train: Annotated[
        str | None, typer.Option("--train", metavar="F", help="Training sentences, for probes.")
    ] = None,
    label_column: LabelColumn = None,
    generated: Generated = 10_000,
    vectors: Vectors = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Most probable words in the generation probes.")
    ] = False,
    samples: Annotated[int, typer.Option(help="Importance samples S.")] = 500,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Does not change the figures.")] = 32,
    precision: Annotated[
        str, typer.Option(help="f32, or bf16: likelihoods twice as fast, and rounded.")
    ] = "f32",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model: NLL, PPL, KL, MI, active units …, with standard errors."""
    found = load(run, device).evaluate(
        sentences_of(data, None),
        names_in(metrics),
        train=train,
        label_column=label_column,
        samples=samples,
        generated=generated,
        vectors=vectors,
        greedy=greedy,
        seed=seed,
        batch_size=batch_size,
        precision=precision,  # type: ignore[arg-type]
    )
    if as_json:
        print(as_json_text({name: metric.to_dict() for name, metric in found.items()}))
        return
    shown = {name: metric.format() for name, metric in found.items()}
    widths = [max(map(len, column)) for column in (shown, shown.values())]
    for name, metric in found.items():
        cells = f"{name:<{widths[0]}}  {shown[name]:<{widths[1]}}  {metric.unit}"
        print(f"{cells}  [{metric.estimator}; {metric.samples:,} samples]")


@app.command()
def diagnose(run: Run, data: DataFile, device: Device = "auto", as_json: Json = False) -> None:
    """Say whether the latent is alive, on what evidence, and what helps."""
    verdict = load(run, device).diagnose(sentences_of(data, None))
    if as_json:
        found = {"state": verdict.state, "evidence": verdict.evidence, "advice": verdict.advice}
        print(as_json_text(found))
        return
    print(f"verdict   {verdict.state}\nevidence  {verdict.evidence}")
    if verdict.advice:
        print(f"advice    {verdict.advice}")


@app.command()
def plot(
    run: Run,
    what: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="training, latent-space, kl-per-dimension, aggregate-posterior, interpolation, "
            "lagging, components or components-over-training.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="F", help=f"{NEW_FILE} components-over-training: .gif too.")
    ],
    data: DataFile = "",
    group: Annotated[
        int, typer.Option(metavar="M", help="Which mixture of a latent, for components….")
    ] = 0,
    by: Annotated[
        str | None, typer.Option(help="component or label: what colours say in components….")
    ] = None,
    beside: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="A second model, for components.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw a figure of a model."""
    from uncollapse.report.figures import check_request, plot_run

    check_request(what, out, seed, group=group, by=by, beside=beside is not None)
    sentences = sentences_of(data, None) if data else None
    other = None if beside is None else load(beside, device)
    plot_run(load(run, device), what, sentences, out, seed=seed, group=group, by=by, beside=other)
    print(out)


@app.command()
def landscape(
    family: Annotated[
        str,
        typer.Argument(
            metavar="FAMILY",
            help="gaussian, known-variance-gaussian, categorical, bernoulli, gamma, beta, "
            "exponential, poisson, dirichlet or von-mises-fisher.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="F", help=NEW_FILE)],
    weight: Annotated[
        float, typer.Option(help="Of the first component; the second has the rest.")
    ] = 0.5,
) -> None:
    """Draw what melts the components of a mixture: dispersion and variance over two of them."""
    from uncollapse.report.figures import plot_landscape

    plot_landscape(family, out, weight=weight)
    print(out)
