"""The card of a model: what it is, what it was made of, what was measured of it, what it is for and what not.

It follows the checklist MI-CLAIM-GEN for research with generative models (Miao et al. 2024, arXiv:2403.02558), taken to
all fields: intended use, cohort and splits, model and teacher, evaluation, limits, reproducibility. No entry is empty:
what nobody knows is `unknown`.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from scigen.core.ledger import denoiser_gain, sampled_variance
from scigen.core.sampling import Sampling

FORMAT = "scigen-card-1"
UNKNOWN = "unknown"
SECTIONS = (
    "model", "intended_use", "data", "training", "teacher", "sampling", "calibration", "limits", "cost",
    "reproducibility", "licences",
)  # fmt: skip
"""Entries beside `format`, in the order of the page."""

MODES = (0.01, 1.0, 100.0)
"""Variances of the Gaussian modes, in the network's units, on which a teacher's solver is checked in closed form."""
IN_JSON = {"calibration": ("contenders", "spread_ledger"), "reproducibility": ("configuration",)}
"""Entries too long for a page."""

LICENCE = "Apache-2.0 (scigen)"


def card(
    header: Mapping[str, Any],
    *,
    fingerprint: str,
    parameters: int,
    shape: Sequence[int],
    variables: Mapping[str, Mapping[str, Any]],
    purpose: Mapping[str, Any],
    calls: int,
    judged: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The card of a bundle as JSON types.

    Args:
        header: of the bundle's file: domain, role, network, sampling, provenance.
        fingerprint: of the bundle.
        parameters: of its network.
        shape: of a network sample (C, *S).
        variables: attributes of what it makes, by name.
        purpose: `use`, `not` (out of scope) and `limits` of the field, see `Codec.purpose`.
        calls: network calls a member, by default.
        judged: content of the metrics.json that a fit wrote; None if nothing was measured.

    Returns:
        The entries of `SECTIONS`, each a mapping, and `format`.
    """
    made = header["provenance"]
    config, cohort = made.get("config", {}), made.get("cohort", {})
    found = judged or {}
    method = _method(made, config)
    default = {"teacher": "denoising", "baseline": "mean"}.get(header["role"])
    entries: dict[str, Any] = {
        "model": {
            "field": header["domain"], "role": header["role"], "fingerprint": fingerprint,
            "network": header["network"]["class"], "network_arguments": dict(header["network"]["args"]),
            "parameters": parameters, "network_sample": list(shape),
            "variables": {n: a.get("units", "") for n, a in variables.items()},
        },
        "intended_use": {"use": purpose.get("use"), "out_of_scope": purpose.get("not")},
        "data": {
            "source": made.get("data"), "fingerprint": made.get("data_fingerprint"),
            "splits": cohort.get("splits"), "variables": cohort.get("variables"), "cells": cohort.get("cells"),
            "split_rule": cohort.get("rule") or config.get("data", {}).get("split"),
            "demographics": cohort.get("demographics"),
        },
        "training": {
            "method": made.get("method") or default, "settings": method,
            "noise": config.get("noise"), "teacher": made.get("teacher"), "started_from": made.get("init"),
            "precision": config.get("trainer", {}).get("precision"), "validation": config.get("validation"),
            "convergence": made.get("convergence"),
        },
        "teacher": _teacher(header, config),
        "sampling": {
            "sampler": header["sampling"]["sampler"], "sigmas": list(header["sampling"]["sigmas"]),
            "steps": len(header["sampling"]["sigmas"]), "network_calls_a_member": calls,
        },
        "calibration": {
            "verdict": found.get("verdict"), "test": found.get("provenance", {}).get("test samples × members"),
            "summary": {k: v for k, v in found.get("quality", {}).items() if k != "_"},
            "score": found.get("quality", {}).get("_", {}).get("score"),
            "spread": found.get("quality", {}).get("_", {}).get("spread"),
            "reference": found.get("quality", {}).get("_", {}).get("reference"), "exact_law": found.get("known"),
            "contenders": _numbers(found.get("models")), "spread_ledger": _numbers(found.get("ledger")),
        },
        "limits": {"of_the_field": purpose.get("limits"), "worst_samples": found.get("worst")},
        "cost": {
            "training_seconds": made.get("training_seconds"), "hardware": made.get("hardware"),
            "threads": made.get("threads"), "calls_a_member": calls, "speed": found.get("speed"),
        },
        "reproducibility": {
            "seed": config.get("seed"), "command": made.get("command"), "versions": made.get("versions"),
            "seed_rule": made.get("seed_rule"), "configuration": config,
        },
        "licences": {
            "code": LICENCE, "data": cohort.get("licence"), "weights": made.get("licence"),
        },
    }  # fmt: skip
    return {"format": FORMAT} | {name: filled(entries[name]) for name in SECTIONS}


