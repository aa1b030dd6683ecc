"""Recurrent decoders, and one step of them for evaluation and sampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.config import RecurrentDecoderConfig
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import BOS, PAD, UNK
from uncollapse.decoders.base import Decoder
from uncollapse.decoders.token_loss import TokenLogLikelihood, token_nll
from uncollapse.dropout import Dropout
from uncollapse.encoders.recurrent import CELLS
from uncollapse.initialisation import initialise


class RecurrentDecoder(Decoder):
    """p(x|z) = Π_t p(w_t | w_<t, z) with an LSTM, GRU or RNN.

    z can enter through the initial state and beside every input embedding. Dropout falls
    on word embeddings and on the states before the softmax, never on z. The softmax layer
    has no bias, as in the code of He et al. 2019; it can be tied to the embeddings.

    Parameters
    ----------
    config : RecurrentDecoderConfig
        The options.
    vocabulary_size : int
        V.
    latent_dim : int
        D, all latents together; 0 for a language model.
    """

    def __init__(
        self, config: RecurrentDecoderConfig, vocabulary_size: int, latent_dim: int
    ) -> None:
        super().__init__()
        self.kind = config.kind
        self.hidden_dim = config.hidden_dim
        self.latent_dim = latent_dim
        self.word_dropout = config.word_dropout
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_dim, padding_idx=PAD)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.output_dropout = Dropout(config.output_dropout)
        self.every_input = config.every_input and latent_dim > 0
        width = config.embedding_dim + (latent_dim if self.every_input else 0)
        self.cell = CELLS[config.kind](width, config.hidden_dim, batch_first=True)
        self.state_rule = config.initial_state if latent_dim > 0 else None
        self.to_state = (
            nn.Linear(latent_dim, config.hidden_dim, bias=self.state_rule == "hidden")
            if self.state_rule is not None
            else None
        )
        self.output = nn.Linear(config.hidden_dim, vocabulary_size, bias=False)
        if config.tied_softmax:
            self.output.weight = self.embedding.weight
        initialise(self, config.init_scale, config.embedding_init_scale)

    def log_prob(self, z: Tensor | None, batch: Batch) -> Tensor:
        """log p(x|z) of every sentence, ``(B,)``, nats; ``</s>`` counted and ``<s>`` not.

        Parameters
        ----------
        z : Tensor, optional
            ``(B, D)``; None for a language model.
        batch : Batch
            The sentences.
        """
        mask = batch.target_mask
        states = self._states(z, batch.inputs)  # (B, T-1, H)
        # only real tokens reach the softmax
        nll = token_nll(self.output_dropout(states[mask]), self.output.weight, batch.targets[mask])
        return -nll.new_zeros(mask.shape).masked_scatter(mask, nll).sum(1)  # (B,)

    def _states(self, z: Tensor | None, inputs: Tensor) -> Tensor:
        if self.training and self.word_dropout > 0:
            dropped = torch.rand(inputs.shape, device=inputs.device) < self.word_dropout
            inputs = inputs.masked_fill(dropped & (inputs != BOS) & (inputs != PAD), UNK)
        embedded = self.embedding_dropout(self.embedding(inputs))  # (B, T, E)
        if self.every_input:
            assert z is not None
            beside = z[:, None].expand(-1, inputs.shape[1], -1)  # (B, T, D)
            embedded = torch.cat([embedded, beside.to(embedded.dtype)], -1)
        state = self._initial_state(z, len(inputs), embedded)
        first = tuple(part[None] for part in state)  # (1, B, H) each
        states, _ = self.cell(embedded, first if self.kind == "lstm" else first[0])
        return states

    def _initial_state(self, z: Tensor | None, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden and cell state ``(B, H)``; cells without a cell state ignore the second."""
        zeros = like.new_zeros(rows, self.hidden_dim)
        if self.to_state is None:
            return zeros, zeros
        projected = self.to_state(z)  # (B, H)
        if self.state_rule == "tanh":
            return projected.tanh(), projected
        return projected, (projected if self.state_rule == "linear" else zeros)

    # --- evaluation and sampling: one step at a time, projections shared ------------------

    def project_words(self, words: Tensor) -> Tensor:
        """What words ``(...)`` add to the gates, ``(..., G)``; once a type, not once a use."""
        weight = self._parameter("weight_ih")[:, : self.embedding.embedding_dim]
        with self._full_precision():
            return F.linear(self.embedding(words), weight, self._parameter("bias_ih"))

    def start(self, z: Tensor | None, rows: int) -> DecoderState:
        """The state before the first word, for ``rows`` sentences."""
        with self._full_precision():
            hidden, cell = self._initial_state(z, rows, self.output.weight)
            beside = None
            if self.every_input:
                assert z is not None
                weight = self._parameter("weight_ih")[:, self.embedding.embedding_dim :]
                beside = F.linear(z, weight)  # (N, G)
        return DecoderState(hidden, cell, beside)

    def step(self, words: Tensor, state: DecoderState) -> DecoderState:
        """Read one projected word per row, ``(N, G)``; the new state's ``hidden`` predicts.

        Under autocast only the recurrent product is in its precision: states stay f32.
        """
        inputs = words if state.beside is None else words + state.beside  # (N, G)
        recurrent = F.linear(state.hidden, self._parameter("weight_hh"), self._parameter("bias_hh"))
        hidden, cell = STEPS[self.kind](inputs, recurrent, state.hidden, state.cell)
        return DecoderState(hidden, cell, state.beside)

    def _full_precision(self) -> torch.autocast:
        """Autocast off: what is computed once and read in every step is cheap to have exact."""
        return torch.autocast(self.output.weight.device.type, enabled=False)

    def _parameter(self, name: str) -> Tensor:
        return getattr(self.cell, f"{name}_l0")

    @torch.no_grad()
    def log_prob_samples(self, z: Tensor | None, batch: Batch) -> Tensor:
        """log p(x|z) for many z of every sentence, ``(B, S)``, nats; without gradients.

        All samples advance together, words are projected once for all of them, and logits
        exist only in one reused chunk: memory depends neither on S · T nor on T · V.

        Parameters
        ----------
        z : Tensor, optional
            ``(B, S, D)``; None for a language model, which has S = 1.
        batch : Batch
            The sentences.
        """
        assert not self.training, "evaluation with dropout on is no evaluation"
        size = batch.size
        samples = 1 if z is None else z.shape[1]
        words = self.project_words(batch.inputs)  # (B, T, G)
        state = self.start(None if z is None else z.flatten(0, 1), size * samples)  # rows B·S
        score = TokenLogLikelihood(self.output.weight)
        total = words.new_zeros(size, samples, dtype=torch.float64)
        active = torch.arange(size, device=words.device)
        for step in range(batch.targets.shape[1]):
            left = batch.target_mask[active, step]
            if not left.all():  # finished sentences leave
                state = state.select(left.repeat_interleave(samples))
                active = active[left]
            state = self.step(words[active, step].repeat_interleave(samples, 0), state)
            targets = batch.targets[active, step].repeat_interleave(samples)
            total[active] += score(state.hidden, targets).view(-1, samples)
        return total


