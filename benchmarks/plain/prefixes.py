"""Decoders without a recurrent state: causal convolutions and transformers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.config import (
    DilatedCNNDecoderConfig,
    Recipe,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import PAD
from uncollapse.model import Model

LONGEST = 512  # positions


class PlainCNN(nn.Module):
    """The decoder of Yang et al. (2017): residual blocks of dilated ``nn.Conv1d``."""

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        super().__init__()
        decoder = recipe.decoder
        assert isinstance(decoder, DilatedCNNDecoderConfig)
        hidden, inner = decoder.hidden_dim, decoder.hidden_dim // 2
        self.latent_dim = recipe.latents["z"].dim
        self.dilations, self.filter_width = decoder.dilations, decoder.filter_width
        self.embedding = nn.Embedding(vocabulary_size, decoder.embedding_dim, padding_idx=PAD)
        self.input = nn.Linear(decoder.embedding_dim + self.latent_dim, hidden)
        self.narrow = nn.ModuleList(nn.Conv1d(hidden, inner, 1) for _ in self.dilations)
        self.convolution = nn.ModuleList(
            nn.Conv1d(inner, inner, self.filter_width, dilation=d) for d in self.dilations
        )
        self.widen = nn.ModuleList(nn.Conv1d(inner, hidden, 1) for _ in self.dilations)
        self.output = nn.Linear(hidden, vocabulary_size, bias=False)

    def states(self, words: Tensor, z: Tensor) -> Tensor:
        """What predicts the word after each of ``words`` ``(B, T)``, ``(B, T, H)``."""
        beside = z[:, None].expand(-1, words.shape[1], -1)
        states = self.input(torch.cat([self.embedding(words), beside], -1)).transpose(1, 2)
        layers = zip(self.narrow, self.convolution, self.widen, self.dilations, strict=True)
        for narrow, convolution, widen, dilation in layers:
            inner = narrow(states.relu()).relu()  # (B, C, T)
            padded = F.pad(inner, ((self.filter_width - 1) * dilation, 0))
            states = states + widen(convolution(padded).relu())
        return states.transpose(1, 2)

    @torch.no_grad()
    def load_from(self, model: Model) -> None:
        """Take the weights of the package's model of the same recipe."""
        state = model.state_dict()
        for part in ("embedding", "input", "output"):
            for name, own in getattr(self, part).named_parameters():
                own.copy_(state[f"decoder.{part}.{name}"])
        for number in range(len(self.dilations)):
            for part in ("narrow", "convolution", "widen"):
                own = getattr(self, part)[number]
                weight = state[f"decoder.blocks.{number}.{part}.weight"]
                steps = own.kernel_size[0]  # which stand side by side
                own.weight.copy_(weight.unflatten(1, (steps, -1)).transpose(1, 2))
                own.bias.copy_(state[f"decoder.blocks.{number}.{part}.bias"])


