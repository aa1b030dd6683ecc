"""The softmax over the vocabulary without gradients: scores and draws, through one buffer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from uncollapse.data.tokenizer import BOS, PAD
from uncollapse.native import kernels_for
from uncollapse.precision import as_autocast

# logits alive at once, and most rows of them: fewer starve the matrix product, more leave the cache
ALIVE, MOST_ROWS = 1 << 23, 512
LAID_OUT = 2048  # rows from which on it pays to copy the weights into the order of the product
BLOCK = 128  # words per block of the inverse-CDF search
KINDS = 2048  # of weights up to 1, in each of which they are of about the same size


class VocabularyRows:
    """softmax(features · weightᵀ) of any number of rows, some at a time.

    Logits of all rows together would not fit: 500 samples of a sentence of 80 words over
    20,000 words are 3 GB. Here memory depends neither on how many rows there are nor, beyond one
    row, on V. Built under autocast, it multiplies in that precision; all else is f32 still.

    Parameters
    ----------
    weight : Tensor
        ``(V, H)``.
    expected : int
        How many rows are to come, roughly; for many, preparing takes longer.
    """

    def __init__(self, weight: Tensor, expected: int = 0) -> None:
        self.weight = as_autocast(weight)
        self._across = self.weight.t()  # (H, V)
        if expected >= LAID_OUT:
            self._across = self._across.contiguous()
        self.rows = min(MOST_ROWS, max(1, ALIVE // len(weight)))
        # kernels read narrow logits and any width; PyTorch's way wants f32 and whole blocks
        self._native = kernels_for(self.weight)
        wide, self._width = self.weight.dtype, len(weight)
        if self._native is None:
            wide = torch.promote_types(wide, torch.float32)
            self._width += -self._width % BLOCK
        self._buffer = self.weight.new_empty(self.rows * self._width, dtype=wide)

    def log_likelihood(self, features: Tensor, targets: Tensor) -> Tensor:
        """log-probabilities ``(N,)`` of ``targets`` ``(N,)``, given ``features`` ``(N, H)``."""
        pieces = []
        for part, wanted in zip(features.split(self.rows), targets.split(self.rows), strict=True):
            logits = self._fill(part, len(self.weight))  # (n, V)
            if self._native is not None:
                pieces.append(self._native.log_likelihood(logits, wanted))
            else:
                log_probs = torch.log_softmax(logits, 1, out=logits)
                pieces.append(log_probs.gather(1, wanted[:, None]).squeeze(1))
        return _joined(pieces)

    def greatest(self, features: Tensor) -> Tensor:
        """The most probable word that can be written, for ``features`` ``(N, H)``, ``(N,)``."""
        find = _greatest if self._native is None else self._native.greatest
        return torch.cat([find(self._writable(part)) for part in features.split(self.rows)])

    def draw(
        self, features: Tensor, uniforms: Tensor, temperature: float = 1.0, top_p: float = 1.0
    ) -> Tensor:
        """A word that can be written, by inversion at ``uniforms`` ``(N,)``, ``(N,)``.

        ``temperature`` divides the logits. Words less probable than the least of the smallest
        set whose probability reaches ``top_p`` are left out.
        """
        find = _draw if self._native is None else self._native.draw
        parts = zip(features.split(self.rows), uniforms.split(self.rows), strict=True)
        drawn = [find(self._writable(part), own, temperature, top_p) for part, own in parts]
        return torch.cat(drawn)

    def _fill(self, features: Tensor, width: int) -> Tensor:
        """Logits ``(n, width)``; what stands behind the V-th of a row is undefined."""
        buffer = self._buffer[: len(features) * width].view(len(features), width)
        logits = buffer[:, : len(self.weight)]
        if self.weight.dtype == logits.dtype:
            torch.mm(features.to(logits.dtype), self._across, out=logits)
        else:
            logits.copy_(torch.mm(features.to(self.weight.dtype), self._across))
        return buffer

    def _writable(self, features: Tensor) -> Tensor:
        """The same of whole blocks, −∞ where there is no word that can be written."""
        logits = self._fill(features, self._width)
        logits[:, len(self.weight) :] = -torch.inf
        logits[:, PAD] = logits[:, BOS] = -torch.inf  # never targets in training
        return logits


class ScoreSums:
    """Sums of log-probabilities over the words of every sentence.

    Few sentences make a slow product, so words wait until there are as many as fit.

    Parameters
    ----------
    softmax : VocabularyRows
    sentences : int
        N.
    """

    def __init__(self, softmax: VocabularyRows, sentences: int) -> None:
        self._softmax = softmax
        self._totals = softmax.weight.new_zeros(sentences, dtype=torch.float64)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._rows = 0

    def add(self, features: Tensor, targets: Tensor, sentences: Tensor) -> None:
        """Words ``(n,)``, predicted by features ``(n, H)``, of sentences ``(n,)``."""
        if self._rows + len(features) > self._softmax.rows:
            self._score()
        self._waiting.append((features, targets, sentences))
        self._rows += len(features)

    def finish(self) -> Tensor:
        """The sums of all sentences, ``(N,)`` float64."""
        self._score()
        return self._totals

    def _score(self) -> None:
        if self._waiting:
            features, targets, sentences = zip(*self._waiting, strict=True)
            scores = self._softmax.log_likelihood(_joined(features), _joined(targets)).double()
            # one by one: a sentence may have several words among them
            for own, part in zip(sentences, scores.split(list(map(len, sentences))), strict=True):
                self._totals[own] += part
            self._waiting, self._rows = [], 0


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """All rows of some tensors; of a single one without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def softmax_(logits: Tensor, targets: Tensor) -> Tensor:
    """Turn logits ``(N, V)`` into probabilities in place; return −log p(target), ``(N,)``."""
    highest = logits.amax(1)
    chosen = logits.gather(1, targets[:, None]).squeeze(1)
    torch.softmax(logits, 1, out=logits)
    # the target's probability may underflow; the greatest one is 1 / Σ exp(logit − highest)
    return highest - chosen - logits.amax(1).log()


