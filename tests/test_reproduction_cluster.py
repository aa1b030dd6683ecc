"""The same runs through submitit: its local executor, and all that can be wrong with a cluster."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reproduction_support import TABLE, metric, record, shrink, table, use_table, write_corpora

from uncollapse.errors import UserError
from uncollapse.jobs import cluster
from uncollapse.jobs.cluster import OnCluster, run_on_cluster
from uncollapse.reproduction import reproduce, worker
from uncollapse.reproduction.inputs import open_corpus, prepare
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.reproduce import Incomplete
from uncollapse.reproduction.tasks import Task, tasks_of
from uncollapse.reproduction.worker import run_task
from uncollapse.training.signals import Interrupted


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Two runs that can be done."""
    shrink(monkeypatch)
    corpora = write_corpora(tmp_path / "corpora")
    ready = prepare(
        open_corpus("ptb", "small", corpora, dialogues=False), "small", tmp_path / "out"
    )
    return tasks_of(table(), {"ptb": ready}, "small", tmp_path / "out", [0], "cpu")


class Job:
    """A job that is done when it is asked for."""

    class paths:  # noqa: N801 (as submitit has it)
        stderr = Path("job.err")

    def __init__(self, task: Task, error: Exception | None = None) -> None:
        self.task, self.error = task, error

    def exception(self) -> Exception | None:
        return self.error

    def result(self) -> str:
        return OnCluster()(self.task)


