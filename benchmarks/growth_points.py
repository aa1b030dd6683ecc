"""What `growth.py` measures: one point of one curve, in a process of its own.

Every point does its work several times and reports the seconds of each, and how much memory the
process had at most beyond what it had after the smallest such work.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from speed_turns import peak_mb, resident_mb

SEED = 1
FLOOR_MB = 8.0  # less memory than this is noise of the allocator
WORDS = 8  # of a generated sentence, on average


@dataclass(frozen=True)
class Sizes:
    """Of the model and of the work, but for what a curve varies."""

    width: int = 128  # of embeddings and states
    batch_size: int = 16
    vocabulary: int = 5_000
    length: int = 20
    repeats: int = 5
    sentences: int = 4  # that are scored
    samples: int = 50


@dataclass(frozen=True)
class Point:
    """A point of a curve."""

    size: int
    seconds: list[float] = field(default_factory=list)
    memory_mb: float = 0.0


TINY = Sizes(width=8, batch_size=2, vocabulary=50, length=5, repeats=2, sentences=1, samples=2)
SMALLEST = 20  # of any curve
Work = Callable[[int, Sizes], list[float]]


def corpus(size: int, sizes: Sizes) -> list[float]:
    """So many generated sentences through the cache, and an epoch of batches."""
    from uncollapse.data.batches import BucketedBatches
    from uncollapse.data.corpus import Corpus
    from uncollapse.data.tokenizer import Tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "text.txt", size, sizes.vocabulary)
        tokenizer = Tokenizer.train([" ".join(_words(sizes.vocabulary))], "whitespace", None)
        seconds: list[float] = []
        for turn in range(2):
            with _timed() as own:
                built = Corpus.build(folder / "text.txt", tokenizer, cache=folder / str(turn))
                rows = sum(batch.size for batch in BucketedBatches(built, 32, seed=SEED).epoch(0))
            assert rows == size
            seconds += own
    return seconds


def vocabulary(size: int, sizes: Sizes) -> list[float]:
    """A training step at so many word types."""
    return _train(sizes, [], types=size, length=sizes.length)


def length(size: int, sizes: Sizes) -> list[float]:
    """A training step on sentences of so many tokens."""
    return _train(sizes, [], types=sizes.vocabulary, length=size)


def components(size: int, sizes: Sizes) -> list[float]:
    """A training step under a mixture of so many components."""
    return _train(sizes, _mixture(4, size), types=sizes.vocabulary, length=sizes.length)


def groups(size: int, sizes: Sizes) -> list[float]:
    """A training step under so many independent mixtures."""
    return _train(sizes, _mixture(size, 5), types=sizes.vocabulary, length=sizes.length)


def scored_length(size: int, sizes: Sizes) -> list[float]:
    """The likelihood of sentences of so many tokens."""
    return _score(sizes, size, sizes.samples)


def samples(size: int, sizes: Sizes) -> list[float]:
    """The likelihood at so many posterior samples a sentence."""
    return _score(sizes, sizes.length, size)


def work(curve: str, size: int, sizes: Sizes, connection: Connection) -> None:
    """Do one point, and send it."""
    WORK[curve](SMALLEST, TINY)  # whatever is loaded or set up once
    before = resident_mb()
    seconds = WORK[curve](size, sizes)
    point = Point(size, seconds, max(peak_mb() - before, 0.0))
    connection.send(asdict(point))


WORK: dict[str, Work] = {
    "corpus": corpus,
    "vocabulary": vocabulary,
    "length": length,
    "scored length": scored_length,
    "samples": samples,
    "components": components,
    "groups": groups,
}


def _recipe(sizes: Sizes, changes: list[str]) -> Any:
    from uncollapse.recipes import load_recipe

    name = "gm-vae" if changes else "vae"
    both = [
        f"{side}.{key}_dim={sizes.width}"
        for side in ("encoder", "decoder")
        for key in ("embedding", "hidden")
    ]
    adam = ["training.optimizer=adam", "training.learning_rate=0.001"]
    rest = [f"training.batch_size={sizes.batch_size}", "training.precision=f32"]
    return load_recipe(name, [*both, *adam, *rest, *changes])


def _mixture(number: int, of_each: int) -> list[str]:
    return [
        f"latents.z.groups={number}",
        f"latents.z.prior.components={of_each}",
        "objective.samples=1",
        "decoder.tied_softmax=false",
    ]


def _words(count: int) -> list[str]:
    return [f"w{number}" for number in range(count)]


def _write(path: Path, sentences: int, types: int) -> None:
    """Sentences of 1 to 15 words, frequent words first as in real text."""
    import numpy as np

    random = np.random.default_rng(SEED)
    words = np.array(_words(types), dtype=object)
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, sentences, 50_000):
            lengths = random.integers(1, 2 * WORDS, min(50_000, sentences - first))
            drawn = words[(types * random.random(lengths.sum()) ** 3).astype(int)]
            ends = lengths.cumsum()
            pairs = zip(ends - lengths, ends, strict=True)
            file.writelines(" ".join(drawn[start:end]) + "\n" for start, end in pairs)


def _in_memory(count: int, types: int, words: int) -> tuple[Any, int]:
    """Sentences of so many words each, as a corpus, and V."""
    import numpy as np

    from uncollapse.data.corpus import Corpus
    from uncollapse.data.tokenizer import Tokenizer

    known = _words(types - 4)
    tokenizer = Tokenizer.train([" ".join(known)], "whitespace", None)
    random = np.random.default_rng(SEED)
    drawn = (len(known) * random.random((count, words)) ** 3).astype(int)
    texts = [" ".join(known[word] for word in row) for row in drawn]
    return Corpus.from_texts(texts, tokenizer), len(tokenizer)


def _train(sizes: Sizes, changes: list[str], *, types: int, length: int) -> list[float]:
    """Seconds of training steps by the package's own function; the first two warm up."""
    from lightning.pytorch import Callback

    from uncollapse.model import Model
    from uncollapse.objectives.objective import Objective
    from uncollapse.training.fit import fit

    ends: list[float] = []

    class EnoughError(Exception):
        pass

    class Clock(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            ends.append(time.perf_counter())
            if len(ends) == sizes.repeats + 2:
                raise EnoughError

    recipe = _recipe(sizes, changes)
    steps = sizes.repeats + 2
    built, known = _in_memory(steps * sizes.batch_size, types, length - 1)  # </s> is a token
    with tempfile.TemporaryDirectory() as folder, suppress(EnoughError):
        fit(
            Model(recipe, known),
            Objective(recipe.objective),
            recipe,
            built,
            built.head(1),
            folder,
            seed=SEED,
            device="cpu",
            show_progress=False,
            callbacks=[Clock()],
        )
    return [after - before for before, after in pairwise(ends)][1:]


def _score(sizes: Sizes, length: int, samples: int) -> list[float]:
    from uncollapse.evaluation.likelihood import score_sentences
    from uncollapse.model import Model

    built, known = _in_memory(sizes.sentences, sizes.vocabulary, length - 1)
    model = Model(_recipe(sizes, []), known).eval()
    seconds: list[float] = []
    for turn in range(min(sizes.repeats, 3) + 1):
        with _timed() as own:
            score_sentences(model, built, samples=samples, seed=SEED)
        seconds += own if turn else []  # the first warms up
    return seconds


@contextmanager
def _timed() -> Iterator[list[float]]:
    seconds: list[float] = []
    begin = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - begin)
