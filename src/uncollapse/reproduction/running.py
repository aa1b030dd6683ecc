"""Many runs side by side, each in a process of its own: a crash takes none of the others along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uncollapse.errors import RunError, UserError
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.tasks import Task, folder_name
from uncollapse.reproduction.worker import is_measured
from uncollapse.training.signals import STOPPING, Interrupted

Say = Callable[[str], None]
KILLED = (-signal.SIGKILL, 137)


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes
    ----------
    task : Task
    record : Record or None
        None if it failed.
    failure : str
        One line; empty if it did not.
    """

    task: Task
    record: Record | None
    failure: str = ""


def finished(task: Task) -> Record | None:
    """The record of a task of which nothing is left to do.

    Raises
    ------
    RunError
        If its file was edited by hand, or is of a run with other settings.
    """
    record = Record.load(Path(task.folder))
    if record is None:
        return None
    same = (record.protocol.get("data"), record.protocol.get("samples"))
    if same != (task.data, task.samples) or record.changes != list(task.changes):
        raise RunError(
            f"{task.folder} holds a run with other settings; choose another folder with --out"
        )
    if record.protocol.get("digest") != task.digest:
        raise RunError(
            f"{task.folder} holds a run on other data of the same name; choose another folder with "
            "--out"
        )
    return record if all(is_measured(record, name) for name in task.metrics) else None


def run_side_by_side(tasks: Sequence[Task], jobs: int, out: Path, say: Say) -> list[Outcome]:
    """Do the tasks, ``jobs`` at a time; finished ones are only read.

    Parameters
    ----------
    tasks : sequence of Task
    jobs : int
    out : Path
        Its ``logs`` get what the runs have to say.
    say : callable
        Gets a line a finished run.

    Raises
    ------
    UserError
        If ``jobs`` is not positive.
    Interrupted
        On SIGINT or SIGTERM, after the running ones have written their checkpoints.
    """
    if jobs < 1:
        raise UserError(f"the number of jobs must be at least 1, not {jobs}")
    done = {task.key: record for task in tasks if (record := finished(task)) is not None}
    waiting = [task for task in tasks if task.key not in done]
    if done:
        say(f"{len(done)} of {len(tasks)} runs were finished before")
    if waiting:
        say(f"{len(waiting)} run{'s' if len(waiting) > 1 else ''} to do, {jobs} at a time")
    with _Processes(out, jobs, len(waiting), say) as processes:
        with ThreadPoolExecutor(jobs) as pool:
            outcomes = list(pool.map(processes.run, waiting))
        if processes.stopped is not None:
            raise Interrupted(processes.stopped)
    by_key = {outcome.task.key: outcome for outcome in outcomes}
    return [by_key.get(task.key) or Outcome(task, done[task.key]) for task in tasks]


class _Processes:
    """The processes that are running, and the wish to stop them."""

    def __init__(self, out: Path, jobs: int, total: int, say: Say) -> None:
        self.logs = out / "logs"
        self.say, self.total, self.count = say, total, 0
        self.stopped: int | None = None
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._before: dict[int, Any] = {}
        self._env = dict(os.environ)
        threads = max(1, (os.cpu_count() or 1) // jobs)
        self._env.setdefault("OMP_NUM_THREADS", str(threads))

    def __enter__(self) -> _Processes:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        """The first signal asks all to stop after a checkpoint; a second one is passed on too."""
        self.stopped = number
        for process in list(self._running):
            process.send_signal(number)

    def run(self, task: Task) -> Outcome:
        """One task, in a process that signals reach through us alone."""
        if self.stopped is not None:
            return Outcome(task, None, "not begun")
        log = self.logs / folder_name(task.edition) / f"{task.system}-seed-{task.seed}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        with log.open("a", encoding="utf-8") as written:
            before = written.tell()  # what earlier attempts had to say
            process = subprocess.Popen(
                [sys.executable, "-m", "uncollapse.reproduction.worker"],
                stdin=subprocess.PIPE,
                stdout=written,
                stderr=written,
                text=True,
                env=self._env,
                start_new_session=True,  # Ctrl-C in a terminal would reach it twice
            )
            with self._registered(process):
                process.communicate(task.to_json())
        seconds = time.perf_counter() - began
        return self._outcome(task, process.returncode, log, before, seconds)

    @contextmanager
    def _registered(self, process: subprocess.Popen[str]) -> Iterator[None]:
        self._running.add(process)
        if self.stopped is not None:  # the signal came before this one was among the running
            process.send_signal(self.stopped)
        try:
            yield
        finally:
            self._running.discard(process)

    def _outcome(self, task: Task, code: int, log: Path, before: int, seconds: float) -> Outcome:
        record = failure = None
        if code == 0:
            record = Record.load(Path(task.folder))
        if record is None:
            failure = why(code, log, before)
        with self._lock:
            self.count += 1
            place = f"[{self.count}/{self.total}] {task.describe()}"
            if record is not None:
                self.say(f"{place}: {figures(record)}, {seconds:.0f} s")
            elif self.stopped is None:
                self.say(f"{place}: failed: {failure}")
        return Outcome(task, record, failure or "")


def why(code: int, log: Path, before: int = 0) -> str:
    """One line about a process that failed; its log begins after ``before`` bytes."""
    if code in KILLED:
        return f"its process was killed, perhaps for want of memory; see {log}"
    text = log.read_bytes()[before:].decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if code < 0 and code not in [-number for number in STOPPING]:  # a crash has no last words
        said = f"its process died of {signal.Signals(-code).name}"
    else:
        said = lines[-1].strip() if lines else f"exit code {code}"
    return f"{said}; see {log}"


def figures(record: Record) -> str:
    """The first figures of a run in one line."""
    shown = []
    for name in ("nll", "kl", "mi"):
        value = record.value(name)
        if value is not None:
            shown.append(f"{name.upper()} {value:.2f}")
    return ", ".join(shown) or "measured"
