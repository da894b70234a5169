"""A generator as an ONNX file, for onnxruntime and other engines."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from scigen.core.export.generator import Generator
from scigen.core.export.pairs import Real
from scigen.core.export.pt2 import follow, traced
from scigen.errors import UserError

OPSET = 20
"""Of the operators, which onnxruntime has from version 1.17 on."""
NEEDS = ("onnx", "onnxscript", "onnxruntime")


def check(generator: Generator) -> None:
    """Refuse what ONNX cannot hold, or cannot be checked here.

    Raises:
        UserError: with the reason, and what to do.
    """
    missing = [n for n in NEEDS if importlib.util.find_spec(n) is None]
    if missing:
        raise UserError(f"format=onnx needs {', '.join(missing)}: pip install 'scigen[onnx]', or use format=pt2.")
    if generator.bundle.precision != "fp32":
        raise UserError("format=onnx writes precision=fp32, which engines lower by themselves; format=pt2 keeps bf16.")


def write(generator: Generator, ports: Mapping[str, Tensor], path: Path) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Write the file; returns what runs it, by onnxruntime on the CPU.

    Args:
        generator: to be traced.
        ports: inputs by name, of two rows at least.
        path: of the file.

    Raises:
        UserError: if the network does not trace, or has an operator that ONNX lacks.
    """
    check(generator)
    program = traced(generator, ports)
    if generator.traced.complexes:
        program = follow(Real(program), ports, generator.name)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of the exporter's own making
            made = torch.onnx.export(
                program, (dict(ports),), input_names=list(ports), output_names=[generator.output.name],
                opset_version=OPSET, dynamo=True, verbose=False,
            )  # fmt: skip
    except Exception as error:  # whatever the exporter makes of what it does not know
        said = next((s for s in reversed(str(error).strip().splitlines()) if s.strip()), type(error).__name__)
        raise UserError(f"format=onnx: the exporter refuses this model ({said.strip()}); format=pt2 has it.") from error
    assert made is not None
    made.save(path, external_data=False)
    return loaded(path, generator.output.name)


def loaded(path: Path, output: str) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """What runs a file by onnxruntime: ports by name to the output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(ports: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run([output], {n: v.cpu().numpy() for n, v in ports.items()})[0])

    return run
