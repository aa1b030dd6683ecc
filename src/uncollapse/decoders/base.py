"""What every decoder shares: how words and z come in, the softmax, and likelihoods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Generic, Protocol, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.config import DecoderConfig
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import BOS, PAD, UNK
from uncollapse.decoders.token_loss import token_nll
from uncollapse.decoders.vocabulary import VocabularyRows
from uncollapse.dropout import Dropout
from uncollapse.embedding import Embedding
from uncollapse.encoders.context import Condition

POSITIONS = 4096  # steps of all rows together that evaluation computes at once


class State(Protocol):
    """Where a decoder stands in each of N sentences; a step makes a new one."""

    features: Tensor  # (N, H): what predicts the next word, once a word was read

    def select(self, rows: Tensor) -> Self:
        """Keep some rows, by index or mask."""
        ...

    def replace(self, places: Tensor, other: Self, rows: Tensor) -> None:
        """Have rows ``places`` go on as ``rows`` of another state, both by index.

        In place: states that this one was made from may change, too.
        """
        ...


def replace_rows(
    pairs: Iterable[tuple[Tensor | None, Tensor | None]], places: Tensor, rows: Tensor
) -> None:
    """Copy ``rows`` of the second of every pair to ``places`` of the first, if there are both."""
    for own, other in pairs:
        if own is not None and other is not None:
            own.index_copy_(0, places, other.index_select(0, rows).to(own.dtype))


StateT = TypeVar("StateT", bound=State)


class Decoder(nn.Module, ABC, Generic[StateT]):
    """p(x|z) = Π_t p(w_t | w_<t, z): log-probabilities and, a word at a time, sampling.

    Probabilities count ``</s>`` and not ``<s>``, in nats; padding never counts. The softmax
    layer has no bias, as in the code of He et al. 2019; it can be tied to the embeddings.
    Dropout falls on word embeddings and on what enters the softmax, never on z.

    Parameters
    ----------
    config : DecoderConfig
        The options.
    vocabulary_size : int
        V.
    latent_dim : int
        D, all latents together; 0 for a language model.
    context_dims : tuple of int
        Widths C and M of a context's vector and of its memory; 0 without contexts.

    Attributes
    ----------
    embedding : Embedding
        ``(V, E)``.
    output : nn.Linear
        ``(V, H)``, made by `make_output` after the parts of a subclass.
    every_input : bool
        Whether z stands beside every word.
    input_dim : int
        Width of a word with what stands beside it.
    """

    output: nn.Linear
    context_beside_words: ClassVar[bool] = True  # the only way in, unless a subclass has another

    def __init__(
        self,
        config: DecoderConfig,
        vocabulary_size: int,
        latent_dim: int,
        context_dims: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.hidden_dim = config.hidden_dim
        self.latent_dim = latent_dim
        self.word_dropout = config.word_dropout
        self.embedding = Embedding(vocabulary_size, config.embedding_dim, padding_idx=PAD)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.output_dropout = Dropout(config.output_dropout)
        self.every_input = config.z_beside_words and latent_dim > 0
        self.input_dim = config.embedding_dim + (latent_dim if self.every_input else 0)
        self.context_dim = context_dims[0]
        if self.context_beside_words:
            self.input_dim += self.context_dim

    def make_output(self, config: DecoderConfig) -> nn.Linear:
        """The layer before the softmax; its weights may be the embeddings."""
        output = nn.Linear(self.hidden_dim, self.embedding.num_embeddings, bias=False)
        if config.tied_softmax:
            output.weight = self.embedding.weight
        return output

    # --- whole sentences --------------------------------------------------------------------

    @abstractmethod
    def states(
        self, z: Tensor | None, inputs: Tensor, condition: Condition | None = None
    ) -> Tensor:
        """What predicts the word after each of ``inputs`` ``(B, T)``, ``(B, T, H)``.

        ``z`` is ``(B, D)``, None for a language model; without a ``condition`` all contexts are
        empty. What stands at padded steps is undefined.
        """

    def log_prob(
        self, z: Tensor | None, batch: Batch, condition: Condition | None = None
    ) -> Tensor:
        """log p(x|z) of every sentence, ``(B,)``, for training.

        Parameters
        ----------
        z : Tensor, optional
            ``(B, D)``; None for a language model.
        batch : Batch
            The sentences.
        condition : Condition, optional
            Their contexts.
        """
        mask = batch.target_mask
        states = self.states(z, batch.inputs, condition)  # (B, T-1, H)
        # only real tokens reach the softmax
        nll = token_nll(self.output_dropout(states[mask]), self.output.weight, batch.targets[mask])
        return -nll.new_zeros(mask.shape).masked_scatter(mask, nll).sum(1)  # (B,)

    @torch.no_grad()
    def log_prob_samples(
        self, z: Tensor | None, batch: Batch, condition: Condition | None = None
    ) -> Tensor:
        """log p(x|z) for many z of every sentence, ``(B, S)``, float64; without gradients.

        Sentences are computed `POSITIONS` steps at a time, and logits exist only in one
        reused chunk: memory depends neither on S nor on T · V.

        Parameters
        ----------
        z : Tensor, optional
            ``(B, S, D)``; None for a language model, which has S = 1.
        batch : Batch
            The sentences.
        condition : Condition, optional
            Their contexts.
        """
        assert not self.training, "evaluation with dropout on is no evaluation"
        samples = 1 if z is None else z.shape[1]
        softmax = VocabularyRows(self.output.weight)
        rows = torch.arange(batch.size * samples, device=batch.tokens.device)
        totals = []
        for part in rows.split(max(1, POSITIONS // batch.inputs.shape[1])):
            sentence = part // samples  # (n,)
            mask = batch.target_mask[sentence]  # (n, T-1)
            longest = int(mask.sum(1).max())
            mask = mask[:, :longest]
            beside = None if z is None else z[sentence, part % samples]  # (n, D)
            context = None if condition is None else condition.select(sentence)
            states = self.states(beside, batch.inputs[sentence, :longest], context)
            targets = batch.targets[sentence, :longest][mask]
            scores = softmax.log_likelihood(states[mask], targets)
            total = scores.new_zeros(mask.shape, dtype=torch.float64)
            totals.append(total.masked_scatter(mask, scores.double()).sum(1))
        return torch.cat(totals).view(batch.size, samples)

    def embed(self, words: Tensor) -> Tensor:
        """Embeddings of words ``(...)``, ``(..., E)``."""
        return self.embedding(words)

    def read(self, z: Tensor | None, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        """Words with what stands beside them, ``(B, T, input_dim)``, dropout applied."""
        embedded = self.embedding_dropout(self.embed(self.hear(inputs)))  # (B, T, E)
        parts = self._beside(z, len(inputs), condition)
        if not parts:
            return embedded
        beside = torch.cat(parts, -1)[:, None].expand(-1, inputs.shape[1], -1)
        return torch.cat([embedded, beside.to(embedded.dtype)], -1)

    def hear(self, words: Tensor) -> Tensor:
        """Words ``(B, T)``, some of them unknown: word dropout, in training only."""
        if not self.training or self.word_dropout == 0:
            return words
        dropped = torch.rand(words.shape, device=words.device) < self.word_dropout
        return words.masked_fill(dropped & (words != BOS) & (words != PAD), UNK)

    def _beside(self, z: Tensor | None, rows: int, condition: Condition | None) -> list[Tensor]:
        """What stands beside every word, ``(N, D)`` and ``(N, C)``."""
        parts: list[Tensor] = []
        if self.every_input:
            assert z is not None
            parts.append(z)
        if self.context_beside_words and self.context_dim:
            empty = self.output.weight.new_zeros(rows, self.context_dim)
            parts.append(empty if condition is None else condition.vector.to(empty))
        return parts

    # --- a word at a time -------------------------------------------------------------------

    @property
    @abstractmethod
    def input_layer(self) -> tuple[Tensor, Tensor]:
        """Weight ``(G, input_dim)`` and bias of the layer that reads words and z beside them."""

    def project_words(self, words: Tensor) -> Tensor:
        """What words ``(...)`` add to the first layer, ``(..., G)``; once a type, not a use."""
        weight, bias = self.input_layer
        with self.full_precision():
            return F.linear(self.embed(words), weight[:, : self.embedding.embedding_dim], bias)

    def project_beside(
        self, z: Tensor | None, rows: int, condition: Condition | None = None
    ) -> Tensor | None:
        """What stands beside every word adds to the first layer in every step, ``(N, G)``."""
        parts = self._beside(z, rows, condition)
        if not parts:
            return None
        with self.full_precision():
            beside = torch.cat(parts, -1)
            return F.linear(beside, self.input_layer[0][:, self.embedding.embedding_dim :])

    @abstractmethod
    def start(self, z: Tensor | None, rows: int, condition: Condition | None = None) -> StateT:
        """The state before ``<s>``, for ``rows`` sentences in their contexts."""

    @abstractmethod
    def step(self, words: Tensor, state: StateT) -> StateT:
        """Read one projected word per row, ``(N, G)``; ``state`` stays as it was."""

    def full_precision(self) -> torch.autocast:
        """Autocast off: what is computed once and read in every step is cheap to have exact."""
        return torch.autocast(self.output.weight.device.type, enabled=False)
