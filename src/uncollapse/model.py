"""The model: encoder → latents → decoder, and the terms that they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from uncollapse.attribute_forcing import AttributeForcing, CodesInContext, codes_in_context
from uncollapse.config import CriticConfig, Recipe
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import PAD
from uncollapse.decoders import build_decoder
from uncollapse.decoders.bag_of_words import BagOfWords
from uncollapse.discriminator import Discriminator
from uncollapse.distributions.base import Distribution
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.product import side_by_side
from uncollapse.dropout import repeated_noise
from uncollapse.encoders import build_context, build_encoder
from uncollapse.encoders.context import Condition
from uncollapse.encoders.recurrent import RecurrentEncoder
from uncollapse.errors import UserError
from uncollapse.initialisation import initialise
from uncollapse.joint_latents import JointLatents
from uncollapse.latents import Inference, Latent
from uncollapse.latents.posteriors.batch_norm import MeanBatchNorm
from uncollapse.latents.posteriors.refined import RefinedPosterior
from uncollapse.terms import Terms, label_loss


class Model(JointLatents):
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
        self.context = None
        latents: dict[str, Latent] = {}
        if recipe.encoder is not None:
            self.encoder = build_encoder(recipe.encoder, vocabulary_size)
        if recipe.condition is not None:
            self.context = build_context(recipe.condition, vocabulary_size, self.encoder)
        context = self.context
        widths = (0, 0) if context is None else (context.output_dim, context.memory_dim)
        if recipe.encoder is not None:
            assert self.encoder is not None
            for name, config in recipe.latents.items():
                if hasattr(nn.ModuleDict(), name):  # PyTorch would refuse it with a traceback
                    raise UserError(f"latents: {name!r} is a name that PyTorch reserves")
                latents[name] = Latent(
                    config,
                    self.encoder.output_dim,
                    widths[0],
                    recipe.condition is None or recipe.condition.posterior,
                )
                # not the critic: the papers leave it PyTorch's own start
                initialise(latents[name].posterior, recipe.encoder.init_scale, None)
                classifier = latents[name].classifier
                if classifier is not None:
                    initialise(classifier, recipe.encoder.init_scale, None)
        self.latents = nn.ModuleDict(latents)
        self.latent_dim = sum(latent.dim for latent in latents.values())
        self.decoder = build_decoder(recipe.decoder, vocabulary_size, self.latent_dim, widths)
        self.bag_of_words = None
        if recipe.objective.bag_of_words is not None:
            self.bag_of_words = BagOfWords(
                recipe.objective.bag_of_words, self.latent_dim, widths[0], vocabulary_size
            )
        self.discriminator = None
        if recipe.discriminator is not None:
            self.discriminator = Discriminator(recipe.discriminator, vocabulary_size, widths[0])
        self.supervision = recipe.objective.supervision
        self.objective = recipe.objective
        self.blank = False  # whether all contexts are held back
        # rows of the tables of words, and the vectors that these started from
        self.start: tuple[list[int], Tensor] | None = None

    def forward(
        self, batch: Batch, weight: float = 1.0, condition: Condition | None = None
    ) -> Terms:
        """All terms of a batch, with one posterior sample a sentence, in training as many as asked.

        ``weight`` is that of the divergence, which posteriors that look at the ELBO need;
        ``condition`` is what `read` gives.
        """
        if condition is None:
            condition = self.read(batch)
        found = self.infer(batch, weight, condition)
        latents = self.named_latents()
        variables = self.variables(found)
        codes = None if self.blank else codes_in_context(latents, found, variables, condition)
        return Terms(
            reconstruction=self._reconstruction(found, batch, condition),
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
            posteriors={name: inference.relative for name, inference in found.items()},
            variables=variables,
            mixtures={
                name: inference.mixture_kl()
                for name, inference in found.items()
                if inference.log_weights is not None
            },
            supervision={
                part.column: label_loss(variables[part.variable][:, part.index], labels)
                for part in self.supervision
                if (labels := batch.labels.get(part.column)) is not None
            },
            features=next(iter(found.values())).features if found else None,
            policy_hits={} if codes is None else codes.hits(),
            extra=self._extra(found, batch, condition, codes),
        )

    def embeddings(self) -> list[nn.Embedding]:
        """The tables of words."""
        parts = [self.encoder, self.context, self.decoder]
        tables = [t for part in parts if part is not None for t in part.modules()]
        return [t for t in tables if isinstance(t, nn.Embedding) and t.padding_idx == PAD]

    @torch.no_grad()
    def take_vectors(self, start: tuple[list[int], Tensor]) -> None:
        """Give some rows of every table of words the vectors that they shall start from."""
        rows, vectors = start
        for table in self.embeddings():
            table.weight[rows] = vectors.to(table.weight)

    def read(self, batch: Batch) -> Condition | None:
        """What the contexts of a batch say; None for a model that is told of none."""
        if self.context is None:
            return None
        told = replace(batch, context=None, labels={}) if self.blank else batch
        return self.context(told, self.encoder)

    def infer(
        self, batch: Batch, weight: float = 1.0, condition: Condition | None = None
    ) -> dict[str, Inference]:
        """What inference finds out about every latent; ``condition`` is what `read` gives."""
        if self.encoder is None:
            return {}
        if condition is None:
            condition = self.read(batch)
        encoded = self.encoder(batch)
        latents = self.named_latents()
        found = {name: latent.infer(encoded, condition) for name, latent in latents.items()}
        for name, latent in latents.items():
            if isinstance(latent.posterior, RefinedPosterior):
                self._refine(found, name, latent.posterior, batch, weight)
        return found

    def posterior(self, batch: Batch, condition: Condition | None = None) -> Distribution | None:
        """q(z|x) of all latents together, ``(B, D)``; None for a language model."""
        found = self.infer(batch, condition=condition).values()
        return side_by_side([inference.posterior for inference in found]) if found else None

    def schedule(self, epochs: float) -> None:
        """Take note of how many epochs of training are over."""
        for latent in self.named_latents().values():
            latent.posterior.schedule(epochs)

    def pieces(self) -> dict[str, list[nn.Module]]:
        """The modules of every player, see `players`; ``prior`` has parameters alone."""
        latents = list(self.named_latents().values())
        inference = [part for latent in latents for part in (latent.posterior, latent.classifier)]
        readers = [part for latent in latents for part in latent.prior.children()]
        modules = {
            "inference": [self.encoder, *inference],
            "generation": [self.decoder, self.context, self.bag_of_words, *readers],
            "critic": [*(latent.divergence for latent in latents), self.discriminator],
        }
        return {
            player: [part for part in parts if part is not None]
            for player, parts in modules.items()
        }

    def players(self) -> dict[str, list[nn.Parameter]]:
        """Who learns: every parameter belongs to exactly one player.

        ``inference``: encoder, posteriors and classifiers; ``generation``: decoder, and what
        reads contexts, policies too; ``prior``: what priors have of their own, components;
        ``critic``: networks of divergences, discriminator. A player without parameters is
        missing.
        """
        players = {
            player: [parameter for part in parts for parameter in part.parameters()]
            for player, parts in self.pieces().items()
        }
        # what reads a context is a module of the prior
        own = [latent.prior.parameters(recurse=False) for latent in self.named_latents().values()]
        players["prior"] = [parameter for parameters in own for parameter in parameters]
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
                losses.append(latent.divergence.critic_loss(inference))
        return torch.stack(losses).sum(0)

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
            # without refinements: they begin after the norms
            encoded, condition = self.encoder(batch), self.read(batch)
            for latent in self.named_latents().values():
                latent.infer(encoded, condition)
        for norm in norms:
            norm.finish_recalibration()

    def _extra(
        self,
        found: Mapping[str, Inference],
        batch: Batch,
        condition: Condition | None,
        codes: CodesInContext | None,
    ) -> dict[str, Tensor]:
        """What the objective adds beside divergences and labels, ``{name: (B,)}`` nats."""
        extra: dict[str, Tensor] = {}
        if self.bag_of_words is not None:
            z = torch.cat([inference.draw() for inference in found.values()], -1)  # (B, D)
            extra["bag of words"] = self.bag_of_words(z, batch, condition)
        if codes is not None and self.objective.policy:
            extra["policy"] = codes.policy_loss()
        if codes is not None and self.objective.attribute_forcing:
            assert isinstance(self.encoder, RecurrentEncoder)
            z = torch.cat([inference.draw() for inference in found.values()], -1)  # (B, D)
            forcing = AttributeForcing(self.encoder, self.decoder, self.named_latents())
            extra["attribute forcing"] = forcing(z, batch, codes)
        return extra

    def _reconstruction(
        self, found: Mapping[str, Inference], batch: Batch, condition: Condition | None
    ) -> Tensor:
        """log p(x|z), ``(B,)``: at one z, or the mean over several in training."""
        if not found:
            return self.decoder.log_prob(None, batch, condition)
        z = torch.cat([inference.draw() for inference in found.values()], -1)  # (B, D)
        samples = self.objective.samples if self.training else 1
        if samples == 1:
            return self.decoder.log_prob(z, batch, condition)
        with torch.autocast(z.device.type, enabled=False):  # as `Inference.draw` does
            others = [
                torch.cat([inference.posterior.rsample() for inference in found.values()], -1)
                for _ in range(samples - 1)
            ]
        rows = torch.cat([z, *others])  # (S · B, D)
        contexts = None if condition is None else condition.repeat(samples)
        scores = self.decoder.log_prob(rows, batch.repeat(samples), contexts)
        return scores.view(samples, -1).mean(0)

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
        condition = found[name].condition
        # the decoder must drop the same units in every step
        dropout = repeated_noise(device) if self.decoder.training else nullcontext

        def log_likelihood(z: Tensor) -> Tensor:
            with dropout():
                parts = [z if key == name else others[key] for key in places]
                return self.decoder.log_prob(torch.cat(parts, -1), batch, condition)

        start, prior = found[name].posterior, found[name].prior
        assert isinstance(start, DiagonalGaussian)
        # differences of gradients need every digit
        with torch.autocast(device.type, enabled=False):
            found[name].posterior = posterior.refine(
                start,
                log_likelihood,
                list(self.decoder.parameters()),
                prior,
                weight,
            )
