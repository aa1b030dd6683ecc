"""All latent variables of a model together: one z, one prior, the discrete variables."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from uncollapse.encoders.context import Condition
from uncollapse.latents.inference import Inference
from uncollapse.latents.latent import Latent


class JointLatents(nn.Module):
    """The named latents of a model, whose z are side by side.

    Attributes
    ----------
    latents : nn.ModuleDict
        By name, in the order in which z has them.
    """

    latents: nn.ModuleDict

    def named_latents(self) -> dict[str, Latent]:
        """The latents by name, in the order in which z has them."""
        return {name: part for name, part in self.latents.items() if isinstance(part, Latent)}

    @property
    def has_density(self) -> bool:
        """Whether q(z|x) has a density, hence a KL that is known."""
        return all(latent.has_density for latent in self.named_latents().values())

    @property
    def has_likelihood(self) -> bool:
        """Whether the model has a likelihood (an autoencoder has none)."""
        return all(latent.is_random for latent in self.named_latents().values())

    def variables(self, found: Mapping[str, Inference]) -> dict[str, Tensor]:
        """Log-probabilities of all discrete variables, ``{name: (B, M, K)}``.

        The units of a discrete latent go by its name, the components of a mixture latent by
        ``NAME.component``. ``found`` is what `infer` gave.
        """
        parts = [
            latent.variables(name, found[name]) for name, latent in self.named_latents().items()
        ]
        return {name: values for part in parts for name, values in part.items()}

    def variable_sizes(self) -> dict[str, tuple[int, int]]:
        """How many indexes M with how many values K every discrete variable has."""
        parts = [latent.variable_sizes(name) for name, latent in self.named_latents().items()]
        return {name: size for part in parts for name, size in part.items()}

    def log_prior(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """log p(z) of ``z`` ``(..., D)``, all latents together, ``(...)``.

        With a ``condition`` of B rows, log p(z|context) of ``(B, D)`` or ``(B, S, D)``.
        """
        latents = self.named_latents().values()
        parts = z.split([latent.dim for latent in latents], -1)
        pairs = zip(latents, parts, strict=True)
        return torch.stack(
            [latent.prior.given(condition).log_prob(part) for latent, part in pairs]
        ).sum(0)

    def in_support(self, z: Tensor) -> Tensor:
        """The points nearest to ``z`` ``(..., D)`` at which the prior has any mass, ``(..., D)``.

        Means of distributions on a sphere, and points between, lie within it: the decoder has
        seen none such.
        """
        latents = self.named_latents().values()
        parts = z.split([latent.dim for latent in latents], -1)
        pairs = zip(latents, parts, strict=True)
        return torch.cat([latent.prior.in_support(part) for latent, part in pairs], -1)

    def sample_prior(
        self,
        n: int,
        generator: torch.Generator | None = None,
        codes: Mapping[str, Tensor] | None = None,
        condition: Condition | None = None,
    ) -> Tensor | None:
        """Draw z ``(n, D)`` of all latents from the prior; None for a language model.

        Given a ``condition`` of n rows, one for each of them; else for an empty context.
        ``codes`` are values ``{variable: (n, M)}`` that some discrete variables shall have, −1
        for any. Of a discrete latent under a mixture it can be the component alone.
        """
        parts = []
        for name, latent in self.named_latents().items():
            chosen = None if codes is None else codes.get(latent.drawn_variable(name))
            parts.append(latent.prior.given(condition).sample(n, generator, chosen))
        return torch.cat(parts, -1) if parts else None

    def draw_codes(
        self,
        n: int,
        generator: torch.Generator | None = None,
        codes: Mapping[str, Tensor] | None = None,
        condition: Condition | None = None,
    ) -> dict[str, Tensor]:
        """Draw from the prior what `sample_prior` can be given, ``{variable: (n, M)}``."""
        drawn: dict[str, Tensor] = {}
        for name, latent in self.named_latents().items():
            variable = latent.drawn_variable(name)
            chosen = None if codes is None else codes.get(variable)
            found = latent.prior.given(condition).codes(n, generator, chosen)
            if found is not None:
                drawn[variable] = found
        return drawn

    def every_point(self, most: int) -> Tensor | None:
        """All z ``(C, D)`` that there can be, if they are finite and at most so many."""
        together: Tensor | None = None
        for latent in self.named_latents().values():
            own = latent.prior.points(most)
            if own is None:
                return None
            if together is None:
                together = own
                continue
            if len(together) * len(own) > most:
                return None
            left = together.repeat_interleave(len(own), 0)
            together = torch.cat([left, own.repeat(len(together), 1)], 1)
        return together

    def prior_deviations(self) -> dict[str, Tensor]:
        """Standard deviation of every latent's prior in each of its dimensions, ``(D,)``."""
        return {name: latent.prior.deviation for name, latent in self.named_latents().items()}
