"""Many runs side by side, each in a process of its own: a crash takes none of the others along."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uncollapse.errors import UserError
from uncollapse.jobs.gpus import ANY_GPU, Gpus, visible_gpus
from uncollapse.jobs.job import Outcome, Own, figures
from uncollapse.training.signals import STOPPING, Interrupted

Say = Callable[[str], None]
KILLED = (-signal.SIGKILL, 137)


def check_request(
    seeds: int, jobs: int, cluster: str | None, options: Mapping[str, Any], device: str
) -> None:
    """Refuse what cannot be done before anything is written.

    Raises
    ------
    UserError
    """
    for what, count in (("seeds", seeds), ("jobs", jobs)):
        if count < 1:
            raise UserError(f"the number of {what} must be at least 1, not {count}")
    if cluster is not None:  # whose machines may have other devices than this one
        from uncollapse.jobs.cluster import check_cluster

        check_cluster(cluster, options)
        return
    if options:
        raise UserError("options of a cluster need --cluster")
    if device not in ("auto", "cpu"):
        from uncollapse.device import find_device

        find_device(device)


def run_all(
    tasks: Sequence[Own],
    jobs: int,
    out: Path,
    say: Say,
    cluster: str | None,
    options: Mapping[str, Any],
) -> list[Outcome[Own]]:
    """The tasks in processes of their own, here or through submitit."""
    if cluster is None:
        return run_side_by_side(tasks, jobs, out, say)
    from uncollapse.jobs.cluster import run_on_cluster

    return run_on_cluster(tasks, jobs, out, say, cluster, options)


def run_side_by_side(tasks: Sequence[Own], jobs: int, out: Path, say: Say) -> list[Outcome[Own]]:
    """Do the tasks, ``jobs`` at a time; finished ones are only read.

    Each has its share of the cores, and a GPU of its own where there are enough.

    Parameters
    ----------
    tasks : sequence of Job
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
    done, waiting = what_is_left(tasks, say)
    anywhere = any(task.device in ANY_GPU for task in waiting)
    gpus = Gpus(visible_gpus() if anywhere else [], jobs)
    if waiting:
        on = f" on {gpus.count} GPUs" if gpus.count else ""
        say(f"{runs(len(waiting))} to do, {jobs} at a time{on}")
    with _Processes(out, jobs, len(waiting), gpus, say) as processes:
        with ThreadPoolExecutor(jobs) as pool:
            outcomes = list(pool.map(processes.run, waiting))
        if processes.stopped is not None:
            raise Interrupted(processes.stopped)
    return in_order(tasks, [*done, *outcomes])


def what_is_left(tasks: Sequence[Own], say: Say) -> tuple[list[Outcome[Own]], list[Own]]:
    """Those that were finished before, and those that were not; says how many were."""
    done, waiting = [], []
    for task in tasks:
        record = task.finished()
        if record is None:
            waiting.append(task)
        else:
            done.append(Outcome(task, record))
    if done:
        say(f"{len(done)} of {len(tasks)} runs were finished before")
    return done, waiting


def runs(count: int) -> str:
    """E.g. ``2 runs``."""
    return f"{count} run{'' if count == 1 else 's'}"


def in_order(tasks: Sequence[Own], outcomes: Sequence[Outcome[Own]]) -> list[Outcome[Own]]:
    """Outcomes as their tasks come."""
    places = {id(task): place for place, task in enumerate(tasks)}
    return sorted(outcomes, key=lambda outcome: places[id(outcome.task)])


class _Processes:
    """The processes that are running, and the wish to stop them."""

    def __init__(self, out: Path, jobs: int, total: int, gpus: Gpus, say: Say) -> None:
        self.logs, self.gpus = out / "logs", gpus
        self.say, self.total, self.count = say, total, 0
        self.stopped: int | None = None
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._before: dict[int, Any] = {}
        self._env = dict(os.environ)
        threads = max(1, _cores() // max(1, min(jobs, total)))
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

    def run(self, task: Own) -> Outcome[Own]:
        """One task, in a process that signals reach through us alone."""
        if self.stopped is not None:
            return Outcome(task, None, "not begun")
        log = self.logs / task.log
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        with log.open("a", encoding="utf-8") as written, self.gpus.lent(task.device) as gpu:
            before = written.tell()  # what earlier attempts had to say
            process = subprocess.Popen(
                [sys.executable, "-m", "uncollapse.jobs.worker"],
                stdin=subprocess.PIPE,
                stdout=written,
                stderr=written,
                env={**self._env, **gpu},
                start_new_session=True,  # Ctrl-C in a terminal would reach it twice
            )
            with self._registered(process):
                process.communicate(pickle.dumps(task))
        seconds = time.perf_counter() - began
        return self._outcome(task, process.returncode, log, before, seconds)

    @contextmanager
    def _registered(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        self._running.add(process)
        if self.stopped is not None:  # the signal came before this one was among the running
            process.send_signal(self.stopped)
        try:
            yield
        finally:
            self._running.discard(process)

    def _outcome(
        self, task: Own, code: int, log: Path, before: int, seconds: float
    ) -> Outcome[Own]:
        record = task.finished() if code == 0 else None
        failure = why(code, log, before) if record is None else ""
        with self._lock:
            self.count += 1
            place = f"[{self.count}/{self.total}] {task.describe()}"
            if record is not None:
                self.say(f"{place}: {figures(record)}, {seconds:.0f} s")
            elif self.stopped is None:
                self.say(f"{place}: failed: {failure}")
        return Outcome(task, record, failure)


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
