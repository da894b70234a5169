"""Which weights are kept: snapshots of the averages are judged on the way, and widths against each other at the end.

The score is a composite of an ensemble's faults (`faults`), never the loss alone, which cannot see a lost spread.
"""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from scigen.core.ema import PowerEMA, Snapshot, reconstruct
from scigen.metrics.ensemble import fair_crps, spread_skill
from scigen.metrics.spectra import power_spectrum

Judge = Callable[[nn.Module], Mapping[str, float]]
"""From a student to its faults, among them "score": lower is better."""

WIDTHS = (0.03, 0.05, 0.10, 0.20)
"""Widths that are tried at the end of training."""
SHARE = 1e-3
"""Wavenumbers with more of the truth's variance than this count."""


def faults(members: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """What is wrong with an ensemble in one number, and its parts, averaged over the channels.

    Args:
        members: (T, M, C, *S) in physical units.
        truth: (T, C, *S).

    Returns:
        "crps": ln of fair CRPS over the truth's standard deviation; "ssr": spread–skill ratio; "spectrum": mean
        |ln(power of a member / power of the truth)| over wavenumbers that hold more than SHARE of the variance (0
        without space dimensions); "score": crps + |ssr − 1| + spectrum.
    """
    count, dims = members.shape[1], members.ndim - 3
    parts = []
    for c in range(members.shape[2]):
        m, y = members[:, :, c].astype(np.float64), truth[:, c].astype(np.float64)
        crps = float(np.log(fair_crps(np.moveaxis(m, 1, 0), y).mean() / y.std()))
        error = np.square(m.mean(1) - y).mean()
        ssr = float(spread_skill(m.var(1, ddof=1).mean(), error, count))
        ratio = 0.0
        if dims:
            own, true = (power_spectrum(v, dims=dims)[1] for v in (m, y))
            own, true = own.reshape(-1, own.shape[-1]).mean(0), true.reshape(-1, true.shape[-1]).mean(0)
            seen = true > SHARE * true.sum()
            ratio = float(np.abs(np.log(np.maximum(own[seen], 1e-300) / true[seen])).mean())
        parts.append((crps, ssr, ratio))
    crps, ssr, spectrum = (float(v) for v in np.mean(parts, axis=0))
    wrong = float(np.mean([abs(p[1] - 1) for p in parts]))
    return {"score": crps + wrong + spectrum, "crps": crps, "ssr": ssr, "spectrum": spectrum}


class Selector:
    """Keeps snapshots and scores of a training in its folder, says when to stop, and chooses the weights at the end."""

    def __init__(self, folder: Path, judge: Judge | None = None, patience: int = 0) -> None:
        """Set place, judge and patience.

        Args:
            folder: of `averages/step-….safetensors` and `validation.csv`.
            judge: of students; None keeps the first width's last average.
            patience: snapshots without a better score after which training stops; 0 never does.
        """
        self.folder, self.judge, self.patience = folder, judge, patience

    @property
    def table(self) -> Path:
        """Scores so far: step, width, score and its parts."""
        return self.folder / "validation.csv"

    def scores(self) -> pd.DataFrame:
        """The table's rows."""
        return pd.read_csv(self.table) if self.table.exists() else pd.DataFrame(columns=["step", "width", "score"])

    def exhausted(self, step: int) -> bool:
        """Whether training should stop after `step`: the score has not become better for `patience` snapshots."""
        rows = self.scores()
        rows = rows[(rows["step"] <= step) & rows["score"].notna()].sort_values("step")
        return 0 < self.patience < len(rows) - int(rows["score"].to_numpy().argmin()) if len(rows) else False

    def snapshot(self, ema: PowerEMA, step: int) -> Mapping[str, float]:
        """Keep the averages as they are after `step` and judge the first of them; returns its scores, or none."""
        path = self.folder / "averages" / f"step-{step:08d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{i}.{k}": v.detach().cpu().contiguous()
            for i, m in enumerate(ema.means)
            for k, v in m.state_dict().items()
        }
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, metadata={"updates": str(int(ema.steps)), "step": str(step)})
        partial.replace(path)
        return {} if self.judge is None else self._score(ema.average(), step, ema.widths[0])

    def snapshots(self, ema: PowerEMA) -> list[Snapshot]:
        """All that are kept."""
        out = []
        for path in sorted((self.folder / "averages").glob("step-*.safetensors")):
            tensors = load_file(path)
            with safe_open(path, framework="pt") as f:
                updates = int(f.metadata()["updates"])
            for i, width in enumerate(ema.widths):
                weights = {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{i}.")}
                out.append(Snapshot(updates, width, weights))
        return out

    def choose(self, ema: PowerEMA, step: int) -> nn.Module:
        """The student with the best weights: any snapshot's first width, or another width at the end.

        Args:
            ema: averages at the end of training.
            step: the last one.
        """
        if self.judge is None:
            return ema.average()
        student = copy.deepcopy(ema.average())
        kept = self.snapshots(ema)
        if kept and max(s.step for s in kept) == int(ema.steps):
            for width in WIDTHS:
                if width not in ema.widths[:1]:
                    student.load_state_dict(reconstruct(kept, width))
                    self._score(student, step, width)
        rows = self.scores().dropna(subset="score")
        if rows.empty:
            return ema.average()
        best = rows.loc[rows["score"].idxmin()]
        if int(best["step"]) == step:
            if float(best["width"]) == ema.widths[0]:
                return ema.average()
            state = reconstruct(kept, float(best["width"]))
        else:
            tensors = load_file(self.folder / "averages" / f"step-{int(best['step']):08d}.safetensors")
            state = {k.removeprefix("0."): v for k, v in tensors.items() if k.startswith("0.")}
        student.load_state_dict(state)
        return student

    def _score(self, student: nn.Module, step: int, width: float) -> Mapping[str, float]:
        """Judge a student and add a row; one that is there already is replaced."""
        assert self.judge is not None
        scores = self.judge(student)
        row = {"step": step, "width": width, **scores}
        before = self.scores()
        before = before[(before["step"] != step) | (before["width"] != width)]
        table = pd.concat([before, pd.DataFrame([row])]) if len(before) else pd.DataFrame([row])
        partial = self.table.with_suffix(".partial")
        table.to_csv(partial, index=False, float_format="%.8g")
        partial.replace(self.table)
        return scores
