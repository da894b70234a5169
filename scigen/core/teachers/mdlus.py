"""PhysicsNeMo checkpoints (.mdlus): preconditioned networks of both its generations, built from what the file says.

The file names its classes; only those of `networks.physicsnemo.library` are built, and nothing else is imported.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, preconditioning
from scigen.core.networks.physicsnemo import library
from scigen.core.teachers.archive import Contents, read
from scigen.core.teachers.bounds import Bounded
from scigen.core.teachers.converted import Converted
from scigen.core.teachers.predictions import Affine, affine
from scigen.core.teachers.schedule import Edm, Schedule
from scigen.core.teachers.table import Table
from scigen.core.teachers.teacher import Teacher
from scigen.core.teachers.variance_preserving import VpLinear
from scigen.errors import UserError

NESTED = "__physicsnemo.Module__"
ROOTS = ("physicsnemo", "modulus")
EDM = ("EDMPreconditioner", "EDMPrecond", "EDMPrecondSuperResolution", "EDMPrecondSR")
VP, VE, IDDPM = (
    ("VPPreconditioner", "VPPrecond"),
    ("VEPreconditioner", "VEPrecond"),
    ("IDDPMPreconditioner", "iDDPMPrecond"),
)
REGRESSION = ("CorrDiffRegressionUNet", "UNet")
POSITIONS = ("SongUNetPosEmbd",)
"""Networks that add N_grid_channels of their own to their input, and know the places of one size."""

Description = Mapping[str, Any]
"""{"class": name, "args": {…}}, args that are modules described likewise: what a checkpoint says, and bundles keep."""


class Sizes(NamedTuple):
    """What a described network takes: C, condition fields and scalars, and the only size of fields, if there is one."""

    channels: int
    fields: int
    scalars: int
    fixed: tuple[int, int] | None


def describe(contents: Contents, path: Path) -> dict[str, Any]:
    """The description in a checkpoint, arguments brought to those of this version of PhysicsNeMo.

    Raises:
        UserError: if it names a class that is none of PhysicsNeMo's networks or preconditioners, or misses parts.
    """
    allowed: dict[str, type[nn.Module]] = {}

    def one(part: Any, prefix: str) -> dict[str, Any]:
        try:
            name, module, own = str(part["__name__"]), str(part["__module__"]), dict(part["__args__"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: args.json describes no PhysicsNeMo module ({error!r}).") from error
        if module.split(".")[0] not in ROOTS:
            raise UserError(
                f"{path}: args.json names {module}.{name}, which is none of PhysicsNeMo's own; it was not imported."
            )
        allowed.update(allowed or library())
        if name not in allowed:
            raise UserError(f"{path}: args.json names {name}, and scigen takes {', '.join(sorted(allowed))}.")
        version = str(contents.metadata.get(f"{prefix}.mdlus_file_version" if prefix else "mdlus_file_version"))
        kind: Any = allowed[name]
        if version != kind.__model_checkpoint_version__ and version in kind.__supported_model_checkpoint_version__:
            try:
                own = kind._backward_compat_arg_mapper(version, own)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise UserError(f"{path}: the arguments of {name}, version {version}, cannot be read.") from error
        if own.get("sigma_max") == float("inf"):
            own.pop("sigma_max")  # the default, and no JSON
        if own.get("use_fp16"):
            own["use_fp16"] = False  # halves are read as singles
        inner = {k: v for k, v in own.items() if isinstance(v, str) and v.startswith(NESTED)}
        if strange := [v for v in inner.values() if v not in contents.args or v == prefix]:
            raise UserError(f"{path}: args.json lacks {strange[0]}.")
        return {"class": name, "args": own | {k: one(contents.args[v], v) for k, v in inner.items()}}

    try:
        return one(contents.args, "")
    except RecursionError as error:
        raise UserError(f"{path}: args.json nests modules in a circle.") from error


def construct(own: Description) -> nn.Module:
    """The module of a description, not trained.

    Raises:
        UserError: for a class that is not PhysicsNeMo's, or arguments that it refuses.
    """
    allowed = library()
    if own.get("class") not in allowed:
        raise UserError(f"The bundle names {own.get('class')!r}, none of PhysicsNeMo's networks.")
    args = {k: construct(v) if isinstance(v, Mapping) and "class" in v else v for k, v in own["args"].items()}
    if not isinstance(kind := args.get("model_type", "SongUNet"), str) or kind not in allowed:
        raise UserError(f"The checkpoint names model_type={kind!r}, none of {', '.join(sorted(allowed))}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of its own
        try:
            return allowed[own["class"]](**args)
        except (
            TypeError,
            ValueError,
            AssertionError,
            ArithmeticError,
            RuntimeError,
            KeyError,
            AttributeError,
        ) as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"PhysicsNeMo refuses the arguments of this {own['class']}: {said}.") from error


def sizes(own: Description) -> Sizes:
    """What a described network takes.

    Raises:
        UserError: if the description does not say it.
    """
    args = own["args"]
    try:
        if "model" in args:
            inner = sizes(args["model"])
            wrapped = own["class"] == "ConcatConditionWrapper" or args["model"]["class"] == "ConcatConditionWrapper"
            if not wrapped and (inner.fields or inner.scalars):
                raise UserError(
                    f"A bare {args['model']['class']} cannot be given the {inner.fields} fields and {inner.scalars}"
                    " scalars that it takes: wrap it in ConcatConditionWrapper, as PhysicsNeMo trains it."
                )
            return inner
        kind = args.get("model_type") or DEFAULT_TYPES.get(own["class"], own["class"])
        grid = args.get("N_grid_channels", 4) if kind in POSITIONS else 0
        size = args.get("img_resolution", args.get("input_size"))
        fixed = _pair(size) if kind in POSITIONS or kind == "DiT" else None
        scalars = args.get("label_dim", args.get("condition_dim") or 0)
        if own["class"] in ("EDMPrecondSuperResolution", "EDMPrecondSR", *REGRESSION):
            return Sizes(args["img_out_channels"], args["img_in_channels"] - grid, 0, fixed)
        if "img_channels" in args:
            out = args.get("img_out_channels") or args["img_channels"]
            seen = args.get("img_in_channels") or args["img_channels"]
            return Sizes(out, seen - out - grid, scalars, fixed)
        out = args.get("out_channels") or args["in_channels"]
        return Sizes(out, args["in_channels"] - out - grid, scalars, fixed)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"The checkpoint does not say what its {own['class']} takes ({error!r}).") from error


DEFAULT_TYPES = {
    "EDMPrecond": "DhariwalUNet", "iDDPMPrecond": "DhariwalUNet", "EDMPrecondSuperResolution": "SongUNetPosEmbd",
    "EDMPrecondSR": "SongUNetPosEmbd", "VPPrecond": "SongUNet", "VEPrecond": "SongUNet",
    "CorrDiffRegressionUNet": "SongUNetPosEmbd", "UNet": "SongUNetPosEmbd",
}  # fmt: skip


class Checkpoint(Converted):
    """A preconditioned network of PhysicsNeMo."""

    def __init__(
        self, channels: int, condition_fields: int = 0, condition_scalars: int = 0, *, description: Description,
        space: int = 2,
    ) -> None:  # fmt: skip
        """Build the network, not trained.

        Args:
            channels: C.
            condition_fields: K of condition["fields"] (B, K, Y, X).
            condition_scalars: K of condition["scalars"] (B, K), its class labels. A network without labels may be given
                any and heeds none; one that takes no fields either is a prior, whatever it is given.
            description: of the preconditioner.
            space: must be 2.

        Raises:
            UserError: if the description is none, or of a network that takes other numbers.
        """
        own = sizes(description)
        heard = (own.fields, own.scalars)
        known = ((0, 0), (condition_fields, 0), (condition_fields, condition_scalars))
        if (channels, space) != (own.channels, 2) or heard not in known:
            raise UserError(
                f"The {description['class']} makes {own.channels} channels of 2-D fields from {own.fields} condition"
                f" fields and {own.scalars} scalars; the data have {channels} channels in {space}-D,"
                f" {condition_fields} fields and {condition_scalars} scalars. A network of scigen's own, student=, is"
                " told all of them."
            )
        data = description["args"].get("sigma_data", 0.5 if description["class"] in EDM else 1.0)
        several = data if isinstance(data, list) else [data]
        good = all(isinstance(d, int | float) and 0 < d < math.inf for d in several)
        if not good or (isinstance(data, list) and len(data) != channels):
            raise UserError(f"The checkpoint's sigma_data={data!r} is neither a positive number nor one a channel.")
        middle = sum(several) / len(several)
        super().__init__(channels, condition_fields, condition_scalars, middle)
        self.heard, self.kind, self.fixed_size = heard, str(description["class"]), own.fixed
        self.inner: Any = construct(description).eval()
        self.scaled = bool(description["args"].get("scale_cond_input", self.kind == "EDMPrecondSR"))
        self.wrapped = description["args"].get("model", {}).get("class") == "ConcatConditionWrapper"
        self.law = _law(self.kind, self.inner)

    def affine(self, sigma: Tensor) -> Affine:
        """Coefficients of PhysicsNeMo's preconditioner."""
        return self.law(sigma)

    def predict(self, y: Tensor, time: Tensor, condition: Condition, scale: Tensor) -> Tensor:
        """The network inside the preconditioner; of learnt variances only the means."""
        fields = condition["fields"].to(y) if self.heard[0] else None
        scalars = condition["scalars"].to(y) if self.heard[1] else None
        if self.wrapped and scalars is None:
            out = self.inner.model(y, time, condition=fields)
        elif self.wrapped:
            inner = self.inner.model.model
            h = y if fields is None else torch.cat([y, fields], dim=1)
            out = inner(h, time, scalars)
        else:
            if fields is not None:
                y = torch.cat([y, fields * scale if self.scaled else fields], dim=1)
            out = self.inner.model(y, time) if scalars is None else self.inner.model(y, time, scalars)
        return out[:, : self.channels]


