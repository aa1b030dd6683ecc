"""Runs in processes of their own: nothing lost, nothing repeated, faults kept apart."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reproduction_support import (
    TABLE,
    Program,
    alive,
    children,
    shrink,
    table,
    use_table,
    wait_for,
    write_corpora,
)

from uncollapse.errors import RunError, UserError
from uncollapse.jobs.job import Outcome, figures, locked
from uncollapse.jobs.running import run_side_by_side
from uncollapse.reproduction import reproduce
from uncollapse.reproduction.inputs import open_corpus, prepare
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.reproduce import Incomplete
from uncollapse.reproduction.tasks import Task, tasks_of
from uncollapse.reproduction.worker import finished, run_task

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def patch() -> Any:
    """The small protocol at the size of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        use_table(patch, table())
        yield patch


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpora that have PTB."""
    folder = tmp_path_factory.mktemp("reproductions")
    write_corpora(folder / "corpora")
    return folder


@pytest.fixture(scope="module")
def done(here: Path, patch: pytest.MonkeyPatch) -> tuple[Path, list[str], reproduce.Report]:
    """The table reproduced, two runs side by side: the folder, what was said, and the report."""
    del patch
    said: list[str] = []
    out = here / "out"
    report = reproduce.reproduce(
        TABLE, out, corpora=here / "corpora", jobs=2, device="cpu", say=said.append
    )
    return out, said, report


def copied(done: tuple[Path, list[str], reproduce.Report], target: Path) -> Path:
    """The same in another folder."""
    shutil.copytree(done[0], target)
    return target


def own_tasks(out: Path, corpora: Path, published: Any = None, seeds: Any = (0,)) -> list[Task]:
    """The runs of the table in a folder."""
    ready = prepare(open_corpus("ptb", "small", corpora, dialogues=False), "small", out)
    return tasks_of(published or table(), {"ptb": ready}, "small", out, seeds, "cpu")


def again(out: Path, here: Path, published: Any, **asked: Any) -> tuple[list[str], Any]:
    """Another reproduction in a folder, and what it said."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        use_table(patch, published)
        report = reproduce.reproduce(
            TABLE, out, corpora=here / "corpora", device="cpu", say=said.append, **asked
        )
    return said, report


def times(out: Path) -> dict[str, int]:
    """When each trained model was written."""
    found = sorted((out / "runs").rglob(f"seed-*/{WEIGHTS}"))
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in found}


# --- done once ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_runs_side_by_side_give_the_table(
    done: tuple[Path, list[str], reproduce.Report],
) -> None:
    out, said, report = done
    assert "Yahoo is left out: yahoo is not in" in said[0]
    assert said[1] == "2 runs to do, 2 at a time"
    assert sorted(line.partition("] ")[2].partition(":")[0] for line in said[2:]) == [
        "ptb, lstm-lm, seed 0", "ptb, vae, seed 0"
    ]  # fmt: skip
    assert [line.partition(" ")[0] for line in said[2:]] == ["[1/2]", "[2/2]"]
    assert report.failures == []
    (vae,), (lm,) = report.runs["VAE", "ptb"], report.runs["LM", "ptb"]
    assert lm.value("kl") is None
    nll = vae.value("nll")
    assert nll is not None
    assert 20 < nll < 200
    assert vae.cost["epochs"] == 1
    digest = vae.protocol.pop("digest")
    assert digest
    assert digest == lm.protocol["digest"]
    assert vae.protocol == {"data": "first 60 / 20 / 20 sentences", "samples": 4, "generated": 10}
    assert (out / f"{TABLE}-small.md").read_text().count("| VAE |") == 1
    log = (out / "logs" / "ptb" / "vae-seed-0.log").read_text()
    assert "training: 60 sentences" in log


def test_what_is_finished_is_only_read(
    done: tuple[Path, list[str], reproduce.Report], here: Path, tmp_path: Path
) -> None:
    out = copied(done, tmp_path / "out")
    for name in (f"{TABLE}-small.csv", f"{TABLE}-small.md"):
        (out / name).unlink()
    before = times(out)
    said, report = again(out, here, table(), jobs=2)
    assert said[1:] == ["2 of 2 runs were finished before"]
    assert times(out) == before
    assert report.cells() == done[2].cells()
    for name in (f"{TABLE}-small.csv", f"{TABLE}-small.md", f"{TABLE}-small.json"):
        assert (out / name).read_bytes() == (done[0] / name).read_bytes()


