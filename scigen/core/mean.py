"""The conditional mean E[x | condition] by a network: a denoiser that is given no sample at all.

It is what a denoiser tends to as σ → ∞, so any of the networks serves: F(0; 0, condition), trained with squared error.
A generative model then learns the residual, whose spread is the ensemble's (CorrDiff, Mardani et al. 2023,
arXiv:2309.15214).
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserModule
from scigen.core.networks.allowed import NETWORKS, construct


class ConditionalMean(DenoiserModule):
    """A network as the mean of normalised samples of shape (C, *S) given their condition."""

    def __init__(self, network: nn.Module, network_class: str, network_args: Mapping[str, Any]) -> None:
        """Wrap a network.

        Args:
            network: F(x, c_noise, condition).
            network_class: its dotted name.
            network_args: what it was built with, JSON types.
        """
        super().__init__()
        self.network, self.network_class, self.network_args = network, network_class, dict(network_args)
        self.sigma_data = 1.0

    def forward(self, x: Tensor, sigma: Tensor | None = None, condition: Condition | None = None) -> Tensor:
        """The mean, (B, C, *S); of x only the shape is used."""
        return self.network(torch.zeros_like(x), x.new_zeros(x.shape[0]), condition)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(settings as JSON types, arrays) that `restore` rebuilds it from."""
        weights = {k: v.detach().cpu().contiguous().numpy() for k, v in self.network.state_dict().items()}
        return {"class": self.network_class, "args": self.network_args}, weights

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of `state`.

        Raises:
            UserError: if the class is not allow-listed.
        """
        network = construct(settings["class"], NETWORKS, "network")(**settings["args"])
        network.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()})
        out = cls(network, settings["class"], settings["args"])
        out.eval().requires_grad_(False)
        return out
