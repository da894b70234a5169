"""The verb sample: an archive in, an ensemble archive out."""

import json
import logging
from pathlib import Path

import xarray as xr
from omegaconf import DictConfig
from rich.console import Console

from scigen.core.bundle import load, versions
from scigen.errors import UserError
from scigen.io.archive import fingerprint, open_archive
from scigen.io.missing import KEY, check_policy, settle
from scigen.io.write import SampleWriter
from scigen.workflows.device import pick
from scigen.progress import progress

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Draw cfg.members for every sample of cfg.input; returns the output's path."""
    bundle = load(cfg.bundle).to(pick(cfg.device))
    if cfg.static is not None:
        bundle = bundle.relocate(open_archive(cfg.static))
    archive = open_archive(cfg.input)
    archive.encoding[KEY] = check_policy(cfg.missing)
    inputs = settle(select_time(bundle.codec.prepare(archive), cfg.time), cfg.missing, "the input")
    keys = bundle.codec.samples(inputs)
    attrs = bundle.attributes(members=cfg.members, seed=cfg.seed, steps=cfg.steps, batch=cfg.batch)
    attrs |= {
        "title": f"Ensemble of {cfg.members} members drawn by scigen",
        "history": f"scigen sample bundle={cfg.bundle} input={cfg.input} members={cfg.members} seed={cfg.seed}",
        "scigen_input": fingerprint(archive),
        "scigen_missing": cfg.missing,
        "scigen_versions": json.dumps(versions()),
    }
    total, done = len(keys) * cfg.members, 0
    log.info("%r", bundle)
    layout = bundle.codec.layout(inputs, archive)
    with (
        SampleWriter(
            cfg.output,
            layout.coords,
            bundle.codec.variables,
            cfg.members,
            layout.dims,
            attrs=attrs,
            overwrite=cfg.overwrite,
            dtypes=bundle.codec.dtypes,
        ) as writer,
        progress("sampling", total, "fields") as advance,
    ):

        def count(n: int) -> None:
            nonlocal done
            done += n
            advance(done, "")

        blocks = bundle.blocks(inputs, cfg.members, seed=cfg.seed, steps=cfg.steps, batch=cfg.batch, progress=count)
        for start, block in blocks:
            writer.write(start, {name: layout.arrange(block[:, :, c]) for c, name in enumerate(bundle.codec.variables)})
    Console().print(
        f"Wrote {cfg.output}: {len(keys)} samples × {cfg.members} members, {bundle.nfe(cfg.steps)} network call(s) each"
    )
    return Path(cfg.output)


def select_time(inputs: xr.Dataset, span: str | None) -> xr.Dataset:
    """The part of prepared inputs within first:last.

    Raises:
        UserError: if the span cannot be read or holds no sample.
    """
    if span is None:
        return inputs
    first, colon, last = str(span).partition(":")
    time = str(next(iter(inputs.data_vars.values())).dims[0])
    try:
        part = inputs.sel({time: slice(first or None, (last or None) if colon else first)})
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"time={span} is no span of times: write it as 2019-03-25:2019-03-31 ({error}).") from error
    if not part.sizes[time]:
        found = inputs[time].values
        raise UserError(f"time={span} holds no sample; the archive goes from {found[0]} to {found[-1]}.")
    return part
