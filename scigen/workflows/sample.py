"""The verb sample: an archive in, an ensemble archive out."""

import json
import logging
from pathlib import Path

import xarray as xr
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from scigen.core.bundle import load, versions
from scigen.core.codec import Codec
from scigen.errors import UserError
from scigen.io.archive import fingerprint, open_archive
from scigen.io.missing import KEY, check_policy, settle
from scigen.io.write import SampleWriter
from scigen.progress import progress
from scigen.workflows.device import pick
from scigen.workflows.training import plain

log = logging.getLogger(__name__)

ADAPTED = ("size", "boundary", "exact")
"""What is asked of a bundle's codec beside the condition."""


def run(cfg: DictConfig) -> Path:
    """Draw cfg.members for every sample of cfg.input; returns the output's path."""
    bundle = load(cfg.bundle).to(pick(cfg.device))
    if cfg.static is not None:
        bundle = bundle.relocate(open_archive(cfg.static))
    wanted = {k: OmegaConf.to_container(cfg[k]) if OmegaConf.is_config(cfg[k]) else cfg[k] for k in ADAPTED}
    codec = bundle.codec.adapt(wanted)
    if codec is not bundle.codec:
        bundle = bundle.placed(codec)
    if unknown := [f for f in cfg.also if f not in codec.formats]:
        raise UserError(f"also={unknown[0]}: this bundle writes {', '.join(codec.formats) or 'no other formats'}.")
    archive = _archive(cfg, codec)
    archive.encoding[KEY] = check_policy(cfg.missing)
    inputs = settle(select_time(bundle.codec.prepare(archive), cfg.time), cfg.missing, "the input")
    keys = bundle.codec.samples(inputs)
    batch = bundle.rows if cfg.batch is None else cfg.batch
    attrs = bundle.attributes(members=cfg.members, seed=cfg.seed, steps=cfg.steps, batch=batch)
    attrs |= {
        "title": f"Ensemble of {cfg.members} members drawn by scigen",
        "history": f"scigen sample bundle={cfg.bundle} {_asked(cfg)} members={cfg.members} seed={cfg.seed}",
        "scigen_input": fingerprint(archive),
        "scigen_missing": cfg.missing,
        "scigen_steps": len(bundle.sampling.grid(cfg.steps)),
        "scigen_versions": json.dumps(versions()),
    }
    total, done = len(keys) * cfg.members, 0
    log.info("%r", bundle)
    layout = bundle.codec.layout(inputs, archive)
    attrs |= layout.coords.attrs
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

        blocks = bundle.blocks(inputs, cfg.members, seed=cfg.seed, steps=cfg.steps, batch=batch, progress=count)
        for start, block in blocks:
            writer.write(start, {name: layout.arrange(block[:, :, c]) for c, name in enumerate(bundle.codec.variables)})
    Console().print(
        f"Wrote {cfg.output}: {len(keys)} samples × {cfg.members} members, {bundle.nfe(cfg.steps)} network call(s) each"
    )
    output = Path(cfg.output)
    if cfg.also:
        with xr.open_dataset(output, engine="zarr" if output.suffix == ".zarr" else None, chunks={}) as made:
            for path in codec.export(made, output.with_suffix(""), list(cfg.also)):
                log.info("also %s", path)
    return output


def _archive(cfg: DictConfig, codec: Codec) -> xr.Dataset:
    """What conditions: an archive, or words.

    Raises:
        UserError: for neither or both.
    """
    if (cfg.input is None) == (cfg.condition is None):
        raise UserError("Give one of input=ARCHIVE and condition={name: number}; the latter where a field has few.")
    if cfg.input is not None:
        return codec.open(cfg.input)
    return codec.request(plain(cfg)["condition"], 1)


def _asked(cfg: DictConfig) -> str:
    """The words of a command line that say what was asked for."""
    words = [f"input={cfg.input}" if cfg.input is not None else f"condition={plain(cfg)['condition']}"]
    return " ".join(words + [f"{k}={cfg[k]}" for k in ADAPTED if cfg[k] is not None])


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
