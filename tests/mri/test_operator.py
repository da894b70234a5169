"""A = M F S: adjointness, exact solutions, and the Gaussian posterior that every sampler must land on."""

import numpy as np
import pytest
import torch

from scigen.core.guide import Weighed
from scigen.core.sample import dpm_solver, few_step, heun
from scigen.mri.fourier import fft2c as numpy_fft2c
from scigen.mri.operator import (
    Inverse,
    Measured,
    Sense,
    conjugate_gradients,
    fft2c,
    ifft2c,
    posterior_mean,
    to_channels,
    to_complex,
)

SIZES = [(1, 6, 8), (4, 7, 9), (3, 8, 5)]


def scan(coils: int, y: int, x: int, rows: int = 2, double: bool = True) -> Sense:
    """Random maps with Σ|S|² = 1, random masks with the centre sampled."""
    g = torch.Generator().manual_seed(coils * 100 + y * 10 + x)
    kind = torch.complex128 if double else torch.complex64
    maps = torch.randn(rows, coils, y, x, generator=g, dtype=kind)
    maps /= maps.abs().square().sum(1, keepdim=True).sqrt()
    if coils == 1:
        maps = torch.ones_like(maps)
    mask = torch.rand(rows, 1, x, generator=g).lt(0.4).expand(rows, y, x).clone()
    mask[:, :, x // 2] = True
    return Sense(maps, mask)


def matrix(sense: Sense, row: int) -> torch.Tensor:
    """Dense AᴴA of one row, (YX, YX)."""
    one = Sense(sense.maps[row : row + 1], sense.mask[row : row + 1])
    shape = one.mask.shape[1:]
    basis = torch.eye(shape.numel(), dtype=torch.complex128).reshape(-1, *shape)
    return torch.stack([one.normal(b[None])[0].flatten() for b in basis], dim=1)


def fourier(shape: torch.Size) -> torch.Tensor:
    """Dense F, (YX, YX)."""
    basis = torch.eye(shape.numel(), dtype=torch.complex128).reshape(-1, *shape)
    return torch.stack([fft2c(b).flatten() for b in basis], dim=1)


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (1, 9)])
def test_the_transform_is_unitary_centred_and_the_same_in_numpy(shape):
    x = torch.randn(*shape, dtype=torch.complex128)
    assert torch.allclose(ifft2c(fft2c(x)), x, atol=1e-13)
    assert fft2c(x).abs().square().sum() == pytest.approx(float(x.abs().square().sum()), rel=1e-12)
    assert np.allclose(numpy_fft2c(x.numpy()), fft2c(x).numpy(), atol=1e-13)
    flat = fft2c(torch.ones(*shape, dtype=torch.complex128))
    assert flat.abs().argmax() == shape[0] // 2 * shape[1] + shape[1] // 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("double", [True, False])
