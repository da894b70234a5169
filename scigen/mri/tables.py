"""The judgement of reconstructions in words and rows: fidelity, calibration, data consistency, and a verdict."""

import math

import numpy as np
import xarray as xr

from scigen.metrics.report import reference
from scigen.mri.metrics import ALL
from scigen.mri.statistics import OBJECT
from scigen.plots.style import labelled
from scigen.plots.table import NOTHING, Cell, Column, Table, interval, number, text

CONTENDER = Column("contender", numeric=False)
CALLS = Column("calls", "network calls a member (NFE)")


def tables(report: xr.Dataset) -> list[Table]:
    """Fidelity, calibration, data consistency of every contender; then by acceleration and coils where they differ.

    Args:
        report: of `evaluate`.
    """
    total = report.sel(group=ALL)
    found = [_fidelity(total), _calibration(total), _consistency(total)]
    return [*found, _groups(report)] if report.sizes["group"] > 1 else found


def verdict(report: xr.Dataset) -> str:
    """Each student beside the teacher, in a sentence."""
    teacher = reference(report, "teacher")
    students = [str(m) for m, r in zip(report["model"].values, report["role"].values, strict=True) if r == "student"]
    return "\n".join(_sentence(report.sel(group=ALL), m, teacher) for m in students)


def _fidelity(report: xr.Dataset) -> Table:
    """Distance of the mean from the truth."""
    columns = [
        CONTENDER,
        CALLS,
        Column("PSNR", "of |mean of members|, fastMRI's: data range is the volume's maximum; mean over volumes [dB]"),
        Column("to teacher", "PSNR less the teacher's, volume by volume, with a 95 % interval [dB]; 0"),
        Column("SSIM", "of |mean of members|, fastMRI's: 7 × 7 windows, data range is the volume's maximum; 1"),
        Column("NMSE", "squared error of |mean of members| over the truth's power, by volume; 0"),
        Column("member", "PSNR of single members, which have detail that their mean lacks [dB]"),
        Column("by slice", "PSNR with every slice's own maximum, as papers on single slices count [dB]", minor=True),
        Column("SSIM by slice", "SSIM with every slice's own maximum", minor=True),
    ]
    rows = [
        [
            text(model),
            _calls(one),
            _fixed(one["psnr"], 2),
            _difference(one["psnr_difference"].values),
            _fixed(one["ssim"], 4),
            number(float(one["nmse"]), 3),
            _fixed(one["psnr_member"], 2) if int(one["members"]) > 1 else text(NOTHING),
            _fixed(one["psnr_slice"], 2),
            _fixed(one["ssim_slice"], 4),
        ]
        for model, one in _each(report)
    ]
    title = f"Fidelity: {report.attrs['samples']} slices of {report.attrs['subjects']} subjects"
    return Table(title, columns, rows)


def _calibration(report: xr.Dataset) -> Table:
    """Whether the spread tells the error."""
    several = report["members"].values > 1
    nominal = report["coverage_nominal"].sel(level=0.9).values[several]
    share = f"{100 * nominal[0]:.3g} %" if several.any() and np.ptp(nominal) == 0 else "nominal"
    columns = [
        CONTENDER,
        CALLS,
        Column("members", minor=True),
        Column("CRPS", "fair, of magnitudes on the object; one member: mean |error| [% of the volume's maximum]; 0"),
        Column("CRPS ratio", "CRPS over the teacher's, with a 95 % interval; 1"),
        Column("spread–skill", "corrected spread of magnitudes over rmse of their mean, on the object; 1"),
        Column(f"cover {share}", "share of truths [%] inside the interval that should hold so many"),
        Column("rank dev.", "Σ|share − flat| of the rank histogram; 0", minor=True),
        Column("corr.", "correlation of spread and |error| over pixels of the object"),
    ]
    rows: list[list[Cell]] = []
    for model, one in _each(report):
        hit = 100 * float(one["coverage"].sel(level=0.9))
        due = 100 * float(one["coverage_nominal"].sel(level=0.9))
        rows.append(
            [
                text(model),
                _calls(one),
                text(int(one["members"])),
                number(100 * float(one["crps"]), 3),
                interval(one["crps_ratio"].values),
                _fixed(one["spread_skill"], 3),
                text(NOTHING) if math.isnan(hit) else (f"{hit:.1f}", f"of {due:.1f}" if share == "nominal" else ""),
                number(float(one["rank_deviation"]), 2),
                _fixed(one["correlation"], 2),
            ]
        )
    notes = [f"The object: pixels above {100 * OBJECT:g} % of the volume's maximum."]
    for model, one in _each(report):
        if int(one["distinct"]) < int(one["members"]):
            notes.append(f"{model}: a slice has {int(one['distinct'])} different of {int(one['members'])} members.")
    return Table("Calibration of magnitudes", columns, rows, notes)


