"""Reading .mdlus files, zip or tar: in memory, after sizes and paths have been checked, and tensors alone."""

import io
import json
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scigen.errors import UserError

MEMBERS = ("args.json", "metadata.json", "model.pt")
JSON_BYTES = 2**20
PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".pickle")


class Contents(NamedTuple):
    """What a .mdlus file holds: `args` and `metadata` as written, `state` the weights."""

    args: dict[str, Any]
    metadata: dict[str, Any]
    state: dict[str, Tensor]


def read(path: Path) -> Contents:
    """Read a .mdlus file.

    Raises:
        UserError: if it is none, is cut short, has members with strange names or sizes, or weights that are more than
            tensors; nothing has been written or imported then.
    """
    refuse_pickle(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"  # not `is_zipfile`: a tar may end with a zip
        members = _zip(path) if zipped else _tar(path)
        args, metadata = (_json(members[n], path, n) for n in MEMBERS[:2])
        state = tensors(members["model.pt"], path)
    except (zipfile.BadZipFile, zlib.error, tarfile.TarError, EOFError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no whole .mdlus file ({_said(error)}). Copy it again.") from error
    return Contents(args, metadata, state)


def refuse_pickle(path: Path) -> None:
    """Refuse files that would run code when loaded.

    Raises:
        UserError: with how to convert one where it is trusted.
    """
    if path.suffix.lower() not in PICKLES:
        return
    raise UserError(
        f"{path} is a pickle, which can run any code when loaded: scigen loads tensors alone. Where it is trusted,"
        " convert it in an environment that can load it: net = pickle.load(open('x.pkl', 'rb'))['ema'];"
        " safetensors.torch.save_file({k: v.contiguous() for k, v in net.state_dict().items()}, 'x.safetensors')."
    )


def tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The weights in the bytes of a model.pt.

    Raises:
        UserError: if there is anything but tensors.
    """
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            if sum(i.file_size for i in inner.infolist()) > 2 * len(content) + JSON_BYTES:
                raise UserError(f"{path}: model.pt declares more than it holds; it was not unpacked.")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: model.pt holds more than tensors ({_said(error)}); it was not loaded.") from error
    except Exception as error:  # whatever torch makes of bytes that are none of its files
        raise UserError(f"{path}: model.pt cannot be read ({_said(error)}). Copy it again.") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path}: model.pt is no table of tensors.")
    return dict(state)


def _zip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        sizes = [(i.filename, i.file_size, not i.is_dir()) for i in file.infolist()]
        return _members(path, sizes, file.read)


def _tar(path: Path) -> dict[str, bytes]:
    try:
        opened = tarfile.open(path, "r:")  # of compressed ones even the list of members may be without end
    except tarfile.ReadError as error:
        raise UserError(f"{path} is no .mdlus file: neither a zip nor a tar archive without compression.") from error
    with opened as file:
        listed = [m for m in file.getmembers() if m.name not in ("", ".")]
        own = {m.name.removeprefix("./"): m for m in listed}

        def content(name: str) -> bytes:
            member = file.extractfile(own[name])
            return member.read() if member else b""

        return _members(path, [(m.name.removeprefix("./"), m.size, m.isfile()) for m in listed], content)


def _members(path: Path, sizes: list[tuple[str, int, bool]], content: Callable[[str], bytes]) -> dict[str, bytes]:
    """The three members, none larger than the file itself allows."""
    names = [name for name, *_ in sizes]
    for name, size, plain in sizes:
        if name not in MEMBERS or not plain or names.count(name) > 1:
            raise UserError(
                f"{path}: a .mdlus file holds {', '.join(MEMBERS)} and no member {name!r}; it was not unpacked."
            )
        most = JSON_BYTES if name.endswith(".json") else 4 * path.stat().st_size
        if size > most:
            raise UserError(
                f"{path}: its member {name} declares {size / 1e6:.3g} MB, and the file itself has"
                f" {path.stat().st_size / 1e6:.3g} MB; it was not unpacked."
            )
    if missing := [n for n in MEMBERS if n not in names]:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is no .mdlus file, or was cut short.")
    return {name: content(name) for name in MEMBERS}


def _json(content: bytes, path: Path, name: str) -> dict[str, Any]:
    try:
        out = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {name} is no JSON ({_said(error)}).") from error
    if not isinstance(out, dict):
        raise UserError(f"{path}: {name} is no JSON object.")
    return out


def _said(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
