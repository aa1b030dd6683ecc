"""Sentences into vectors, and vectors into sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from uncollapse.decoders.generation import Method, generate
from uncollapse.device import check_seed
from uncollapse.distributions.base import Distribution, join
from uncollapse.errors import UserError
from uncollapse.loading import Data
from uncollapse.names import find_code
from uncollapse.trained_model import TrainedModel


class Writer(TrainedModel):
    """The verbs of a trained model that encode and write."""

    def posterior(self, texts: Data, *, batch_size: int = 128) -> Distribution:
        """q(z|x) of every sentence, ``(N, D)`` on the CPU, in the order of ``texts``.

        Raises
        ------
        UserError
            For a model without a latent, or an empty sentence.
        """
        self._require_latent()
        parts, index = [], []
        with torch.no_grad():
            for batch in self._batches(texts, batch_size):
                posterior = self.model.posterior(batch)
                assert posterior is not None
                parts.append(posterior.map(Tensor.cpu))
                index.append(batch.index.cpu())
        return join(parts)[torch.cat(index).argsort()]

    def encode(self, texts: Data, *, batch_size: int = 128) -> np.ndarray:
        """Posterior means of sentences, ``(N, D)``."""
        return self.posterior(texts, batch_size=batch_size).mean.detach().numpy()

    def decode(
        self,
        z: np.ndarray,
        *,
        method: Method = "greedy",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_length: int = 100,
        seed: int | None = None,
    ) -> list[str]:
        """Write a sentence for every row of ``z`` ``(N, D)``.

        For the point nearest to it that the prior can give: one of the sphere, or a code.

        Parameters
        ----------
        z : ndarray
            Latents.
        method : {"greedy", "sample"}
            Most probable words, or draws (with ``temperature``, and ``top_p`` for a nucleus).
        max_length : int
            Words after which a sentence is cut.
        seed : int, optional
            Of the draws.
        """
        self._require_latent()
        latents = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        if latents.dim() != 2 or latents.shape[1] != self.model.latent_dim:
            wanted = f"(N, {self.model.latent_dim})"
            raise UserError(f"z must have shape {wanted}, not {tuple(latents.shape)}")
        latents = self.model.in_support(latents)
        return self._write(latents, len(latents), method, temperature, top_p, max_length, seed)

    def reconstruct(self, texts: Data, **how: Any) -> list[str]:
        """Encode and decode: what is left of a sentence in z. Options as in `decode`."""
        return self.decode(self.encode(texts), **how)

    def interpolate(self, a: str, b: str, steps: int = 7, **how: Any) -> list[str]:
        """Sentences on the straight line between two posterior means, ends included.

        Options as in `decode`.
        """
        if steps < 2:
            raise UserError(f"steps must be at least 2, not {steps}")
        start, end = self.encode([a, b])
        share = np.linspace(0, 1, steps)[:, None]
        return self.decode((1 - share) * start + share * end, **how)

    def sample(
        self,
        n: int,
        *,
        component: str | int | None = None,
        variable: str | None = None,
        index: int | None = None,
        method: Method = "sample",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_length: int = 100,
        seed: int | None = None,
    ) -> list[str]:
        """Write ``n`` sentences from the prior. Further options as in `decode`.

        Parameters
        ----------
        n : int
        component : str or int, optional
            Hold a discrete variable at this value, and draw the rest: the same action in
            different words. A code as `clusters` prints it (``"3"``, ``"2-0-4"``; ``"2-*-4"``
            leaves the second index free), or a name that `name_components` gave.
        variable : str, optional
            What the component is of, e.g. ``"z.component"``; by default the one that has the
            name, or else the first.
        index : int, optional
            Hold this index of the variable alone; the component is then one value.

        Raises
        ------
        UserError
            For a component that does not exist, or that the model cannot hold.
        """
        if n < 1:
            raise UserError(f"the number of samples must be at least 1, not {n}")
        codes = None
        if component is not None:
            self._require_latent()
            variable, code = find_code(self.model, self._names, component, variable, index)
            codes = {variable: torch.tensor([code]).repeat(n, 1)}  # (n, M)
        elif variable is not None or index is not None:
            raise UserError("a variable or an index is of use with a component only")
        generator = _generator(seed)
        z = self.model.sample_prior(n, generator, codes)
        return self._write(z, n, method, temperature, top_p, max_length, generator)

    def _write(
        self,
        z: torch.Tensor | None,
        rows: int,
        method: Method,
        temperature: float,
        top_p: float,
        max_length: int,
        seed: int | torch.Generator | None,
    ) -> list[str]:
        tokens = generate(
            self.model.decoder,
            None if z is None else z.to(self.device),
            rows=rows,
            method=method,
            temperature=temperature,
            top_p=top_p,
            max_length=max_length,
            generator=_generator(seed),
        )
        return [self.tokenizer.decode(row) for row in tokens]


def _generator(seed: int | torch.Generator | None) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        return seed
    generator = torch.Generator()
    if seed is None:
        generator.seed()
        return generator
    return generator.manual_seed(check_seed(seed))
