"""Recurrent decoders, and one step of them for evaluation and sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uncollapse.config import RecurrentDecoderConfig
from uncollapse.data.batches import Batch
from uncollapse.decoders.base import Decoder, replace_rows
from uncollapse.decoders.context_attention import ContextAttention, Turns
from uncollapse.decoders.vocabulary import ScoreSums, VocabularyRows
from uncollapse.encoders.context import Condition
from uncollapse.encoders.recurrent import CELLS
from uncollapse.initialisation import initialise
from uncollapse.recurrent import advance, has_loop, run, run_words

# samples that advance together: as many as keep a product busy, and stay in the cache of a CPU
ROWS, ROWS_ELSEWHERE = 512, 2048


@dataclass
class RecurrentState:
    """Hidden and cell states, what predicts, and z's share of the gates and of the features."""

    hidden: Tensor  # (N, H)
    cell: Tensor  # (N, H)
    features: Tensor  # (N, H)
    beside: Tensor | None  # (N, G)
    skip: Tensor | None  # (N, H)
    turns: Turns | None = None

    def select(self, rows: Tensor) -> RecurrentState:
        """Keep some rows, by index or mask."""
        beside = None if self.beside is None else self.beside[rows]
        skip = None if self.skip is None else self.skip[rows]
        turns = None if self.turns is None else self.turns.select(rows)
        hidden, cell, features = self.hidden[rows], self.cell[rows], self.features[rows]
        return RecurrentState(hidden, cell, features, beside, skip, turns)

    def replace(self, places: Tensor, other: RecurrentState, rows: Tensor) -> None:
        """Have rows ``places`` go on as ``rows`` of another state; in place."""
        replace_rows(zip(self._parts(), other._parts(), strict=True), places, rows)

    def _parts(self) -> list[Tensor | None]:
        turns = self.turns
        told = [None] * 3 if turns is None else [turns.keys, turns.values, turns.mask]
        # after a step two of them may be one tensor, which bears being written twice
        return [self.hidden, self.cell, self.features, self.beside, self.skip, *told]


