"""The obvious text VAE in PyTorch, which `speed.py` measures the package against.

Written as one would write it first: ``nn.LSTM``, f32, z beside every input, the softmax over
every position with ``ignore_index`` for padding, Adam as it comes, importance sampling one
sentence at a time, and ancestral sampling with ``torch.multinomial``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import BOS, EOS, PAD
from uncollapse.model import Model

CHUNK = 100  # posterior samples of a sentence scored together


class PlainVAE(nn.Module):
    """One-layer LSTM encoder and decoder, z in every input and in the initial state.

    Parameters
    ----------
    vocabulary_size, embedding_dim, hidden_dim, latent_dim : int
        V, E, H, D.
    dropout : float
        On the decoder's embeddings and on its states.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        hidden_dim: int,
        latent_dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder_embedding = nn.Embedding(vocabulary_size, embedding_dim, padding_idx=PAD)
        self.encoder = nn.LSTM(embedding_dim, hidden_dim, batch_first=True)
        self.to_posterior = nn.Linear(hidden_dim, 2 * latent_dim, bias=False)
        self.embedding = nn.Embedding(vocabulary_size, embedding_dim, padding_idx=PAD)
        self.decoder = nn.LSTM(embedding_dim + latent_dim, hidden_dim, batch_first=True)
        self.to_state = nn.Linear(latent_dim, hidden_dim, bias=False)
        self.output = nn.Linear(hidden_dim, vocabulary_size, bias=False)
        self.dropout = nn.Dropout(dropout)

    def posterior(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), ``(B, D)`` each."""
        states, _ = self.encoder(self.encoder_embedding(tokens))  # (B, T, H)
        last = states[torch.arange(len(tokens)), lengths - 1]  # (B, H)
        mean, log_variance = self.to_posterior(last).chunk(2, -1)
        return mean, log_variance

    def initial_state(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden and cell state, ``(1, B, H)`` each."""
        cell = self.to_state(z)[None]
        return cell.tanh(), cell

    def logits(
        self, words: Tensor, z: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Logits of the words after ``words`` ``(B, T)``, ``(B, T, V)``, and the last state."""
        embedded = self.dropout(self.embedding(words))  # (B, T, E)
        beside = z[:, None].expand(-1, words.shape[1], -1)  # (B, T, D)
        states, state = self.decoder(torch.cat([embedded, beside], -1), state)
        return self.output(self.dropout(states)), state

    def loss(self, batch: Batch) -> Tensor:
        """−ELBO, mean over the batch, nats per sentence, one posterior sample."""
        mean, log_variance = self.posterior(batch.tokens, batch.lengths)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        logits, _ = self.logits(batch.inputs, z, self.initial_state(z))
        reconstruction = F.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=PAD, reduction="sum"
        )
        kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
        return (reconstruction + kl) / batch.size

    def load_from(self, model: Model) -> None:
        """Take the weights of one of the package's models of the same shape."""
        state = model.state_dict()
        names = {
            "encoder_embedding": "encoder.embedding",
            "encoder": "encoder.forward_cell",
            "to_posterior": "latents.z.posterior.linear",
            "embedding": "decoder.embedding",
            "decoder": "decoder.cell",
            "to_state": "decoder.to_state",
            "output": "decoder.output",
        }
        own = {}
        for key in self.state_dict():
            part, parameter = key.split(".")
            own[key] = state[f"{names[part]}.{parameter}"]
        self.load_state_dict(own)


def train_step(
    model: PlainVAE, optimizer: torch.optim.Optimizer, batch: Batch, clip_norm: float
) -> None:
    """One update."""
    optimizer.zero_grad()
    model.loss(batch).backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()


@torch.no_grad()
def importance_weighted(model: PlainVAE, tokens: Tensor, noise: Tensor) -> float:
    """log 1/S Σ_s p(x|z_s) p(z_s) / q(z_s|x) of one sentence, nats.

    Parameters
    ----------
    model : PlainVAE
        In evaluation mode.
    tokens : Tensor
        ``(1, T)``: ``<s> w1 … wn </s>``.
    noise : Tensor
        ``(S, D)``, standard normal.
    """
    mean, log_variance = model.posterior(tokens, torch.tensor([tokens.shape[1]]))
    log_weights = []
    for part in noise.split(CHUNK):
        z = mean + (0.5 * log_variance).exp() * part  # (n, D)
        repeated = tokens.expand(len(z), -1)  # (n, T)
        logits, _ = model.logits(repeated[:, :-1], z, model.initial_state(z))
        log_probs = logits.log_softmax(-1)  # (n, T-1, V)
        chosen = log_probs.gather(2, repeated[:, 1:, None]).squeeze(2)  # (n, T-1)
        # the constants of the two densities cancel
        log_ratio = 0.5 * (part.square() + log_variance - z.square()).sum(1)  # (n,)
        log_weights.append(chosen.sum(1) + log_ratio)
    return float(torch.cat(log_weights).logsumexp(0)) - math.log(len(noise))


@torch.no_grad()
def sample(model: PlainVAE, z: Tensor, max_length: int, *, drop_finished: bool) -> list[list[int]]:
    """Ancestral samples, one a row of ``z`` ``(N, D)``, without ``<s>`` and ``</s>``.

    Parameters
    ----------
    drop_finished : bool
        Whether rows leave the batch at ``</s>``. Otherwise all go on until the last is done.
    """
    written: list[list[int]] = [[] for _ in z]
    rows = torch.arange(len(z))
    going = torch.ones(len(z), dtype=torch.bool)
    words = torch.full((len(z), 1), BOS)
    state = model.initial_state(z)
    for _ in range(max_length):
        logits, state = model.logits(words, z[rows], state)
        words = torch.multinomial(logits[:, 0].softmax(-1), 1)  # (N, 1)
        going &= words[:, 0] != EOS
        for row, word, goes in zip(
            rows.tolist(), words[:, 0].tolist(), going.tolist(), strict=True
        ):
            if goes:
                written[row].append(word)
        if not going.any():
            break
        if drop_finished:
            rows, words = rows[going], words[going]
            state = (state[0][:, going], state[1][:, going])
            going = going[going]
    return written
