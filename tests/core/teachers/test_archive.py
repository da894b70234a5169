"""Files that lie, are cut or carry code: one line each, and nothing is run, imported, written or allocated."""

import io
import json
import os
import pickle
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # PhysicsNeMo's save asks for git

from scigen.core.teachers import mdlus, opening
from scigen.errors import UserError

from .test_mdlus import LEGACY, _made, rewritten, saved


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return saved(_made("EDMPrecond", LEGACY["EDMPrecond"]), tmp_path_factory.mktemp("good") / "good.mdlus")


def refused(path, match):
    before = {p: p.stat().st_mtime_ns for p in path.parent.rglob("*")}
    modules = set(sys.modules)
    with pytest.raises(UserError, match=match) as caught:
        opening.load(path)
    assert "\n" not in str(caught.value)
    assert {p: p.stat().st_mtime_ns for p in path.parent.rglob("*")} == before
    assert not any(m.split(".")[0] in ("evil", "antigravity") for m in set(sys.modules) - modules)


def test_code_among_the_weights_is_not_run(good, tmp_path):
    trap, buffer = tmp_path / "trapped", io.BytesIO()
    torch.save({"model.x": Trap(trap)}, buffer)
    refused(rewritten(good, tmp_path / "zip.mdlus", model=lambda b: buffer.getvalue()), "more than tensors")
    old = io.BytesIO()
    torch.save({"model.x": Trap(trap)}, old, _use_new_zipfile_serialization=False)
    refused(rewritten(good, tmp_path / "old.mdlus", model=lambda b: old.getvalue()), "more than tensors")
    refused(rewritten(good, tmp_path / "raw.mdlus", model=lambda b: pickle.dumps(Trap(trap))), "tensors|cannot be read")
    assert not trap.exists()


def tarred(good, path, mode="w", names=str):
    with zipfile.ZipFile(good) as old, tarfile.open(path, mode) as new:
        for name in old.namelist():
            content = old.read(name)
            info = tarfile.TarInfo(names(name))
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_file_that_is_cut_short(good, tmp_path, kind, share):
    whole = good if kind == "zip" else tarred(good, tmp_path / "whole.mdlus")
    content = whole.read_bytes()[: -10241 if kind == "tar" and share > 0.9 else None]
    path = tmp_path / "cut" / "net.mdlus"
    path.parent.mkdir()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, r"no whole \.mdlus file|no \.mdlus file|lacks|cannot be read")


