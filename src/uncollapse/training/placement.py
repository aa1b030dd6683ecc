"""Where a run computes: its device, and its processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from uncollapse.device import find_device


@dataclass(frozen=True)
class Placement:
    """A device, and this process's place among those that train together.

    Attributes
    ----------
    device : torch.device
    world, rank : int
        Number of processes, and which of them this is.
    """

    device: torch.device
    world: int
    rank: int

    @classmethod
    def find(cls, device: str) -> Placement:
        """Read the environment, as ``torchrun`` sets it.

        Raises
        ------
        UserError
            For a device that does not exist here.
        """
        world, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
        return cls(find_device(device), int(world), int(rank))

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
                "plugins": [LightningEnvironment()],  # no guessing from a cluster's variables
            }
        local = int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
        return {
            "accelerator": self.device.type,
            "devices": local,
            "num_nodes": self.world // local,
            "strategy": DDPStrategy(
                process_group_backend="nccl" if self.device.type == "cuda" else "gloo",
                gradient_as_bucket_view=True,
                find_unused_parameters=unused_parameters,
            ),
        }
