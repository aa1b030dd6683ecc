"""A decoder of causal dilated convolutions, whose context is as long as it is told to be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.config import DilatedCNNDecoderConfig
from uncollapse.decoders.base import Decoder, replace_rows
from uncollapse.encoders.context import Condition
from uncollapse.initialisation import initialise
from uncollapse.precision import as_autocast


@dataclass
class DilatedCNNState:
    """What each convolution will read again, what predicts, and z's share of the inputs."""

    features: Tensor  # (N, H)
    queues: list[Tensor]  # (N, (filter width - 1) · dilation, C) each, oldest step first
    beside: Tensor | None  # (N, H)

    def select(self, rows: Tensor) -> DilatedCNNState:
        """Keep some rows, by index or mask."""
        beside = None if self.beside is None else self.beside[rows]
        return DilatedCNNState(self.features[rows], [queue[rows] for queue in self.queues], beside)

    def replace(self, places: Tensor, other: DilatedCNNState, rows: Tensor) -> None:
        """Have rows ``places`` go on as ``rows`` of another state; in place."""
        pairs = zip(self.queues, other.queues, strict=True)
        whole = [(self.features, other.features), (self.beside, other.beside)]
        replace_rows([*pairs, *whole], places, rows)


class DilatedCNNDecoder(Decoder[DilatedCNNState]):
    """Residual blocks of convolutions that look back only (Yang et al. 2017, section 3).

    Every block reads ``filter_width`` steps that lie its dilation apart: filters of width 3
    with dilations 1, 2, 4 see 15 words. What lies further back is known through z alone,
    which stands beside every word.

    Parameters
    ----------
    config : DilatedCNNDecoderConfig
        The options.
    vocabulary_size : int
        V.
    latent_dim : int
        D, all latents together; 0 for a language model.
    context_dims : tuple of int
        C and M; the context's vector stands beside every word.

    References
    ----------
    Yang et al. 2017, "Improved Variational Autoencoders for Text Modeling using Dilated
    Convolutions".
    """

    def __init__(
        self,
        config: DilatedCNNDecoderConfig,
        vocabulary_size: int,
        latent_dim: int,
        context_dims: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(config, vocabulary_size, latent_dim, context_dims)
        self.input = nn.Linear(self.input_dim, config.hidden_dim)
        blocks = [Block(config.hidden_dim, config.filter_width, d) for d in config.dilations]
        self.blocks = nn.ModuleList(blocks)
        self.output = self.make_output(config)
        initialise(self, config.init_scale, config.embedding_init_scale)

    def states(
        self, z: Tensor | None, inputs: Tensor, condition: Condition | None = None
    ) -> Tensor:
        """What predicts the word after each of ``inputs`` ``(B, T)``, ``(B, T, H)``."""
        states = self.input(self.read(z, inputs, condition))  # (B, T, H)
        for block in self.blocks:
            states = block(states)
        return states

    @property
    def input_layer(self) -> tuple[Tensor, Tensor]:
        """The layer below the first block, ``(H, E)`` or ``(H, E + D + C)``, and its bias."""
        return self.input.weight, self.input.bias

    def start(
        self, z: Tensor | None, rows: int, condition: Condition | None = None
    ) -> DilatedCNNState:
        """The state before ``<s>``, for ``rows`` sentences in their contexts."""
        features = self.output.weight.new_zeros(rows, self.hidden_dim)
        narrow = as_autocast(features[:0])  # as the convolutions read them
        queues = [narrow.new_zeros(rows, *block.queue_shape) for block in self._blocks()]
        return DilatedCNNState(features, queues, self.project_beside(z, rows, condition))

    def step(self, words: Tensor, state: DilatedCNNState) -> DilatedCNNState:
        """Read one projected word per row, ``(N, H)``; the cost is that of one position."""
        features = words if state.beside is None else words + state.beside  # (N, H)
        queues = []
        for block, queue in zip(self._blocks(), state.queues, strict=True):
            features, queue = block.step(features, queue)
            queues.append(queue)
        return DilatedCNNState(features, queues, state.beside)

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]


class Block(nn.Module):
    """x + W₃ relu(dilated convolution of relu(W₁ relu(x))), with half as many channels inside.

    Convolutions are linear layers of the steps that they read, side by side: channels stay
    last, and whole sentences and single words go through the same product.
    """

    def __init__(self, hidden_dim: int, filter_width: int, dilation: int) -> None:
        super().__init__()
        channels = max(1, hidden_dim // 2)  # 512 of 1024 in the paper
        self.dilation = dilation
        self.back = (filter_width - 1) * dilation  # steps before the present one
        self.queue_shape = (self.back, channels)
        self.narrow = nn.Linear(hidden_dim, channels)
        self.convolution = nn.Linear(filter_width * channels, channels)
        self.widen = nn.Linear(channels, hidden_dim)

    def forward(self, states: Tensor) -> Tensor:
        """Whole sentences, ``(B, T, H)``."""
        steps = states.shape[1]
        inner = self.narrow(states.relu()).relu()  # (B, T, C)
        padded = F.pad(inner, (0, 0, self.back, 0))  # (B, back + T, C)
        starts = range(0, self.back + 1, self.dilation)
        seen = torch.cat([padded[:, start : start + steps] for start in starts], -1)
        return states + self.widen(self.convolution(seen).relu())

    def step(self, states: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
        """One position, ``(N, H)``, after the ``(N, back, C)`` of the queue; and the next queue."""
        inner = self.narrow(states.relu()).relu()  # (N, C)
        queue = torch.cat([queue, inner[:, None]], 1)  # (N, back + 1, C)
        seen = queue[:, :: self.dilation].flatten(1)  # (N, filter width · C)
        return states + self.widen(self.convolution(seen).relu()), queue[:, 1:]