def test_a_file_of_another_name(good, tmp_path):
    trap = tmp_path / "trapped"
    named = {
        "net.safetensors": (good.read_bytes(), "no whole safetensors"),
        "net.pkl": (good.read_bytes(), "is a pickle"),
        "net.nc": (good.read_bytes(), "a teacher is a scigen bundle"),
        "pickle.mdlus": (pickle.dumps(Trap(trap)), "neither a zip nor a tar"),
        "pickle.safetensors": (pickle.dumps(Trap(trap)), "no whole safetensors"),
    }
    torch.save({"x": Trap(trap)}, tmp_path / "torch.mdlus")
    named["torch.mdlus"] = (None, "no member")
    for name, (content, match) in named.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, match)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["/etc/model.pt", "../model.pt", "a/../../model.pt", "evil.py"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_elsewhere(good, tmp_path, kind, name):
    if kind == "zip":
        path = rewritten(good, tmp_path / "bad.mdlus", more={name: b"x"})
    else:
        path = tarred(good, tmp_path / "bad.mdlus", names=lambda n: name if n == "model.pt" else n)
    refused(path, re.escape(f"no member {name!r}"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices(good, tmp_path, kind):
    path = tarred(good, tmp_path / "bad.mdlus", names=lambda n: n if n != "model.pt" else "other")
    info = tarfile.TarInfo("model.pt")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(path, "a") as file:
        file.addfile(info)
    refused(path, "no member")


def test_members_that_declare_a_hundred_gigabytes(good, tmp_path):
    content = bytearray(rewritten(good, tmp_path / "bomb.mdlus").read_bytes())
    place = content.rfind(b"PK\x01\x02", 0, content.rfind(b"model.pt"))  # its entry in the directory: sizes at 20, 24
    content[place + 20 : place + 28] = (100 * 10**9 % 2**32).to_bytes(4, "little") * 2
    (tmp_path / "bomb.mdlus").write_bytes(content)
    refused(tmp_path / "bomb.mdlus", "declares 1.22e")
    info = tarfile.TarInfo("model.pt")
    info.size = 100 * 10**9
    (tmp_path / "bomb.mdlus").write_bytes(info.tobuf() + b"\0" * 10240)
    refused(tmp_path / "bomb.mdlus", r"declares 1e\+05 MB|no whole")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_may_have_no_end(good, tmp_path, mode):
    refused(tarred(good, tmp_path / "net.mdlus", mode), "neither a zip nor a tar archive without compression")


def test_a_member_given_twice(good, tmp_path):
    path = tarred(good, tmp_path / "net.mdlus")
    with tarfile.open(path, "a") as file:
        info = tarfile.TarInfo("./args.json")
        info.size = 2
        file.addfile(info, io.BytesIO(b"{}"))
    refused(path, "no member 'args.json'")


def words(**changes):
    def change(b):
        own = json.loads(b)
        for key, value in changes.items():
            (own if key.startswith("__") else own["__args__"])[key] = value
        return json.dumps(own).encode()

    return change


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"__module__": "os", "__name__": "system"}, "names os.system, which is none of"),
        ({"__module__": "subprocess", "__name__": "Popen"}, "names subprocess.Popen, which is none of"),
        ({"__module__": "physicsnemo.evil", "__name__": "antigravity"}, "names antigravity, and scigen takes"),
        ({"__module__": ["os"]}, "none of PhysicsNeMo's own"),
        ({"model_type": "antigravity"}, "model_type='antigravity'"),
        ({"model_type": ["SongUNet"]}, "model_type=|does not say what"),
        ({"model_channels": 20000}, "larger network than its .* M weights"),
        ({"num_blocks": 50000}, "larger network than its"),
        ({"num_blocks": 10**9}, "num_blocks=1000000000 is no number"),
        ({"channel_mult": [1] * 5000}, "larger network than its|refuses the arguments"),
        ({"model_type": "SongUNetPosEmbd", "img_resolution": [60000, 60000]}, "no size that scigen samples"),
        ({"img_channels": "two"}, "does not say what|refuses|weights do not fit"),
        ({"img_resolution": None}, "refuses|does not say"),
        ({"sigma_data": 0}, "sigma_data=0 is neither"),
        ({"sigma_data": [0.5]}, r"sigma_data=\[0.5\] is neither"),
        ({"sigma_data": "much"}, "sigma_data='much' is neither"),
    ],
)
def test_words_that_name_or_ask_for_what_is_not_there(good, tmp_path, changes, match):
    refused(rewritten(good, tmp_path / "net.mdlus", args=words(**changes)), match)


def test_a_version_that_is_none(good, tmp_path):
    path = rewritten(good, tmp_path / "net.mdlus", metadata=lambda b: b'{"mdlus_file_version": ["0.1.0"]}')
    assert mdlus.load(path).network.channels == 2  # as one that is not known: weights and arguments decide


def test_a_flipped_byte_is_a_line_or_another_number(good, tmp_path):
    content, rng = good.read_bytes(), np.random.default_rng(0)
    start = content.find(b"model.pt")
    for _ in range(12):
        data = bytearray(content)
        data[int(rng.integers(start, start + 4000) if rng.random() < 0.7 else rng.integers(len(data)))] ^= 0x55
        (tmp_path / "net.mdlus").write_bytes(data)
        try:
            opening.load(tmp_path / "net.mdlus")
        except UserError as error:
            assert "\n" not in str(error)


def test_words_beside_a_path_that_mean_nothing(good):
    with pytest.raises(UserError, match=r"precond=VPPrecond: only EDM's weights"):
        opening.load(good, "VPPrecond")
