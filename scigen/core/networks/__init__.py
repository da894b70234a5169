"""Networks F(x, c_noise, condition): scigen's own U-Net and the one door to PhysicsNeMo's."""

from collections.abc import Mapping

from torch import Tensor

Condition = Mapping[str, Tensor]
"""What samples are conditioned on, batch first: "fields" (B, K, *S), "scalars" (B, K), "measurement", a codec's own."""
