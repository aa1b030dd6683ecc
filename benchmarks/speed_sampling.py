"""Sampling: the plain loop, and the package's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speed_settings import SEED, Settings, build_model, build_plain
from speed_turns import Turns

if TYPE_CHECKING:
    from plain.sampling import Method

METHODS: dict[Method, dict[str, Any]] = {
    "ancestral": {"method": "sample"},
    "greedy": {"method": "greedy"},
    "nucleus": {"method": "sample", "top_p": 0.9},
}


def plain(
    settings: Settings,
    turns: Turns,
    *,
    family: str,
    batches: int,
    how: Method,
    max_length: int,
    drop_finished: bool = False,
) -> None:
    """A word at a time; ``drop_finished`` takes rows out once they end."""
    import torch
    from plain.sampling import write, write_by_prefix

    model = build_plain(settings, family, trained=True).eval()
    torch.manual_seed(SEED)
    longest = min(max_length, settings.max_length)
    while turns.next():
        written: list[list[int]] = []
        for _ in range(batches):
            z = torch.randn(settings.rows, model.latent_dim)
            if family in ("cnn", "transformer"):
                written += write_by_prefix(model, z, longest, how)
            else:
                written += write(model, z, longest, how, drop_finished=drop_finished)
        _report(turns, written)


def ours(
    settings: Settings,
    turns: Turns,
    *,
    family: str,
    batches: int,
    how: Method,
    max_length: int,
    precision: str,
) -> None:
    """The package's own; its default is f32. Sentences wait for a row of the one batch."""
    import torch

    from uncollapse.decoders.generation import generate
    from uncollapse.evaluation.passes import evaluating

    model = build_model(settings, family, trained=True)
    generator = torch.Generator().manual_seed(SEED)
    longest = min(max_length, settings.max_length)
    with evaluating(model), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        while turns.next():
            written = generate(
                model.decoder,
                model.sample_prior(batches * settings.rows, generator),
                max_length=longest,
                generator=generator,
                batch_size=settings.rows,
                **METHODS[how],
            )
            _report(turns, written)


def _report(turns: Turns, written: list[list[int]]) -> None:
    tokens = sum(len(words) + 1 for words in written)
    turns.done(tokens, figures=[sum(map(len, written)) / len(written)])
