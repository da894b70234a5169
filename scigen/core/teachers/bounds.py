"""What a file may make scigen allocate: networks are built from words, and words are cheap.

A configuration of a hundred bytes can ask for terabytes. The weights beside it say how large its network is, so that
no more than they explain is allocated while it is built.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from scigen.errors import UserError

CONSTRUCTORS = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye, torch.arange, torch.linspace,
}  # fmt: skip
SLACK = 2**20
"""Numbers that any network may have beside its weights: filters, frequencies, tables of levels."""
LARGEST = 2**16
"""Of whole numbers in a configuration: channels, cells, blocks, times."""
PLACES = 2**24
"""Cells of a field whose places a network may know without weights for them."""
SIDES = ("img_resolution", "input_size", "sample_size")


class Bounded(TorchFunctionMode):
    """Within it, tensors are made only as long as all of them together are what the weights of a file explain."""

    def __init__(self, state: Mapping[str, Tensor], words: Mapping[str, Any], path: Path) -> None:
        """Set the limit.

        Args:
            state: the weights.
            words: what the network is built from.
            path: of the file, for messages.

        Raises:
            UserError: if the words have a number that no network has.
        """
        super().__init__()
        self.path, self.whole = path, sum(v.numel() for v in state.values())
        self.left = 4 * self.whole + SLACK
        self._check(words)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what is made before it is."""
        if func in CONSTRUCTORS:
            self.left -= func(*args, **{**(kwargs or {}), "device": "meta"}).numel()
            if self.left < 0:
                raise UserError(
                    f"{self.path} describes a larger network than its {self.whole / 1e6:.3g} M weights are of; it was"
                    " not built. Configuration and weights are of two files."
                )
        return func(*args, **(kwargs or {}))

    def _check(self, words: Any, name: str = "") -> None:
        if isinstance(words, Mapping):
            for key, value in words.items():
                self._check(value, str(key))
        elif isinstance(words, list | tuple):
            for value in words:
                self._check(value, name)
            sides = [v for v in words if isinstance(v, int)]
            if name in SIDES and math.prod(sides) > max(PLACES, self.whole):
                raise UserError(f"{self.path}: {name}={list(words)} is no size that scigen samples.")
        elif isinstance(words, int) and not -LARGEST <= words <= LARGEST:
            raise UserError(f"{self.path}: {name}={words} is no number of a network.")
        elif name in SIDES and isinstance(words, int) and words**2 > max(PLACES, self.whole):
            raise UserError(f"{self.path}: {name}={words} is no size that scigen samples.")