class Executor:
    """Takes jobs, and remembers how many at a time."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.arrays = error, []

    def map_array(self, _: Any, tasks: list[Task]) -> list[Job]:
        self.arrays.append(len(tasks))
        return [Job(task, self.error) for task in tasks]


def use(monkeypatch: pytest.MonkeyPatch, executor: Executor) -> None:
    """Let jobs be handed to this executor, and be done by writing a record."""
    monkeypatch.setattr(cluster, "_executor", lambda *_: executor)

    def do(task: Task) -> Record:
        found = record(
            task.system, task.seed, edition=task.edition, changes=list(task.changes),
            metrics={"reconstruction": metric(1.0), "nll": metric(2.0)},
            protocol={"data": task.data, "digest": task.digest, "samples": task.samples},
        )  # fmt: skip
        Path(task.folder).mkdir(parents=True)
        found.save(Path(task.folder))
        return found

    monkeypatch.setattr(worker, "run_task", do)


# --- submitit's local executor ------------------------------------------------------------------


@pytest.mark.slow
def test_two_runs_through_submitit_one_of_which_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch)
    rows = [
        {"label": "LM", "recipe": "lstm-lm"},
        {"label": "BN", "recipe": "bn-vae"},
    ]
    use_table(monkeypatch, table(rows=rows))
    out, corpora = tmp_path / "out", write_corpora(tmp_path / "corpora")
    broken = out / "runs" / "small" / "ptb" / "bn-vae" / "seed-0"
    reproduce.open_folder(out)
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    said: list[str] = []
    with pytest.raises(Incomplete, match=r"config\.json is damaged") as error:
        reproduce.reproduce(
            TABLE, out, corpora=corpora, cluster="local", jobs=2, device="cpu",
            cluster_options={"timeout_min": 5}, say=said.append,
        )  # fmt: skip
    report = error.value.found
    assert report.runs.keys() == {("LM", "ptb")}
    assert [run for run, _ in report.failures] == ["ptb, bn-vae, seed 0"]
    assert f"2 runs handed to local; logs in {out / 'cluster'}" in said
    assert any(line.startswith("[1/2] ptb, lstm-lm, seed 0: NLL ") for line in said)
    assert any(line.startswith("[2/2] ptb, bn-vae, seed 0: failed: ") for line in said)


# --- without waiting for processes --------------------------------------------------------------


def test_jobs_are_handed_over_and_finished_ones_only_read(
    tmp_path: Path, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Executor()
    use(monkeypatch, executor)
    said: list[str] = []
    found = run_on_cluster(tasks, 8, tmp_path / "out", said.append, "slurm", {})
    assert [outcome.task for outcome in found] == tasks
    assert [outcome.record is not None for outcome in found] == [True, True]
    assert executor.arrays == [2]  # one array, of which Slurm runs so many at a time
    said.clear()
    again = run_on_cluster(tasks, 8, tmp_path / "out", said.append, "slurm", {})
    assert again == found
    assert executor.arrays == [2]
    assert said == ["2 of 2 runs were finished before"]


def test_here_no_more_run_at_a_time_than_asked_for(
    tmp_path: Path, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Executor()
    use(monkeypatch, executor)
    many = [
        replace(tasks[0], seed=seed, folder=str(tmp_path / f"seed-{seed}")) for seed in range(5)
    ]
    found = run_on_cluster(many, 2, tmp_path / "out", lambda _: None, "local", {})
    assert executor.arrays == [2, 2, 1]
    assert [outcome.task.seed for outcome in found] == [0, 1, 2, 3, 4]


def test_a_job_that_dies_is_a_failed_run(
    tmp_path: Path, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Executor(RuntimeError("Traceback\n  in a file\nMemoryError: no more\n")))
    said: list[str] = []
    found = run_on_cluster(tasks[:1], 1, tmp_path / "out", said.append, "slurm", {})
    assert found[0].record is None
    assert found[0].failure == "MemoryError: no more; see job.err"
    assert said[-1] == "[1/1] ptb, vae, seed 0: failed: MemoryError: no more; see job.err"


def test_a_preempted_run_is_sent_again_and_goes_on(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    from submitit.helpers import DelayedSubmission

    task, function = tasks[0], OnCluster()

    def stopped(_: Task) -> Record:
        raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "run_task", stopped)
        with pytest.raises(Interrupted):  # no result, so that nothing takes it for done
            function(task)
    delayed = function.checkpoint(task)
    assert isinstance(delayed, DelayedSubmission)
    assert (delayed.function, delayed.args, delayed.kwargs) == (function, (task,), {})
    assert delayed.result() == ""
    found = Record.load(Path(task.folder))
    assert found is not None
    assert run_task(task) == found  # whole: nothing is left to do


def test_what_goes_wrong_comes_back_as_text(tasks: list[Task]) -> None:
    wrong = replace(tasks[0], recipe="vea")
    assert OnCluster()(wrong) == "unknown recipe 'vea'; did you mean 'vae'?"


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cluster": "slrum"}, "unknown cluster 'slrum'; did you mean 'slurm'?"),
        ({"cluster": "slurm"}, "no slurm here: "),
        ({"cluster": "local", "jobs": 0}, "jobs must be at least 1, not 0"),
        ({"cluster": "local", "cluster_options": {"partition": "x"}}, "Use 'slurm_partition'"),
        ({"cluster": "local", "cluster_options": {"slurm_partiton": "x"}}, "slurm_partiton"),
        ({"cluster": "local", "cluster_options": {"partiton": "x"}}, "'partiton'"),
        ({"cluster": "local", "cluster_options": {"timeout_min": "long"}}, "timeout_min"),
        ({"cluster": "local", "cluster_options": {"nodes": 2}}, "only one node"),
        ({"cluster_options": {"timeout_min": 3}}, "options of a cluster need --cluster"),
    ],
)  # fmt: skip
def test_a_wrong_cluster_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("PATH", "")  # no srun
    with pytest.raises(UserError, match=said) as error:
        reproduce.reproduce("bn-table1", tmp_path / "out", corpora=tmp_path, **asked)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_submitit_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"needs submitit; install it with: pip install"):
        reproduce.reproduce("bn-table1", tmp_path / "out", corpora=tmp_path, cluster="local")
    assert not (tmp_path / "out").exists()
