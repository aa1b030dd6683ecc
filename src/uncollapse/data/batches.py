"""Padded batches: in training order, a pure function of (seed, epoch), and for evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.contexts import ContextBatch, padded
from uncollapse.data.corpus import Corpus
from uncollapse.data.permutation import Permutation, random_order
from uncollapse.errors import UserError

BLOCK = 1 << 22  # rows that `sequential_batches` sorts together, for some 100 MB


@dataclass
class Batch:
    """Padded sentences. B sentences of this process, T tokens of the longest of them.

    Attributes
    ----------
    tokens : (B, T) int64
        ``<s> w1 … wn </s>``, then ``<pad>``.
    lengths : (B,) int64
        n + 2: ``<s>`` and ``</s>`` are counted.
    index : (B,) int64
        Row of each sentence in its corpus.
    labels : dict of str to (B,) int64
        By column of labels, the class of each sentence, -1 where missing; empty without labels.
    total : int
        Sentences of this batch over all processes.
    context : ContextBatch or None
        The turns before each sentence; None: there are none before any.
    """

    tokens: Tensor
    lengths: Tensor
    index: Tensor
    labels: dict[str, Tensor]
    total: int
    context: ContextBatch | None = None

    @property
    def size(self) -> int:
        """Sentences of this process, B."""
        return self.tokens.shape[0]

    @property
    def mask(self) -> Tensor:
        """(B, T) bool: True on every token that is not padding."""
        steps = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return steps < self.lengths[:, None]

    @property
    def inputs(self) -> Tensor:
        """(B, T-1): what the decoder reads."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Tensor:
        """(B, T-1): what the decoder predicts, the words and ``</s>``."""
        return self.tokens[:, 1:]

    @property
    def target_mask(self) -> Tensor:
        """(B, T-1) bool: True on every target that is not padding; n + 1 a sentence."""
        return self.mask[:, 1:]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        context = self.context.to(device) if self.context is not None else None
        return self._map(lambda part: part.to(device), context)

    def repeat(self, times: int) -> Batch:
        """The whole batch so many times, one after the other; row b is row b + k·B again.

        For several posterior samples of each sentence. ``total`` counts sentences, not rows, and
        stays.
        """
        context = self.context.repeat(times) if self.context is not None else None
        return self._map(lambda part: part.repeat(times, *[1] * (part.dim() - 1)), context)

    def _map(self, change: Callable[[Tensor], Tensor], context: ContextBatch | None) -> Batch:
        labels = {column: change(ids) for column, ids in self.labels.items()}
        tokens, lengths, index = map(change, (self.tokens, self.lengths, self.index))
        return Batch(tokens, lengths, index, labels, self.total, context)


