"""Codes of responses in dialogues: foretold from the context, and forced on the decoder.

References
----------
Zhao et al. 2018, "Unsupervised Discrete Sentence Representation Learning for Interpretable
Neural Dialog Generation", section 3.2 (policy, attribute forcing); Shi et al. 2020, "Dispersed
Exponential Family Mixture VAEs for Interpretable Text Generation", section 4.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.data.batches import Batch
from uncollapse.decoders.base import Decoder
from uncollapse.encoders.context import Condition
from uncollapse.encoders.recurrent import RecurrentEncoder
from uncollapse.freezing import frozen
from uncollapse.latents import Inference, Latent
from uncollapse.latents.priors import Mixture, UniformCategorical


@dataclass
class CodesInContext:
    """Codes of a batch, given the responses and given their contexts.

    Parameters
    ----------
    given_response, given_context : dict of str to Tensor
        ``{variable: (B, M, K)}``: log q(c|response) and log p(c|context) of what a policy
        foretells.
    condition : Condition
        The contexts.
    """

    given_response: dict[str, Tensor]
    given_context: dict[str, Tensor]
    condition: Condition

    def policy_loss(self) -> Tensor:
        """−log p(ĉ|context) of the responses' most probable codes ĉ, ``(B,)`` nats.

        Summed over all codes of a row; 0 for a row without a context.
        """
        pairs = ((self.given_context[name], q) for name, q in self.given_response.items())
        losses = [code_loss(policy, q) for policy, q in pairs]
        return torch.stack(losses).sum(0) * self.condition.present

    def hits(self) -> dict[str, Tensor]:
        """Whether the most probable code given the context is ĉ, ``{variable: (B, M)}``.

        1 or 0; −1 for a row without a context, of which all codes are as probable.
        """
        absent = ~self.condition.present[:, None]
        return {
            name: (policy.argmax(-1) == self.given_response[name].argmax(-1))
            .long()
            .masked_fill(absent, -1)
            for name, policy in self.given_context.items()
        }


def codes_in_context(
    latents: Mapping[str, Latent],
    found: Mapping[str, Inference],
    variables: Mapping[str, Tensor],
    condition: Condition | None,
) -> CodesInContext | None:
    """The codes that a policy foretells; None where there is none, or nothing to read.

    ``found`` and ``variables`` are what inference gave and made of it, of all ``latents``.
    """
    if condition is None:
        return None
    given_context: dict[str, Tensor] = {}
    for name, latent in latents.items():
        prior = found[name].prior
        if isinstance(prior, Mixture | UniformCategorical) and prior.log_weights is not None:
            given_context[latent.drawn_variable(name)] = prior.log_weights
    if not given_context:
        return None
    return CodesInContext({n: variables[n] for n in given_context}, given_context, condition)


def code_loss(log_probs: Tensor, of: Tensor) -> Tensor:
    """−log of the probability of each row's most probable code, summed over M, ``(B,)`` nats.

    Parameters
    ----------
    log_probs : Tensor
        ``(B, M, K)``: those that are charged.
    of : Tensor
        ``(B, M, K)``: those that say which code; they get no gradient.
    """
    chosen = of.argmax(-1, keepdim=True)  # (B, M, 1)
    return -log_probs.gather(-1, chosen).sum((1, 2))


class AttributeForcing:
    """Charges a decoder for responses that the encoder would not give their code.

    The words that the decoder expects, each a mean of embeddings, are read again by the
    encoder, which takes no part in what is learned from it.

    Parameters
    ----------
    encoder : RecurrentEncoder
    decoder : Decoder
    latents : mapping of str to Latent
        Of which those count whose prior has a policy.
    """

    def __init__(
        self, encoder: RecurrentEncoder, decoder: Decoder, latents: Mapping[str, Latent]
    ) -> None:
        self.encoder = encoder
        self.decoder = decoder
        self.latents = latents

    def __call__(self, z: Tensor, batch: Batch, codes: CodesInContext) -> Tensor:
        """−log q(ĉ|expected response), ``(B,)`` nats.

        Summed over all codes of a row; 0 for a row without a context.

        Parameters
        ----------
        z : Tensor
            ``(B, D)``.
        batch : Batch
            The responses, which the decoder reads as it does in training.
        codes : CodesInContext
            Theirs, of which ĉ is the most probable given the response.
        """
        condition = codes.condition
        modules = self._readers()
        with frozen([p for part in modules for p in part.parameters()], modules):
            expected = self._expected(z, batch, condition)  # (B, T, E)
            encoded = self.encoder.read(expected, batch.lengths, batch.mask)
            told = condition.map(Tensor.detach)
            losses = []
            for name, latent in self.latents.items():
                variable = latent.drawn_variable(name)
                if variable in codes.given_response:
                    seen = told if latent.posterior_sees_context else None
                    again = latent.variables(name, latent.infer(encoded, seen))[variable]
                    losses.append(code_loss(again, codes.given_response[variable]))
        return torch.stack(losses).sum(0) * condition.present

    def _readers(self) -> list[nn.Module]:
        heads = [(latent.posterior, latent.classifier) for latent in self.latents.values()]
        return [self.encoder, *(part for pair in heads for part in pair if part is not None)]

    def _expected(self, z: Tensor, batch: Batch, condition: Condition) -> Tensor:
        """Embeddings of ``<s>`` and of what is expected after each word, ``(B, T, E)``."""
        table = self.encoder.embedding.weight  # (V, E)
        mask = batch.target_mask
        # not the states of the reconstruction, of which dropout has left other units
        states = self.decoder.states(z, batch.inputs, condition)[mask]  # (N, H)
        # of real tokens alone: logits are the largest array of all
        logits = F.linear(self.decoder.output_dropout(states), self.decoder.output.weight)
        words = logits.softmax(-1).to(table.dtype) @ table  # (N, E)
        start = self.encoder.embedding(batch.tokens[:, :1])  # (B, 1, E)
        rest = start.new_zeros(*mask.shape, start.shape[-1])  # (B, T - 1, E)
        rest = rest.masked_scatter(mask[:, :, None], words.to(rest.dtype))
        return torch.cat([start, rest], 1)
