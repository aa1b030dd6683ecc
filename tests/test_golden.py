"""A refactor does not move a loss: every recipe's, at fixed weights, sentences and noise.

After a change that is meant to move them: ``python tests/test_golden.py`` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import make_batch, random_sentences, small_model, small_recipe

from uncollapse.objectives import Objective, Progress
from uncollapse.recipes import recipe_names

GOLDEN = Path(__file__).with_name("golden_losses.json")


def loss_of(name: str) -> float:
    """The objective halfway through annealing, plus what a critic lowers; dropout off."""
    turns = random_sentences(12, seed=1)
    contexts = [turns[2 * row : 2 * row + (row + 1) % 3] for row in range(6)]
    model, batch = small_model(name), make_batch(random_sentences(6), contexts=contexts)
    torch.manual_seed(11)
    halfway = Progress(2500, 500)  # of 10 epochs, and the midpoint of a logistic weight
    loss = Objective(small_recipe(name).objective)(model(batch, 0.5), 6, halfway).total
    if model.critic_settings() is not None:
        loss = loss + model.critic_loss(model.infer(batch)).mean()
    return float(loss.detach())


@pytest.mark.parametrize("name", recipe_names())
def test_loss_has_not_moved(name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert loss_of(name) == pytest.approx(golden[name], rel=2e-5)


if __name__ == "__main__":
    losses = {name: round(loss_of(name), 6) for name in recipe_names()}
    GOLDEN.write_text(json.dumps(losses, indent=1) + "\n", encoding="utf-8")
