"""Train several recipes on the same data, measure them alike, and lay them side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uncollapse.benchmark.folder import check_recipe, check_settings, settings_of, start
from uncollapse.benchmark.measuring import Measurement
from uncollapse.benchmark.plans import Plan, make_plans
from uncollapse.benchmark.request import check_measurement, check_portable, require_sentences
from uncollapse.benchmark.running import ComparedRun
from uncollapse.benchmark.summary import RunSummary, TestSentences
from uncollapse.data.vectors import read_vectors
from uncollapse.errors import RunError, UserError
from uncollapse.jobs.job import Outcome, one_line
from uncollapse.jobs.running import check_request, run_all
from uncollapse.loading import Data
from uncollapse.report.comparison import Comparison, Failure
from uncollapse.training.signals import Interrupted

HELD_OUT = "5 % of the training sentences (at most 2,000), held out at random"


class IncompleteComparison(RunError):  # noqa: N818 (an outcome that still has results)
    """Some runs failed; ``comparison`` holds the others, and all is written."""

    def __init__(self, comparison: Comparison) -> None:
        first, *others = comparison.failure_lines()
        more = f" (and {len(others)} more)" if others else ""
        super().__init__(f"{first}{more}")
        self.comparison = comparison


def compare(
    recipes: Sequence[str | Path],
    train: Data,
    test: Data,
    out: str | Path,
    *,
    validation: Data | None = None,
    seeds: int = 1,
    latent_dim: int | None = None,
    overrides: Iterable[str] = (),
    sweep: str | None = None,
    metrics: Sequence[str] = ("standard",),
    label_column: str | None = None,
    samples: int = 500,
    generated: int = 10_000,
    vectors: str | Path | None = None,
    entropy_floor: float | None = None,
    jobs: int = 1,
    cluster: str | None = None,
    cluster_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Train each recipe with each seed into ``out/RECIPE/seed-K`` and measure it on ``test``.

    With a sweep, once for every value, into ``out/RECIPE,KEY=VALUE/seed-K``.

    Runs that are finished are not computed again, and an interrupted one is resumed, so that
    the same call can simply be repeated. One failing run does not stop the others.

    Parameters
    ----------
    recipes : sequence of str or Path
        Names or recipe files.
    train, test, validation : path, hub data set name or sequence of str
        Without ``validation``, 5 % of the training sentences, at most 2,000, are held out: the
        same ones for every recipe and seed.
    out : path
        A new folder, or that of the same comparison; recipes, seeds and values of a sweep may
        be added to it.
    seeds : int
        Runs a recipe, seeds 0, 1, ….
    latent_dim : int, optional
        Dimensions of every latent.
    overrides : iterable of str
        ``"section.key=value"`` for every recipe. Those of ``encoder`` and ``latents`` pass by a
        language model, which has neither.
    sweep : str, optional
        ``"section.key=value,value,…"``: every recipe is trained once a value, and is called
        e.g. ``dgm-vae, beta=0.2``. Recipes without the key are trained once.
    metrics : sequence of str
        Figures or groups of them, as `TextVAE.evaluate` takes them.
    label_column : str, optional
        Where the labels are, for the probes of representation, clusters and dialogue.
    samples : int
        Importance samples of the likelihood.
    generated : int
        Sentences that the generation probes write, and responses those of dialogue.
    vectors : path, optional
        Word vectors for the probes of dialogue; without it they are trained on ``train``.
    entropy_floor : float, optional
        Exact entropy of the language in nats per sentence, if it is known.
    jobs : int
        Runs side by side, each in a process of its own whose log is in ``out/logs``; on a cluster,
        at most so many at a time. A single one runs in this process.
    cluster : {'slurm', 'local'}, optional
        Hand the runs to submitit; data and ``out`` must be where all machines see them.
    cluster_options : mapping, optional
        Parameters of submitit's executor, e.g. ``{"slurm_partition": "gpu"}``.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    progress : bool
        Show progress bars where stderr is a terminal and runs are in this process.
    say : callable, optional
        Gets a line for each step.

    Returns
    -------
    Comparison
        Also written to ``out`` as ``comparison.json``, ``comparison.md`` and ``index.html``,
        and the trade-off of a sweep as ``sweep.svg``.

    Raises
    ------
    UserError
        Bad data or settings, or a folder made with others; nothing has been written.
    IncompleteComparison
        At the end, if any run failed; the page tells of the others.
    Interrupted
        SIGINT or SIGTERM, after a checkpoint of each run that was running.
    """
    say = say or (lambda _: None)
    out, overrides = Path(out), tuple(overrides)
    check_request(seeds, jobs, cluster, cluster_options or {}, device)
    if entropy_floor is not None and not 0 <= entropy_floor < math.inf:
        raise UserError(f"the entropy floor must be finite and not negative, not {entropy_floor}")
    plans, varied = make_plans(recipes, latent_dim, overrides, sweep)
    given = {"train": train, "validation": validation, "test": test}
    named = None if vectors is None else str(vectors)
    wanted = Measurement(tuple(metrics), samples, label_column, generated, named)
    for plan in plans:
        for what, data in (("training", train), ("validation", validation), ("test", test)):
            require_sentences(what, data, plan.recipe.data.text_column)
        check_measurement(plan.recipe, wanted, train, test)
        if jobs > 1 or cluster is not None:
            check_portable(plan.recipe)
    if vectors is not None:
        read_vectors(vectors, words=())  # a faulty line is better known before the training
    sentences = _read_sentences(plans, test)
    settings = settings_of(given, wanted)
    check_settings(out, settings)
    runs = [
        ComparedRun(
            plan,
            seed,
            out / plan.folder / f"seed-{seed}",
            train,
            validation,
            test,
            sentences[plan.name],
            wanted,
            device,
        )
        for plan in plans
        for seed in range(seeds)
    ]
    for run in runs:
        check_recipe(run.folder, run.plan.recipe)
    start(out, settings)

    cause = None
    if jobs == 1 and cluster is None:
        outcomes, cause = _one_after_another(runs, progress, say)
    else:
        outcomes = run_all(runs, jobs, out, say, cluster, cluster_options or {})
    summaries = [outcome.record for outcome in outcomes if outcome.record is not None]
    failures = [
        Failure(outcome.task.plan.name, outcome.task.seed, outcome.failure)
        for outcome in outcomes
        if outcome.failure
    ]
    comparison = Comparison(
        recipes=tuple(plan.name for plan in plans),
        data=_describe(given, summaries),
        seeds=seeds,
        samples=samples,
        overrides=overrides + (() if latent_dim is None else (f"latent_dim={latent_dim}",)),
        entropy_floor=entropy_floor,
        created=datetime.now(UTC).date().isoformat(),
        summaries=tuple(summaries),
        failures=tuple(failures),
        sweep=varied,
    )
    comparison.write(out)
    if failures:
        raise IncompleteComparison(comparison) from cause
    return comparison