class DecoderState:
    """Where a decoder stands: hidden and cell states ``(N, H)``, and z's share of the gates."""

    def __init__(self, hidden: Tensor, cell: Tensor, beside: Tensor | None) -> None:
        self.hidden = hidden
        self.cell = cell
        self.beside = beside  # (N, G)

    def select(self, rows: Tensor) -> DecoderState:
        """Keep some rows, by index or mask."""
        beside = None if self.beside is None else self.beside[rows]
        return DecoderState(self.hidden[rows], self.cell[rows], beside)


def _lstm(
    inputs: Tensor, recurrent: Tensor, _hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    take, forget, value, give = (inputs + recurrent).chunk(4, -1)
    cell = forget.sigmoid() * cell + take.sigmoid() * value.tanh()
    return give.sigmoid() * cell.tanh(), cell


def _gru(inputs: Tensor, recurrent: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    reset_in, update_in, new_in = inputs.chunk(3, -1)
    reset_hidden, update_hidden, new_hidden = recurrent.chunk(3, -1)
    reset = (reset_in + reset_hidden).sigmoid()
    update = (update_in + update_hidden).sigmoid()
    new = (new_in + reset * new_hidden).tanh()
    return torch.lerp(new, hidden, update), cell


def _rnn(inputs: Tensor, recurrent: Tensor, _hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    return (inputs + recurrent).tanh(), cell


STEPS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}
