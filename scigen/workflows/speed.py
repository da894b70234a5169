"""How much faster the student is than its teacher: a ratio measured in one run."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from scigen.core.bundle import Bundle
from scigen.core.domain import Split
from scigen.io.store import EnsembleStore


def speed(
    teacher: Bundle, student: Bundle, split: Split, members: int, batch: int, seed: int, repeats: int = 5
) -> dict[str, float]:
    """Time of sampling one compute batch by the teacher over that of the student, with the fewest calls it takes.

    Args:
        teacher: with its converged sampler.
        student: distilled from it.
        split: samples to condition on.
        members: rows that share a sample.
        batch: rows.
        seed: of the noise.
        repeats: the fastest of so many counts, a third of them for the teacher.

    Returns:
        "calls": the student's; "network": the solver's calls alone; "end_to_end": conditions, noise and writing
        included; and the student's "fields_per_second", end to end.
    """
    codec = teacher.codec
    count = max(1, min(batch // members, len(codec.samples(split.inputs))))
    first = codec.layout(split.inputs).dims[0]
    inputs = split.inputs.isel({first: slice(0, count)})
    device = next(teacher.network.parameters()).device
    own = codec.condition(inputs, slice(None))
    condition = {k: v[torch.arange(batch) % count].to(device) for k, v in own.items()}
    x = torch.randn(batch, *codec.shape, generator=torch.Generator().manual_seed(seed)).to(device)

    def network(bundle: Bundle, steps: int | None) -> None:
        grid = bundle.sampling.grid(steps)
        with torch.inference_mode():
            bundle.sampling.run(bundle.denoiser, grid[0] * x, grid, condition, [x] * bundle.sampling.noises(len(grid)))
        if device.type == "cuda":
            torch.cuda.synchronize()

    def whole(bundle: Bundle, steps: int | None) -> None:
        each = batch // count
        layout = codec.layout(inputs)
        with tempfile.TemporaryDirectory() as place:
            store = EnsembleStore(
                Path(place) / "speed.zarr", layout.coords, codec.variables, range(each), layout.dims, identity={},
                dtypes=codec.dtypes, block=count, group=each,
            )  # fmt: skip
            blocks = bundle.blocks(inputs, each, seed=seed, steps=steps, batch=each * count)
            fields = np.concatenate([block for _, block in blocks])
            store.write(store.items[0], {n: fields[:, :, c] for c, n in enumerate(codec.variables)})

    def seconds(work: Callable[[Bundle, int | None], None], bundle: Bundle, steps: int | None, times: int) -> float:
        spent = []
        for _ in range(times):
            began = time.perf_counter()
            work(bundle, steps)
            spent.append(time.perf_counter() - began)
        return min(spent)

    fewest = student.sampling.own_steps[0]
    out = {"calls": float(fewest)}
    for name, work in {"network": network, "end_to_end": whole}.items():
        work(student, fewest)  # warm up
        fast = seconds(work, student, fewest, repeats)
        out[name] = seconds(work, teacher, None, max(1, repeats // 3)) / fast
    return out | {"fields_per_second": (batch // count) * count / fast}
