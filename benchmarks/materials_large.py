"""Volumes larger than those a bundle was trained on: time, memory, the same structure, no seam.

    python benchmarks/materials_large.py student.safetensors --size 96 96 96 --fraction 0.45
    python benchmarks/materials_large.py latent.safetensors --size 64 128 128 --teacher teacher.safetensors

S₂ is compared with that of volumes of the training size under the same condition. A seam would show as more or fewer
interfaces between two planes: those across the faces (last plane to first) and at multiples of the training size are
given in standard deviations of all planes that lie alike on the network's grid. What that grid itself leaves behind,
more interfaces between its patches than within, is given as a ratio.
"""

import argparse
import resource
import time

import numpy as np

import scigen
from scigen.materials.correlation import reach, two_point_axes


def jumps(labels: np.ndarray, axis: int) -> np.ndarray:
    """Share of voxels whose phase differs from the next plane's, plane by plane, the last to the first."""
    other = tuple(a for a in range(labels.ndim) if a != axis)
    return (labels != np.roll(labels, -1, axis)).mean(other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--teacher")
    parser.add_argument("--size", type=int, nargs=3, default=(96, 96, 96))
    parser.add_argument("--fraction", type=float, default=0.45, help="of the first phase; the others share the rest")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    bundle = scigen.load(args.bundle)
    codec = bundle.codec
    rest = (1 - args.fraction) / (len(codec.phases) - 1)
    words = {f"volume_fraction_{p}": rest if i else args.fraction for i, p in enumerate(codec.phases)}
    given = codec.request(words, 1)
    large = bundle.placed(codec.adapt({"size": list(args.size)}))
    times = []
    volumes = []
    for m in range(args.members):
        began = time.perf_counter()
        made = large.sample(given, members=1, seed=m, steps=args.steps, batch=1)
        times.append(time.perf_counter() - began)
        volumes.append(made["phase"].values[0, 0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{bundle!r}")
    print(f"{'×'.join(map(str, args.size))}: {min(times):.2f} s a volume, peak memory {peak:.2f} GiB")
    count = max(4 * args.members, round(args.members * np.prod(args.size) / np.prod(codec.size)))
    small = bundle.sample(given, members=min(count, 128), steps=args.steps, batch=16)["phase"].values[0]
    lags = reach(small.shape[1:])
    mine = np.mean([two_point_axes(v == 0, large.codec.periodic)[:, :lags] for v in volumes], axis=0)
    theirs = np.mean([two_point_axes(v == 0, codec.periodic) for v in small], axis=0)
    phi = args.fraction
    off = 100 * np.abs(mine - theirs).mean() / (phi * (1 - phi))
    print(f"S₂: L1 {off:.2f} % of φ(1−φ) from {len(small)} volumes of the training size")
    own = np.mean([(v == 0).mean() for v in volumes])
    print(f"φ: {own:.4f} for {phi}; {(small == 0).mean():.4f} at the training size")
    for axis, name in enumerate("zyx"):
        rate = np.mean([jumps(v, axis) for v in volumes], axis=0)
        step = bundle.network.multiple * codec.scale
        alike = rate[step - 1 :: step]
        z = (rate - alike.mean()) / alike.std()
        own = range(codec.size[axis] - 1, args.size[axis], codec.size[axis])
        patch = getattr(bundle.network, "patch", 1) * codec.scale
        grid = rate[patch - 1 :: patch].mean() / rate.mean()
        places = ", ".join(f"{z[k]:+.1f}" for k in own)
        print(f"{name}: face {z[-1]:+.1f} σ, at multiples {places} σ; between patches {grid:.2f} × the mean")
    if args.teacher:
        teacher = scigen.load(args.teacher)
        teacher = teacher.placed(teacher.codec.adapt({"size": list(args.size)}))
        began = time.perf_counter()
        teacher.sample(given, members=1, batch=1)
        print(
            f"teacher: {time.perf_counter() - began:.1f} s a volume, {(time.perf_counter() - began) / min(times):.0f} ×"
        )


if __name__ == "__main__":
    main()
