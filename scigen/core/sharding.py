"""Training with a model that is spread over the devices: each keeps a part of weights, averages and optimiser state.

torch's fully sharded data parallel (`fully_shard`), on Lightning's process group. Everything that is written,
checkpoint and snapshots, is whole, so that a training may go on with another number of devices, or on one.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(content: Any) -> Any:
    """Nested dicts, lists and tensors with every spread tensor gathered, on the CPU; all processes must ask for it."""
    if isinstance(content, DTensor):
        return content.full_tensor().cpu()
    if isinstance(content, Mapping):
        return {k: whole(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(whole(v) for v in content)
    return content


def spread(value: Any, like: Tensor) -> Any:
    """A tensor spread as a parameter of its shape is."""
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


class ShardedStrategy(DDPStrategy):
    """Spreads the modules that the driver names when the training is set up, after a checkpoint was read."""

    def configure_ddp(self) -> None:
        """Spread weights and averages; gradients are averaged on the way back to where they are kept."""
        module: Any = self.lightning_module
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for part in module.spread_modules():
            shard(part, mesh)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give every optimiser its part of a whole state."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            own = [p for group in optimizer.param_groups for p in group["params"]]
            parts = {i: {k: spread(v, own[i]) for k, v in s.items()} for i, s in state["state"].items()}
            optimizer.load_state_dict({**state, "state": parts})


def shard(module: nn.Module, mesh: Any) -> None:
    """Spread a module in place: what holds parameters in its lists first, then the rest as one."""
    for child in module.modules():
        if isinstance(child, nn.ModuleList):
            for block in child:
                if not isinstance(block, nn.ModuleList) and any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def is_spread(module: nn.Module) -> bool:
    """Whether a module's parameters are spread."""
    return any(isinstance(p, DTensor) for p in module.parameters())


def number(value: Tensor) -> Tensor:
    """A scalar that may be spread, as a plain one."""
    return value.full_tensor() if isinstance(value, DTensor) else torch.as_tensor(value)
