"""What every decoder shares: how words and z come in, the softmax, and likelihoods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.config import DecoderConfig
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import BOS, PAD, UNK
from uncollapse.decoders.token_loss import TokenLogLikelihood, token_nll
from uncollapse.dropout import Dropout

POSITIONS = 4096  # steps of all rows together that evaluation computes at once


class State(Protocol):
    """Where a decoder stands in each of N sentences; a step makes a new one."""

    features: Tensor  # (N, H): what predicts the next word, once a word was read

    def select(self, rows: Tensor) -> Self:
        """Keep some rows, by index or mask."""
        ...


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

    Attributes
    ----------
    embedding : nn.Embedding
        ``(V, E)``.
    output : nn.Linear
        ``(V, H)``, made by `make_output` after the parts of a subclass.
    every_input : bool
        Whether z stands beside every word.
    input_dim : int
        Width of a word with what stands beside it.
    """

    output: nn.Linear

    def __init__(self, config: DecoderConfig, vocabulary_size: int, latent_dim: int) -> None:
        super().__init__()
        self.hidden_dim = config.hidden_dim
        self.latent_dim = latent_dim
        self.word_dropout = config.word_dropout
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_dim, padding_idx=PAD)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.output_dropout = Dropout(config.output_dropout)
        self.every_input = config.z_beside_words and latent_dim > 0
        self.input_dim = config.embedding_dim + (latent_dim if self.every_input else 0)

    def make_output(self, config: DecoderConfig) -> nn.Linear:
        """The layer before the softmax; its weights may be the embeddings."""
        output = nn.Linear(self.hidden_dim, self.embedding.num_embeddings, bias=False)
        if config.tied_softmax:
            output.weight = self.embedding.weight
        return output

    # --- whole sentences --------------------------------------------------------------------

    @abstractmethod
    def states(self, z: Tensor | None, inputs: Tensor) -> Tensor:
        """What predicts the word after each of ``inputs`` ``(B, T)``, ``(B, T, H)``.

        ``z`` is ``(B, D)``, None for a language model. What stands at padded steps is
        undefined.
        """

    def log_prob(self, z: Tensor | None, batch: Batch) -> Tensor:
        """log p(x|z) of every sentence, ``(B,)``, for training.

        Parameters
        ----------
        z : Tensor, optional
            ``(B, D)``; None for a language model.
        batch : Batch
            The sentences.
        """
        mask = batch.target_mask
        states = self.states(z, batch.inputs)  # (B, T-1, H)
        # only real tokens reach the softmax
        nll = token_nll(self.output_dropout(states[mask]), self.output.weight, batch.targets[mask])
        return -nll.new_zeros(mask.shape).masked_scatter(mask, nll).sum(1)  # (B,)

    @torch.no_grad()
    def log_prob_samples(self, z: Tensor | None, batch: Batch) -> Tensor:
        """log p(x|z) for many z of every sentence, ``(B, S)``, float64; without gradients.

        Sentences are computed `POSITIONS` steps at a time, and logits exist only in one
        reused chunk: memory depends neither on S nor on T · V.

        Parameters
        ----------
        z : Tensor, optional
            ``(B, S, D)``; None for a language model, which has S = 1.
        batch : Batch
            The sentences.
        """
        assert not self.training, "evaluation with dropout on is no evaluation"
        samples = 1 if z is None else z.shape[1]
        score = TokenLogLikelihood(self.output.weight)
        rows = torch.arange(batch.size * samples, device=batch.tokens.device)
        totals = []
        for part in rows.split(max(1, POSITIONS // batch.inputs.shape[1])):
            sentence = part // samples  # (n,)
            mask = batch.target_mask[sentence]  # (n, T-1)
            longest = int(mask.sum(1).max())
            mask = mask[:, :longest]
            beside = None if z is None else z[sentence, part % samples]  # (n, D)
            states = self.states(beside, batch.inputs[sentence, :longest])  # (n, longest, H)
            scores = score(states[mask], batch.targets[sentence, :longest][mask])
            total = scores.new_zeros(mask.shape, dtype=torch.float64)
            totals.append(total.masked_scatter(mask, scores.double()).sum(1))
        return torch.cat(totals).view(batch.size, samples)

    def embed(self, words: Tensor) -> Tensor:
        """Embeddings of words ``(...)``, ``(..., E)``."""
        return self.embedding(words)

    def read(self, z: Tensor | None, inputs: Tensor) -> Tensor:
        """Words with z beside them, ``(B, T, E)`` or ``(B, T, E + D)``, dropout applied."""
        if self.training and self.word_dropout > 0:
            dropped = torch.rand(inputs.shape, device=inputs.device) < self.word_dropout
            inputs = inputs.masked_fill(dropped & (inputs != BOS) & (inputs != PAD), UNK)
        embedded = self.embedding_dropout(self.embed(inputs))  # (B, T, E)
        if self.every_input:
            assert z is not None
            beside = z[:, None].expand(-1, inputs.shape[1], -1)  # (B, T, D)
            embedded = torch.cat([embedded, beside.to(embedded.dtype)], -1)
        return embedded

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

    def project_beside(self, z: Tensor | None) -> Tensor | None:
        """What z ``(N, D)`` adds to the first layer in every step, ``(N, G)``."""
        if not self.every_input:
            return None
        assert z is not None
        with self.full_precision():
            return F.linear(z, self.input_layer[0][:, self.embedding.embedding_dim :])

    @abstractmethod
    def start(self, z: Tensor | None, rows: int) -> StateT:
        """The state before ``<s>``, for ``rows`` sentences."""

    @abstractmethod
    def step(self, words: Tensor, state: StateT) -> StateT:
        """Read one projected word per row, ``(N, G)``; ``state`` stays as it was."""

    def full_precision(self) -> torch.autocast:
        """Autocast off: what is computed once and read in every step is cheap to have exact."""
        return torch.autocast(self.output.weight.device.type, enabled=False)
