"""Where a run computes: its device, and its processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from uncollapse.device import find_device
from uncollapse.errors import UserError


@dataclass(frozen=True)
class Placement:
    """A device, and this process's place among those that train together.

    Attributes
    ----------
    device : torch.device
    world, rank : int
        Number of processes, and which of them this is.
    local_world, local_rank : int
        The same on this machine.
    """

    device: torch.device
    world: int = 1
    rank: int = 0
    local_world: int = 1
    local_rank: int = 0

    @classmethod
    def find(cls, device: str, *, alone: bool = False) -> Placement:
        """Read the environment, as ``torchrun`` sets it; ``alone``, this process is the only one.

        Raises
        ------
        UserError
            For a device that does not exist here, or variables that contradict each other.
        """
        found = find_device(device)
        world = _variable("WORLD_SIZE", 1)
        if alone or world == 1:
            return cls(found)
        local = _variable("LOCAL_WORLD_SIZE", world)
        place = cls(found, world, _variable("RANK"), local, _variable("LOCAL_RANK"))
        if world % local or not (place.rank < world and place.local_rank < local):
            raise UserError(
                f"process {place.rank} of {world}, {place.local_rank} of {local} on this machine: "
                "every machine must have as many processes"
            )
        return place

    @property
    def backend(self) -> str:
        """What the processes talk through."""
        return "nccl" if self.device.type == "cuda" else "gloo"

    def for_trainer(self, *, unused_parameters: bool) -> dict[str, Any]:
        """The arguments of Lightning's Trainer about where it runs.

        Parameters
        ----------
        unused_parameters : bool
            Whether there are parameters that a loss may leave without a gradient.
        """
        if self.world == 1:
            return {
                "accelerator": self.device.type,
                "devices": 1 if self.device.index is None else [self.device.index],
                "plugins": [_Alone()],
            }
        return {
            "accelerator": self.device.type,
            "devices": self.local_world,
            "num_nodes": self.world // self.local_world,
            "plugins": [TorchElasticEnvironment()],
            "strategy": DDPStrategy(
                process_group_backend=self.backend,
                gradient_as_bucket_view=True,
                find_unused_parameters=unused_parameters,
            ),
        }


class _Alone(LightningEnvironment):
    """Without guessing from a cluster's variables, and without forgetting them in the end."""

    def teardown(self) -> None:
        pass


def _variable(name: str, default: int | None = None) -> int:
    """A whole number that the launcher of several processes has put into the environment."""
    value = os.environ.get(name, "" if default is None else str(default))
    if not value.isdecimal():
        raise UserError(f"WORLD_SIZE is set, and {name} is {value!r}; start with torchrun")
    return int(value)