def _law(kind: str, inner: Any) -> Callable[[Tensor], Affine]:
    """The preconditioner as a function of σ (B,) float64."""
    if kind in EDM:
        return _per_channel(inner.sigma_data)
    own, predicts = terms(kind, inner)
    if kind in VE:
        return lambda sigma: Affine(torch.ones_like(sigma), sigma, torch.ones_like(sigma), (0.5 * sigma).log())
    return lambda sigma: affine(own, predicts, sigma)


def _per_channel(sigma_data: Any) -> Callable[[Tensor], Affine]:
    """EDM's coefficients, one σ_data a channel where there are several."""

    def law(sigma: Tensor) -> Affine:
        data = torch.as_tensor(sigma_data, dtype=torch.float64, device=sigma.device)
        if data.ndim == 0:
            skip, out, c_in, c_noise = preconditioning(sigma, float(data))
            return Affine(skip, out, c_in, c_noise)
        columns = [preconditioning(sigma, float(d)) for d in data]
        skip, out, c_in = (torch.stack([c[i] for c in columns], dim=1) for i in range(3))
        return Affine(skip, out, c_in, columns[0][3])

    return law


def terms(kind: str, inner: Any) -> tuple[Schedule, str]:
    """Schedule and prediction of a preconditioner."""
    if kind in VP:
        low, wide = float(inner.beta_min), float(inner.beta_d)
        return VpLinear(low, low + wide, float(inner.M) - 1, getattr(inner, "epsilon_t", 1e-5)), "epsilon"
    if kind in IDDPM:
        levels = inner.u[:-1].flip(0).tolist()  # the last is 0
        return Table(tuple(levels), nearest=True), "epsilon"
    low = getattr(inner, "sigma_min", None) or (0.02 if kind in VE else 0.002)
    high = getattr(inner, "sigma_max", None)
    high = high if high and high < float("inf") else (100.0 if kind in VE else 80.0)
    return Edm(float(low), float(high), log_time=True), "score · σ" if kind in VE else "edm"