class BucketedBatches:
    """Training batches of sentences of similar length, in an order set by (seed, epoch).

    An epoch is one pass over the corpus here, whatever a run calls one.

    All rows are shuffled and cut into pools of ``pool * batch_size``. Each pool is sorted by
    length and cut into batches, whose order is shuffled. So little is padded, yet batches
    change from epoch to epoch. ``pool=1`` gives plain random batches of mixed lengths.

    Rank r of `world` processes takes rows ``r::world`` of each global batch. The last global
    batch may be incomplete; were it to leave a rank without a row, its rows join another batch.

    Parameters
    ----------
    corpus : Corpus
    batch_size : int
        Sentences of a batch, over all processes.
    pool : int
        Batches that are sorted together.
    seed : int
    rank, world : int
        This process and the number of processes.

    Raises
    ------
    UserError
        For sizes below 1, and for fewer sentences in the corpus or a batch than processes.
    """

    def __init__(
        self,
        corpus: Corpus,
        batch_size: int,
        *,
        pool: int = 100,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _check(corpus, batch_size, rank, world)
        if pool < 1:
            raise UserError(f"the pool must hold at least 1 batch, not {pool}")
        if seed < 0:
            raise UserError(f"the seed must not be negative, but is {seed}")
        self.corpus = corpus
        self.batch_size = batch_size
        self.pool = pool
        self.seed = seed
        self.rank = rank
        self.world = world
        full, rest = divmod(len(corpus), batch_size)
        self._batches = full + (rest >= world if full else 1)
        self._shuffled: tuple[int, np.ndarray | Permutation] | None = None

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self._batches

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from number `start` on; the ones before it cost nothing.

        Memory: 4 bytes a sentence of the corpus, and nothing that grows with a corpus of more
        than ``KEPT_ROWS``, see `random_order`.
        """
        for first in range(start - start % self.pool, len(self), self.pool):
            for rows in self._batches_of_pool(epoch, first)[max(start - first, 0) :]:
                yield self._share_of(rows)

    def onward(self, epoch: int, start: int, number: int) -> Iterator[Batch]:
        """So many batches from number `start` of an epoch on, going on into the epochs after it."""
        following = itertools.chain.from_iterable(map(self.epoch, itertools.count(epoch + 1)))
        return itertools.islice(itertools.chain(self.epoch(epoch, start), following), number)

    def batch(self, epoch: int, number: int) -> Batch:
        """Batch `number` (from 0) of an epoch, at the cost of sorting its pool."""
        inside = number % self.pool
        return self._share_of(self._batches_of_pool(epoch, number - inside)[inside])

    def random_batch(self, epoch: int, key: tuple[int, ...]) -> Batch:
        """A batch of an epoch, every one as likely: a function of (seed, epoch, `key`) alone.

        Parameters
        ----------
        epoch : int
        key : tuple of int
            At least two numbers, of which the last is not 0.
        """
        seeds = np.random.SeedSequence((self.seed, epoch), spawn_key=key)
        return self.batch(epoch, int(np.random.default_rng(seeds).integers(len(self))))

    def _order(self, epoch: int) -> np.ndarray | Permutation:
        """All rows, shuffled; kept for as long as the epoch is asked for."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            self._shuffled = None  # two orders must not be in memory at a time
            seeds = np.random.SeedSequence((self.seed, epoch))
            self._shuffled = epoch, random_order(len(self.corpus), seeds)
        return self._shuffled[1]

    def _batches_of_pool(self, epoch: int, first: int) -> list[np.ndarray]:
        """Rows of each batch of the pool that starts with batch number `first`."""
        order = self._order(epoch)
        count = min(self.pool, len(self) - first)
        end = (first + count) * self.batch_size if first + count < len(self) else len(order)
        rows = order[first * self.batch_size : end].astype(np.int64)
        if self.pool > 1:
            rows = rows[np.argsort(_lengths(self.corpus, rows), kind="stable")]
        batches = np.split(rows, self.batch_size * np.arange(1, count))
        # Each pool has a random stream of its own, so that none depends on those before it.
        seeds = np.random.SeedSequence((self.seed, epoch), spawn_key=(first // self.pool,))
        return [batches[i] for i in np.random.default_rng(seeds).permutation(count)]

    def _share_of(self, rows: np.ndarray) -> Batch:
        """This process's share of a global batch."""
        return _assemble(self.corpus, rows[self.rank :: self.world], total=len(rows))


def sequential_batches(
    corpus: Corpus,
    batch_size: int,
    *,
    max_tokens: int | None = None,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Every sentence once, longest first, for evaluation; ``Batch.index`` tells the row.

    The longest come first, so that a batch that does not fit in memory fails at once. Of more
    than ``BLOCK`` sentences so many at a time are sorted, those with the longest of all first.

    Parameters
    ----------
    corpus : Corpus
    batch_size : int
        Most sentences of a batch, over all processes.
    max_tokens : int or None
        Most tokens of a batch on one process, padding, ``<s>`` and ``</s>`` counted. A single
        sentence may exceed it, and so may the last batch by one sentence.
    rank, world : int
        This process and the number of processes; each gets the same number of batches.

    Raises
    ------
    UserError
        For sizes below 1, and for fewer sentences in the corpus or a batch than processes.
    """
    _check(corpus, batch_size, rank, world)
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"max_tokens must be at least 1, not {max_tokens}")
    for rows, lengths in _sorted_blocks(corpus):
        first = 0
        while first < len(rows):
            size = batch_size
            if max_tokens is not None:
                size = min(size, world * max(1, max_tokens // (int(lengths[first]) + 2)))
            if len(rows) - first - size < world:  # too few left for every rank to get one
                size = len(rows) - first
            chosen = rows[first : first + size]
            first += size
            yield _assemble(corpus, chosen[rank::world], total=len(chosen))


def _sorted_blocks(corpus: Corpus) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of one part of the corpus after the other, longest first, and their lengths."""
    count = -(-len(corpus) // BLOCK)
    bounds = [len(corpus) * number // count for number in range(count + 1)]
    blocks = list(itertools.pairwise(bounds))
    if count > 1:
        longest = [int(np.diff(corpus.offsets[a : b + 1]).max()) for a, b in blocks]
        blocks.insert(0, blocks.pop(int(np.argmax(longest))))
    for begin, end in blocks:
        lengths = np.diff(corpus.offsets[begin : end + 1])
        order = np.argsort(-lengths, kind="stable")
        yield begin + order, lengths[order]


def _check(corpus: Corpus, batch_size: int, rank: int, world: int) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}")
    if not 0 <= rank < world:
        raise UserError(f"rank {rank} is not one of {world} processes")
    if min(batch_size, len(corpus)) < world:
        least = min(batch_size, len(corpus))
        raise UserError(f"{world} processes cannot share batches of {least} sentences")


def _lengths(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    return corpus.offsets[rows + 1] - corpus.offsets[rows]


def _assemble(corpus: Corpus, rows: np.ndarray, total: int) -> Batch:
    tokens, lengths = padded(corpus.tokens, corpus.offsets, rows)
    labels = {name: column.ids[rows] for name, column in corpus.columns.items()}
    return Batch(
        tokens=torch.from_numpy(tokens),
        lengths=torch.from_numpy(lengths),
        index=torch.from_numpy(np.array(rows, np.int64)),
        labels={name: torch.from_numpy(ids.astype(np.int64)) for name, ids in labels.items()},
        total=total,
        context=corpus.contexts.batch(rows) if corpus.contexts is not None else None,
    )
