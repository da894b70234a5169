"""The verb evaluate: ensembles against the truth."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from scigen.core.domain import Domain
from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.workflows.judge import publish


def run(cfg: DictConfig) -> Path:
    """Judge cfg.samples against cfg.truth; returns the report's path."""
    if not cfg.samples:
        raise UserError("samples= names nothing to judge: write samples={student:out.zarr,teacher:other.zarr}.")
    domain: Domain = instantiate(cfg.domain, **cfg.data)
    ensembles = {name: open_archive(path) for name, path in cfg.samples.items()}
    names = [str(k) for k, v in next(iter(ensembles.values())).data_vars.items() if "member" in v.dims]
    truth = domain.standard(open_archive(cfg.truth), names)
    report = domain.evaluate(truth, ensembles)
    folder = Path(cfg.output)
    folder.mkdir(parents=True, exist_ok=True)
    provenance = {"truth": cfg.truth, **{f"samples of {k}": v for k, v in cfg.samples.items()}}
    page = publish(domain, report, truth, ensembles, folder, provenance=provenance)
    Console().print(f"Report: {page}")
    return page
