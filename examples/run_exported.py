"""Run what `scigen export` wrote, without scigen: python run_exported.py student.pt2 (or student.onnx)."""

import json
import sys
from pathlib import Path

import torch

path = Path(sys.argv[1])
about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
batch = int(sys.argv[2]) if len(sys.argv) > 2 else 4
ports = {}
for port in about["inputs"]:  # noise is drawn; all else are your own fields, in the units that the JSON names
    shape = [batch, *port["shape"][1:]]
    drawn = torch.randn(shape) if port["name"].startswith("noise") else torch.full(shape, 0.5)
    ports[port["name"]] = drawn.to(getattr(torch, port["dtype"]))
if path.suffix == ".pt2":
    fields = torch.export.load(path).module()(ports).numpy()
else:
    import onnxruntime

    fields = onnxruntime.InferenceSession(path).run(None, {n: v.numpy() for n, v in ports.items()})[0]
print(about["outputs"][0]["name"], fields.shape, float(fields.mean()))
