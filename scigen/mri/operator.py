"""A = M F S with complex noise, and the Gaussian posterior that ties an image to its k-space.

For the prior N(u, P⁻¹), P diagonal in k-space, and y = A x + n with n of standard deviation σ_y, the posterior mean is

    x = u + H⁻¹ Aᴴ(y − A u)/σ_y²,   H = AᴴA/σ_y² + P

With P = λ/σ_y² this is proximal data consistency (AᴴA + λ) x = Aᴴy + λ u, and with P = 1/s + 1/σ², where s is the
power spectrum of images, the exact denoiser of Gaussian images from that of their prior. H is diagonal in k-space for
one coil of constant modulus; else it is inverted by preconditioned conjugate gradients, sample by sample.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scigen.core.operator import Operator

AXES = (-2, -1)


def fft2c(image: Tensor) -> Tensor:
    """Centred orthonormal k-space (…, Y, X) of images (…, Y, X)."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, dim=AXES), norm="ortho"), dim=AXES)


def ifft2c(kspace: Tensor) -> Tensor:
    """Images (…, Y, X) of centred orthonormal k-space (…, Y, X)."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=AXES), norm="ortho"), dim=AXES)


def to_complex(x: Tensor) -> Tensor:
    """(B, 2, Y, X) real and imaginary parts to (B, Y, X) complex."""
    return torch.complex(x[:, 0], x[:, 1])


def to_channels(x: Tensor) -> Tensor:
    """(B, Y, X) complex to (B, 2, Y, X)."""
    return torch.stack([x.real, x.imag], dim=1)


class Sense(Operator):
    """A = M F S of one scan a row: complex images (B, 2, Y, X) to k-space (B, coils, 2, Y, X).

    Attributes:
        maps: S, (B, C, Y, X) complex.
        mask: M, (B, Y, X), 0 or 1.
    """

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        """Set coil maps and mask."""
        super().__init__()
        self.maps, self.mask = maps, mask.to(maps.real.dtype)
        self._where = torch.fft.ifftshift(self.mask, dim=AXES)

    def forward(self, x: Tensor) -> Tensor:
        """A x."""
        return torch.view_as_real(self.measure(to_complex(x))).movedim(-1, 2)

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y."""
        return to_channels(self.combine(torch.complex(y[:, :, 0], y[:, :, 1])))

    def measure(self, image: Tensor) -> Tensor:
        """A of complex images: (B, Y, X) to (B, C, Y, X)."""
        return self.mask[:, None] * fft2c(self.maps * image[:, None])

    def combine(self, kspace: Tensor) -> Tensor:
        """Aᴴ of complex k-space: (B, C, Y, X) to (B, Y, X)."""
        return (self.maps.conj() * ifft2c(self.mask[:, None] * kspace)).sum(1)

    def normal(self, image: Tensor) -> Tensor:
        """AᴴA of complex images (B, Y, X): a circular convolution between the maps, in which centring cancels."""
        seen = self._where[:, None] * torch.fft.fft2(self.maps * image[:, None])
        return (self.maps.conj() * torch.fft.ifft2(seen)).sum(1)

    def density(self) -> Tensor:
        """The diagonal of F AᴴA Fᴴ, (B, Y, X): the mask smeared by the maps, itself for one coil of modulus 1."""
        pixels = self.mask.shape[-1] * self.mask.shape[-2]
        power = fft2c(self.maps).abs().square().sum(1)
        smear = torch.fft.fft2(torch.fft.ifftshift(power, dim=AXES))
        out = torch.fft.ifft2(torch.fft.fft2(torch.fft.ifftshift(self.mask, dim=AXES)) * smear.conj()).real
        out = torch.fft.fftshift(out, dim=AXES) / pixels
        return torch.where(out > 8 * torch.finfo(out.dtype).eps, out, 0)  # exactly 0 where nothing is measured


