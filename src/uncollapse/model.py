"""The model: encoder → latents → decoder, and the terms that they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from uncollapse.config import CriticConfig, Recipe
from uncollapse.data.batches import Batch
from uncollapse.decoders import build_decoder
from uncollapse.distributions.base import Distribution
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.product import side_by_side
from uncollapse.dropout import repeated_noise
from uncollapse.encoders import build_encoder
from uncollapse.errors import UserError
from uncollapse.initialisation import initialise
from uncollapse.latents import Inference, Latent
from uncollapse.latents.posteriors.batch_norm import MeanBatchNorm
from uncollapse.latents.posteriors.refined import RefinedPosterior
from uncollapse.terms import Terms, label_loss


class Model(nn.Module):
    """Any system of the toolkit: the pieces that its recipe names, and nothing else.

    Parameters
    ----------
    recipe : Recipe
        The pieces.
    vocabulary_size : int
        V, specials included.
    """

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        super().__init__()
        self.encoder = None
        latents: dict[str, Latent] = {}
        if recipe.encoder is not None:
            self.encoder = build_encoder(recipe.encoder, vocabulary_size)
            for name, config in recipe.latents.items():
                if hasattr(nn.ModuleDict(), name):  # PyTorch would refuse it with a traceback
                    raise UserError(f"latents: {name!r} is a name that PyTorch reserves")
                latents[name] = Latent(config, self.encoder.output_dim)
                # not the critic: the papers leave it PyTorch's own start
                initialise(latents[name].posterior, recipe.encoder.init_scale, None)
                classifier = latents[name].classifier
                if classifier is not None:
                    initialise(classifier, recipe.encoder.init_scale, None)
        self.latents = nn.ModuleDict(latents)
        self.latent_dim = sum(latent.dim for latent in latents.values())
        self.decoder = build_decoder(recipe.decoder, vocabulary_size, self.latent_dim)
        self.samples = recipe.objective.samples
        self.supervision = recipe.objective.supervision

    @property
    def has_density(self) -> bool:
        """Whether q(z|x) has a density, hence a KL that is known."""
        return all(latent.has_density for latent in self.named_latents().values())

    @property
    def has_likelihood(self) -> bool:
        """Whether the model has a likelihood (an autoencoder has none)."""
        return all(latent.is_random for latent in self.named_latents().values())

    def forward(self, batch: Batch, weight: float = 1.0) -> Terms:
        """All terms of a batch, with one posterior sample a sentence, in training as many as asked.

        ``weight`` is that of the divergence, which posteriors that look at the ELBO need.
        """
        found = self.infer(batch, weight)
        latents = self.named_latents()
        variables = self.variables(found)
        return Terms(
            reconstruction=self._reconstruction(found, batch),
            divergence={
                name: latents[name].penalty(inference)
                for name, inference in found.items()
                if latents[name].is_charged
            },
            kl={
                name: latents[name].kl(inference)
                for name, inference in found.items()
                if latents[name].has_density
            },
            tokens=batch.lengths - 1,
            posteriors={name: inference.posterior for name, inference in found.items()},
            variables=variables,
            mixtures={
                name: inference.mixture_kl(latents[name].prior)
                for name, inference in found.items()
                if inference.log_weights is not None
            },
            extra={
                part.column: label_loss(variables[part.variable][:, part.index], labels)
                for part in self.supervision
                if (labels := batch.labels.get(part.column)) is not None
            },
        )

    def infer(self, batch: Batch, weight: float = 1.0) -> dict[str, Inference]:
        """What inference finds out about every latent."""
        if self.encoder is None:
            return {}
        encoded = self.encoder(batch)
        found = {name: latent.infer(encoded) for name, latent in self.named_latents().items()}
        for name, latent in self.named_latents().items():
            if isinstance(latent.posterior, RefinedPosterior):
                self._refine(found, name, latent.posterior, batch, weight)
        return found

    def posterior(self, batch: Batch) -> Distribution | None:
        """q(z|x) of all latents together, ``(B, D)``; None for a language model."""
        found = [inference.posterior for inference in self.infer(batch).values()]
        return side_by_side(found) if found else None

    def schedule(self, epochs: float) -> None:
        """Take note of how many epochs of training are over."""
        for latent in self.named_latents().values():
            latent.posterior.schedule(epochs)

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

    def players(self) -> dict[str, list[nn.Parameter]]:
        """Who learns: every parameter belongs to exactly one player.

        ``inference``: encoder, posteriors and classifiers; ``generation``: decoder and priors;
        ``critic``: the networks of divergences. A player without parameters is missing.
        """
        latents = list(self.named_latents().values())
        modules = {
            "inference": [
                self.encoder,
                *(latent.posterior for latent in latents),
                *(latent.classifier for latent in latents),
            ],
            "generation": [self.decoder, *(latent.prior for latent in latents)],
            "critic": [latent.divergence for latent in latents],
        }
        players = {
            player: [p for part in parts if part is not None for p in part.parameters()]
            for player, parts in modules.items()
        }
        return {player: parameters for player, parameters in players.items() if parameters}

    @property
    def learns_by_divergence(self) -> bool:
        """Whether some parameters get a gradient from a divergence alone.

        Those of critics, and the classifiers and components of mixtures.
        """
        latents = self.named_latents().values()
        return "critic" in self.players() or any(part.classifier is not None for part in latents)

    def critic_settings(self) -> CriticConfig | None:
        """How the critic learns; None where there is none."""
        for latent in self.named_latents().values():
            if latent.divergence.critic is not None:
                return latent.divergence.critic
        return None

    def critic_loss(self, found: Mapping[str, Inference]) -> Tensor:
        """What the critic lowers, summed over latents, ``(B,)``; nothing else gets a gradient.

        ``found`` is what `infer` gave; z is drawn anew, so that one inference serves many steps.
        """
        losses = []
        for name, latent in self.named_latents().items():
            if latent.divergence.critic is not None:
                inference = replace(found[name], z=None, log_prob=None)
                with torch.no_grad():
                    inference.draw()
                losses.append(latent.divergence.critic_loss(inference, latent.prior))
        return torch.stack(losses).sum(0)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) of ``z`` ``(..., D)``, all latents together, ``(...)``."""
        latents = self.named_latents().values()
        parts = z.split([latent.dim for latent in latents], -1)
        pairs = zip(latents, parts, strict=True)
        return torch.stack([latent.prior.log_prob(part) for latent, part in pairs]).sum(0)

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
    ) -> Tensor | None:
        """Draw z ``(n, D)`` of all latents from the prior; None for a language model.

        ``codes`` are values ``{variable: (n, M)}`` that some discrete variables shall have, −1
        for any. Of a discrete latent under a mixture it can be the component alone.
        """
        parts = []
        for name, latent in self.named_latents().items():
            chosen = None if codes is None else codes.get(latent.drawn_variable(name))
            parts.append(latent.prior.sample(n, generator, chosen))
        return torch.cat(parts, -1) if parts else None

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

    @torch.no_grad()
    def recalibrate(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Replace moving averages of batch norms by the statistics of a whole corpus.

        Moving averages lag behind the weights; with them, the variance of μ in evaluation
        would not be the one that training imposed. Nothing happens, and ``batches`` is not
        called, where no piece keeps such averages.
        """
        norms = [part for part in self.modules() if isinstance(part, MeanBatchNorm)]
        if not norms:
            return
        self.eval()
        for norm in norms:
            norm.start_recalibration()
        for batch in batches():
            assert self.encoder is not None
            encoded = self.encoder(batch)  # without refinements: they begin after the norms
            for latent in self.named_latents().values():
                latent.infer(encoded)
        for norm in norms:
            norm.finish_recalibration()

    def _reconstruction(self, found: Mapping[str, Inference], batch: Batch) -> Tensor:
        """log p(x|z), ``(B,)``: at one z, or the mean over several in training."""
        if not found:
            return self.decoder.log_prob(None, batch)
        z = torch.cat([inference.draw() for inference in found.values()], -1)  # (B, D)
        samples = self.samples if self.training else 1
        if samples == 1:
            return self.decoder.log_prob(z, batch)
        with torch.autocast(z.device.type, enabled=False):  # as `Inference.draw` does
            others = [
                torch.cat([inference.posterior.rsample() for inference in found.values()], -1)
                for _ in range(samples - 1)
            ]
        rows = torch.cat([z, *others])  # (S · B, D)
        return self.decoder.log_prob(rows, batch.repeat(samples)).view(samples, -1).mean(0)

    def _refine(
        self,
        found: dict[str, Inference],
        name: str,
        posterior: RefinedPosterior,
        batch: Batch,
        weight: float,
    ) -> None:
        """Refine one latent's posterior in place, the others held at a draw."""
        # not `found` itself: the graph would hold what holds the graph, and never be freed
        places = list(found)
        others = {key: found[key].draw().detach() for key in places if key != name}
        device = batch.tokens.device
        # the decoder must drop the same units in every step
        dropout = repeated_noise(device) if self.decoder.training else nullcontext

        def log_likelihood(z: Tensor) -> Tensor:
            with dropout():
                parts = [z if key == name else others[key] for key in places]
                return self.decoder.log_prob(torch.cat(parts, -1), batch)

        start = found[name].posterior
        assert isinstance(start, DiagonalGaussian)
        # differences of gradients need every digit
        with torch.autocast(device.type, enabled=False):
            found[name].posterior = posterior.refine(
                start,
                log_likelihood,
                list(self.decoder.parameters()),
                self.named_latents()[name].prior,
                weight,
            )

    def named_latents(self) -> dict[str, Latent]:
        """The latents by name, in the order in which z has them."""
        return {name: part for name, part in self.latents.items() if isinstance(part, Latent)}
