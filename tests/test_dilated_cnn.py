"""The convolutional decoder against PyTorch's convolution, and how far back it sees."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import VOCABULARY
from torch import Tensor

from uncollapse.config import DilatedCNNDecoderConfig
from uncollapse.decoders import DilatedCNNDecoder

DIM = 3


def make_decoder(**options: object) -> DilatedCNNDecoder:
    torch.manual_seed(0)
    values = {"kind": "dilated-cnn", "embedding_dim": 5, "hidden_dim": 8} | options
    config = DilatedCNNDecoderConfig.model_validate(values)
    return DilatedCNNDecoder(config, VOCABULARY, DIM).eval().double()


def by_convolution(decoder: DilatedCNNDecoder, z: Tensor, inputs: Tensor, width: int) -> Tensor:
    """`DilatedCNNDecoder.states` with channels first and `F.conv1d`."""
    beside = z[:, None].expand(-1, inputs.shape[1], -1)  # z stands at every word
    seen = torch.cat([decoder.embedding(inputs), beside], -1).mT  # (B, E + D, T)
    states = F.conv1d(seen, decoder.input.weight[:, :, None], decoder.input.bias)
    for block in decoder._blocks():
        channels = block.narrow.out_features
        weight = block.convolution.weight.view(channels, width, channels).mT  # (C, C, width)
        inner = F.conv1d(states.relu(), block.narrow.weight[:, :, None], block.narrow.bias)
        padded = F.pad(inner.relu(), ((width - 1) * block.dilation, 0))
        looked = F.conv1d(padded, weight, block.convolution.bias, dilation=block.dilation)
        states = states + F.conv1d(looked.relu(), block.widen.weight[:, :, None], block.widen.bias)
    return states.mT


@pytest.mark.parametrize(
    ("dilations", "width"), [([1, 2, 4], 3), ([1], 2), ([5, 1], 3), ([2, 3], 4)]
)
def test_blocks_are_dilated_causal_convolutions(dilations: list[int], width: int) -> None:
    decoder = make_decoder(dilations=dilations, filter_width=width)
    z, inputs = torch.randn(3, DIM, dtype=torch.float64), torch.randint(VOCABULARY, (3, 21))
    expected = by_convolution(decoder, z, inputs, width)
    torch.testing.assert_close(decoder.states(z, inputs), expected)


@pytest.mark.parametrize(
    ("dilations", "words"), [([1, 2, 4], 15), ([1, 2, 4, 8, 16], 63), ([1], 3), ([4], 9)]
)
def test_it_sees_as_many_words_as_the_paper_says(dilations: list[int], words: int) -> None:
    """Yang et al. 2017, section 3: 15 words with dilations 1, 2, 4, and 63 with two more."""
    decoder = make_decoder(dilations=dilations, init_scale=0.5)
    z = torch.randn(50, DIM, dtype=torch.float64)  # in some a rectifier is shut
    inputs = torch.randint(4, VOCABULARY, (50, 80))
    embedded = decoder.embedding(inputs).detach().requires_grad_()
    decoder.embedding.forward = lambda _: embedded
    decoder.states(z, inputs)[:, -1].sum().backward()
    assert embedded.grad is not None
    seen = embedded.grad.any(2).any(0)  # (T,)
    assert seen[-words]
    assert not seen[:-words].any()


def test_channels_inside_are_half_as_many() -> None:
    decoder = make_decoder(hidden_dim=10)
    assert [block.narrow.out_features for block in decoder._blocks()] == [5, 5, 5]
    assert make_decoder(hidden_dim=1)._blocks()[0].narrow.out_features == 1


def test_initialisation_reaches_every_layer() -> None:
    decoder = make_decoder(init_scale=0.01, embedding_init_scale=0.1)
    for name, parameter in decoder.named_parameters():
        scale = 0.1 if name == "embedding.weight" else 0.01
        assert 0 < parameter.abs().max() <= scale, name