class RecurrentDecoder(Decoder[RecurrentState]):
    """An LSTM, GRU or RNN.

    z can enter through the initial state, beside every input embedding and, as in
    Skip-VAE, at every output: softmax(V (h_t + W z)) in place of softmax(V h_t). The paper's
    own matrix on h_t is part of V: a product of two small ones would only learn slowly.
    A context enters through the initial state, and through attention if it is asked for.

    Parameters
    ----------
    config : RecurrentDecoderConfig
        The options.
    vocabulary_size : int
        V.
    latent_dim : int
        D, all latents together; 0 for a language model.
    context_dims : tuple of int
        C and M; 0 without contexts.

    References
    ----------
    Dieng et al. 2019, "Avoiding Latent Variable Collapse with Generative Skip Models".
    """

    context_beside_words = False

    def __init__(
        self,
        config: RecurrentDecoderConfig,
        vocabulary_size: int,
        latent_dim: int,
        context_dims: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(config, vocabulary_size, latent_dim, context_dims)
        self.kind = config.kind
        self.cell = CELLS[config.kind](self.input_dim, config.hidden_dim, batch_first=True)
        context_dim, memory_dim = context_dims
        has_state = latent_dim > 0 and config.initial_state is not None
        self.state_rule = config.initial_state
        if not has_state:  # the context alone
            self.state_rule = "hidden" if context_dim else None
        bias = self.state_rule == "hidden"
        self.to_state = nn.Linear(latent_dim, config.hidden_dim, bias=bias) if has_state else None
        # without a bias, so that no context adds nothing
        self.context_to_state = (
            nn.Linear(context_dim, config.hidden_dim, bias=False) if context_dim else None
        )
        self.attention = (
            ContextAttention(config.hidden_dim, memory_dim) if config.attention else None
        )
        self.skip = (
            nn.Linear(latent_dim, config.hidden_dim, bias=False)
            if config.skip and latent_dim > 0
            else None
        )
        self.output = self.make_output(config)
        initialise(self, config.init_scale, config.embedding_init_scale)

    def states(
        self, z: Tensor | None, inputs: Tensor, condition: Condition | None = None
    ) -> Tensor:
        """What predicts the word after each of ``inputs`` ``(B, T)``, ``(B, T, H)``."""
        state = self._initial_state(z, len(inputs), self.output.weight, condition)
        if self.embedding_dropout.is_idle and has_loop(self.cell):
            rows, words = self.embedding.types(self.hear(inputs))
            parts = self._beside(z, len(inputs), None)
            beside = torch.cat(parts, -1) if parts else None  # (B, D)
            states = run_words(self.cell, rows, words, state, beside)
        else:
            states = run(self.cell, self.read(z, inputs), state)
        features = states if self.skip is None else states + self.skip(z)[:, None]
        if self.attention is None or condition is None:
            return features
        return features + self.attention(states, self.attention.turns(condition))

    def _initial_state(
        self, z: Tensor | None, rows: int, like: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor]:
        """Hidden and cell state ``(B, H)``; cells without a cell state ignore the second."""
        zeros = like.new_zeros(rows, self.hidden_dim)
        parts = [] if self.to_state is None else [self.to_state(z)]
        if self.context_to_state is not None and condition is not None:
            parts.append(self.context_to_state(condition.vector.to(like.dtype)))
        if not parts:
            return zeros, zeros
        projected = parts[0] if len(parts) == 1 else parts[0] + parts[1]  # (B, H)
        if self.state_rule == "tanh":
            return projected.tanh(), projected
        return projected, (projected if self.state_rule == "linear" else zeros)

    # --- a word at a time -------------------------------------------------------------------

    @property
    def input_layer(self) -> tuple[Tensor, Tensor]:
        """The input weights of the gates, ``(G, E)`` or ``(G, E + D)``, and their bias."""
        weight, _, bias, _ = self.cell.all_weights[0]
        return weight, bias

    def start(
        self, z: Tensor | None, rows: int, condition: Condition | None = None
    ) -> RecurrentState:
        """The state before ``<s>``, for ``rows`` sentences in their contexts."""
        turns = None
        with self.full_precision():
            hidden, cell = self._initial_state(z, rows, self.output.weight, condition)
            if self.kind != "lstm":
                cell = hidden
            skip = None if self.skip is None else self.skip(z)  # (N, H)
            if self.attention is not None and condition is not None:
                turns = self.attention.turns(condition)
        return RecurrentState(hidden, cell, hidden, self.project_beside(z, rows), skip, turns)

    def step(self, words: Tensor, state: RecurrentState) -> RecurrentState:
        """Read one projected word per row, ``(N, G)``."""
        # a copy at least: it is overwritten
        return self._advance(words.clone() if state.beside is None else words + state.beside, state)

    def _advance(self, given: Tensor, state: RecurrentState) -> RecurrentState:
        """One step, from the inputs' share of the gates, ``(N, G)``, which is overwritten."""
        hidden, cell = advance(self.cell, given, state.hidden, state.cell)
        features = hidden if state.skip is None else hidden + state.skip
        if self.attention is not None and state.turns is not None:
            features = features + self.attention(hidden[:, None], state.turns).squeeze(1)
        return RecurrentState(hidden, cell, features, state.beside, state.skip, state.turns)

    @torch.no_grad()
    def log_prob_samples(
        self, z: Tensor | None, batch: Batch, condition: Condition | None = None
    ) -> Tensor:
        """log p(x|z) for many z of every sentence, ``(B, S)``, float64; without gradients.

        `ROWS` samples advance together, of as few sentences as possible, since these end at
        different steps. Words are projected once for all samples, and logits exist only in one
        reused chunk: memory depends neither on S · T nor on T · V.
        """
        assert not self.training, "evaluation with dropout on is no evaluation"
        samples = 1 if z is None else z.shape[1]
        softmax = VocabularyRows(self.output.weight, samples * int(batch.target_mask.sum()))
        rows = ROWS if batch.tokens.device.type == "cpu" else ROWS_ELSEWHERE
        few, parts = max(1, rows // samples), -(-samples // rows)
        scores = []
        for first in range(0, batch.size, few):
            own = slice(first, first + few)
            some = Batch(batch.tokens[own], batch.lengths[own], batch.index[own], {}, batch.total)
            words = self.project_words(some.inputs)  # (b, T, G)
            told = None if condition is None else condition.map(lambda part, own=own: part[own])
            drawn = [None] if z is None else z[own].chunk(parts, 1)  # (b, s, D) each
            found = [self._score(part, some, words, told, softmax) for part in drawn]
            scores.append(torch.cat(found, 1))
        return torch.cat(scores)

    def _score(
        self,
        z: Tensor | None,
        batch: Batch,
        words: Tensor,
        condition: Condition | None,
        softmax: VocabularyRows,
    ) -> Tensor:
        """The same of few sentences and samples, whose words are projected, ``(b, s)``."""
        samples = 1 if z is None else z.shape[1]
        rows = torch.arange(batch.size * samples, device=words.device)
        told = None if condition is None else condition.select(rows // samples)
        state = self.start(None if z is None else z.flatten(0, 1), len(rows), told)
        sums = ScoreSums(softmax, len(rows))
        mask = batch.target_mask
        active = torch.arange(batch.size, device=words.device)
        for step in range(int(mask.sum(1).max())):
            left = mask[active, step]
            if not left.all():  # finished sentences leave
                places = left.repeat_interleave(samples).nonzero().squeeze(1)
                active, rows, state = active[left], rows[places], state.select(places)
            given = words[active, step][:, None]  # (a, 1, G)
            if state.beside is None:
                given = given.repeat(1, samples, 1)
            else:
                given = given + state.beside.unflatten(0, (len(active), samples))
            state = self._advance(given.flatten(0, 1), state)
            targets = batch.targets[active, step].repeat_interleave(samples)
            sums.add(state.features, targets, rows)
        return sums.finish().view(batch.size, samples)