@pytest.mark.slow
def test_only_what_is_new_is_done(
    done: tuple[Path, list[str], reproduce.Report], here: Path, tmp_path: Path
) -> None:
    out = copied(done, tmp_path / "out")
    before = times(out)
    vae = out / "runs" / "small" / "ptb" / "vae"
    old = Record.load(vae / "seed-0")
    assert old is not None
    # one more figure of a system that is there, and one more seed of it
    row = table().rows[0].model_dump()
    asked = table(rows=[row], measured=["self_bleu"])
    said, report = again(out, here, asked, seeds=2, jobs=2)
    assert {line.partition(" ")[0] for line in said[2:]} == {"[1/2]", "[2/2]"}
    assert {path: when for path, when in times(out).items() if path in before} == before
    assert len(times(out)) == 3
    new = Record.load(vae / "seed-0")
    assert new is not None
    assert new.metrics.keys() - old.metrics.keys() >= {"self_bleu"}
    assert {name: new.metrics[name] for name in old.metrics} == old.metrics
    assert new.cost == old.cost
    assert [r.seed for r in report.runs["VAE", "ptb"]] == [0, 1]
    assert report.runs["VAE", "ptb"][1].value("nll") != new.value("nll")


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others_whole_and_is_named(
    done: tuple[Path, list[str], reproduce.Report], here: Path, tmp_path: Path
) -> None:
    out = copied(done, tmp_path / "out")
    broken = out / "runs" / "small" / "ptb" / "bn-vae" / "seed-0"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    rows = [row.model_dump() for row in table().rows]
    rows += [
        {"label": "BN", "recipe": "bn-vae"},
        {"label": "act", "recipe": "vae", "keep": ["data.label_column=act"]},
    ]
    said: list[str] = []
    before = times(out)
    with pytest.MonkeyPatch.context() as patch:
        use_table(patch, table(rows=rows))
        with pytest.raises(Incomplete) as error:
            reproduce.reproduce(
                TABLE, out, corpora=here / "corpora", jobs=2, device="cpu", say=said.append
            )
    report = error.value.found
    assert len(report.failures) == 2
    failures = dict(report.failures)
    assert failures.keys() == {"ptb, bn-vae, seed 0", "ptb, vae,label_column=act, seed 0"}
    for run, failure in failures.items():
        assert len(failure.splitlines()) == 1
        log = Path(failure.rpartition("; see ")[2])
        assert log.is_file(), run
        assert sum(failure in line for line in said) == 1
    assert "config.json is damaged" in failures["ptb, bn-vae, seed 0"]
    assert "act" in failures["ptb, vae,label_column=act, seed 0"]
    assert len(str(error.value).splitlines()) == 1
    assert "(and 1 more)" in str(error.value)
    assert report.runs.keys() == {("VAE", "ptb"), ("LM", "ptb")}
    page = (out / f"{TABLE}-small.md").read_text()
    assert "## Failed runs" in page
    assert all(failure in page for failure in failures.values())
    assert times(out) == before


def test_a_killed_process_is_a_failed_run(here: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, epochs=500)
        (task, _) = own_tasks(tmp_path / "out", here / "corpora")
    said: list[str] = []
    outcomes: list[Outcome] = []

    def run() -> None:
        outcomes.extend(run_side_by_side([task], 1, tmp_path / "out", said.append))

    before = set(children(os.getpid()))
    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: set(children(os.getpid())) - before)
    (process,) = set(children(os.getpid())) - before
    os.kill(process, signal.SIGKILL)
    thread.join(60)
    (outcome,) = outcomes
    log = tmp_path / "out" / "logs" / "ptb" / "vae-seed-0.log"
    expected = f"its process was killed, perhaps for want of memory; see {log}"
    assert (outcome.record, outcome.failure) == (None, expected)
    assert said == ["1 run to do, 1 at a time", f"[1/1] ptb, vae, seed 0: failed: {expected}"]


@pytest.mark.parametrize("jobs", [0, -1])
def test_the_number_of_jobs_is_positive(tmp_path: Path, jobs: int) -> None:
    with pytest.raises(UserError, match=f"jobs must be at least 1, not {jobs}"):
        run_side_by_side([], jobs, tmp_path, print)
    assert not list(tmp_path.iterdir())


def test_a_run_with_other_settings_is_refused(
    done: tuple[Path, list[str], reproduce.Report], here: Path, tmp_path: Path
) -> None:
    out = copied(done, tmp_path / "out")
    (task, _) = own_tasks(out, here / "corpora")
    found = finished(task)
    assert found is not None
    assert finished(replace(task, metrics=("standard", "self_bleu"))) is None
    assert finished(replace(task, folder=str(tmp_path / "none"))) is None
    others = [
        replace(task, samples=50),
        replace(task, data="first 70 / 20 / 20 sentences"),
        replace(task, changes=(*task.changes, "training.max_epochs=2")),
        replace(task, samples=50, metrics=("standard", "self_bleu")),  # nor is it added to
    ]
    for other in others:
        with pytest.raises(RunError, match="holds a run with other settings"):
            finished(other)


