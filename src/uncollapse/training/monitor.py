"""Tells the user when a latent or its codes are dying, have died, or live again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning.pytorch import Callback, Trainer

from uncollapse.objectives.schedules import final_weight
from uncollapse.training.advice import Kind, is_informed, kind_of
from uncollapse.training.module import TrainingModule
from uncollapse.training.state import Row
from uncollapse.training.verdict import Verdict, code_verdict, latent_of, verdict, worst

FIRST_BATCHES = 500  # a model that has learned nothing yet is not a collapsed one
SAYS = {"mode collapse": "has mode collapse", "codes ignored": "has its codes ignored"}


class CollapseMonitor(Callback):
    """Judges every latent after each epoch and speaks when its state changes.

    Parameters
    ----------
    say : callable
        Takes one line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:
        state = module.state
        if state.batches_seen < FIRST_BATCHES:
            return
        row = state.rows[-1]
        final = final_weight(module.objective.schedule)
        weight = module.kl_weight / final if final else 1.0
        sizes = module.model.variable_sizes()
        for name, latent in module.model.named_latents().items():
            of_codes = [
                _judge_codes(variable, size, name, row, weight, is_informed(latent))
                for variable, size in sizes.items()
                # nothing but the KL ties components to sentences
                if latent_of(variable) == name and (final or variable == name)
            ]
            kind = kind_of(latent) if final else "uncharged"
            of_z = _judge_z(name, latent.dim, kind, state.rows, weight)
            found = worst([of_z, *of_codes])
            before = state.warned.get(name, "alive")
            state.warned[name] = found.state
            if found.state == before or not trainer.is_global_zero:
                continue
            says = SAYS.get(found.state, f"is {found.state}")
            line = f"epoch {row['epoch']}: latent {name} {says} ({found.evidence})"
            self.say(f"{line}; {found.advice}" if found.advice else line)


def _judge_z(name: str, dim: int, kind: Kind, rows: Sequence[Row], weight: float) -> Verdict:
    row = rows[-1]
    course = [past.get(f"validation/kl/{name}") for past in rows[:-1]]
    return verdict(
        row.get(f"validation/kl/{name}"),
        row.get(f"validation/mi/{name}"),
        row.get(f"validation/active_units/{name}"),
        dim,
        weight=weight,
        previous_kl=[value for value in course if value is not None],
        kind=kind,
    )


def _judge_codes(
    variable: str, size: tuple[int, int], name: str, row: Row, weight: float, informed: bool
) -> Verdict:
    mi, usage = row[f"validation/mi_c/{variable}"], row[f"validation/usage/{variable}"]
    assert mi is not None
    assert usage is not None
    # of a mixture alone; the units of a discrete latent have none
    components = None if variable == name else row[f"validation/components/{name}"]
    return code_verdict(
        variable, size, mi, usage, components=components, weight=weight, informed=informed
    )
