"""Run programs against their tests: `python launch/verify.py input=IN.jsonl output=OUT.jsonl`.

Each line `{"response": str or "code": str, "tests": ..., "entry_point": str or null}` gains
`verdict, passed, num_passed, num_tests, seconds, detail`; `time_limit`, the problem's own seconds
of one test, may stand beside `tests` or in them. Programs run in the sandbox, on a pool of
Ray actors; see docs/sandbox.md for what it holds and for the three forms of tests.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.offline import offline_config
from conf.schema import BlockRule, ProtocolConfig, SandboxConfig, key
from launch.common.cli import main_simple
from reward.verify.protocols import execution_of
from rl.base.outputs import check_output


@dataclass(frozen=True, kw_only=True)
class VerifyArgs(ProtocolConfig):
    """What `launch/verify.py` takes."""

    input: str = key("JSON lines file with `response` or `code`, `tests` and `entry_point`")
    output: str = key(
        "JSON lines file of the same rows with verdict, passed, num_passed, num_tests, "
        "seconds, detail"
    )
    max_bad_rows: int = key(
        "malformed lines that are skipped before it stops; each keeps its line, with `error` "
        "instead of a verdict",
        0,
        ge=0,
    )
    timeout_s: float = key(
        "wall clock of one test, seconds, where its problem has no time_limit", 4.0, gt=0
    )
    early_stop: bool = key("whether a program stops at its first failed test", False)
    workers: int | None = key("sandbox actors; null is one for each core", None, ge=1)
    rule: BlockRule = key("fenced block of a response that counts as the program", "last_block")
    sandbox: SandboxConfig = key("sandbox that holds programs")


def run(args: VerifyArgs) -> int:
    """Verify the file; 1 when some program could not be run at all."""
    output = check_output(args.output, "FILE.jsonl")
    execution = execution_of(args.sandbox, args)
    from actors.jobs.verifying import VerifyFile, refuse_unknown, verify_file  # noqa: PLC0415

    job = VerifyFile(
        source=Path(args.input),
        target=output,
        sandbox=execution,
        timeout_s=args.timeout_s,
        early_stop=args.early_stop,
        workers=args.workers,
        rule=args.rule,
        max_bad_rows=args.max_bad_rows,
    )
    refuse_unknown(verify_file(offline_config().ray, job))
    return 0


if __name__ == "__main__":
    sys.exit(main_simple(VerifyArgs, run))
