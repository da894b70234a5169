"""A traced program without complex numbers, for formats that have none: pairs of real ones, and DFTs as matrices.

Only what scigen's operators use of complex arithmetic is known here; the result is an ordinary module that can be
traced again. A transform of N points costs N² products a line instead of N log N, which for some hundred pixels a side
matrix units make up for.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from scigen.errors import UserError

aten = torch.ops.aten
PARTS = {torch.complex64: torch.float32, torch.complex128: torch.float64}
"""Type of the parts of complex numbers."""


class Pair(NamedTuple):
    """Complex numbers: real and imaginary part, of one shape."""

    re: Tensor
    im: Tensor


class Real(nn.Module):
    """A program's module, run with pairs in the place of complex tensors."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        """Take a program over.

        Args:
            program: as traced; inputs and outputs are real.
        """
        super().__init__()
        self.module = program.run_decompositions().module(check_guards=False)
        assert isinstance(self.module, fx.GraphModule)
        for node in self.module.graph.nodes:
            if node.target is aten._fft_c2c.default:
                value = node.meta["val"]
                for axis in node.args[1]:
                    self._wave(int(value.shape[axis]), PARTS[value.dtype])

    def forward(self, inputs: Mapping[str, Tensor]) -> Any:
        """As the program's module."""
        return _Interpreter(self).run(dict(inputs))

    def _wave(self, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and −sin of 2π jk/n, (n, n): the forward DFT of n points."""
        name = f"wave_{n}_{str(dtype).removeprefix('torch.')}"
        if not hasattr(self, f"{name}_re"):
            k = torch.arange(n)
            angle = (2 * math.pi / n) * (torch.outer(k, k) % n).double()
            self.register_buffer(f"{name}_re", angle.cos().to(dtype))
            self.register_buffer(f"{name}_im", -angle.sin().to(dtype))
        return getattr(self, f"{name}_re"), getattr(self, f"{name}_im")

    def fft(self, x: Pair, axes: list[int], norm: int, forward: bool) -> Pair:
        """aten._fft_c2c: norm 0 scales by nothing, 1 by 1/√N, 2 by 1/N."""
        points = 1
        for axis in axes:
            n = int(x.re.shape[axis])
            c, s = self._wave(n, x.re.dtype)
            s = s if forward else -s
            a, b = (part.movedim(axis, -1) for part in x)
            x = Pair((a @ c - b @ s).movedim(-1, axis), (a @ s + b @ c).movedim(-1, axis))
            points *= n
        scale = {0: 1.0, 1: points**-0.5, 2: 1.0 / points}[norm]
        return Pair(x.re * scale, x.im * scale)


def pair(x: Any) -> Pair:
    """Numbers and real tensors as pairs."""
    if isinstance(x, Pair):
        return x
    if isinstance(x, Tensor):
        return Pair(x, torch.zeros_like(x))
    value = complex(x)
    return Pair(torch.tensor(value.real), torch.tensor(value.imag))


def multiply(x: Any, y: Any) -> Pair:
    """x y, either of which may be real."""
    if not isinstance(x, Pair):
        x, y = y, x
    if not isinstance(y, Pair):
        return Pair(x.re * y, x.im * y)
    return Pair(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)


def divide(x: Any, y: Any) -> Pair:
    """x / y, either of which may be real."""
    if not isinstance(y, Pair):
        return Pair(pair(x).re / y, pair(x).im / y)
    size = y.re.square() + y.im.square()
    top = multiply(x, Pair(y.re, -y.im))
    return Pair(top.re / size, top.im / size)


def _copied(x: Any, **how: Any) -> Any:
    to = how.pop("dtype", None)
    if to in PARTS:
        own = pair(x)
        return Pair(*(aten._to_copy.default(v, dtype=PARTS[to], **how) for v in own))
    return Pair(*(aten._to_copy.default(v, **how) for v in x)) if to is None else x.re.to(to)


def _filled(x: Pair, value: complex, **how: Any) -> Pair:
    return Pair(torch.full_like(x.re, complex(value).real), torch.full_like(x.re, complex(value).imag))


OPERATORS: dict[Any, Callable[..., Any]] = {
    aten.complex.default: Pair,
    aten.view_as_real.default: lambda x: torch.stack([x.re, x.im], dim=-1),
    aten._conj.default: lambda x: Pair(x.re, -x.im),
    aten.abs.default: lambda x: (x.re.square() + x.im.square()).sqrt(),
    aten.add.Tensor: lambda x, y: Pair(pair(x).re + pair(y).re, pair(x).im + pair(y).im),
    aten.sub.Tensor: lambda x, y: Pair(pair(x).re - pair(y).re, pair(x).im - pair(y).im),
    aten.mul.Tensor: multiply,
    aten.div.Tensor: divide,
    aten.where.self: lambda w, x, y: Pair(
        torch.where(w, pair(x).re, pair(y).re), torch.where(w, pair(x).im, pair(y).im)
    ),
    aten._to_copy.default: _copied,
    aten.full_like.default: _filled,
    aten._assert_tensor_metadata.default: lambda *_, **__: None,
}
"""What is done to complex numbers."""
PARTWISE = {
    aten.index_select.default, aten.clone.default, aten.sum.dim_IntList, aten.select.int, aten.unsqueeze.default,
    aten.expand.default, aten.view.default, aten.permute.default, aten.slice.Tensor, aten.squeeze.dims,
    aten.neg.default, aten.roll.default, aten.alias.default,
}  # fmt: skip
"""What is done to each part."""


class _Interpreter(fx.Interpreter):
    """Runs a graph node by node; what is complex in it is a pair here."""

    def __init__(self, real: Real) -> None:
        super().__init__(real.module)
        self.real = real

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """One node.

        Raises:
            UserError: for complex arithmetic that is not known here.
        """
        leaves = pytree.tree_leaves((args, kwargs), is_leaf=lambda v: isinstance(v, Pair))
        complexes = any(isinstance(v, Pair) for v in leaves) or kwargs.get("dtype") in PARTS
        if not complexes and target is not aten.complex.default:
            return super().call_function(target, args, kwargs)
        if target is aten._fft_c2c.default:
            return self.real.fft(*args)
        if target in OPERATORS:
            return OPERATORS[target](*args, **kwargs)
        if target in PARTWISE:
            rest = args[1:]
            return Pair(target(args[0].re, *rest, **kwargs), target(args[0].im, *rest, **kwargs))
        raise UserError(f"format=onnx: no real form of {target} on complex numbers is known; use format=pt2.")