# --- signals ------------------------------------------------------------------------------------


def interrupted(here: Path, out: Path, number: int) -> tuple[int, str]:
    """A reproduction of one run of some epochs that got a signal in the midst; code and stderr."""
    program = Program(
        "reproduce", TABLE, "--corpora", here / "corpora", "--out", out, "--device", "cpu",
        epochs=12,
    )  # fmt: skip
    training = out / "runs" / "small" / "ptb" / "vae" / "seed-0" / "history.jsonl"
    wait_for(training.is_file)
    workers = children(program.process.pid)
    assert len(workers) == 1
    program.process.send_signal(number)
    code, printed, error = program.ended()
    assert printed == ""
    assert not any(alive(worker) for worker in workers)
    return code, error


@pytest.mark.slow
def test_an_interrupted_reproduction_goes_on_to_the_same_weights(
    here: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, error = interrupted(here, out, signal.SIGINT)
    assert code == 130
    # that Yahoo is not here, how much there is to do, and that it was stopped
    assert len(error.splitlines()) == 3
    assert "stopped by SIGINT with a whole checkpoint" in error
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, epochs=12)
        tasks = own_tasks(out, here / "corpora")
        rest = own_tasks(tmp_path / "whole", here / "corpora")
    epochs = (out / "runs/small/ptb/vae/seed-0/history.jsonl").read_text().splitlines()
    assert len(epochs) < 12
    assert not (out / "runs/small/ptb/vae/seed-0" / WEIGHTS).exists()
    # the second call finishes it, here; another is never interrupted
    found, whole = run_task(tasks[0]), run_task(rest[0])
    weights = [(Path(task.run) / WEIGHTS).read_bytes() for task in (tasks[0], rest[0])]
    assert weights[0] == weights[1]
    assert found.metrics == whole.metrics
    assert found.cost["epochs"] == whole.cost["epochs"] == 12
    assert found.cost["updates"] == whole.cost["updates"]


@pytest.mark.slow
def test_a_terminated_reproduction_ends_with_its_runs(here: Path, tmp_path: Path) -> None:
    code, error = interrupted(here, tmp_path / "out", signal.SIGTERM)
    assert code == 143
    assert "stopped by SIGTERM with a whole checkpoint" in error
    assert len(error.splitlines()) == 3
    checkpoints = list((tmp_path / "out/runs/small/ptb/vae/seed-0/training").glob("checkpoint-*"))
    assert checkpoints
    assert not list((tmp_path / "out").glob("*.md"))


# --- the lock -----------------------------------------------------------------------------------


def test_a_run_that_another_process_is_at_is_waited_for(
    done: tuple[Path, list[str], reproduce.Report], here: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (task, _) = own_tasks(out, here / "corpora")
    run = Path(task.run)
    with locked(run):
        process = subprocess.Popen(
            [sys.executable, "-m", "uncollapse.jobs.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(task))
        process.stdin.close()
        waits = Path(f"/proc/{process.pid}/wchan")
        wait_for(lambda: "lock" in waits.read_text() or process.poll() is not None, 30)
        assert process.poll() is None
        assert not run.exists()
        shutil.copytree(done[0] / "runs/small/ptb/vae/seed-0", run)  # the other has done it
        before = times(out)
    assert process.wait(60) == 0
    assert process.stdout is not None
    said = process.stdout.read().decode()
    process.stdout.close()
    found = Record.load(run)
    assert found is not None
    assert said == f"{figures(found)}\n"
    assert times(out) == before


# --- one task -----------------------------------------------------------------------------------


def test_a_run_that_died_before_its_first_batch_begins_anew(
    done: tuple[Path, list[str], reproduce.Report], here: Path, tmp_path: Path
) -> None:
    finished_run = done[0] / "runs/small/ptb/vae/seed-0"
    (task, _) = own_tasks(tmp_path / "out", here / "corpora")
    run = Path(task.run)
    run.mkdir(parents=True)
    for name in ("recipe.yaml", "tokenizer.json", "cost.json"):
        shutil.copy(finished_run / name, run / name)
    found = run_task(task)
    assert (run / WEIGHTS).read_bytes() == (finished_run / WEIGHTS).read_bytes()
    old = Record.load(finished_run)
    assert old is not None
    assert found.metrics == old.metrics
    # a file that no run writes is nobody's to take away
    other = tmp_path / "other" / "seed-0"
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        run_task(replace(task, run=str(other), folder=str(other)))
    assert (other / "notes.txt").read_text() == "mine"
