"""Does a large corpus stay fast and small? Time and peak memory of every stage.

Each stage runs in a process of its own, so that its peak memory is its own. Prints one JSON object.

    python benchmarks/corpus_scale.py --sentences 1000000 10000000 50000000

Of the memory, ``private_mb`` is what the process holds for itself. ``resident_mb`` also counts
the pages of mapped files that it has looked at, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

BATCH_SIZE = 64
BATCHES = 100  # iterated at the beginning and at the end of an epoch
TRAINED_BATCHES = 150  # before the stop, and again after the resume
WORDS = 8
VOCABULARY = 10_000

Found = dict[str, float]


def generate(folder: Path, sentences: int) -> Found:
    """Write sentences of 1 to 15 words (8 on average), frequent words first as in real text."""
    import numpy as np

    random = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(VOCABULARY)], dtype=object)
    with (folder / "text.txt").open("w", encoding="utf-8") as file:
        for first in range(0, sentences, 100_000):
            lengths = random.integers(1, 2 * WORDS, min(100_000, sentences - first))
            drawn = words[(VOCABULARY * random.random(lengths.sum()) ** 3).astype(int)]
            ends = lengths.cumsum()
            pairs = zip(ends - lengths, ends, strict=True)
            file.writelines(" ".join(drawn[start:end]) + "\n" for start, end in pairs)
    return {"bytes": (folder / "text.txt").stat().st_size}


def learn(folder: Path, sentences: int) -> Found:
    """Learn the vocabulary."""
    begin = time.process_time()
    tokenizer = _tokenizer(folder)
    spent = time.process_time() - begin
    return {"vocabulary": len(tokenizer), "sentences_per_cpu_second": round(sentences / spent)}


def build(folder: Path, sentences: int) -> Found:
    """Encode the file into the cache."""
    tokenizer = _tokenizer(folder)
    begin = time.process_time()
    corpus = _corpus(folder, tokenizer)
    assert len(corpus) == sentences
    rate = sentences / (time.process_time() - begin)
    size = sum(f.stat().st_size for f in (folder / "cache").rglob("*") if f.is_file())
    return {"sentences_per_cpu_second": round(rate), "cache_bytes": size}


def start(folder: Path, _sentences: int) -> Found:
    """From a file that is in the cache to the first batch, as every later run does it."""
    return _first_batch(folder)


def hold_out(folder: Path, sentences: int) -> Found:
    """Open the corpus and keep a part of it for validation, for the first time."""
    train, validation = _split(folder)
    assert len(train) + len(validation) == sentences
    return {"held_out": len(validation)}


def hold_out_again(folder: Path, sentences: int) -> Found:
    """The same in a later run."""
    return hold_out(folder, sentences)


def iterate(folder: Path, _sentences: int) -> Found:
    """The first and the last batches of an epoch."""
    batches = _batches(folder)
    first = list(islice(batches.epoch(0), BATCHES))
    last = list(batches.epoch(0, start=len(batches) - BATCHES))
    assert len(first) == len(last) == BATCHES
    return {"batches_per_epoch": len(batches)}


def resume(folder: Path, _sentences: int) -> Found:
    """Go on in the middle of an epoch."""
    batches = _batches(folder)
    middle = list(islice(batches.epoch(3, start=len(batches) // 2), BATCHES))
    return {"batches": len(middle)}


def epoch(folder: Path, sentences: int) -> Found:
    """A whole epoch, without a model."""
    batches = _batches(folder)
    begin = time.process_time()
    count = sum(batch.size for batch in batches.epoch(0))
    assert count == sentences
    return {"sentences_per_cpu_second": round(sentences / (time.process_time() - begin))}


def in_order(folder: Path, _sentences: int) -> Found:
    """The first batches of a pass over all sentences, longest first."""
    from uncollapse.data.batches import sequential_batches

    corpus = _corpus(folder, _tokenizer(folder))
    return {"batches": len(list(islice(sequential_batches(corpus, BATCH_SIZE), BATCHES)))}


def train(folder: Path, _sentences: int) -> Found:
    """The first batches of a recipe's training, stopped as Ctrl-C would, and a resume.

    Also the same without the stop: the weights must be the same, bit for bit.
    """
    import torch

    stopped = _trained(folder, folder / "stopped", TRAINED_BATCHES)
    whole = _trained(folder, folder / "whole", 2 * TRAINED_BATCHES)
    same = all(torch.equal(stopped[name], whole[name]) for name in whole)
    assert same
    return {"batches": 2 * TRAINED_BATCHES, "resumed_bit_for_bit": same}


def _trained(folder: Path, run: Path, stop_every: int):
    """Weights after ``2 * TRAINED_BATCHES`` batches."""
    import signal

    import torch
    from lightning.pytorch import Callback

    from uncollapse.model import Model
    from uncollapse.objectives import Objective
    from uncollapse.training.fit import fit
    from uncollapse.training.signals import Interrupted

    class Stop(Callback):
        """Asks for a stop after some batches."""

        def on_train_batch_end(self, *_: object) -> None:
            seen[0] += 1
            if seen[0] % stop_every == 0:
                signal.raise_signal(signal.SIGINT)

    seen = [0]
    recipe, (training, validation) = _recipe(), _split(folder)
    while True:
        torch.manual_seed(0)
        model = Model(recipe, len(_tokenizer(folder)))
        try:
            fit(
                model,
                Objective(recipe.objective),
                recipe,
                training,
                validation,
                run,
                seed=0,
                resume=seen[0] > 0,
                show_progress=False,
                callbacks=[Stop()],
            )
        except Interrupted:
            if seen[0] == 2 * TRAINED_BATCHES:
                return model.state_dict()
        else:
            raise AssertionError("the run was not stopped")


def _recipe():
    from uncollapse.recipes import load_recipe

    return load_recipe("vae", [f"data.vocabulary_size={VOCABULARY}", "data.tokenizer=whitespace"])


def _tokenizer(folder: Path):
    from uncollapse.loading import learn_tokenizer

    return learn_tokenizer(folder / "text.txt", _recipe().data)


def _corpus(folder: Path, tokenizer):
    from uncollapse.loading import corpus_of

    return corpus_of(folder / "text.txt", tokenizer, _recipe().data)


def _split(folder: Path):
    from uncollapse.runs import HELD_OUT, MOST_HELD_OUT

    return _corpus(folder, _tokenizer(folder)).hold_out(HELD_OUT, MOST_HELD_OUT)


def _batches(folder: Path):
    import torch

    from uncollapse.data.batches import BucketedBatches

    torch.set_num_threads(1)
    return BucketedBatches(_corpus(folder, _tokenizer(folder)), BATCH_SIZE)


def _first_batch(folder: Path) -> Found:
    import uncollapse.runs  # what a run imports is no matter of the corpus

    assert uncollapse.runs
    begin = time.perf_counter()
    next(_batches(folder).epoch(0))
    return {"first_batch_seconds": round(time.perf_counter() - begin, 2)}


STAGES: dict[str, Callable[[Path, int], Found]] = {
    stage.__name__: stage
    for stage in (
        *(generate, learn, build, start, hold_out, hold_out_again),
        *(iterate, resume, epoch, in_order, train),
    )
}


def measured(name: str, folder: Path, sentences: int) -> Found:
    """One stage in this process, with its time and its peak of memory."""
    private = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            held = next((line for line in lines if line.startswith("RssAnon")), "RssAnon: 0 kB")
            private[0] = max(private[0], int(held.split()[1]))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begin = time.perf_counter()
    found = STAGES[name](folder, sentences)
    found["seconds"] = round(time.perf_counter() - begin, 2)
    found["cpu_seconds"] = round(time.process_time(), 2)  # what a busy machine leaves alone
    done.set()
    watcher.join()
    found["private_mb"] = round(private[0] / 1024)
    found["resident_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return found


def run(sentences: int, parent: Path | None, keep: bool) -> dict[str, object]:
    """All stages, one process after the other."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="corpus-scale-", dir=parent))
        if not keep:
            stack.callback(shutil.rmtree, folder)
        results: dict[str, object] = {"sentences": sentences}
        environment = {**os.environ, "UNCOLLAPSE_CACHE": str(folder / "cache")}
        for stage in STAGES:
            command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
            command += ["--sentences", str(sentences)]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            )
            results[stage] = json.loads(done.stdout)
            print(f"{sentences:,} {stage}: {done.stdout.strip()}", file=sys.stderr)
        if keep:
            results["folder"] = str(folder)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sentences", type=int, nargs="+", default=[10_000_000])
    parser.add_argument("--folder", type=Path, help="for the files; by default a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the generated files")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        found = measured(arguments.stage, arguments.folder, arguments.sentences[0])
        print(json.dumps(found))
        return
    runs = [run(size, arguments.folder, arguments.keep) for size in arguments.sentences]
    print(json.dumps({"runs": runs}, indent=1))


if __name__ == "__main__":
    main()
