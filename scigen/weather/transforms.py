"""Between physical values and those that networks learn: transforms of single variables, stored in bundles.

Rain is zero on most cells and has a long tail; cloud and humidity pile up at their bounds. A network learns smooth
densities, so such a variable is bent first, and an atom of its law (dry cells, clear sky) becomes one value z₀ that the
inverse takes for everything beyond: max(z, z₀). What is generated around the atom falls on both sides of it, so values
closer to the bound than `dry` count as the bound itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import pi
from typing import Any, ClassVar

import torch
from torch import Tensor

from scigen.errors import UserError

SLACK = 1e-3
"""Values beyond a bound by less than this share of the scale are taken for it: rounding, packing, interpolation."""


@dataclass(frozen=True)
class Transform(ABC):
    """A monotone map of one variable's values and its inverse.

    Attributes:
        kind: what configurations call it.
    """

    kind: ClassVar[str]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """From physical values to those that are learnt; of the same shape.

        Raises:
            UserError: for values that the variable cannot have.
        """

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """Back to physical values, always possible ones; inverse(forward(x)) = x but for values that count as 0."""

    @property
    def linear(self) -> bool:
        """Whether means of physical values are those of learnt ones, so that linear measurements stay linear."""
        return False

    @property
    def positive(self) -> bool:
        """Whether values are at least 0 and 0 has a share of its own, so that only factors conserve their means."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """JSON types that `transform` takes."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Identity(Transform):
    """As it is."""

    kind = "identity"

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x

    def inverse(self, z: Tensor) -> Tensor:
        """z."""
        return z

    @property
    def linear(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class Root(Transform):
    """z = x^(1/power) for x ≥ 0: tames tails, and the edges of a wet area, which x leaves as a power, become straight.

    Attributes:
        power: 3 is the cube root.
        dry: values below it are made 0 on the way back [units of x].
    """

    kind = "root"
    power: float = 3.0
    dry: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (self.power > 0 and self.dry >= 0):
            raise UserError(f"transform root: power={self.power} must be positive and dry={self.dry} not negative.")

    def forward(self, x: Tensor) -> Tensor:
        """(…) to (…)."""
        return _from_zero(x, self).pow(1 / self.power)

    def inverse(self, z: Tensor) -> Tensor:
        """(…) to (…)."""
        return _snapped(z.clamp_min(0).pow(self.power), self.dry)

    @property
    def positive(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class Log(Transform):
    """z = ln(1 + x/scale) for x ≥ 0: linear far below the scale, logarithmic far above.

    Attributes:
        scale: [units of x].
        dry: values below it are made 0 on the way back [units of x].
    """

    kind = "log"
    scale: float = 0.1
    dry: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (self.scale > 0 and self.dry >= 0):
            raise UserError(f"transform log: scale={self.scale} must be positive and dry={self.dry} not negative.")

    def forward(self, x: Tensor) -> Tensor:
        """(…) to (…)."""
        return (_from_zero(x, self) / self.scale).log1p()

    def inverse(self, z: Tensor) -> Tensor:
        """(…) to (…)."""
        return _snapped(self.scale * z.clamp_min(0).expm1(), self.dry)

    @property
    def positive(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class Bounded(Transform):
    """z = arcsin √u, u = (x − low)/(high − low): evens out a share's spread, and keeps its atoms at both bounds.

    Attributes:
        low: least value.
        high: largest.
        snap: shares closer to a bound than this are made the bound on the way back.
    """

    kind = "bounded"
    low: float = 0.0
    high: float = 1.0
    snap: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (self.high > self.low and 0 <= self.snap < 0.5):
            raise UserError(f"transform bounded: low={self.low} < high={self.high} and 0 <= snap={self.snap} < 0.5.")

    def forward(self, x: Tensor) -> Tensor:
        """(…) to (…)."""
        u = (x - self.low) / (self.high - self.low)
        if not torch.compiler.is_compiling() and x.numel() and not (u.min() >= -SLACK and u.max() <= 1 + SLACK):
            raise UserError(
                f"Values from {float(x.min()):g} to {float(x.max()):g} lie outside [{self.low:g}, {self.high:g}], the"
                " bounds of their transform: mend them, check the units, or set data.transforms."
            )
        return u.clamp(0, 1).sqrt().asin()

    def inverse(self, z: Tensor) -> Tensor:
        """(…) to (…)."""
        u = z.clamp(0, pi / 2).sin().square()
        u = u.masked_fill(u < self.snap, 0.0).masked_fill(u > 1 - self.snap, 1.0)
        return self.low + (self.high - self.low) * u


KINDS: dict[str, type[Transform]] = {t.kind: t for t in (Identity, Root, Log, Bounded)}

Spec = str | Mapping[str, Any]
"""A transform in a configuration: its kind, or {kind: …, number: …}."""

SHARES = ("tcc", "lcc", "mcc", "hcc", "r2", "rh", "hurs", "clt")
"""Variables between two bounds."""


def transform(spec: Spec) -> Transform:
    """The transform of a configuration or a bundle.

    Raises:
        UserError: for a kind or a number that there is not.
    """
    own = {"kind": spec} if isinstance(spec, str) else dict(spec)
    kind = own.pop("kind", None)
    if kind not in KINDS:
        raise UserError(f"data.transforms: {kind!r} is none of {', '.join(KINDS)}.")
    try:
        return KINDS[kind](**own)
    except TypeError as error:
        known = ", ".join(f.name for f in fields(KINDS[kind])) or "no numbers"
        raise UserError(f"data.transforms: {kind} with {own}: it takes {known}.") from error


def default(name: str, units: str) -> Transform:
    """What suits a variable: the cube root for rain rates, bounds for humidity and cloud, else itself."""
    if name in ("tp", "pr"):
        return Root(3.0, dry=0.05)
    if name in SHARES:
        return Bounded(0.0, 100.0 if units == "%" else 1.0, snap=0.005)
    return Identity()


def _from_zero(x: Tensor, what: Transform) -> Tensor:
    """Values that must be at least 0, rounding aside; what is traced cannot look at them, and clips."""
    if torch.compiler.is_compiling():
        return x.clamp_min(0)
    low = float(x.min()) if x.numel() else 0.0
    if low < -SLACK * max(1.0, float(x.max()) if x.numel() else 1.0):
        raise UserError(
            f"A value of {low:g} is below 0, where transform {what.kind} has no value: mend it, or set data.transforms."
        )
    return x.clamp_min(0)


def _snapped(x: Tensor, dry: float) -> Tensor:
    """Values below `dry` made 0."""
    return x.masked_fill(x < dry, 0.0) if dry else x