def filled(value: Any) -> Any:
    """The same with `unknown` in the place of what is empty: None, "", NaN, lists and mappings without entries."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return UNKNOWN
    if isinstance(value, Mapping):
        return {str(k): filled(v) for k, v in value.items()} or UNKNOWN
    if isinstance(value, str):
        return value or UNKNOWN
    if isinstance(value, Sequence):
        return [filled(v) for v in value] or UNKNOWN
    return value


def markdown(content: Mapping[str, Any]) -> str:
    """A card as a page for people: a heading a section, a line an entry, tables for what has rows.

    Args:
        content: of `card`.
    """
    model = content["model"]
    lines = [f"# Model card: {model['field']} {model['role']} {model['fingerprint']}", ""]
    for name in SECTIONS:
        lines += [f"## {_words(name)}", ""]
        for key, value in content[name].items():
            if key in IN_JSON.get(name, ()):
                value = value if value == UNKNOWN else "see card.json"
            lines += _entry(_words(key), value)
        lines.append("")
    return "\n".join(lines)


def small(content: Mapping[str, Any]) -> str:
    """A card on a few lines of HTML, for notebooks; readable on light and dark pages, all texts escaped.

    Args:
        content: of `card`.
    """
    model, sampling, training = content["model"], content["sampling"], content["training"]
    shape = " × ".join(map(str, model["network_sample"][1:]))
    variables = ", ".join(f"{n} [{u}]" if u != UNKNOWN else n for n, u in model["variables"].items())
    rows = {
        "makes": f"{variables} on {shape}",
        "network": f"{model['network'].rsplit('.', 1)[-1]}, {model['parameters'] / 1e6:.2f} M parameters",
        "sampler": f"{sampling['sampler']}, {sampling['network_calls_a_member']} network calls a member",
        "method": training["method"], "data": content["data"]["source"], "use": content["intended_use"]["use"],
        "fingerprint": model["fingerprint"],
    }  # fmt: skip
    cell = "text-align:left;padding:.1em .8em .1em 0;vertical-align:top"
    body = "".join(
        f'<tr><td style="{cell};opacity:.65">{escape(k)}</td><td style="{cell}">{escape(str(v))}</td></tr>'
        for k, v in rows.items()
    )
    return (
        '<div style="border-left:4px solid #0072b2;padding:.3em .9em;max-width:48em">'
        f"<b>scigen {escape(model['field'])} {escape(model['role'])}</b>"
        f'<table style="border:0;background:none;margin:.3em 0 0">{body}</table></div>'
    )


def _entry(key: str, value: Any, depth: int = 0) -> list[str]:
    """Lines of one entry; longer mappings are nested."""
    lead = "  " * depth + f"- **{key}**"
    if not depth and isinstance(value, Mapping) and (rows := _rows(value)):
        return ["", f"{key}:", "", *rows, ""]
    if isinstance(value, Mapping):
        inner = [line for k, v in value.items() for line in _entry(str(k), v, depth + 1)]
        return [f"{lead}:", *inner]
    if isinstance(value, list) and any(isinstance(v, str) and " " in v for v in value):
        return [f"{lead}:", *("  " * (depth + 1) + f"- {_shown(v)}" for v in value)]
    if isinstance(value, list):
        value = ", ".join(_shown(v) for v in value)
    return [f"{lead}: {_shown(value)}"]


def _rows(value: Mapping[str, Any]) -> list[str]:
    """A Markdown table of mappings that have the same entries, plain ones; none where they are not alike."""
    rows = [v for v in value.values() if isinstance(v, Mapping)]
    if len(rows) < 2 or len(rows) < len(value) or any(list(r) != list(rows[0]) for r in rows):
        return []
    if any(isinstance(v, list | Mapping) and set(v) != {"estimate", "low", "high"} for r in rows for v in r.values()):
        return []
    lines = [["", *rows[0]], [":--"] * (len(rows[0]) + 1)]
    lines += [[name, *(_shown(v) for v in row.values())] for name, row in zip(value, rows, strict=True)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{_shown(value['estimate'])} [{_shown(value['low'])} to {_shown(value['high'])}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("\n", " ")


def _words(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _method(made: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """Settings of the method that made it: the last of the chain of that name, or of the teacher's training."""
    name = made.get("method")
    if name is None:
        return config.get("teaching")
    for each in (*reversed(config.get("then", {}).values()), config.get("method", {})):
        if str(each.get("_target_", "")).split(".")[-2:][:1] == [name]:
            return each
    return None


def _teacher(header: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's sampler, and how near it comes to the exact flow on Gaussian modes, in closed form."""
    own = header["sampling"] if header["role"] == "teacher" else config.get("sampler", {})
    if header["role"] == "teacher":
        sampling = Sampling(**{**own, "sigmas": tuple(own["sigmas"])})
    elif {"sampler", "steps", "sigma_min", "sigma_max"} <= set(own):
        keys = {k: own[k] for k in ("sampler", "steps", "sigma_min", "sigma_max", "rho", "options") if k in own}
        sampling = Sampling.solver(**keys)
    else:
        return {"sampler": None, "calls": None, "variance_of_gaussian_modes": None}
    modes = np.array(MODES)
    ratio = sampled_variance(sampling, denoiser_gain(modes)) / modes
    return {
        "sampler": sampling.sampler, "calls": sampling.calls(),
        "variance_of_gaussian_modes": {f"of {m:g}": round(float(r), 5) for m, r in zip(modes, ratio, strict=True)},
    }  # fmt: skip


def _numbers(models: Any) -> Any:
    """The measured numbers without long lists (spectra, histograms), which metrics.json has."""
    if isinstance(models, Mapping):
        return {k: v for k, v in ((k, _numbers(v)) for k, v in models.items()) if v is not None}
    return None if isinstance(models, list) else models
