"""The text VAE of the literature's common configuration, with LSTM or GRU cells."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from uncollapse.config import Recipe, RecurrentDecoderConfig, RecurrentEncoderConfig
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import PAD
from uncollapse.model import Model

LAYERS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
State = tuple[Tensor, Tensor] | Tensor


class PlainVAE(nn.Module):
    """One recurrent layer on each side, z in every input and in the initial state.

    Parameters
    ----------
    recipe : Recipe
        Sizes, cells and dropout; what else it says belongs to a subclass.
    vocabulary_size : int
        V.
    """

    # of the package's parameters, what stands in place of ours
    names: ClassVar[dict[str, str]] = {
        "encoder_embedding": "encoder.embedding",
        "encoder": "encoder.forward_cell",
        "to_posterior": "latents.z.posterior.linear",
        "embedding": "decoder.embedding",
        "decoder": "decoder.cell",
        "to_state": "decoder.to_state",
        "output": "decoder.output",
    }

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        super().__init__()
        encoder, decoder, latent = recipe.encoder, recipe.decoder, recipe.latents["z"]
        assert isinstance(encoder, RecurrentEncoderConfig)
        assert isinstance(decoder, RecurrentDecoderConfig)
        latent_dim = latent.groups * latent.dim
        self.latent_dim = latent_dim
        self.bidirectional = encoder.bidirectional
        self.width = encoder.hidden_dim * (2 if self.bidirectional else 1)  # of what is encoded
        self.encoder_embedding = nn.Embedding(
            vocabulary_size, encoder.embedding_dim, padding_idx=PAD
        )
        self.encoder_dropout = nn.Dropout(encoder.embedding_dropout)
        self.encoder = LAYERS[encoder.kind](
            encoder.embedding_dim,
            encoder.hidden_dim,
            batch_first=True,
            bidirectional=self.bidirectional,
        )
        bias = getattr(latent.posterior, "bias", False)
        self.to_posterior = nn.Linear(self.width, 2 * latent_dim, bias=bias)
        self.embedding = nn.Embedding(vocabulary_size, decoder.embedding_dim, padding_idx=PAD)
        self.every_input = decoder.every_input
        beside = latent_dim if self.every_input else 0
        self.kind, self.state_rule = decoder.kind, decoder.initial_state
        self.decoder = LAYERS[decoder.kind](
            decoder.embedding_dim + beside, decoder.hidden_dim, batch_first=True
        )
        self.to_state = nn.Linear(
            latent_dim, decoder.hidden_dim, bias=decoder.initial_state == "hidden"
        )
        self.output = nn.Linear(decoder.hidden_dim, vocabulary_size, bias=False)
        self.embedding_dropout = nn.Dropout(decoder.embedding_dropout)
        self.output_dropout = nn.Dropout(decoder.output_dropout)

    # --- the posterior ----------------------------------------------------------------------

    def read(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The state after each whole sentence, ``(B, H)`` or, in both directions, ``(B, 2H)``."""
        embedded = self.encoder_dropout(self.encoder_embedding(tokens))  # (B, T, E)
        if not self.bidirectional:
            states, _ = self.encoder(embedded)  # (B, T, H)
            return states[torch.arange(len(tokens)), lengths - 1]
        packed = pack_padded_sequence(
            embedded, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, last = self.encoder(packed)
        hidden = last[0] if isinstance(last, tuple) else last  # (2, B, H)
        return torch.cat([hidden[0], hidden[1]], -1)

    def infer(self, batch: Batch) -> dict[str, Tensor]:
        """Mean and log-variance of q(z|x), ``(B, D)`` each."""
        last = self.read(batch.tokens, batch.lengths)
        mean, log_variance = self.to_posterior(last).chunk(2, -1)
        return {"mean": mean, "log_variance": log_variance}

    def draw(self, found: dict[str, Tensor], noise: Tensor) -> Tensor:
        """z of noise ``(B, D)``, or of ``(S, D)`` for one sentence."""
        return found["mean"] + (0.5 * found["log_variance"]).exp() * noise

    def log_ratio(self, found: dict[str, Tensor], z: Tensor) -> Tensor:
        """log p(z)/q(z|x) of ``(S, D)`` for one sentence, ``(S,)``; float64."""
        mean, log_variance = found["mean"].double(), found["log_variance"].double()
        z = z.double()
        distance = (z - mean).square() / log_variance.exp()
        return 0.5 * (distance + log_variance - z.square()).sum(1)  # the constants cancel

    def divergence(self, found: dict[str, Tensor]) -> Tensor:
        """KL(q(z|x) ‖ p(z)) of all sentences together, nats."""
        mean, log_variance = found["mean"], found["log_variance"]
        return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()

    # --- the decoder ------------------------------------------------------------------------

    def initial_state(self, z: Tensor, _found: dict[str, Tensor] | None = None) -> State:
        """Of the decoder, ``(1, B, H)`` or, of an LSTM, two of these."""
        cell = self.to_state(z)[None]
        hidden = cell.tanh() if self.state_rule == "tanh" else cell
        return (hidden, cell) if self.kind == "lstm" else hidden

    def logits(self, words: Tensor, z: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the words after ``words`` ``(B, T)``, ``(B, T, V)``, and the last state."""
        inputs = self.embedding_dropout(self.embedding(words))  # (B, T, E)
        if self.every_input:
            beside = z[:, None].expand(-1, words.shape[1], -1)  # (B, T, D)
            inputs = torch.cat([inputs, beside], -1)
        states, state = self.decoder(inputs, state)
        return self.output(self.output_dropout(states)), state

    def predict(self, words: Tensor, z: Tensor, found: dict[str, Tensor]) -> Tensor:
        """Logits of whole sentences, ``(B, T, V)``."""
        return self.logits(words, z, self.initial_state(z, found))[0]

    def loss(self, batch: Batch) -> Tensor:
        """−ELBO, mean over the batch, nats per sentence, one posterior sample."""
        found = self.infer(batch)
        z = self.draw(found, torch.randn(batch.size, self.latent_dim))
        logits = self.predict(batch.inputs, z, found)
        reconstruction = F.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=PAD, reduction="sum"
        )
        return (reconstruction + self.divergence(found)) / batch.size

    # --- weights ----------------------------------------------------------------------------

    def load_from(self, model: Model) -> None:
        """Take the weights of the package's model of the same recipe."""
        state = model.state_dict()
        own = {}
        for key in self.state_dict():
            part, _, parameter = key.rpartition(".")
            name = self.names[part]
            if parameter.endswith("_reverse"):
                name = name.replace("forward_cell", "backward_cell")
            own[key] = state[f"{name}.{parameter.removesuffix('_reverse')}"]
        self.load_state_dict(own)


def train_step(
    model: Any, optimizer: torch.optim.Optimizer, batch: Batch, clip_norm: float | None
) -> None:
    """One update."""
    optimizer.zero_grad()
    model.loss(batch).backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()


CHUNK = 100  # posterior samples of a sentence scored together


@torch.no_grad()
def importance_weighted(
    model: Any, batch: Batch, found: dict[str, Tensor], z: Tensor
) -> tuple[float, float]:
    """log 1/S Σ_s p(x|z_s) p(z_s) / q(z_s|x) of one sentence, and its Monte-Carlo error, nats.

    Parameters
    ----------
    model : PlainVAE
        In evaluation mode.
    batch : Batch
        Of one sentence.
    found : dict of str to Tensor
        What the model's ``infer`` says of it.
    z : Tensor
        ``(S, D)``, drawn from its posterior.
    """
    scores = []
    for part in z.split(CHUNK):
        repeated = batch.tokens.expand(len(part), -1)  # (n, T)
        logits = model.predict(repeated[:, :-1], part.float(), found)
        log_probs = logits.log_softmax(-1)  # (n, T-1, V)
        scores.append(log_probs.gather(2, repeated[:, 1:, None]).squeeze(2).sum(1))
    log_weights = torch.cat(scores).double() + model.log_ratio(found, z)
    weights = (log_weights - log_weights.max()).exp()
    error = float(weights.std() / weights.mean()) / math.sqrt(len(z)) if len(z) > 1 else 0.0
    return float(log_weights.logsumexp(0)) - math.log(len(z)), error
