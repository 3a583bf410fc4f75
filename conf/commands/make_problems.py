"""The arguments of `launch/make_problems.py`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from conf.errors import UserError
from conf.schema import MIN_TEMPERATURE, AdapterName, RequestConfig, SandboxConfig, key


@dataclass(frozen=True, kw_only=True)
class MakeProblemsArgs:
    """What `launch/make_problems.py` takes."""

    output: str = key("directory of problems.parquet and card.json; those there are replaced")
    num: int = key("problems that are made; the filters keep a part", 400, ge=1)
    data: str | None = key(
        "canonical parquet of problems that a writer makes new ones of; null recombines minipy's",
        None,
    )
    writer: str = key(
        "who writes (with data): policy, or the address of a server with OpenAI's paths, such as "
        "http://HOST:8000/v1",
        "policy",
    )
    writer_model: str | None = key("name under which the server of writer offers its model", None)
    writer_max_tokens: int = key("longest answer of the writer, in tokens (with data)", 1024, ge=1)
    writer_request: RequestConfig = key("requests to the server of writer")
    num_concepts: int = key(
        "concepts of a walk, each with a known problem that is shown to the writer (with data)",
        3,
        ge=1,
    )
    ngram: int = key(
        "words in a row that a statement may not have in common with a held-out one; of a shorter "
        "statement all its words (with data)",
        13,
        ge=1,
    )
    num_parents: int = key(
        "training problems of minipy that are recombined (without data)", 120, ge=1
    )
    combine: Literal["uniform", "walk"] = key(
        "what is combined: parts of training problems that are drawn uniformly, or those of a walk "
        "over the concepts that occur together in them (without data)",
        "uniform",
    )
    ambiguous: float = key(
        "share that is planted with two readings (without data)", 0.2, ge=0, le=1
    )
    outside: float = key(
        "share that is planted well posed, but of a form that no training problem has (without "
        "data)",
        0.2,
        ge=0,
        le=1,
    )
    held_out: str | None = key(
        "canonical parquet whose statements must not be made, such as a probe's; those of minipy's "
        "held-out combinations never are",
        None,
    )
    policy: str = key("directory or hub id of the policy that solves them", "assets/minipy/policy")
    num_samples: int = key("programs per problem, M", 8, ge=2)
    temperature: float = key("sampling temperature", 1.0, ge=MIN_TEMPERATURE)
    max_tokens: int | None = key(
        "longest program with its reasoning, in tokens; null is what the policy's context has "
        "left, at most 16384",
        None,
        ge=1,
    )
    max_prompt_tokens: int | None = key(
        "longest problem or request to the policy, in tokens; null is half its context, at most "
        "4096",
        None,
        ge=1,
    )
    num_inputs: int = key(
        "inputs on which the programs of a problem are run; a writer is asked for them, and half "
        "of them are enough",
        8,
        ge=1,
    )
    min_agreement: int = key("programs that must agree on all inputs, at least", 5, ge=1)
    min_delta: float = key(
        "smallest delta that is kept: 1 - mean share of the most frequent output; 0 is unanimity",
        0.05,
        ge=0,
        le=1,
    )
    max_delta: float = key(
        "largest delta that is kept; less than that of programs of which no two agree",
        0.4,
        ge=0,
        le=1,
    )
    reward_model: str | None = key(
        "directory or hub id of a reward model that scores the programs; null leaves problems out "
        "by agreement and delta alone",
        None,
    )
    min_gap: float = key(
        "smallest gap that is kept: mean score of the programs that agree, less the best score of "
        "the others (with reward_model)",
        2.0,
    )
    adapter: AdapterName = key(
        "family of the reward model: template, system prompt, read-out", "sequence_classifier"
    )
    rm_max_tokens: int | None = key(
        "context of the reward model, problem and program, in tokens; null is the model's own, at "
        "most 4096",
        None,
        ge=8,
    )
    rm_system: str | None = key(
        "file with the system turn that the family was trained with, in place of the adapter's",
        None,
    )
    test_timeout_s: float = key("wall clock of one input, seconds", 4.0, gt=0)
    sandbox: SandboxConfig = key("sandbox that holds programs")
    seed: int = key("seed of everything random", 0, ge=0)


def check_writer(args: MakeProblemsArgs) -> None:
    """Refuse a writer that is none, or that is not wholly named.

    Raises:
        UserError: naming the key, its value and what to give.
    """
    writer, is_served = args.writer, args.writer.startswith(("http://", "https://"))
    token = args.writer_request.token_from
    if writer != "policy" and not is_served:
        raise UserError(
            f"writer={writer}: is neither policy nor an address; give writer=policy, or the "
            "address of a server such as writer=http://HOST:8000/v1"
        )
    if is_served and args.data is None:
        raise UserError(
            f"writer={writer}: needs known problems to go by; give data=FILE, a canonical parquet "
            "of launch/prepare_data.py"
        )
    if is_served != (args.writer_model is not None):
        raise UserError(
            f"writer_model={args.writer_model or 'null'}: is the name of a served model, and "
            f"writer={writer}; give both an address and a name, or neither"
        )
    if token is not None and not os.environ.get(token):
        raise UserError(
            f"writer_request.token_from={token}: the environment has no such variable; export it "
            "before the command"
        )


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
    most = 1 - 1 / args.num_samples
    if not args.min_delta <= args.max_delta < most:
        raise UserError(
            f"max_delta={args.max_delta:g}: must be at least min_delta={args.min_delta:g} and "
            f"below {most:g}, where no two of num_samples={args.num_samples} programs agree; give "
            "min_delta=0.05 max_delta=0.4"
        )
    if args.ambiguous + args.outside > 1:
        raise UserError(
            f"ambiguous={args.ambiguous:g}: is more than outside={args.outside:g} leaves; both "
            "shares add up to at most 1, so lower either"
        )