def _consistency(report: xr.Dataset) -> Table:
    """Whether the measurement is kept, where the spread lies, and whether lines that were kept back are foretold."""
    audited = "held_ratio" in report
    columns = [
        CONTENDER,
        CALLS,
        Column("χ²", "‖A x − y‖²/(2σ²N) of members: 1; below, noise is fitted; above, the data are not kept"),
        Column("worst", "largest |χ² − 1| of a member, in units of 4/√(2N); about 1 for draws of the posterior"),
        Column("within", "share of members within one such unit [%]; 100"),
        Column("residual", "‖A x − y‖/‖y‖ of members [%]"),
        Column("sampled", "spread/error at sampled frequencies, rms [% of the volume's maximum]"),
        Column("unsampled", "spread/error at frequencies that were not sampled, likewise: what the data leave open"),
    ]
    if audited:
        columns.append(
            Column("held-out lines", "‖y − A x̄‖² at measured lines kept back, over what spread and noise predict; 1")
        )
    rows = [
        [
            text(model),
            _calls(one),
            number(float(one["chi_square"]), 4),
            number(float(one["worst_chi"]), 3),
            number(100 * float(one["within"]), 3),
            number(100 * float(one["residual"]), 3),
            *(_pair(one, key) for key in ("sampled", "unsampled")),
            *([interval(one["held_ratio"].values)] if audited else []),
        ]
        for model, one in _each(report)
    ]
    notes = ["Consistency says nothing on what was not measured: it is no proof that a structure is real."]
    if audited:
        notes.append(
            f"Held-out lines: {report.attrs['held_share']:.0%} of the lines outside the calibration region of"
            f" {report.attrs['held_slices']} slices were kept from the reconstruction. Above 1 an ensemble is too sure"
            " of them, or wrong; an answer of one member has no spread, so that only the noise is expected of it."
        )
    return Table("Consistency with the data", columns, rows, notes)


def _groups(report: xr.Dataset) -> Table:
    """PSNR of every group, with the CRPS over the teacher's as detail."""
    groups = [str(g) for g in report["group"].values if str(g) != ALL]
    columns = [CONTENDER, CALLS]
    for g in groups:
        count = int(report["slices"].sel(group=g))
        columns.append(Column(g, f"PSNR [dB], and CRPS over the teacher's, of {count} slices"))
    rows: list[list[Cell]] = []
    for model, one in _each(report):
        row = [text(model), _calls(one)]
        for g in groups:
            ratio = float(one["crps_ratio"].sel(group=g, interval="estimate"))
            row.append((_fixed(one["psnr"].sel(group=g), 2)[0], "" if math.isnan(ratio) else f"×{ratio:.3f}"))
        rows.append(row)
    return Table("PSNR by acceleration and coils (beside it: CRPS over the teacher's)", columns, rows)


def _sentence(report: xr.Dataset, model: str, teacher: str | None) -> str:
    """One student."""
    one = report.sel(model=model)
    base = report.sel(model=teacher) if teacher else None
    difference, ratio = one["psnr_difference"].values, one["crps_ratio"].values

    def beside(key: str, digits: int) -> str:
        return "" if base is None else f" (the teacher's {_fixed(base[key], digits)[0]})"

    parts = [f"PSNR {_fixed(one['psnr'], 2)[0]} dB"]
    if np.isfinite(difference[0]):
        size = f"{abs(difference[0]):.2f} dB"
        parts[0] += f", {size} {'above' if difference[0] > 0 else 'below'} the teacher's" + _between(difference, 2)
    if np.isfinite(ratio[0]):
        parts.append(f"CRPS {ratio[0]:.3f} × the teacher's" + _between(ratio, 3))
    hit, due = (100 * float(one[k].sel(level=0.9)) for k in ("coverage", "coverage_nominal"))
    if np.isfinite(hit):
        own = "" if base is None else f", the teacher's {100 * float(base['coverage'].sel(level=0.9)):.1f} %"
        parts.append(f"{hit:.1f} % of truths inside the {due:.1f} % interval{own}")
        parts.append(f"spread–skill {float(one['spread_skill']):.3f}" + beside("spread_skill", 3))
    if np.isfinite(one["chi_square"]):
        parts.append(f"χ² of the data {float(one['chi_square']):.3f}" + beside("chi_square", 3))
    elif np.isfinite(one["residual"]):
        parts.append(f"residual of the data {100 * float(one['residual']):.2f} %")
    return f"{labelled([model], [float(one['nfe'])])[model]}: " + "; ".join(parts) + "."


def _each(report: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Contenders with their part of the report."""
    return [(str(m), report.sel(model=m)) for m in report["model"].values]


def _calls(one: xr.Dataset) -> Cell:
    """Network calls."""
    nfe = float(one["nfe"])
    return text(f"{nfe:g}" if nfe > 0 else NOTHING)


def _fixed(value: xr.DataArray, decimals: int) -> Cell:
    """A number with so many decimals."""
    v = float(value)
    return text(f"{v:.{decimals}f}".replace("-", "−")) if math.isfinite(v) else number(v)


def _difference(values: np.ndarray) -> Cell:
    """Signed estimate [dB], and the interval as detail."""
    if math.isnan(values[0]):
        return text(NOTHING)
    return f"{values[0]:+.2f}".replace("-", "−"), _between(values, 2).strip()


def _pair(one: xr.Dataset, key: str) -> Cell:
    """Spread and error at some frequencies, in percent."""
    spread, error = (number(100 * float(one[f"{kind}_{key}"]), 2)[0] for kind in ("spread", "error"))
    return text(f"{spread}/{error}")


def _between(values: np.ndarray, decimals: int) -> str:
    """An interval in brackets, if there is one."""
    low, high = (f"{v:.{decimals}f}".replace("-", "−") for v in values[1:])
    return f" [{low} to {high}]" if np.isfinite(values[1:]).all() else ""
