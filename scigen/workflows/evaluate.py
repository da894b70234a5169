"""The verb evaluate: ensembles against the truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from scigen.core.domain import Domain
from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.io.blocks import bytes_of
from scigen.io.ensemble import open_ensemble
from scigen.metrics.judging import Settings
from scigen.workflows.judge import publish
from scigen.workflows.shared.domain import Shared

UNSET: Mapping[str, Any] = {
    "variables": None, "sample": None, "reference": None, "groups": [], "bins": None, "mask": None, "thresholds": None,
    "block": None,
}  # fmt: skip
"""Keys that only the shared metrics know, as they are where nobody asks for them."""


def run(cfg: DictConfig) -> Path:
    """Judge cfg.samples against cfg.truth; returns the report's path."""
    if not cfg.samples:
        raise UserError("samples= names nothing to judge: write samples={student:out.zarr,teacher:other.zarr}.")
    if not isinstance(cfg.samples, DictConfig):
        raise UserError(
            f"samples={cfg.samples!s}: give every archive a name, as in samples={{student:{cfg.samples!s}}}."
        )
    ensembles = {str(name): open_ensemble(path) for name, path in cfg.samples.items()}
    domain = field_of(cfg, ensembles)
    names = [str(k) for k, v in next(iter(ensembles.values())).data_vars.items() if "member" in v.dims]
    truth = domain.standard(open_archive(cfg.truth), names)
    report = domain.evaluate(truth, ensembles)
    folder = Path(cfg.output)
    folder.mkdir(parents=True, exist_ok=True)
    provenance = {"truth": cfg.truth} | {f"samples of {name}": cfg.samples[name] for name in ensembles}
    page = publish(domain, report, truth, ensembles, folder, provenance=provenance)
    Console().print(f"Report: {page}")
    return page


def field_of(cfg: DictConfig, ensembles: Mapping[str, xr.Dataset]) -> Domain:
    """The domain that was asked for, the one that the samples name, or none: the shared metrics.

    Raises:
        UserError: if samples name different fields, or one that is not known, or a key does not go with the field.
    """
    asked = {k: _plain(cfg[k]) for k in UNSET if _plain(cfg[k]) != UNSET[k]}
    domain = None if "domain" not in cfg else instantiate(cfg.domain, **cfg.data)
    if domain is None:
        named = {str(ds.attrs["scigen_domain"]): m for m, ds in ensembles.items() if "scigen_domain" in ds.attrs}
        if len(named) > 1:
            told = ", ".join(f"'{m}' {d}" for d, m in named.items())
            raise UserError(f"The samples are of different fields ({told}): choose one with domain=, or domain=shared.")
        for name, model in named.items():
            if name not in cfg._fields:
                raise UserError(f"samples '{model}' are of the field {name}, which is not known: write domain=shared.")
            found = cfg._fields[name]
            domain = instantiate(found["domain"], **found["data"])
    if domain is None or isinstance(domain, Shared):
        return Shared(_settings(cfg))
    if asked:
        raise UserError(
            f"{', '.join(asked)}: known to the metrics that all fields share, not to those of {domain.name}. Add "
            "domain=shared, or leave it out."
        )
    return domain


def _settings(cfg: DictConfig) -> Settings:
    """What was asked of the shared metrics."""
    told = {k: _plain(cfg[k]) for k in UNSET}
    mask = told.pop("mask") or {}
    told["bins"], told["thresholds"] = told["bins"] or {}, told["thresholds"] or {}
    if isinstance(mask, str):
        mask = {mask: mask}
    elif mask and not any(isinstance(v, str | dict) for v in mask.values()):
        mask = {"region": mask}
    if told["block"] is not None and (not isinstance(told["block"], int) or told["block"] < 1):
        raise UserError(f"block={told['block']}: expected a number of samples, 1 or more.")
    for key in ("quantiles", "levels"):
        if not all(0 < v < 1 for v in cfg[key]):
            raise UserError(f"{key}={_plain(cfg[key])}: expected numbers between 0 and 1, as in [0.5, 0.9].")
    for name, edges in told["bins"].items():
        if len(edges) < 2 or sorted(edges) != list(edges):
            raise UserError(f"bins.{name}={edges}: expected two or more edges in rising order.")
    return Settings(
        **told, mask=mask, quantiles=_plain(cfg.quantiles), levels=_plain(cfg.levels), draws=cfg.draws,
        budget=bytes_of(cfg.memory, "memory"), workers=max(int(cfg.workers), 1),
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """Lists and mappings of a config as Python's own."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