def test_adjointness(size, double):
    sense = scan(*size, double=double)
    real = torch.float64 if double else torch.float32
    x = torch.randn(2, 2, *size[1:], dtype=real)
    y = torch.randn(2, size[0], 2, *size[1:], dtype=real)
    left, right = (sense(x) * y).sum((1, 2, 3, 4)), (x * sense.adjoint(y)).sum((1, 2, 3))
    norm = sense(x).norm() * y.norm()
    assert (left - right).abs().max() / norm < (1e-12 if double else 1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_density_is_the_diagonal_in_k_space(size):
    sense = scan(*size)
    f = fourier(sense.mask.shape[1:])
    for row in range(2):
        diagonal = (f @ matrix(sense, row) @ f.conj().T).diagonal().real
        assert torch.allclose(sense.density()[row].flatten(), diagonal, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_the_posterior_mean_is_the_dense_solution(size):
    sense = scan(*size)
    shape = sense.mask.shape[1:]
    f, noise = fourier(shape), torch.tensor([0.1, 0.5], dtype=torch.float64)
    precision = torch.rand(2, *shape, dtype=torch.float64) * 3 + 0.1
    u, b = (torch.randn(2, *shape, dtype=torch.complex128) for _ in range(2))
    found = posterior_mean(sense, u, b, noise, precision, sense.density(), iterations=200, tolerance=1e-13)
    for row in range(2):
        prior = f.conj().T @ torch.diag(precision[row].flatten().to(f)) @ f
        h = matrix(sense, row) / noise[row] ** 2 + prior
        dense = torch.linalg.solve(h, b[row].flatten() / noise[row] ** 2 + prior @ u[row].flatten())
        assert torch.allclose(found[row].flatten(), dense, atol=1e-9)


def test_one_coil_is_solved_at_once_and_by_the_closed_form():
    """Sampled: (y + λ F u)/(1 + λ); the others: F u."""
    sense, lam = scan(1, 6, 8), 0.3
    shape = sense.mask.shape[1:]
    u, x = (torch.randn(2, *shape, dtype=torch.complex128) for _ in range(2))
    y = sense.measure(x)
    noise = torch.full((2,), 0.2, dtype=torch.float64)
    precision = torch.full((2, *shape), lam / 0.04, dtype=torch.float64)
    found = posterior_mean(sense, u, sense.combine(y), noise, precision, sense.density(), iterations=0)
    want = torch.where(sense.mask > 0, (y[:, 0] + lam * fft2c(u)) / (1 + lam), fft2c(u))
    assert torch.allclose(fft2c(found), want, atol=1e-12)
    other = posterior_mean(sense, 0 * u, sense.combine(y), noise, precision, sense.density(), iterations=0)
    gap = fft2c(found - other) / fft2c(u)
    assert torch.allclose(gap[sense.mask > 0].real, torch.tensor(lam / (1 + lam), dtype=torch.float64))


def test_exact_data_are_met_exactly_by_one_coil_and_again_nothing_changes():
    """λ → 0 is the projection: idempotent, with no residual."""
    sense = scan(1, 5, 7)
    u, x = (torch.randn(2, 5, 7, dtype=torch.complex128) for _ in range(2))
    b, noise = sense.combine(sense.measure(x)), torch.full((2,), 1e-4, dtype=torch.float64)
    flat = torch.ones(2, 5, 7, dtype=torch.float64)
    once = posterior_mean(sense, u, b, noise, flat, sense.density())
    assert (sense.measure(once - x)).abs().max() < 1e-7
    assert torch.allclose(posterior_mean(sense, once, b, noise, flat, sense.density()), once, atol=1e-7)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.jit, which forward mode imports
@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_those_of_finite_differences(size):
    sense = scan(*size, rows=1)
    shape = sense.mask.shape[1:]
    precision = torch.rand(1, *shape, dtype=torch.float64) + 0.5
    noise, density = torch.tensor([0.5], dtype=torch.float64), sense.density()
    v = torch.randn(1, *shape, dtype=torch.complex128, requires_grad=True)

    def solver(r: torch.Tensor) -> torch.Tensor:
        return conjugate_gradients(sense, noise**-2, precision, density, r, 300, 1e-14)

    assert torch.autograd.gradcheck(lambda r: Inverse.apply(r, solver), v, check_forward_ad=True)


def test_a_row_does_not_depend_on_its_neighbours_nor_break_when_it_is_solved():
    sense = scan(4, 7, 9, rows=3)
    b = torch.randn(3, 7, 9, dtype=torch.complex128)
    b[1] = 0  # solved before it begins: 0/0 in a careless step
    noise, precision = torch.full((3,), 0.3, dtype=torch.float64), torch.ones(3, 7, 9, dtype=torch.float64)
    density = sense.density()
    every = posterior_mean(sense, torch.zeros_like(b), b, noise, precision, density)
    assert torch.isfinite(every.abs()).all()
    assert (every[1] == 0).all()
    for row in range(3):
        i = slice(row, row + 1)
        one = posterior_mean(
            Sense(sense.maps[i], sense.mask[i]), torch.zeros_like(b[i]), b[i], noise[i], precision[i], density[i]
        )
        assert torch.allclose(one[0], every[row], atol=1e-13)


def test_bfloat16_leaves_the_solution_in_single_precision():
    sense = scan(1, 8, 8, double=False)
    guide, condition, _ = gaussian(sense, 0.1, torch.ones(8, 8, dtype=torch.float64), kind=torch.complex64)
    x = torch.randn(2, 2, 8, 8)
    bare = guide.operator.bind(condition).correct(x, torch.ones(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(guide.operator.bind(condition).correct(x, torch.ones(2)), bare)


class PriorDenoiser(torch.nn.Module):
    """The exact denoiser of Gaussian images that knows nothing of the measurement, in coordinates of residuals."""

    sigma_data = 1.0

    def __init__(self, spectrum: torch.Tensor, std: float) -> None:
        super().__init__()
        self.spectrum, self.std = spectrum, std

    def forward(self, r, sigma, condition):
        level = (self.std * torch.as_tensor(sigma).double().expand(len(r)))[:, None, None] ** 2
        image = condition["mean"] + self.std * condition["phase"] * to_complex(r)
        u = ifft2c(self.spectrum / (self.spectrum + level) * fft2c(image))
        return to_channels(condition["phase"].conj() * (u - condition["mean"])) / self.std


def gaussian(sense: Sense, noise: float, spectrum: torch.Tensor, kind=torch.complex128):
    """A Gaussian prior's denoiser held to a scan of one of its draws; its exact posterior mean and covariance."""
    g = torch.Generator().manual_seed(1)
    rows, shape, std = len(sense.mask), sense.mask.shape[1:], 0.7

    def unit(*size):
        return torch.complex(*(torch.randn(*size, generator=g, dtype=torch.float64) for _ in range(2))).to(kind)

    image = ifft2c(spectrum.sqrt() * unit(rows, *shape)).to(kind)
    y = sense.measure(image) + noise * sense.mask[:, None] * unit(rows, sense.maps.shape[1], *shape)
    b, levels = sense.combine(y), torch.full((rows,), noise, dtype=image.real.dtype)
    precision = (1 / spectrum).to(image.real.dtype).expand(rows, *shape)
    mean = posterior_mean(sense, torch.zeros_like(b), b, levels, precision, sense.density(), 300, 1e-13)
    phase = torch.polar(torch.ones(rows, *shape), torch.rand(rows, *shape, generator=g) * 6).to(kind)
    condition = {
        "mean": mean, "aliased": b, "phase": phase, "noise": levels, "sens_maps": sense.maps, "mask": sense.mask,
        "density": sense.density(),
    }  # fmt: skip
    return Weighed(PriorDenoiser(spectrum, std), Measured(spectrum, std, 200)), condition, y


def posterior_covariance(sense: Sense, noise: float, spectrum: torch.Tensor) -> torch.Tensor:
    """Dense (AᴴA/σ² + P)⁻¹ of each part, row 0."""
    f = fourier(sense.mask.shape[1:])
    return torch.linalg.inv(matrix(sense, 0) / noise**2 + f.conj().T @ torch.diag((1 / spectrum).flatten().to(f)) @ f)


SPECTRUM = torch.exp(-0.5 * torch.arange(30, dtype=torch.float64)).reshape(5, 6) + 0.02


@pytest.mark.parametrize("coils", [1, 4])
def test_samplers_reproduce_the_gaussian_posterior(coils):
    """Zero noise ends on the mean, and the flow from noise is the posterior's square root: mean and every variance."""
    sense, noise = scan(coils, 5, 6, rows=1), 0.3
    guide, condition, _ = gaussian(sense, noise, SPECTRUM)
    grid = np.geomspace(60, 1e-3, 100)
    sampler = heun if coils == 1 else dpm_solver
    basis = torch.cat([torch.zeros(1, 60, dtype=torch.float64), torch.eye(60, dtype=torch.float64)])
    start = basis.reshape(-1, 2, 5, 6) * grid[0]
    many = {k: v.expand(len(start), *v.shape[1:]) for k, v in condition.items()}
    ends = sampler(guide, start, list(grid), many)
    image = condition["mean"] + 0.7 * condition["phase"] * to_complex(ends)
    scale = float(posterior_covariance(sense, noise, SPECTRUM).diagonal().real.max()) ** 0.5
    assert (image[0] - condition["mean"][0]).abs().max() < 2e-3 * scale
    root = (image[1:] - image[:1]).flatten(1)  # columns of a real-linear map
    parts = torch.cat([root.real, root.imag], 1)
    want = posterior_covariance(sense, noise, SPECTRUM)
    real = torch.cat([torch.cat([want.real, -want.imag], 1), torch.cat([want.imag, want.real], 1)])
    found = parts.T @ parts
    assert (found.diagonal() / real.diagonal() - 1).abs().max() < 0.02
    assert (found - real).abs().max() < 0.02 * real.diagonal().max()


@pytest.mark.parametrize("coils", [1, 4])
def test_perturb_and_project_draws_the_posterior_and_hard_consistency_does_not(coils):
    """One call from a draw of the prior: mean and covariance are those of the posterior, in closed form.

    x = u + H⁻¹Aᴴ(y + n′ − A u)/σ² is linear in (n′, u), so that its covariance needs no sampling.
    """
    sense, noise = scan(coils, 5, 6, rows=1), 0.3
    k, want = matrix(sense, 0), posterior_covariance(sense, noise, SPECTRUM)
    f = fourier(sense.mask.shape[1:])
    prior = f.conj().T @ torch.diag(SPECTRUM.flatten().to(f)) @ f
    basis = torch.eye(30, dtype=torch.complex128).reshape(-1, 5, 6)
    many = Sense(sense.maps.expand(30, *sense.maps.shape[1:]), sense.mask.expand(30, 5, 6))
    level, precision = torch.full((30,), noise, dtype=torch.float64), (1 / SPECTRUM).expand(30, 5, 6)

    def response(u, aliased):
        return posterior_mean(many, u, aliased, level, precision, many.density(), 300, 1e-13).flatten(1).T

    of_u, of_b = response(basis, torch.zeros_like(basis)), response(torch.zeros_like(basis), basis)
    found = of_u @ prior @ of_u.conj().T + of_b @ (noise**2 * k) @ of_b.conj().T
    assert torch.allclose(found, want, atol=1e-9)
    unperturbed = (of_u @ prior @ of_u.conj().T).diagonal().real
    assert float((unperturbed / want.diagonal().real).min()) < 0.9  # without n′ the spread of the noise is lost
    if coils == 1:
        m = torch.diag(sense.mask[0].flatten().to(f))
        project = torch.eye(30) - f.conj().T @ m @ f
        hard = f @ project @ prior @ project.conj().T @ f.conj().T
        assert hard.diagonal().real[sense.mask[0].flatten() > 0].abs().max() < 1e-12
        assert (f @ want @ f.conj().T).diagonal().real[sense.mask[0].flatten() > 0].min() > 0.01


def test_one_call_of_a_student_with_the_exact_network_is_a_posterior_draw():
    """few_step from σ_max with an oracle that draws the prior, one coil: frequency by frequency."""
    sense, noise = scan(1, 5, 6, rows=1), 0.3
    guide, condition, _ = gaussian(sense, noise, SPECTRUM)

    class Draw(PriorDenoiser):
        def forward(self, r, sigma, condition):
            image = ifft2c(self.spectrum.sqrt() * fft2c(to_complex(r) / 1e4))
            return to_channels(condition["phase"].conj() * (image - condition["mean"])) / self.std

    student, n = Weighed(Draw(SPECTRUM, 0.7), guide.operator), 4000
    g = torch.Generator().manual_seed(5)
    many = {k: v.expand(n, *v.shape[1:]) for k, v in condition.items()}
    fresh = torch.complex(*(torch.randn(n, 1, 5, 6, generator=g, dtype=torch.float64) for _ in range(2)))
    own = Sense(many["sens_maps"], many["mask"]).combine(noise * fresh)
    start = 1e4 * torch.randn(n, 2, 5, 6, generator=g, dtype=torch.float64)
    out = few_step(student, start, [1e4], many | {"aliased": many["aliased"] + own})
    image = fft2c(condition["mean"] + 0.7 * condition["phase"] * to_complex(out))
    want = 1 / (sense.mask[0] / noise**2 + 1 / SPECTRUM)
    spread = image.real.var(0) / want
    assert (spread - 1).abs().max() < 5 * (2 / n) ** 0.5
    assert ((image.mean(0) - fft2c(condition["mean"][0])).abs() / want.sqrt()).max() < 5 * (2 / n) ** 0.5
