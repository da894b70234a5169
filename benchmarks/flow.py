"""A rectified flow of one's own: y (B, C, Y, X), time in [0, 1] and the condition, to dy/dt."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class Velocity(nn.Module):
    def __init__(self, channels: int, fields: int, scalars: int, weights: str | None = None, width: int = 64) -> None:
        super().__init__()
        self.told = nn.Sequential(nn.Linear(scalars + 16, width), nn.SiLU(), nn.Linear(width, 10 * width))
        self.first = nn.Conv2d(4 * (channels + fields), width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 4, 2, 1))
        self.last = nn.Conv2d(width, 4 * channels, 3, padding=1)
        if weights:
            self.load_state_dict(load_file(Path(weights)))

    def forward(self, y: Tensor, time: Tensor, condition: dict[str, Tensor]) -> Tensor:
        angles = time[:, None] * torch.arange(1, 9).to(time) * torch.pi
        told = self.told(torch.cat([angles.sin(), angles.cos(), condition["scalars"]], 1))
        h = self.first(nn.functional.pixel_unshuffle(torch.cat([y, condition["fields"]], 1), 2))
        for block, both in zip(self.blocks, told[..., None, None].chunk(5, dim=1), strict=True):
            gain, shift = both.chunk(2, dim=1)
            h = h + block(nn.functional.silu(nn.functional.group_norm(h, 8) * (1 + gain) + shift))
        return nn.functional.pixel_shuffle(self.last(h), 2)