def conjugate_gradients(
    operator: Sense, weight: Tensor, precision: Tensor, density: Tensor, v: Tensor, iterations: int, tolerance: float
) -> Tensor:
    """H⁻¹ v with H = w AᴴA + Fᴴ P F, by conjugate gradients preconditioned with the diagonal of F H Fᴴ.

    Every sample has its own step lengths, and is left alone once its residual is small: it depends on no other.

    Args:
        operator: A.
        weight: w = 1/σ_y², (B,).
        precision: P, (B, Y, X) or one that broadcasts to it, positive.
        density: `Sense.density`.
        v: (B, Y, X) complex.
        iterations: at most.
        tolerance: of the residual's norm over that of v.
    """
    w = weight[:, None, None]
    diagonal, p_k = (torch.fft.ifftshift(d, dim=AXES) for d in (w * density + precision, precision))  # centring cancels

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a.real * b.real + a.imag * b.imag).flatten(1).sum(1)  # in the same order whatever the batch

    def solve(r: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(r) / diagonal)

    def apply(x: Tensor) -> Tensor:
        return w * operator.normal(x) + torch.fft.ifft2(p_k * torch.fft.fft2(x))

    x = solve(v)
    r = v - apply(x)
    goal = tolerance**2 * dot(v, v)
    z = solve(r)
    p, rho = z, dot(r, z)
    for _ in range(iterations):
        live = dot(r, r) > goal
        if not torch.compiler.is_compiling() and not live.any():
            break
        q = apply(p)
        step = torch.where(live, rho / dot(p, q).clamp_min(torch.finfo(rho.dtype).tiny), 0)[:, None, None]
        x, r = x + step * p, r - step * q
        z = solve(r)
        new = dot(r, z)
        turn = torch.where(live, new / rho.clamp_min(torch.finfo(rho.dtype).tiny), 0)[:, None, None]
        p, rho = z + turn * p, torch.where(live, new, rho)
    return x


