"""Every method on the default weather data, from one teacher, at one budget: a table.

    python benchmarks/training_cost.py --json cost.json
    python benchmarks/weather_methods.py cost.json runs/<run>/teacher.safetensors [--budget 375]

The budget counts teacher steps of 32 rows: training steps at their measured cost, and teacher's pairs at a third of
a step for 32 network calls. Each student is judged at every number of calls that it was trained for, on the same test
times and noise. Repeating the command goes on where it stopped.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig

from scigen.config import compose, config_dir

CHAINS = {"tcm": "consistency"}
ROWS = 32


def pairs(stem: str, budget: float) -> int:
    """Teacher's pairs: the method's own number, as far as they cost a third of the budget at most."""
    return min(int(_method(stem).get("pairs", 0)), int(budget / 3 * 3 * ROWS / 40))


def steps(stem: str, budget: float, cost: dict[str, dict[str, float]]) -> int:
    """Training steps that the budget buys."""
    method = _method(stem)
    spent = pairs(stem, budget) * 40 / ROWS / 3
    rows = method.training.batch * method.get("members", 1)
    return max(1, int((budget - spent) / (cost[stem]["seconds_ratio"] * rows / cost[stem]["rows"])))


def _method(stem: str) -> DictConfig:
    """A method's option."""
    return compose("fit", ["domain=weather", "noise.sigma_min=0.05", "noise.sigma_max=60", f"method={stem}"]).method


def words(stem: str, budget: float, cost: dict[str, dict[str, float]]) -> list[str]:
    """The overrides of a method's fit."""
    if stem in CHAINS:
        first = steps(CHAINS[stem], budget / 2, cost)
        second = steps(stem, budget / 2, cost)
        return [f"experiment={stem}", f"method.training.steps={first}", f"then.{stem}.training.steps={second}"]
    own = [f"method.pairs={pairs(stem, budget)}"] if pairs(stem, budget) else []
    return [f"method={stem}", f"method.training.steps={steps(stem, budget, cost)}", *own]


def spectrum_off(student: dict, teacher: dict) -> float:
    """Power of a student's member over the teacher's, farthest from 1 where the truth has > 0.1 % of its variance."""
    truth = student["power_truth"]
    ratios = [a / b for a, b, t in zip(student["power"], teacher["power"], truth, strict=True) if t > 1e-3 * sum(truth)]
    return max(ratios, key=lambda r: abs(math.log(r)))


def row(stem: str, metrics: Path) -> list[dict]:
    """One line of the table for every number of calls: extremes over the variables."""
    models = json.loads(metrics.read_text())["models"]
    teacher = next(m for n, m in models.items() if n.startswith("teacher, 40"))
    out = []
    for name, model in models.items():
        if not name.startswith("student"):
            continue
        ratio = {v: m["crps_ratio"]["teacher, 40 steps"] for v, m in model.items()}
        exact = {v: m["crps_ratio"]["exact law"]["estimate"] for v, m in model.items()}
        worst = max(ratio, key=lambda v: ratio[v]["estimate"])
        gap = [m["spread_skill"]["estimate"] - teacher[v]["spread_skill"]["estimate"] for v, m in model.items()]
        off = [spectrum_off(m, teacher[v]) for v, m in model.items()]
        cover = [m["coverage"]["0.9"]["observed"] - m["coverage"]["0.9"]["nominal"] for m in model.values()]
        out.append(
            {
                "method": stem, "calls": int(next(iter(model.values()))["nfe"]),
                "crps_over_teacher": ratio[worst]["estimate"], "low": ratio[worst]["low"], "high": ratio[worst]["high"],
                "crps_over_exact": max(exact.values()), "spread_skill_gap": max(gap, key=abs),
                "spectrum_over_teacher": max(off, key=lambda r: abs(math.log(r))), "coverage_gap": max(cover, key=abs),
            }
        )  # fmt: skip
    return out


def markdown(rows: list[dict]) -> str:
    """The table, best one-call student first."""
    lines = [
        "| method | calls | fair CRPS ÷ teacher (worst variable) | ÷ exact | spread–skill − teacher's |"
        " coverage of 90 % − nominal | power ÷ teacher's, farthest |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (r["calls"], r["crps_over_teacher"])):
        lines.append(
            f"| `{r['method']}` | {r['calls']} | {r['crps_over_teacher']:.3f} [{r['low']:.3f}–{r['high']:.3f}] |"
            f" {r['crps_over_exact']:.3f} | {r['spread_skill_gap']:+.3f} | {100 * r['coverage_gap']:+.1f} |"
            f" {r['spectrum_over_teacher']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cost", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--budget", type=float, default=375)
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--run", default="runs/weather-methods")
    given = parser.parse_args()
    cost = json.loads(given.cost.read_text())
    stems = given.methods or sorted(p.stem for p in (config_dir() / "method").glob("*.yaml") if p.stem != "denoising")
    rows: list[dict] = []
    for stem in stems:
        own = [f"teacher={given.teacher}", f"run={given.run}", f"samples={given.samples}"]
        line = [sys.executable, "-m", "scigen", "fit", "domain=weather", *own, *words(stem, given.budget, cost)]
        print(" ".join(line[2:]), flush=True)
        out = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
        if out.returncode:
            print(f"{stem}: exit status {out.returncode}", file=sys.stderr)
            continue
        report = Path(out.stdout.split("Report:")[1].split()[0])
        rows += row(stem, report.parent / "metrics.json")
        table = Path(given.run) / "methods.md"
        table.write_text(markdown(rows) + "\n")
        (Path(given.run) / "methods.json").write_text(json.dumps(rows, indent=1))
        print(table.read_text(), flush=True)


if __name__ == "__main__":
    main()