def _read_sentences(plans: Sequence[Plan], test: Data) -> dict[str, TestSentences]:
    """The test sentences that are shown of each system; read once for all that read alike."""
    columns = {
        plan.name: (plan.recipe.data.text_column, plan.recipe.data.label_column) for plan in plans
    }
    read = {pair: TestSentences.read(test, *pair) for pair in set(columns.values())}
    return {name: read[pair] for name, pair in columns.items()}


def _one_after_another(
    runs: Sequence[ComparedRun], progress: bool, say: Callable[[str], None]
) -> tuple[list[Outcome[ComparedRun]], Exception | None]:
    """Do the runs in this process, which shows how far they are; also the first error."""
    outcomes, cause = [], None
    for run in runs:
        try:
            outcomes.append(Outcome(run, run.do(progress=progress, say=say)))
        except Interrupted:
            raise
        except Exception as error:  # whatever it is, the other systems are not to blame
            outcomes.append(Outcome(run, None, one_line(error)))
            say(f"{run.describe()}: failed: {outcomes[-1].failure}")
            cause = cause or error
    return outcomes, cause


def _describe(given: dict[str, Data | None], summaries: Sequence[RunSummary]) -> dict[str, str]:
    counts = summaries[0].sentences if summaries else {}
    described = {}
    for name, data in given.items():
        if data is None:
            what = HELD_OUT
        else:
            what = Path(data).name if isinstance(data, str | Path) else "a list"
        described[name] = f"{what}, {counts[name]:,} sentences" if name in counts else what
    return described
