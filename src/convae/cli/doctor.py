"""What `convae doctor` prints: what is here, what was decided, what to do about the rest."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from convae.config.loader import load_config
from convae.data.loading import load_training
from convae.errors import ConvaeError
from convae.runtime.hardware import core_count, cpu_info
from convae.runtime.start import start

DEFAULT = "configs/mnist.yaml"
PACKAGES = ("convae", "tensorflow", "keras", "numpy", "matplotlib", "pydantic")
# What TensorFlow's CPU kernels are quick with, and what each is good for.
FEATURES = {
    "avx2": "float32 vectors of 8",
    "avx512f": "float32 vectors of 16",
    "avx512_bf16": "bfloat16 products",
    "amx_bf16": "bfloat16 matrix tiles",
}


def report(config: str | None, overrides: Sequence[str]) -> str:
    """One text: versions, processor, devices, the runtime's decisions for `config`, the data.

    Without `config` it is the repository's configs/mnist.yaml, if it is called from there.
    """
    if config is None and (Path(DEFAULT).exists() or overrides):
        config = DEFAULT
    settings = load_config(config, overrides) if config else None
    name, flags = cpu_info()
    lines = [f"python      {platform.python_version()} on {platform.platform()}"]
    lines += [f"{package:<11} {_version(package)}" for package in PACKAGES]
    lines += ["", f"processor   {name}, {core_count()} cores to use"]
    for flag, use in FEATURES.items():
        there = ("yes" if flag in flags else "no") if flags else "unknown"
        lines.append(f"  {flag:<12}{there:<9}{use}")
    if settings is None:
        return "\n".join([*lines, "", "more with a config: convae doctor CONFIG"])
    lines += ["", f"decided for {config}"]
    try:
        plan = start(settings, distributed=True)
        lines.append(f"  {'device_name':<12}{plan.device_name}")
        for key, reason in plan.reasons.items():
            lines.append(f"  {key:<12}{getattr(plan, key)}  ({reason})")
        lines += [f"  {warning}" for warning in plan.warnings]
        on = os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1"
        lines.append(f"  oneDNN      {'on' if on else 'off: set TF_ENABLE_ONEDNN_OPTS=1'}")
    except ConvaeError as error:
        lines.append(f"  not possible: {error}")
    lines += ["", "data"]
    try:
        data = load_training(settings.data, settings.model.input_shape)
        images = data.train.images
        lines.append(
            f"  {data.name}: {len(images):,} + {len(data.validation.images):,} images of "
            f"{'x'.join(map(str, images.shape[1:]))}"
        )
        if data.notice:
            lines += [f"  {line}" for line in data.notice.splitlines()]
    except ConvaeError as error:
        lines.append(f"  not usable: {error}")
    folder = Path(settings.output.folder)
    existing = folder if folder.exists() else folder.absolute().parent
    writable = os.access(existing, os.W_OK)
    lines += ["", f"outputs     {folder}: {'writable' if writable else 'cannot be written'}"]
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed: pip install convae"
