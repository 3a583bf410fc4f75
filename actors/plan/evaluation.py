"""Evaluation of a policy, planned: what is asked is checked, lengths and layout are chosen.

Nothing here loads an engine; each check is slower than the one before.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

from actors.cluster.bundles import local_gpus
from actors.plan.checks.engine_support import EngineNeeds, check_engine, device_of, dtype_of
from conf.commands.benchmark import EvaluationArgs
from conf.errors import DataError, UserError
from conf.offline import offline_config
from conf.schema import MIN_TEMPERATURE, Config
from reward.model.files import check_has_template, check_policy, context_of
from reward.verify.protocols import execution_of
from rl.base.outputs import check_output
from rl.problems.datasets import read_problems, source_named
from rl.problems.minipy import make_prompts
from rl.problems.prompts import load_prompts, parse_tests
from rl.text.chat_template import read_template
from rl.types import Prompt

# The authors' settings (CodeScaler, eval.py), where the model's context allows them.
MAX_PROMPT_TOKENS = 4096
MAX_TOKENS = 16384
NUM_MINIPY = 120
_MAX_FAULTS_SHOWN = 20


def check_arguments(args: EvaluationArgs) -> tuple[int, ...]:
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
    execution_of(args.sandbox, args)
    check_output(args.output, "FILE.json")
    return ks


def check_model(args: EvaluationArgs, name: str = "model") -> tuple[int, int]:
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


def read_benchmark(args: EvaluationArgs) -> tuple[Prompt, ...]:
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


def configure(args: EvaluationArgs, max_prompt_tokens: int, max_tokens: int) -> Config:
    """The configuration of the rollout actors; the other groups are not started."""
    placement, engines = choose_layout(args)
    on_cpu = placement == "laptop"
    base = offline_config({"placement": placement, "rollout": "cpu" if on_cpu else "gpu"})
    gpus = 0.0 if on_cpu else float(args.tensor_parallel)
    return replace(
        base,
        seed=args.seed,
        sandbox=execution_of(args.sandbox, args),
        model=replace(
            base.model,
            path=args.model,
            dtype=dtype_of(args.dtype, placement),
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


def choose_layout(args: EvaluationArgs) -> tuple[str, int]:
    """The placement and the number of engines; raises UserError when they cannot be chosen."""
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


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