class PlainTransformer(nn.Module):
    """``nn.TransformerEncoder`` on both sides, with learned positions; z is a prefix.

    The package's own turns queries and keys instead; all else is alike.
    """

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        super().__init__()
        encoder, decoder = recipe.encoder, recipe.decoder
        assert isinstance(encoder, TransformerEncoderConfig)
        assert isinstance(decoder, TransformerDecoderConfig)
        self.latent_dim = recipe.latents["z"].dim
        self.encoder_embedding = nn.Embedding(
            vocabulary_size, encoder.embedding_dim, padding_idx=PAD
        )
        self.encoder_input = nn.Linear(encoder.embedding_dim, encoder.hidden_dim)
        self.encoder_positions = nn.Embedding(LONGEST, encoder.hidden_dim)
        self.encoder = _blocks(encoder)
        self.to_posterior = nn.Linear(encoder.hidden_dim, 2 * self.latent_dim, bias=False)
        self.embedding = nn.Embedding(vocabulary_size, decoder.embedding_dim, padding_idx=PAD)
        self.input = nn.Linear(decoder.embedding_dim + self.latent_dim, decoder.hidden_dim)
        self.prefix = nn.Linear(self.latent_dim, decoder.hidden_dim)
        self.positions = nn.Embedding(LONGEST, decoder.hidden_dim)
        self.decoder = _blocks(decoder)
        self.output = nn.Linear(decoder.hidden_dim, vocabulary_size, bias=False)
        self.embedding_dropout = nn.Dropout(decoder.embedding_dropout)
        self.output_dropout = nn.Dropout(decoder.output_dropout)

    def infer(self, batch: Batch) -> dict[str, Tensor]:
        """Mean and log-variance of q(z|x), ``(B, D)`` each."""
        embedded = self.encoder_embedding(batch.tokens)
        states = self.encoder_input(embedded * math.sqrt(embedded.shape[-1]))
        states = states + self.encoder_positions.weight[: batch.tokens.shape[1]]
        states = self.encoder(states, src_key_padding_mask=~batch.mask)  # (B, T, H)
        last = states[torch.arange(batch.size), batch.lengths - 1]
        mean, log_variance = self.to_posterior(last).chunk(2, -1)
        return {"mean": mean, "log_variance": log_variance}

    def states(self, words: Tensor, z: Tensor) -> Tensor:
        """What predicts the word after each of ``words`` ``(B, T)``, ``(B, T, H)``."""
        embedded = self.embedding(words)
        embedded = self.embedding_dropout(embedded * math.sqrt(embedded.shape[-1]))
        beside = z[:, None].expand(-1, words.shape[1], -1)
        inputs = self.input(torch.cat([embedded, beside], -1))  # (B, T, H)
        inputs = torch.cat([self.prefix(z)[:, None], inputs], 1)  # (B, 1 + T, H)
        length = inputs.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        inputs = inputs + self.positions.weight[:length]
        return self.decoder(inputs, mask=mask, is_causal=True)[:, 1:]

    def loss(self, batch: Batch) -> Tensor:
        """−ELBO, mean over the batch, nats per sentence, one posterior sample."""
        found = self.infer(batch)
        mean, log_variance = found["mean"], found["log_variance"]
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        logits = self.output(self.output_dropout(self.states(batch.inputs, z)))
        reconstruction = F.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=PAD, reduction="sum"
        )
        kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
        return (reconstruction + kl) / batch.size

    @torch.no_grad()
    def load_from(self, model: Model) -> None:
        """Take the weights of the package's model of the same recipe; positions are zero."""
        state = model.state_dict()
        own = dict(self.named_parameters())
        names = {
            "encoder_embedding": "encoder.embedding",
            "encoder_input": "encoder.input",
            "encoder.norm": "encoder.blocks.norm",
            "to_posterior": "latents.z.posterior.linear",
            "embedding": "decoder.embedding",
            "input": "decoder.input",
            "prefix": "decoder.prefix",
            "decoder.norm": "decoder.blocks.norm",
            "output": "decoder.output",
        }
        layer = {
            "self_attn.in_proj_": "split.",
            "self_attn.out_proj.": "merge.",
            "linear1.": "widen.",
            "linear2.": "narrow.",
            "norm1.": "attention_norm.",
            "norm2.": "mlp_norm.",
        }
        for side in ("encoder", "decoder"):
            for number in range(len(getattr(self, side).layers)):
                for mine, theirs in layer.items():
                    for kind in ("weight", "bias"):
                        found = state[f"{side}.blocks.blocks.{number}.{theirs}{kind}"]
                        own[f"{side}.layers.{number}.{mine}{kind}"].copy_(found)
        for mine, theirs in names.items():
            for kind in ("weight", "bias"):
                if f"{mine}.{kind}" in own:
                    own[f"{mine}.{kind}"].copy_(state[f"{theirs}.{kind}"])
        self.encoder_positions.weight.zero_()
        self.positions.weight.zero_()


def _blocks(config: TransformerEncoderConfig | TransformerDecoderConfig) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        config.hidden_dim,
        config.heads,
        4 * config.hidden_dim,
        config.dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    norm = nn.LayerNorm(config.hidden_dim)
    return nn.TransformerEncoder(layer, config.layers, norm, enable_nested_tensor=False)