def _pair(size: Any) -> tuple[int, int]:
    both = [size, size] if isinstance(size, int) else list(size)
    return int(both[0]), int(both[1])


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights of a checkpoint.

    Raises:
        UserError: if they are others than the network's.
    """
    try:
        found = network.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise UserError(f"{path}: its weights do not fit what it says of its network ({said[:200]}).") from error
    wrong = [k for k in (*found.missing_keys, *found.unexpected_keys) if not k.endswith("device_buffer")]
    if wrong:
        raise UserError(f"{path}: {len(wrong)} weights are missing or of another network, such as {wrong[0]}.")


def load(path: Path) -> Teacher:
    """A teacher from a .mdlus file.

    Raises:
        UserError: if the file is damaged or unsafe, or holds no diffusion model.
    """
    contents = read(path)
    description = describe(contents, path)
    name = description["class"]
    if name in REGRESSION:
        raise UserError(
            f"{path} is a regression network ({name}), not a diffusion model: give the folder that holds it beside"
            " diffusion.mdlus, stats.json and metadata.json."
        )
    if name not in (*EDM, *VP, *VE, *IDDPM):
        raise UserError(f"{path} is a bare {name} without a preconditioner, which says what it predicts and when.")
    own = sizes(description)
    args: dict[str, Any] = {
        "channels": own.channels, "condition_fields": own.fields, "condition_scalars": own.scalars, "space": 2,
        "description": description,
    }  # fmt: skip
    with Bounded(contents.state, description, path):
        network = Checkpoint(**args)
    fill(network.inner, contents.state, path)
    schedule, predicts = terms(name, network.inner)
    facts: dict[str, Any] = {"physicsnemo": contents.metadata.get("physicsnemo_version", "unknown")}
    if blind(description):
        facts["time"] = "its network is not told σ (embedding_type: zero)"
    return Teacher(
        f"PhysicsNeMo checkpoint, {name}", network, f"{__name__}.Checkpoint", args, schedule.ends, predicts,
        schedule.kind, facts=facts,
    )  # fmt: skip


def blind(description: Description) -> bool:
    """Whether a described network is not told the level, as stock CorrDiff's."""
    own = description["args"]
    return own.get("embedding_type") == "zero" or ("model" in own and blind(own["model"]))
