"""How does training scale over processes, and over the links between them?

Trains the common configuration in 1, 2 and 4 processes on this machine, one thread each: as one
run, and side by side without a word to each other, which is what the cores allow. Then in two
processes over simulated links: a hook sums each bucket of gradients as always, through this
machine, and holds it back until a link of that speed would have moved what a ring of ``--ring``
processes sends. The backward pass goes on in the meantime, as it does over a real link.

    python benchmarks/processes.py [--only ROW …] [--json FILE] [--tiny]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import Any

from speed_machine import command, describe
from speed_settings import SEED, Settings, build_model, corpus, prepare, recipe

SENTENCES = 32  # a process and step
LATENCY = 25e-6  # seconds, of each of the 2(n - 1) turns of a ring
LINKS = (1.0, 10.0, 25.0, 100.0)  # Gbit/s


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    name : str
    processes : int
    together : bool
        Whether they are one run; else each is its own.
    gigabits : float or None
        Speed of the simulated link; None: this machine's own, as it is.
    compressed : bool
        Whether gradients are summed in bf16.
    """

    name: str
    processes: int
    together: bool
    gigabits: float | None = None
    compressed: bool = False


def all_rows() -> list[Row]:
    """Those of a whole run."""
    rows = [Row("1", 1, True)]
    for count in (2, 4):
        rows += [Row(f"{count}-apart", count, False), Row(f"{count}", count, True)]
    rows.append(Row("2-bf16", 2, True, None, True))
    for gigabits in LINKS:
        for compressed in (False, True):
            name = f"2-{gigabits:g}G{'-bf16' if compressed else ''}"
            rows.append(Row(name, 2, True, gigabits, compressed))
    return rows


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    values = {**asdict(settings), "folder": str(settings.folder)}
    task = json.dumps([values, asdict(row), ring, warm_up, steps])
    running = []
    for rank in range(row.processes):
        variables = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        variables |= {"WORLD_SIZE": str(row.processes), "LOCAL_WORLD_SIZE": str(row.processes)}
        variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        running.append(
            subprocess.Popen(
                [sys.executable, __file__, "--work", task],
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    found = [float(process.communicate()[0].split()[-1]) for process in running]
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
    known: dict[str, Any] = {}
    if chosen.json and chosen.json.exists():
        known = json.loads(chosen.json.read_text("utf-8"))["words_a_second"]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), **sizes)
        data = prepare(settings, few=chosen.tiny)
        for _ in range(rounds):
            for row in rows:
                found = measure(settings, row, chosen.ring, warm_up, steps)
                known.setdefault(row.name, []).append(round(found, 1))
    print(table(known))
    if chosen.json:
        about = {
            "command": command("processes.py", arguments),
            **describe(),
            "corpus": data,
            "seed": SEED,
        }
        about |= {"sentences_a_process": SENTENCES, "ring": chosen.ring, "latency": LATENCY}
        text = json.dumps({**about, "words_a_second": known}, indent=1)
        chosen.json.write_text(text + "\n", "utf-8")


def table(known: dict[str, list[float]]) -> str:
    """Medians over the rounds, and the share of what the same processes do apart."""
    apart = {1: known.get("1"), **{n: known.get(f"{n}-apart") for n in (2, 4)}}
    lines = ["| processes | link, Gbit/s | gradients | words/s | of as many apart |"]
    lines.append("|---|---|---|---|---|")
    for row in all_rows():
        if row.name not in known:
            continue
        found, alone = median(known[row.name]), apart[row.processes]
        share = "" if alone is None else f"{found / median(alone):.0%}"
        link = "this machine" if row.gigabits is None else f"{row.gigabits:g}"
        gradients = ("bf16" if row.compressed else "f32") if row.together else "not summed"
        if row.processes == 1:
            link = gradients = "–"
        lines.append(f"| {row.processes} | {link} | {gradients} | {found:,.0f} | {share} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
