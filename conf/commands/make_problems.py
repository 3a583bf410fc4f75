"""The arguments of `launch/make_problems.py`."""

from __future__ import annotations

from dataclasses import dataclass

from conf.errors import UserError
from conf.schema import MIN_TEMPERATURE, SandboxConfig, key


@dataclass(frozen=True, kw_only=True)
class MakeProblemsArgs:
    """What `launch/make_problems.py` takes."""

    output: str = key("directory of problems.parquet and card.json; those there are replaced")
    num: int = key("problems that are made; the filters keep a part", 400, ge=1)
    num_parents: int = key("training problems of minipy that are recombined", 120, ge=1)
    ambiguous: float = key("share that is planted with two readings", 0.2, ge=0, le=1)
    outside: float = key(
        "share that is planted well posed, but of a form that no training problem has",
        0.2,
        ge=0,
        le=1,
    )
    held_out: tuple[str, ...] = key(
        "canonical parquet files whose statements must not be made, such as a probe's; those of "
        "minipy's held-out split and probe never are",
        (),
    )
    policy: str = key("directory or hub id of the policy that solves them", "assets/minipy/policy")
    num_samples: int = key("programs per problem, M", 8, ge=2)
    temperature: float = key("sampling temperature", 1.0, ge=MIN_TEMPERATURE)
    num_inputs: int = key("inputs on which the programs of a problem are run", 8, ge=1)
    min_agreement: int = key("programs that must agree on all inputs, at least", 5, ge=1)
    delta_band: tuple[float, float] = key(
        "band of delta, which is 1 - mean share of the most frequent output, in which a problem is "
        "kept; the largest possible delta is outside",
        (0.05, 0.4),
        ge=0,
        le=1,
    )
    test_timeout_s: float = key("wall clock of one input, seconds", 4.0, gt=0)
    sandbox: SandboxConfig = key("sandbox that holds programs")
    seed: int = key("seed of everything random", 0, ge=0)


def check_bounds(args: MakeProblemsArgs) -> None:
    """Refuse bounds that contradict each other.

    Raises:
        UserError: naming the key, the bound and a value that holds.
    """
    if args.min_agreement > args.num_samples:
        raise UserError(
            f"min_agreement={args.min_agreement}: of num_samples={args.num_samples} programs no "
            f"more can agree; give min_agreement={args.num_samples} or less"
        )
    low, high = args.delta_band
    most = 1 - 1 / args.num_samples
    if not low <= high < most:
        raise UserError(
            f"delta_band={low:g},{high:g}: must rise and end below {most:g}, where no two of "
            f"num_samples={args.num_samples} programs agree; give delta_band=0.05,0.4"
        )
    if args.ambiguous + args.outside > 1:
        raise UserError(
            f"ambiguous={args.ambiguous:g}: is more than outside={args.outside:g} leaves; both "
            "shares add up to at most 1, so lower either"
        )
