"""Does a large corpus stay fast and small? Time and peak memory of every stage.

Each stage runs in a process of its own, so that its peak memory is its own. Prints one JSON object.

    python benchmarks/corpus_scale.py --sentences 10000000
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
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


def generate(folder: Path, sentences: int) -> dict[str, int]:
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


def learn(folder: Path, sentences: int) -> dict[str, int]:
    """Learn the vocabulary."""
    from uncollapse.data.sources import read_rows
    from uncollapse.data.tokenizer import Tokenizer

    texts = (row.text for row in read_rows(folder / "text.txt"))
    tokenizer = Tokenizer.train(texts, "whitespace", VOCABULARY)
    tokenizer.save(folder / "tokenizer.json")
    return {"vocabulary": len(tokenizer), "sentences_per_second": sentences}


def build(folder: Path, sentences: int) -> dict[str, int]:
    """Encode the file into the cache."""
    from uncollapse.data.corpus import Corpus
    from uncollapse.data.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    corpus = Corpus.build(folder / "text.txt", tokenizer, cache=folder / "cache")
    assert len(corpus) == sentences
    return {"sentences_per_second": sentences}


def iterate(folder: Path, _sentences: int) -> dict[str, int]:
    """Open the corpus and take the first and the last batches of an epoch."""
    batches = _batches(folder)
    first = list(islice(batches.epoch(0), BATCHES))
    last = list(batches.epoch(0, start=len(batches) - BATCHES))
    assert len(first) == len(last) == BATCHES
    return {"batches_per_epoch": len(batches)}


def resume(folder: Path, _sentences: int) -> dict[str, int]:
    """Open the corpus and go on in the middle of an epoch."""
    batches = _batches(folder)
    middle = list(islice(batches.epoch(3, start=len(batches) // 2), BATCHES))
    return {"batches": len(middle)}


def epoch(folder: Path, sentences: int) -> dict[str, int]:
    """A whole epoch, without a model."""
    count = sum(batch.size for batch in _batches(folder).epoch(0))
    assert count == sentences
    return {"sentences_per_second": sentences}


def train(folder: Path, _sentences: int) -> dict[str, int]:
    """The first batches of a recipe's training, stopped as Ctrl-C would, and a resume."""
    import signal

    from lightning.pytorch import Callback

    from uncollapse.data.corpus import Corpus
    from uncollapse.data.tokenizer import Tokenizer
    from uncollapse.model import Model
    from uncollapse.objectives import Objective
    from uncollapse.recipes import load_recipe
    from uncollapse.training.fit import fit
    from uncollapse.training.signals import Interrupted

    class Stop(Callback):
        """Asks for a stop after some batches."""

        def on_train_batch_end(self, *_: object) -> None:
            seen[0] += 1
            if seen[0] % TRAINED_BATCHES == 0:
                signal.raise_signal(signal.SIGINT)

    seen = [0]
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    corpus = Corpus.build(folder / "text.txt", tokenizer, cache=folder / "cache")
    recipe = load_recipe("vae")
    for resumed in (False, True):
        model = Model(recipe, len(tokenizer))
        try:
            fit(
                model,
                Objective(recipe.objective),
                recipe,
                corpus,
                corpus.head(1_000),
                folder / "run",
                seed=0,
                resume=resumed,
                show_progress=False,
                callbacks=[Stop()],
            )
        except Interrupted:
            continue
        raise AssertionError("the run was not stopped")
    return {"batches": seen[0]}


def _batches(folder: Path):
    import torch

    from uncollapse.data.batches import BucketedBatches
    from uncollapse.data.corpus import Corpus
    from uncollapse.data.tokenizer import Tokenizer

    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    corpus = Corpus.build(folder / "text.txt", tokenizer, cache=folder / "cache")
    return BucketedBatches(corpus, BATCH_SIZE)


STAGES: dict[str, Callable[[Path, int], dict[str, int]]] = {
    stage.__name__: stage for stage in (generate, learn, build, iterate, resume, epoch, train)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sentences", type=int, default=10_000_000)
    parser.add_argument("--keep", action="store_true", help="keep the generated files")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        start = time.perf_counter()
        result: dict[str, float] = dict(
            STAGES[arguments.stage](arguments.folder, arguments.sentences)
        )
        seconds = time.perf_counter() - start
        if "sentences_per_second" in result:
            result["sentences_per_second"] = round(arguments.sentences / seconds)
        result["seconds"] = round(seconds, 2)
        result["cpu_seconds"] = round(time.process_time(), 2)  # what a busy machine leaves alone
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux
        result["peak_rss_mb"] = round(peak / 1024)
        print(json.dumps(result))
        return
    with ExitStack() as stack:
        name = tempfile.mkdtemp(prefix="corpus-scale-")
        if not arguments.keep:
            stack.callback(shutil.rmtree, name)
        results: dict[str, object] = {"sentences": arguments.sentences}
        for stage in STAGES:
            command = [sys.executable, __file__, "--stage", stage, "--folder", name]
            command += ["--sentences", str(arguments.sentences)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[stage] = json.loads(done.stdout)
            print(f"{stage}: {done.stdout.strip()}", file=sys.stderr)
        if arguments.keep:
            results["folder"] = name
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
