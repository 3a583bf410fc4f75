"""Evaluate a policy: `python launch/evaluate.py model=DIR benchmark=NAME output=OUT.json`.

vLLM rollout actors sample, every program is run against the tests of its problem, and OUT.json has
pass@k and avg@n with intervals. Every sample is kept beside it; the same command resumes.
docs/evaluation.md describes keys and files.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from actors.plan.engine_support import EngineNeeds, check_engine, device_of
from conf.errors import DataError, UserError
from conf.schema import MIN_TEMPERATURE, Config, key
from launch.common.arguments import BenchmarkArgs
from launch.common.cli import compose_config, main_simple
from launch.common.outputs import check_output
from reward.model.files import check_has_template, check_policy, context_of, is_local, model_digest
from rl.problems.datasets import SOURCES, read_problems, source_named
from rl.problems.minipy import make_prompts
from rl.problems.prompts import load_prompts, parse_tests
from rl.text.chat_template import read_template
from rl.types import Prompt, SamplingConfig

if TYPE_CHECKING:
    from actors.jobs.benchmark import Benchmark

# The authors' settings (CodeScaler, eval.py), where the model's context allows them.
MAX_PROMPT_TOKENS = 4096
MAX_TOKENS = 16384
NUM_MINIPY = 120
_MAX_FAULTS_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs(BenchmarkArgs):
    """What `launch/evaluate.py` takes."""

    model: str = key("directory or hub id of the policy")
    benchmark: str = key(
        f"minipy (its held-out problems), {', '.join(SOURCES)}, or parquet for canonical rows"
    )
    output: str = key("JSON file of the figures; OUT.samples.jsonl beside it has every sample")
    num_samples: int = key("completions per problem", 8, ge=1)
    ks: tuple[int, ...] | None = key(
        "values of k for pass@k; null is 1 and num_samples", None, ge=1
    )
    temperature: float = key("sampling temperature; 0 is greedy, with num_samples=1", 0.6, ge=0)
    top_p: float = key("nucleus of sampling", 0.95, gt=0, le=1)
    seed: int = key("seed of sampling and intervals", 0, ge=0)
    test_workers: int | None = key(
        "programs that run at once; null is half the cores of this machine", None, ge=1
    )


def run(args: EvaluateArgs) -> None:
    """Check what can be checked without an engine, then evaluate."""
    # Each check is slower than the one before, so that bad input is refused at once.
    ks = check_arguments(args)
    max_prompt_tokens, max_tokens = check_model(args)
    problems = read_benchmark(args)
    cfg = configure(args, max_prompt_tokens, max_tokens)
    benchmark = plan(args, cfg, problems, ks)
    from actors.jobs.benchmark import run_benchmark  # noqa: PLC0415 - after the arguments are good
    from actors.plan.rehearsal import rehearse  # noqa: PLC0415

    rehearse(args.model, "model", "lm", num_tokens=max_prompt_tokens + max_tokens)
    run_benchmark(cfg, benchmark, Path(args.output))


def check_arguments(args: EvaluateArgs) -> tuple[int, ...]:
    """The ks of pass@k in order; raises UserError for keys that contradict each other."""
    ks = tuple(sorted(set(args.ks or (1, args.num_samples))))
    if ks[-1] > args.num_samples:
        raise UserError(
            f"ks: pass@{ks[-1]} needs num_samples >= {ks[-1]}, and num_samples={args.num_samples}; "
            "lower ks or sample more"
        )
    if args.temperature == 0 and args.num_samples > 1:
        raise UserError(
            f"temperature: 0 gives num_samples={args.num_samples} equal answers; set num_samples=1 "
            "or a temperature above 0"
        )
    if 0 < args.temperature < MIN_TEMPERATURE:
        raise UserError(
            f"temperature={args.temperature}: the engine samples at {MIN_TEMPERATURE} where less "
            f"is asked for; give temperature=0 num_samples=1, or {MIN_TEMPERATURE} and above"
        )
    args.execution(args.sandbox)
    check_output(args.output, "FILE.json")
    return ks


def check_model(args: EvaluateArgs, name: str = "model") -> tuple[int, int]:
    """Tokens of the longest prompt and of the longest completion; refuses what is no policy."""
    directory = check_policy(args.model, name)
    if directory is None:
        return args.max_prompt_tokens or MAX_PROMPT_TOKENS, args.max_tokens or MAX_TOKENS
    if args.chat_template is None:
        check_has_template(directory, name, "give chat_template=FILE with a Jinja template")
    check_engine(directory, name, EngineNeeds("generate", device_of(choose_layout(args)[0])))
    positions = context_of(directory)
    context = positions or MAX_PROMPT_TOKENS + MAX_TOKENS
    spare = context - args.max_tokens if args.max_tokens else context // 2
    max_prompt_tokens = args.max_prompt_tokens or max(1, min(MAX_PROMPT_TOKENS, spare))
    max_tokens = args.max_tokens or max(1, min(MAX_TOKENS, context - max_prompt_tokens))
    if positions is not None and max_prompt_tokens + max_tokens > positions:
        raise UserError(
            f"max_tokens: {max_prompt_tokens} (max_prompt_tokens) + {max_tokens} (max_tokens) are "
            f"more than the {positions} positions of {args.model}; lower either"
        )
    return max_prompt_tokens, max_tokens


def read_benchmark(args: EvaluateArgs) -> tuple[Prompt, ...]:
    """The problems; raises DataError when one cannot be evaluated."""
    path = args.data.path
    if args.benchmark == "minipy":
        problems = make_prompts("eval", args.limit or NUM_MINIPY, 0)  # the split of every figure
    elif args.benchmark != "parquet":
        source_named(args.benchmark, "benchmark", ("minipy", "parquet"))
        problems = read_problems(args.benchmark, path, args.data.max_bad_rows)
    elif path is None:
        raise UserError("data.path: benchmark=parquet needs the file; give data.path=FILE")
    else:
        problems = load_prompts(path, args.data.max_bad_rows)
    chosen = tuple(problems[: args.limit])
    if not chosen:
        raise DataError(f"{path or args.benchmark}: holds no problem")
    faults: list[str] = []
    for prompt in chosen:
        try:
            if prompt.tests is None:
                raise DataError("tests: an evaluation runs tests, and there are none (null)")
            parse_tests(prompt.tests, prompt.entry_point)
        except DataError as error:
            faults.append(f"{path}:{prompt.id}:{error}")
    repeated = [name for name, count in Counter(p.id for p in chosen).items() if count > 1]
    faults += [f"{path}:{name}:id: must be unique" for name in repeated]
    if faults:
        raise DataError("\n".join(faults[:_MAX_FAULTS_SHOWN]))
    return chosen


def configure(args: EvaluateArgs, max_prompt_tokens: int, max_tokens: int) -> Config:
    """The configuration of the rollout actors; the other groups are not started."""
    placement, engines = choose_layout(args)
    on_cpu = placement == "laptop"
    base = compose_config([f"placement={placement}", f"rollout={'cpu' if on_cpu else 'gpu'}"])
    dtype = args.dtype
    if dtype == "auto":
        dtype = "float32" if on_cpu else "bfloat16"
    gpus = 0.0 if on_cpu else float(args.tensor_parallel)
    return replace(
        base,
        seed=args.seed,
        sandbox=args.execution(args.sandbox),
        model=replace(
            base.model,
            path=args.model,
            dtype=dtype,
            chat_template=read_template(args.chat_template, "chat_template"),
            max_prompt_tokens=max_prompt_tokens,
            max_completion_tokens=max_tokens,
        ),
        rollout=replace(
            base.rollout,
            engines=engines,
            tensor_parallel=args.tensor_parallel,
            max_num_seqs=args.max_num_seqs or base.rollout.max_num_seqs,
            kv_cache_gib=args.kv_cache_gib,
            cpu_threads=args.cpu_threads or max(1, num_cores() // engines),
            deadline_s=args.deadline_s,
        ),
        placement=replace(base.placement, rollout=replace(base.placement.rollout, gpus=gpus)),
    )


def choose_layout(args: EvaluateArgs) -> tuple[str, int]:
    """The placement and the number of engines; raises UserError when they cannot be chosen."""
    from actors.cluster.placement import local_gpus  # noqa: PLC0415 - loads ray

    num_gpus = local_gpus()
    placement = args.placement
    if placement == "auto":
        if os.environ.get("RAY_ADDRESS"):
            raise UserError(
                "placement: auto looks at this machine only, and RAY_ADDRESS joins a cluster; give "
                "placement=laptop, one_node or multi_node, and engines="
            )
        placement = "one_node" if num_gpus else "laptop"
    if placement == "laptop":
        if args.tensor_parallel > 1:
            raise UserError(
                f"tensor_parallel: {args.tensor_parallel} needs GPUs, and placement={placement} "
                "has none; set tensor_parallel=1"
            )
        return placement, args.engines or 1
    return placement, args.engines or max(1, num_gpus // args.tensor_parallel)


def plan(
    args: EvaluateArgs, cfg: Config, problems: tuple[Prompt, ...], ks: tuple[int, ...]
) -> Benchmark:
    """What is evaluated and how, from arguments that were checked."""
    from actors.jobs.benchmark import Benchmark  # noqa: PLC0415 - heavy
    from reward.code.extract import ExtractConfig  # noqa: PLC0415 - heavy

    template = cfg.model.chat_template
    return Benchmark(
        name=args.benchmark,
        problems=problems,
        sampling=SamplingConfig(
            group_size=args.num_samples,
            max_tokens=cfg.model.max_completion_tokens,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            seed=args.seed,
            purpose="evaluation",
        ),
        # The clock is a second bound of extraction, beside its count of work; a figure must not
        # depend on how busy the machine is.
        extraction=ExtractConfig(rule=args.rule, deadline_s=60.0),
        ks=ks,
        test_timeout_s=args.test_timeout_s,
        test_workers=args.test_workers or max(1, num_cores() // 2),
        settings={
            "benchmark": args.benchmark,
            "model": model_digest(Path(args.model)) if is_local(args.model) else args.model,
            "chat_template": template and blake2b(template.encode(), digest_size=8).hexdigest(),
            "dtype": cfg.model.dtype,
            "num_samples": args.num_samples,
            "temperature": args.temperature,
            "top_p": args.top_p,
            "top_k": args.top_k,
            "max_tokens": cfg.model.max_completion_tokens,
            "max_prompt_tokens": cfg.model.max_prompt_tokens,
            "seed": args.seed,
            "rule": args.rule,
            "test_timeout_s": args.test_timeout_s,
            "protocol": args.protocol,
            "tolerance": args.tolerance,
        },
        resume=args.resume == "auto",
    )


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(main_simple(EvaluateArgs, run))
