"""Verifiers, built from the configuration."""

from __future__ import annotations

from conf.schema import ExecutionConfig, SandboxConfig
from reward.sandbox.levels import Level
from reward.sandbox.pool import Confinement, Limits, choose_level
from reward.verify.protocols import protocol_named
from reward.verify.verdict import Verifier


def make_verifier(
    cfg: ExecutionConfig, timeout_s: float, workers: int = 1, *, early_stop: bool = False
) -> Verifier:
    """A verifier that holds and judges programs as the configuration says.

    Raises:
        UserError: where the machine does not reach `sandbox.min_level`.
    """
    limits = sandbox_limits(cfg, timeout_s)
    return Verifier(
        workers,
        early_stop=early_stop,
        limits=limits,
        config=_confinement(cfg),
        protocol=protocol_named(cfg.protocol, cfg.tolerance),
    )


def sandbox_limits(cfg: SandboxConfig, timeout_s: float) -> Limits:
    """What one program may take."""
    return Limits(
        wall_s=timeout_s,
        total_s=cfg.total_s,
        memory_bytes=cfg.memory_mib << 20,
        output_bytes=cfg.output_mib << 20,
        scratch_bytes=cfg.scratch_mib << 20,
        processes=cfg.processes,
    )


def check_sandbox(cfg: SandboxConfig) -> Level:
    """The level that programs will be held with here. Raises UserError where that is too low."""
    return choose_level(_confinement(cfg))


def _confinement(cfg: SandboxConfig) -> Confinement:
    level = None if cfg.level is None else Level(cfg.level)
    return Confinement(level=level, min_level=Level(cfg.min_level), trusted=cfg.trusted)
