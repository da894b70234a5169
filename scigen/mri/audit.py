"""The consistency audit: a trained model's ensemble against lines of k-space that it was not given."""

import numpy as np
import xarray as xr

from scigen.core.bundle import Bundle
from scigen.errors import UserError
from scigen.mri.checks import check_scans
from scigen.mri.heldout import SHARE, compared, divided
from scigen.mri.physics import ReconstructionCodec


def audit(
    bundle: Bundle, scans: xr.Dataset, members: int = 19, share: float = SHARE, seed: int = 0, steps: int | None = None
) -> xr.Dataset:
    """Reconstruct scans without a share of their measured lines, and compare these with the ensemble's prediction.

    Args:
        bundle: a teacher, student or baseline for MRI.
        scans: k-space as for `scigen sample`, see `scigen.mri.checks.check_scans`; a truth is not needed.
        members: of the ensemble.
        share: of the lines outside the calibration region that is held out.
        seed: of the choice of lines, and of the ensemble.
        steps: number of levels; the default if None.

    Returns:
        See `scigen.mri.heldout.compared`: by slice `ratio`, which is 1 for a calibrated ensemble, `residual`, `spread`
        and `samples`. Attributes tell model, calls, share and seed.

    Raises:
        UserError: if the bundle is of another field, or the scans do not fit.
    """
    if not isinstance(bundle.codec, ReconstructionCodec):
        raise UserError(f"The audit is for bundles of domain=mri, not of domain={bundle.domain}.")
    scans = check_scans(scans)
    rest, held = divided(scans, share, seed)
    made = bundle.sample(rest, members=members, seed=seed, steps=steps)
    out = compared(scans, held, made)
    told = {k: v for k, v in made.attrs.items() if k.startswith("scigen_") or k == "notice"}
    mean = float(np.nanmean(out["ratio"].values))
    return out.assign_attrs(told, share=share, seed=seed, mean_ratio=mean)
