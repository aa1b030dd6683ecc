"""How does training scale over processes, and over the links between them?

Trains the common configuration in 1, 2 and 4 processes on this machine, one thread each: as one
run, and side by side without a word to each other, which is what the cores allow. Then in two
processes over simulated links: a hook sums each bucket of gradients as always, through this
machine, and holds it back until a link of that speed would have moved what a ring of ``--ring``
processes sends. The backward pass goes on in the meantime, as it does over a real link.

    python benchmarks/processes.py [--only ROW …] [--rounds N] [--json FILE] [--tiny]

Rows that are compared must be of the same call. The results of a call are added to those in FILE,
round by round, and make one table.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from processes_launch import launch
from processes_table import Row, all_rows, table
from speed_machine import describe
from speed_settings import SEED, Settings, build_model, corpus, prepare, recipe

SENTENCES = 32  # a process and step
LATENCY = 25e-6  # seconds, of each of the 2(n - 1) turns of a ring
# what results of several calls must agree in to be of one table
SETTINGS = ("hardware", "cores", "torch", "kernels", "corpus", "sentences_a_process", "ring")


class Link:
    """A link that carries one bucket after the other, each as fast as its speed allows."""

    def __init__(self, gigabits: float | None, ring: int, *, compressed: bool) -> None:
        self.compressed = compressed
        self.seconds_a_byte = 0.0 if gigabits is None else 8 / (gigabits * 1e9)
        self.turns = 0 if gigabits is None else 2 * (ring - 1)
        self.ring = ring
        self.free = 0.0
        self.jobs: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._carry, daemon=True).start()

    def sum(self, bucket: Any) -> Any:
        """The hook: a bucket's mean over the processes, not before the link has carried it."""
        import torch
        import torch.distributed as dist

        values = bucket.buffer()
        sent = values.bfloat16() if self.compressed else values
        sent /= dist.get_world_size()
        volume = sent.numel() * sent.element_size() * self.turns / self.ring
        begin = max(time.perf_counter(), self.free)
        self.free = begin + volume * self.seconds_a_byte + self.turns * LATENCY
        held: Any = torch.futures.Future()
        summing = dist.all_reduce(sent, async_op=True)
        self.jobs.put((self.free, summing, values, sent, held))
        return held

    def _carry(self) -> None:
        while True:
            until, summing, values, sent, held = self.jobs.get()
            summing.wait()
            time.sleep(max(0.0, until - time.perf_counter()))
            held.set_result(values.copy_(sent))


def train(settings: Settings, row: Row, ring: int, warm_up: int, steps: int) -> float:
    """Train in this process, perhaps with others; words a second of all of them together."""
    import torch
    from lightning.pytorch import Callback, Trainer

    from uncollapse.objectives import Objective
    from uncollapse.training.fit import fit
    from uncollapse.training.processes import gather_objects, processes

    class Enough(Exception):  # noqa: N818 (nothing went wrong)
        pass

    class Clock(Callback):
        times: list[float]
        words: list[int]
        found = 0.0

        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            self.times, self.words = [], []
            wrapped: Any = trainer.strategy.model
            if processes() > 1 and (row.gigabits is not None or row.compressed):
                link = Link(row.gigabits, ring, compressed=row.compressed)

                def hook(_state, bucket):  # DDP reads annotations
                    return link.sum(bucket)

                # its own hook for bf16 refuses CPUs
                wrapped.register_comm_hook(None, hook)

        def on_train_batch_end(self, _t: Any, _m: Any, _o: Any, batch: Any, *_: Any) -> None:
            self.times.append(time.perf_counter())
            self.words.append(int((batch.lengths - 1).sum()))
            if len(self.times) == warm_up + steps:
                seconds = self.times[-1] - self.times[warm_up - 1]
                self.found = sum(gather_objects(sum(self.words[warm_up:]) / seconds))
                raise Enough

    torch.set_num_threads(1)
    chosen = recipe(settings, "lstm")
    size = SENTENCES * (row.processes if row.together else 1)
    training = chosen.training.model_copy(update={"batch_size": size})
    chosen = chosen.model_copy(update={"training": training})
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        data = corpus(settings, "lstm", "train"), corpus(settings, "lstm", "validation")
        objective = Objective(chosen.objective)
        with suppress(Enough):
            fit(
                build_model(settings, "lstm"), objective, chosen, *data, folder, seed=SEED,
                device="cpu", show_progress=False, callbacks=[clock], alone=not row.together,
            )  # fmt: skip
    return clock.found


def measure(settings: Settings, row: Row, ring: int, warm_up: int, steps: int) -> float:
    """Words a second of all processes of a row together."""
    values = {**asdict(settings), "folder": str(settings.folder)}
    task = json.dumps([values, asdict(row), ring, warm_up, steps])
    found = [float(words) for words in launch(__file__, task, row.processes)]
    return found[0] if row.together else sum(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    names = [row.name for row in all_rows()]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ROW")
    parser.add_argument("--ring", type=int, default=8, help="processes that share the links")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also keep the results; adds to those in it")
    parser.add_argument("--tiny", action="store_true", help="for a test; the figures mean nothing")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.work:
        values, row, ring, warm_up, steps = json.loads(chosen.work)
        settings = Settings(**{**values, "folder": Path(values["folder"])})
        print(train(settings, Row(**row), ring, warm_up, steps))
        return
    rows = [row for row in all_rows() if row.name in chosen.only]
    rounds, warm_up, steps = (1, 1, 2) if chosen.tiny else (chosen.rounds, 5, 15)
    sizes: dict[str, Any] = {}
    if chosen.tiny:
        sizes = {"embedding_dim": 8, "hidden_dim": 8, "latent_dim": 2}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), **sizes)
        about = describe() | {"corpus": prepare(settings, few=chosen.tiny), "seed": SEED}
        about |= {"cores": cores(), "sentences_a_process": SENTENCES}
        about |= {"ring": chosen.ring, "latency": LATENCY}
        known = begun(chosen.json, about)
        for _ in range(rounds):
            found = {
                row.name: round(measure(settings, row, chosen.ring, warm_up, steps), 1)
                for row in rows
            }
            known["rounds"].append(found)
            if chosen.json:  # every round, as the next one may be stopped
                chosen.json.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    print(table(known["rounds"]))


def begun(path: Path | None, about: dict[str, Any]) -> dict[str, Any]:
    """The results to which those of this call are added, whose commit and date they get."""
    commit, day = about.pop("commit") or "unknown", about.pop("date")
    del about["load at the start"], about["threads"]  # of this process, which waits
    known = {**about, "commits": [], "dates": [], "rounds": []}
    if path and path.exists():
        known = json.loads(path.read_text("utf-8"))
        others = [name for name in SETTINGS if known[name] != about[name]]
        if others:
            raise SystemExit(f"{path} holds results of another {', '.join(others)}")
    for name, value in (("commits", commit), ("dates", day)):
        if value not in known[name]:
            known[name].append(value)
    return known


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