class Inverse(torch.autograd.Function):
    """H⁻¹ v: self-adjoint, so that its gradient is another solution with the same H."""

    @staticmethod
    def forward(v: Tensor, solver: Any) -> Tensor:
        """H⁻¹ v."""
        return solver(v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep H."""
        ctx.solver = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """H⁻ᴴ g = H⁻¹ g."""
        return Inverse.apply(grads[0], ctx.solver), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """H⁻¹ of the tangent."""
        return ctx.solver(tangents[0])


def posterior_mean(
    operator: Sense, u: Tensor, aliased: Tensor, noise: Tensor, precision: Tensor, density: Tensor,
    iterations: int = 12, tolerance: float = 1e-4,
) -> Tensor:  # fmt: skip
    """E[x | y] for x ~ N(u, P⁻¹), y = A x + n.

    Args:
        operator: A.
        u: (B, Y, X) complex.
        aliased: Aᴴ y, (B, Y, X) complex: all that the answer needs of y.
        noise: σ_y per real and imaginary part, (B,), positive.
        precision: P of each part, (B, Y, X), in k-space.
        density: `Sense.density`.
        iterations: of conjugate gradients at most.
        tolerance: of their residual.

    Returns:
        (B, Y, X) complex, differentiable in u and aliased.
    """
    weight = noise.double().pow(-2).to(precision.dtype)

    def solver(v: Tensor) -> Tensor:
        return conjugate_gradients(operator, weight, precision, density, v, iterations, tolerance)

    left = weight[:, None, None] * (aliased - operator.normal(u))
    return u + (solver(left) if torch.compiler.is_compiling() else Inverse.apply(left, solver))


class Measured(Operator):
    """The measurement of network samples: rotated, scaled residuals r of x = mean + std e^{iφ} r.

    Bound to a condition it corrects denoised samples (`correct`): the exact Gaussian posterior of images with a known
    power spectrum, given the k-space.
    """

    def __init__(
        self, spectrum: Tensor, std: float, iterations: int, condition: Mapping[str, Tensor] | None = None
    ) -> None:
        """Set the prior's law.

        Args:
            spectrum: s, power of one part of a k-space coefficient of scaled images, (Y, X).
            std: of the residuals.
            iterations: of conjugate gradients at most.
            condition: of the samples, see `ReconstructionCodec.condition`.
        """
        super().__init__()
        self.std, self.iterations, self.condition = std, iterations, condition
        self.precision = spectrum.double().reciprocal()
        self.noise_std = float("nan")  # each sample has its own: condition["noise"]

    def bind(self, condition: Mapping[str, Tensor]) -> "Measured":
        """With the scan of a condition."""
        return Measured(self.precision.reciprocal(), self.std, self.iterations, condition)

    @property
    def sense(self) -> Sense:
        """A of the bound scans."""
        assert self.condition is not None
        return Sense(self.condition["sens_maps"], self.condition["mask"])

    def image(self, r: Tensor) -> Tensor:
        """Scaled complex images (B, Y, X) of samples r (B, 2, Y, X)."""
        assert self.condition is not None
        turn = self.condition["phase"]
        return self.condition["mean"] + self.std * turn * to_complex(r.to(turn.real.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """A of the samples' part that varies, e^{iφ} std r: k-space (B, C, 2, Y, X)."""
        assert self.condition is not None
        return self.sense(to_channels(self.std * self.condition["phase"] * to_complex(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        """Its adjoint."""
        assert self.condition is not None
        back = self.condition["phase"].conj() * to_complex(self.sense.adjoint(y))
        return to_channels(self.std * back)

    def correct(self, denoised: Tensor, sigma: Tensor) -> Tensor:
        """E[r | r_σ, y] of Gaussian images, from what their prior alone makes of r_σ: (B, 2, Y, X), sigma (B,)."""
        assert self.condition is not None
        with torch.autocast(denoised.device.type, enabled=False):
            c = self.condition
            level = (self.std * sigma.double()).pow(-2)[:, None, None]
            precision = (self.precision.to(level.device) + level).to(c["mask"].dtype)
            u = self.image(denoised)
            x = posterior_mean(
                self.sense, u, c["aliased"], c["noise"], precision, c["density"], iterations=self.iterations
            )
            move = to_channels(c["phase"].conj() * (x - u)) / self.std
        return denoised + move.to(denoised.dtype)

    def perturbed(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With fresh noise on the k-space of every row."""
        maps = condition["sens_maps"]
        shape = (*maps.shape[:2], 2, *maps.shape[2:])
        return with_noise(condition, torch.randn(shape, dtype=maps.real.dtype, device=maps.device))

    def settled(self, r: Tensor) -> Tensor:
        """Samples r (B, 2, Y, X) moved until what is left of their data has the power of the noise, χ² = 1.

        Given y, the truth and an exact draw of the posterior are alike, so that ‖y − A x‖² of a draw is 2 N σ_y² to
        within √(1/N). The move is the one that the prior makes of the residual, x + t H⁻¹ Aᴴ(y − A x)/σ_y², P = 1/s,
        and t solves a quadratic equation: Morozov's discrepancy principle for every sample. Where no t reaches it the
        closest does.
        """
        assert self.condition is not None
        c = self.condition
        u = self.image(r)
        precision = self.precision.to(u.device, c["mask"].dtype).expand(u.shape[0], -1, -1)
        x = posterior_mean(self.sense, u, c["aliased"], c["noise"], precision, c["density"], iterations=self.iterations)
        move = x - u
        left, reach = c["aliased"] - self.sense.normal(u), self.sense.normal(move)
        # ‖y − A(u + t m)‖² = a − 2 t b + t² d
        a = c["energy"].double() - _dot(c["aliased"] + left, u)
        b, d = _dot(left, move), _dot(reach, move)
        goal = 2 * c["count"].double() * c["noise"].double() ** 2
        root = (b.square() - d * (a - goal)).clamp_min(0).sqrt()
        t = torch.where(d > 0, (b - root) / d.clamp_min(torch.finfo(d.dtype).tiny), 0).clamp(-1, 1)
        return r + to_channels(c["phase"].conj() * (t.to(u.real.dtype)[:, None, None] * move)) / self.std


def with_noise(condition: Mapping[str, Tensor], noise: Tensor) -> dict[str, Tensor]:
    """The condition of scans with unit noise (B, coils, 2, Y, X) of their own level added to k-space: Aᴴ(y + n′)."""
    own = torch.complex(noise[:, :, 0], noise[:, :, 1]) * condition["noise"][:, None, None, None]
    added = Sense(condition["sens_maps"], condition["mask"]).combine(own)
    return {**condition, "aliased": condition["aliased"] + added}


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Re⟨a, b⟩ of each sample, (B,) float64."""
    return (a.real.double() * b.real.double() + a.imag.double() * b.imag.double()).flatten(1).sum(1)
