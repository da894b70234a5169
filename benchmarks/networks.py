"""Cost of every network of configs/network/, over scigen's U-Net's.

    python benchmarks/networks.py [--size 32] [--rows 32] [--repeats 5] [--json networks.json]

Every option is built with its defaults for the default weather data's channels and fields of --size. A step is a
forward and a backward pass on --rows samples, a call is a forward pass without gradient, a tangent is a forward-mode
derivative, which method=scm and method=flow_map take in every step. The networks take turns, and each time is the
least of --repeats. With OMP_NUM_THREADS=1 it is processor time, which other processes stretch less than the clock's;
the ratios of one run mean more than its milliseconds.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable

CHANNELS, FIELDS, REFERENCE = 3, 8, "unet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # PhysicsNeMo's own

    import torch
    import yaml
    from hydra.utils import get_class

    from scigen.config import config_dir
    from scigen.core.methods.tangent import derivative

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    x = torch.randn(given.rows, CHANNELS, given.size, given.size, device=device)
    c = torch.zeros(given.rows, device=device)
    condition = {"fields": torch.randn(given.rows, FIELDS, given.size, given.size, device=device)}

    def works(network: torch.nn.Module) -> dict[str, Callable[[], object]]:
        def step() -> None:
            network.zero_grad()
            network(x, c, condition).square().mean().backward()

        def call() -> None:
            with torch.no_grad():
                network(x, c, condition)

        def tangent() -> None:
            derivative(lambda x, c: network(x, c, condition), (x, c), (x, c))

        return {"step": step, "call": call, "tangent": tangent}

    def timed(work: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - began

    found, todo = {}, {}
    for path in sorted((config_dir() / "network").glob("*.yaml")):
        own = yaml.safe_load(path.read_text())
        kind = get_class(own.pop("_target_"))
        if own.get("resolution"):
            own["resolution"] = given.size
        torch.manual_seed(0)
        network = kind(CHANNELS, FIELDS, 0, space=2, **own).to(device)
        todo[path.stem] = works(network)
        found[path.stem] = {"parameters": sum(p.numel() for p in network.parameters())}
    for i in range(given.repeats + 1):  # the first warms up
        for name, each in todo.items():
            for what, work in each.items():
                seconds = timed(work)
                if i:
                    found[name][what] = min(seconds, found[name].get(what, seconds))
    print(f"{device.type}, {torch.get_num_threads()} threads, {given.rows} × {CHANNELS} × {given.size} × {given.size}")
    for name, own in found.items():
        ratios = ", ".join(f"{k} {own[k] / found[REFERENCE][k]:.2f}" for k in ("step", "call", "tangent"))
        own_times = ", ".join(f"{1e3 * own[k]:.0f}" for k in ("step", "call", "tangent"))
        print(f"{name:17s} {own['parameters'] / 1e6:.2f} M; of {REFERENCE}'s: {ratios}; ms: {own_times}")
    if given.json:
        with open(given.json, "w") as f:
            json.dump(found, f, indent=1)


if __name__ == "__main__":
    main()