def _greatest(logits: Tensor) -> Tensor:
    """The greatest of every row ``(N, V)``, V whole blocks, ``(N,)``; PyTorch's own is slow."""
    blocks = logits.view(len(logits), -1, BLOCK)
    block = blocks.amax(2).argmax(1)  # (N,)
    return block * BLOCK + _pick_block(blocks, block).argmax(1)


def _draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """One word a row by inversion of the distribution function, ``(N,)``; consumes logits."""
    if temperature != 1:
        logits.sub_(logits.amax(1, keepdim=True)).div_(temperature)
    weights = torch.softmax(logits, 1, out=logits)  # (N, V)
    if top_p < 1:
        weights.masked_fill_(weights < _least_of_nucleus(weights, top_p), 0)
    return inverse_cdf(weights, uniforms)


def _least_of_nucleus(weights: Tensor, top_p: float) -> Tensor:
    """The least weight of the smallest set of words that reaches ``top_p``, ``(N, 1)``."""
    wanted = top_p * weights.sum(1, keepdim=True)
    if weights.device.type != "cpu":  # where sorting is fast, and sums by kind are in no order
        return _least_before(weights.sort(1, descending=True).values, wanted, 0.0)
    return _least_by_kind(weights, wanted)


def _least_before(ordered: Tensor, wanted: Tensor, above: Tensor | float) -> Tensor:
    """The weight of descending ones with which the mass, ``above`` and of them, is ``wanted``."""
    before = above + ordered.cumsum(1) - ordered
    return ordered.gather(1, ((before < wanted).sum(1, keepdim=True) - 1).clamp(min=0))


def _least_by_kind(weights: Tensor, wanted: Tensor) -> Tensor:
    """The same of weights in any order: only those of about its size are sorted."""
    # positive floats are ordered as their bits are: here the exponent and four bits more
    kind = weights.float().view(torch.int32) >> 19
    kind = kind.clamp_(0, KINDS - 1).long()  # as NaN may lie outside
    mass = weights.new_zeros(len(weights), KINDS).scatter_add_(1, kind, weights).flip(1)
    above = mass.cumsum(1) - mass  # of heavier kinds
    place = (above < wanted).sum(1, keepdim=True).clamp(min=1) - 1  # (N, 1)
    rows, words = (kind == KINDS - 1 - place).nonzero(as_tuple=True)
    counts = rows.bincount(minlength=len(weights))
    within = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    alike = weights.new_zeros(len(weights), max([1, *counts.tolist()]))
    alike[rows, within] = weights[rows, words]
    ordered = alike.sort(1, descending=True).values
    return _least_before(ordered, wanted, above.gather(1, place))


def inverse_cdf(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Draw from unnormalised weights ``(N, V)`` by one uniform number a row, ``(N,)``.

    First the block of words, then the word in its block: two short cumulative sums in place
    of one over the whole vocabulary, and no exponential per word as in
    ``torch.multinomial``.
    """
    rest = -weights.shape[1] % BLOCK
    padded = F.pad(weights, (0, rest)) if rest else weights
    blocks = padded.view(len(weights), -1, BLOCK)
    sums = blocks.sum(2).cumsum(1)  # (N, V / BLOCK)
    target = uniforms[:, None] * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True).clamp(max=sums.shape[1] - 1)  # (N, 1)
    below = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0)
    inside = _pick_block(blocks, block.squeeze(1))
    within = torch.searchsorted(inside.cumsum(1), target - below, right=True)
    # rounding may carry the search past the last word that has any weight
    last = BLOCK - 1 - (inside > 0).flip(1).to(torch.uint8).argmax(1, keepdim=True)
    return (block * BLOCK + torch.minimum(within, last)).squeeze(1)


def _pick_block(blocks: Tensor, block: Tensor) -> Tensor:
    """Of every row of ``(N, V / BLOCK, BLOCK)`` the block asked for, ``(N, BLOCK)``."""
    return blocks[torch.arange(len(blocks), device=blocks.device), block]
