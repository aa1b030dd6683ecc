"""The same runs through submitit: on a Slurm cluster, or by its local executor."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from uncollapse.errors import UncollapseError, UserError, unknown_name
from uncollapse.jobs.job import Job, Outcome, Own, figures
from uncollapse.jobs.running import in_order, runs, what_is_left
from uncollapse.training.signals import Interrupted

CLUSTERS = ("slurm", "local")
TIMEOUT = 24 * 60  # minutes a run, unless `timeout_min` says otherwise


class OnCluster:
    """Does a job that submitit can send again when the cluster takes the machine away."""

    def __call__(self, task: Job) -> str:
        """Do it; what went wrong comes back as text, so that a log need not be read."""
        try:
            task.do()
        except Interrupted:
            raise  # no result: the next call goes on from the checkpoint
        except UncollapseError as error:
            return str(error)
        return ""

    def checkpoint(self, task: Job) -> Any:
        """Submitit's hook: the run resumes from its last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)


def check_cluster(cluster: str, options: Mapping[str, Any]) -> None:
    """Refuse a cluster that is not here or options that it does not have; nothing is written.

    Raises
    ------
    UserError
    """
    if cluster not in CLUSTERS:
        raise unknown_name("cluster", cluster, CLUSTERS)
    with tempfile.TemporaryDirectory() as folder:
        _executor(Path(folder), cluster, 1, options)


def run_on_cluster(
    tasks: Sequence[Own],
    jobs: int,
    out: Path,
    say: Callable[[str], None],
    cluster: str,
    options: Mapping[str, Any],
) -> list[Outcome[Own]]:
    """Submit whatever is not finished, at most ``jobs`` at a time, and wait for it.

    Parameters
    ----------
    tasks : sequence of Job
    jobs : int
    out : Path
        On a file system that all machines see; submitit's files go to ``out/cluster``.
    say : callable
        Gets a line a finished run.
    cluster : {'slurm', 'local'}
    options : mapping
        Parameters of submitit's executor.

    Raises
    ------
    UserError
        Unknown cluster or option, no submitit, or no cluster here.
    """
    check_cluster(cluster, options)
    if jobs < 1:
        raise UserError(f"the number of jobs must be at least 1, not {jobs}")
    executor = _executor(out / "cluster", cluster, jobs, options)
    done, waiting = what_is_left(tasks, say)
    if waiting:
        say(f"{runs(len(waiting))} handed to {cluster}; logs in {out / 'cluster'}")
    outcomes: list[Outcome[Own]] = []
    for task, job in _submitted(executor, cluster, jobs, waiting):
        outcome = _outcome(task, job)
        outcomes.append(outcome)
        place = f"[{len(outcomes)}/{len(waiting)}] {task.describe()}"
        found = "failed: " + outcome.failure if outcome.record is None else figures(outcome.record)
        say(f"{place}: {found}")
    return in_order(tasks, [*done, *outcomes])


def _submitted(
    executor: Any, cluster: str, jobs: int, tasks: Sequence[Own]
) -> Iterator[tuple[Own, Any]]:
    """Tasks and their jobs, in order; submitit's local executor starts whatever it gets at once."""
    step = jobs if cluster == "local" else max(1, len(tasks))
    for first in range(0, len(tasks), step):
        some = tasks[first : first + step]
        given = executor.map_array(OnCluster(), some)
        yield from zip(some, given, strict=True)


def _outcome(task: Own, job: Any) -> Outcome[Own]:
    """Wait for a job."""
    error = job.exception()
    if error is not None:
        lines = str(error).strip().splitlines()
        return Outcome(
            task, None, f"{lines[-1] if lines else type(error).__name__}; see {job.paths.stderr}"
        )
    failure = job.result()
    if failure:
        return Outcome(task, None, failure)
    return Outcome(task, task.finished())


def _executor(folder: Path, cluster: str, jobs: int, options: Mapping[str, Any]) -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError(
            "a cluster needs submitit; install it with: pip install 'uncollapse[cluster]'"
        ) from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        settings = {"timeout_min": TIMEOUT, **options}
        if cluster == "slurm":
            settings.setdefault("slurm_array_parallelism", jobs)
        with warnings.catch_warnings():  # of an old name, submitit warns and tells the new one
            warnings.filterwarnings("error", "Setting '.*' is deprecated")
            executor.update_parameters(**settings)
    except (AssertionError, NameError, TypeError, UserWarning, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"submitit refuses an option: {first}") from None
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"no {cluster} here: {first}") from None
    return executor
