"""Reproduce a table or figure: find the corpora, do the runs, judge, draw, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uncollapse.errors import RunError, UserError
from uncollapse.jobs.job import Outcome
from uncollapse.jobs.running import check_request, run_all
from uncollapse.plots.style import save_figure
from uncollapse.reproduction.figures import FIGURES
from uncollapse.reproduction.folder import FolderRuns, open_folder
from uncollapse.reproduction.inputs import Corpus, check_preset, open_corpus, prepare
from uncollapse.reproduction.published import Published, load_published
from uncollapse.reproduction.report import CorpusUsed, Report, check_untouched
from uncollapse.reproduction.tasks import runs_of, tasks_of

Say = Callable[[str], None]


class Incomplete(RunError):  # noqa: N818 (an outcome that still has results)
    """Some runs failed; ``found`` holds what the others gave, and all is written."""

    def __init__(self, found: Any, failures: Sequence[tuple[str, str]]) -> None:
        (run, why), *others = failures
        more = f" (and {len(others)} more)" if others else ""
        super().__init__(f"{run} failed: {why}{more}")
        self.found = found


def reproduce(
    name: str,
    out: str | Path,
    *,
    preset: str = "small",
    corpora: str | Path | None = None,
    seeds: int = 1,
    jobs: int = 1,
    cluster: str | None = None,
    cluster_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    say: Say | None = None,
) -> Report:
    """Do the runs behind a table or figure of the papers, and lay paper and ours side by side.

    Runs are kept in ``out/runs`` and shared by all tables: what is finished is never repeated,
    what was interrupted goes on. One failing run does not stop the others.

    Parameters
    ----------
    name : str
        One of `published_names`.
    out : path
        A folder for all reproductions.
    preset : {'small', 'paper'}
        Two cores and about an hour, or the papers' own setting.
    corpora : path, optional
        Folder of the corpora.
    seeds : int
        Runs a system, seeds 0, 1, ….
    jobs : int
        Runs side by side; on a cluster, at most so many at a time.
    cluster : {'slurm', 'local'}, optional
        Hand the runs to submitit.
    cluster_options : mapping, optional
        Parameters of submitit's executor, e.g. ``{"slurm_partition": "gpu"}``.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    say : callable, optional
        Gets a line for each step.

    Returns
    -------
    Report
        Also written as ``NAME-PRESET.md``, ``.json``, ``.csv`` and, of a figure, ``.svg``.

    Raises
    ------
    UserError
        An unknown name, or corpora none of which is there; nothing has been written.
    RunError
        A file of results that was edited by hand.
    Incomplete
        At the end, if any run failed.
    Interrupted
        SIGINT or SIGTERM, after checkpoints.
    """
    say, out = say or (lambda _: None), Path(out)
    published, chosen = load_published(name), check_preset(preset)
    check_request(seeds, jobs, cluster, cluster_options or {}, device)
    folder = None if corpora is None else Path(corpora)
    found, missing = corpora_of(published, preset, folder)
    if published.corpora and not published.corpora.keys() & found.keys():
        raise UserError(next(iter(missing.values())))
    for corpus, why in missing.items():
        say(f"{published.corpora.get(corpus, corpus)} is left out: {why}")
    open_folder(out)
    check_untouched(out, name, preset)
    ready = {key: prepare(corpus, chosen, out) for key, corpus in found.items()}
    tasks = tasks_of(published, ready, chosen, out, range(seeds), device)
    outcomes = run_all(tasks, jobs, out, say, cluster, cluster_options or {})
    return report_of(published, preset, out, ready, missing, outcomes, range(seeds), device)


def corpora_of(
    published: Published, preset: str, folder: Path | None
) -> tuple[dict[str, Corpus], dict[str, str]]:
    """The corpora of a table that are here, and what is lacking of the others."""
    found, missing = {}, {}
    others = [row.trained_on for row in published.rows if row.trained_on]
    for name in dict.fromkeys([*published.corpora, *others]):
        try:
            found[name] = open_corpus(
                name,
                check_preset(preset),
                folder,
                dialogues=published.reads == "dialogues",
            )
        except UserError as error:
            missing[name] = str(error)
    return found, missing


def report_of(
    published: Published,
    preset: str,
    out: Path,
    corpora: Mapping[str, Corpus],
    missing: dict[str, str],
    outcomes: Sequence[Outcome],
    seeds: Sequence[int],
    device: str = "auto",
) -> Report:
    """Judge, draw and write what the runs have given."""
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    editions = {name: corpus.edition for name, corpus in corpora.items()}
    runs = runs_of(published, editions, preset, records)
    report = Report(
        published,
        preset,
        [
            CorpusUsed(c.name, published.corpora[c.name], c.edition, c.data, c.comparable, c.reason)
            for name, c in corpora.items()
            if name in published.corpora
        ],
        missing,
        runs,
        failures=[(o.task.describe(), o.failure) for o in outcomes if o.failure],
    )
    values = None
    if published.name in FIGURES and (runs or not published.rows):
        figure = FIGURES[published.name]
        folder = FolderRuns(published, corpora, outcomes, tuple(seeds), device)
        try:
            drawn = figure.compute(published, folder)
        except RunError:
            if not report.failures:  # else it lacks what has failed, and the report says that
                raise
        else:
            values = drawn.values
            report.drawn.extend(drawn.judgements)
            report = _with_pictures(report, out, figure.draw(published, values), drawn.markdown)
    report.write(out, values)
    if report.failures:
        raise Incomplete(report, report.failures)
    return report


def _with_pictures(report: Report, out: Path, figure: Any, markdown: str) -> Report:
    names = [f"{report.published.name}-{report.preset}{end}" for end in (".svg", ".png")]
    if figure is not None:
        for name in names:
            save_figure(figure, out / name)
    return replace(report, markdown=markdown, pictures=names if figure is not None else [])
