"""The report that `convae doctor` prints: versions, hardware, decisions, and what is missing."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.console import format_shape
from convae.data.loading import load_training
from convae.errors import ConvaeError, FileError
from convae.files import check_folder
from convae.runtime.hardware import core_count, cpu_info
from convae.runtime.start import start

PACKAGES = ("convae", "tensorflow", "keras", "numpy", "matplotlib", "pydantic")
# What TensorFlow's CPU kernels use, and what each is good for.
FEATURES = {
    "avx2": "float32 vectors of 8",
    "avx512f": "float32 vectors of 16",
    "avx512_bf16": "bfloat16 products",
    "amx_bf16": "bfloat16 matrix tiles",
}


def report(config: str | None, overrides: Sequence[str]) -> str:
    """Return versions, the processor, the runtime's decisions for a config, and its data.

    Args:
        config: The path or name of a config; None for mnist.
        overrides: Of the config.

    Raises:
        ConfigError: If the config is wrong.
    """
    config = config or "mnist"
    settings = load_config(config, overrides)
    versions = [f"python      {platform.python_version()} on {platform.platform()}"]
    versions += [f"{package:<11} {_version(package)}" for package in PACKAGES]
    folder = Path(settings.output.folder)
    try:
        check_folder(folder)
        outputs = f"{folder}: writable"
    except FileError as error:
        outputs = str(error)
    sections = [
        versions,
        _describe_processor(),
        [f"decisions for {config}", *_describe_decisions(settings)],
        ["data", *_describe_data(settings)],
        [f"outputs     {outputs}"],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections)


def _describe_processor() -> list[str]:
    name, flags = cpu_info()
    lines = [f"processor   {name}, {core_count()} cores to use"]
    for flag, use in FEATURES.items():
        present = ("yes" if flag in flags else "no") if flags else "unknown"
        lines.append(f"  {flag:<12}{present:<9}{use}")
    return lines


def _describe_decisions(config: Config) -> list[str]:
    try:
        plan = start(config, distributed=True)
    except ConvaeError as error:
        return [f"  not possible: {error}"]
    on = os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1"
    return [
        f"  {'device_name':<18}{plan.device_name}",
        *(f"  {key:<18}{getattr(plan, key)}  ({reason})" for key, reason in plan.reasons.items()),
        *(f"  {warning}" for warning in plan.warnings),
        f"  {'oneDNN':<18}{'on' if on else 'off: set TF_ENABLE_ONEDNN_OPTS=1'}",
    ]


def _describe_data(config: Config) -> list[str]:
    try:
        data = load_training(config.data, config.model.input_shape)
    except ConvaeError as error:
        return [f"  not usable: {error}"]
    train, validation = data.train.images, data.validation.images
    shape = format_shape(train.shape[1:])
    counts = f"{data.name}: {len(train):,} + {len(validation):,} images of {shape}"
    return [f"  {line}" for line in (counts, *(data.notice or "").splitlines())]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed: pip install convae"
