"""Time of a training step and peak memory of every method, over those of the teacher's own training.

    python benchmarks/training_cost.py [--repeats 2] [--rows 32] [--methods dmd tdm] [--json cost.json]

Every method runs in a process of its own, on the default network and fields of the default weather data, with as
many rows a step (`batch` × `members`) as the teacher's batch. Times are averages over whole cycles of the method's
turns, at four places along its training; they are ratios to the teacher's step in the same run. On the CPU it is the
process's own time, which a busy machine hardly changes. Memory is what the process holds at its peak beyond the
imports.
"""

import argparse
import copy
import json
import resource
import subprocess
import sys
import time

SHAPE, FIELDS = (3, 32, 32), 8
PLACES = (0.125, 0.375, 0.625, 0.875)


def cycle(turns: list[str]) -> int:
    """Smallest period of a sequence of turns."""
    return next(p for p in range(1, len(turns)) if all(a == b for a, b in zip(turns, turns[p:], strict=False)))


def measure(stem: str, rows: int, repeats: int) -> dict[str, float]:
    import torch
    from hydra.utils import get_class, instantiate

    from scigen.config import compose
    from scigen.core.denoise import Denoiser, FlowMap
    from scigen.core.methods.base import Batch, Distiller
    from scigen.workflows.training import plain, settings

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cfg = plain(compose("fit", ["domain=weather", "noise.sigma_min=0.05", "noise.sigma_max=60", f"method={stem}"]))
    arguments, _ = settings(cfg["method"])
    kind = get_class(arguments["_target_"])

    def network(scalars: int) -> torch.nn.Module:
        own = {k: v for k, v in cfg["network"].items() if k != "_target_"}
        return get_class(cfg["network"]["_target_"])(SHAPE[0], FIELDS, scalars, space=2, **own)

    torch.manual_seed(0)
    teacher = Denoiser(network(0))
    two_times = getattr(kind, "two_times", False)
    student = FlowMap(network(FlowMap.FEATURES)) if two_times else copy.deepcopy(teacher)
    if issubclass(kind, Distiller):
        method = instantiate(arguments, student=student, teacher=teacher)
    else:
        method = instantiate(arguments, student=student, noise=instantiate(cfg["noise"]))
    n = max(2, rows // arguments.get("members", 1))
    x = torch.randn(n, *SHAPE, device=device)
    path = torch.randn(n, len(getattr(method, "sigmas", [0])) - 1, *SHAPE, device=device)
    noise = torch.randn_like(x) if method.pairs else None
    batch = Batch(
        x, {"fields": torch.randn(n, FIELDS, *SHAPE[1:], device=device)}, noise, path if method.pairs else None
    )
    method.to(device)
    method.prepare(batch)
    method.to(device).train()
    optimisers = {k: torch.optim.AdamW(m.parameters(), lr=1e-4) for k, m in method.learners().items()}
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def steps(count: int) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = clock()
        for i in range(count):
            turn = method.turn(i)
            method.loss(turn, batch)["loss"].backward()
            optimisers[turn].step()
            for o in optimisers.values():
                o.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (clock() - began) / count

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds, periods = 0.0, []
    for place in PLACES:
        method.at(place)
        periods.append(cycle([method.turn(i) for i in range(64)]))
        whole = -(-6 // periods[-1]) * periods[-1]
        steps(periods[-1])
        seconds += min(steps(whole) for _ in range(repeats)) / len(PLACES)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return {"seconds": seconds, "memory_mib": memory, "cycle": max(periods), "rows": n * arguments.get("members", 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--json")
    parser.add_argument("--one")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.rows, given.repeats)))
        return
    from scigen.config import config_dir

    stems = given.methods or sorted(p.stem for p in (config_dir() / "method").glob("*.yaml") if p.stem != "denoising")
    found = {}
    for stem in ["denoising", *stems]:
        words = [sys.executable, __file__, "--one", stem, "--rows", str(given.rows), "--repeats", str(given.repeats)]
        out = subprocess.run(words, capture_output=True, text=True, check=False)
        if out.returncode:
            print(f"{stem}: {out.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        found[stem] = json.loads(out.stdout.strip().splitlines()[-1])
        own, base = found[stem], found["denoising"]
        own |= {f"{k}_ratio": own[k] / base[k] for k in ("seconds", "memory_mib")}
        print(
            f"{stem:12s} {own['seconds_ratio']:5.2f} teacher steps, {own['memory_mib_ratio']:5.2f} × its memory"
            f" (cycle of {own['cycle']}, {own['rows']} rows)"
        )
    if given.json:
        with open(given.json, "w") as f:
            json.dump(found, f, indent=1)


if __name__ == "__main__":
    main()
