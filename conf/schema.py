"""The typed configuration. YAML files only fill in values; keys, types and ranges stand here.

Each field carries its documentation and its range; `conf.validate` turns a composed configuration
into these dataclasses and reports every fault at once. Relations between fields are checked there.

One file: every key of a run, in the order of the reference.
"""

from __future__ import annotations

import os
from dataclasses import MISSING, dataclass, field, replace
from typing import Any, Literal


def key(  # noqa: PLR0913 - what can be said of a key
    doc: str,
    default: Any = MISSING,  # noqa: ANN401 - the type is that of the field
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:  # noqa: ANN401 - dataclass fields are declared with their own type
    """Declare one configuration key: what it means, its default and its range.

    Every key must be filled by some YAML file or have a default here. A number without an upper
    bound has that of its type (`conf.keys.LARGEST`).
    """
    metadata = {"doc": doc, "ge": ge, "gt": gt, "le": le, "lt": lt}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


# Choices of more than one key, or of a key and of what reads it.
Dtype = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]
PlacementName = Literal["laptop", "one_gpu", "one_node", "multi_node"]
Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
Attention = Literal["sdpa", "flash_attention_2", "flex_attention", "eager"]
SharePrefix = Literal["auto", "on", "off"]
AdvantageBaseline = Literal["group", "leave_one_out", "batch", "none"]
AdvantageScale = Literal["group_std", "batch_std", "none", "rank"]
SurrogateName = Literal["clip", "cispo", "sapo"]
Level = Literal["token", "sequence", "geometric"]
Aggregation = Literal["token_mean", "sequence_mean", "constant"]
KlKind = Literal["k1", "k2", "k3"]
KlGradient = Literal["estimator", "expectation"]
PairReference = Literal["initial", "start"]
Truncated = Literal["score", "zero", "mask", "penalty"]
ShapingKind = Literal["softplus", "raw", "clip", "sigmoid", "rank"]
Credit = Literal["binary", "pass_rate"]
Combine = Literal["sum", "normalized"]
BlockRule = Literal["single_block", "last_block"]
ProblemOrder = Literal["shuffled", "ascending", "descending"]
Reads = Literal["code", "answer"]
AdapterName = Literal["sequence_classifier", "codescaler", "acecoder", "themis"]
ProtocolName = Literal["default", "livecodebench", "cure", "taco", "evalplus"]
Resume = Literal["auto", "never"]
ProblemLevel = Literal["flat", "branchy"]
RecipeName = Literal[
    "grpo",
    "cure",
    "codrlplus",
    "sft",
    "dpo",
    "sol_ver",
    "crpe",
    "stepcoder",
    "cvedrl",
    "aletheia",
    "actor_critic",
]
# Instead of a choice: what to import, as in my_package.module:make.
ImportPath = str

BY_TESTS = ("execution", "hybrid")  # kinds of judges that run a problem's tests
BY_SERVERS = ("generative", "remote")  # kinds of judges that ask over HTTP

# vLLM samples at this where less is asked for, save for 0, which is greedy; the trainer
# would then compute log-probs of a distribution that nothing was sampled from.
MIN_TEMPERATURE = 0.01

# Actors of a group, machines, devices of one: layouts are laid out one by one.
MAX_ACTORS = 4096

# Completions of one problem.
MAX_GROUP = 65_536

# Sequences of an engine: vLLM takes no more than the tokens of a pass, which are 8,192 by default.
MAX_SEQS = 8192

# Problems that minipy makes, half a millisecond each; it has some thousands that differ.
MAX_MADE = 100_000

# Tokens that an engine can say it sampled among; the update then knows the distribution exactly.
MAX_TOP_K = 100

# The name in conf/config.yaml: a run that was given no other takes the next one that is free.
DEFAULT_NAME = "run"


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of training problems, by a name of yours below `data.sources`."""

    path: str = key("canonical parquet of its problems")
    weight: float = key("share of a step's problems, in relation to the others'", 1.0, gt=0)


@dataclass(frozen=True, kw_only=True)
class DifficultyConfig:
    """How hard each training problem is, and what a run makes of it."""

    field: str | None = key(
        "number in the meta column of every training problem, such as a pass rate; null asks for "
        "none",
        None,
    )
    low: float | None = key("smallest number of a problem that is trained on", None)
    high: float | None = key("largest number of a problem that is trained on", None)
    order: ProblemOrder = key(
        "order of the problems of an epoch: shuffled, from the smallest number to the largest, or "
        "the other way round",
        "shuffled",
    )


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Which training problems come again, by what their answers have taught in this run."""

    share: float = key(
        "share of a step's problems that are drawn by how much the rewards of their answers have "
        "differed in this run; 0 draws none",
        0.0,
        ge=0,
        le=1,
    )
    newest_weight: float = key(
        "weight of a problem's newest answers in the running mean that it is drawn by (with share)",
        0.5,
        gt=0,
        le=1,
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Problems of a run (group `data`)."""

    kind: Literal["minipy", "parquet"] | ImportPath = key(
        "source of problems: minipy generates them, parquet reads canonical rows"
    )
    args: dict[str, Any] | None = key("arguments of a data.kind from outside this tree", None)
    train_path: str | None = key("canonical parquet of training problems (kind parquet)", None)
    eval_path: str | None = key("canonical parquet of held-out problems (kind parquet)", None)
    max_bad_rows: int = key("malformed rows that are skipped before the run stops", 0, ge=0)
    level: ProblemLevel = key(
        "programs that minipy asks for: flat ones of one expression, or branchy ones with "
        "conditional statements",
        "flat",
    )
    num_train: int = key("problems generated for training (kind minipy)", 4000, ge=1, le=MAX_MADE)
    num_eval: int = key(
        "problems generated for the held-out test split (kind minipy)", 120, ge=1, le=MAX_MADE
    )
    untested_path: str | None = key(
        "canonical parquet of further training problems, without tests, as launch/make_problems.py "
        "makes them",
        None,
    )
    untested_share: float = key(
        "share of each step's problems that have no tests (with untested_path)", 0.5, gt=0, le=1
    )
    untested_from_step: int = key(
        "first step that takes problems without tests; those before it take tested ones only; 0 is "
        "the first of the run",
        0,
        ge=0,
    )
    sources: dict[str, SourceConfig] | None = key(
        "several files of training problems by names of yours, in place of train_path", None
    )
    eval_sets: dict[str, str] | None = key(
        "canonical parquets of further held-out problems, by names of yours", None
    )
    difficulty: DifficultyConfig = key("curriculum by a number of each problem")
    curriculum: CurriculumConfig = key("curriculum by the run's own success")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The policy's model (group `model`)."""

    path: str = key("directory or hub id of the initial policy")
    dtype: Dtype = key("data type of the policy's weights and activations", "bfloat16")
    chat_template: str | None = key(
        "Jinja chat template, or a file with one, in place of the tokenizer's", None
    )
    max_prompt_tokens: int = key(
        "longest prompt, in tokens; a longer one is refused before the run", ge=1
    )
    max_completion_tokens: int = key("longest completion, in tokens", ge=1)


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """The RL algorithm (group `algorithm`)."""

    kind: Literal["grpo"] | ImportPath = key(
        "family of losses; grpo is the policy gradient with advantages of groups, made of the "
        "parts below"
    )
    args: dict[str, Any] | None = key("arguments of an algorithm.kind from outside", None)
    num_steps: int = key("RL steps of the run", ge=1)
    prompts_per_step: int = key("problems sampled each step", ge=1)
    group_size: int = key("completions per problem", ge=1, le=MAX_GROUP)
    minibatches_per_step: int = key("optimizer steps per RL step", 1, ge=1)
    advantage_baseline: AdvantageBaseline = key(
        "what a reward is compared with: the mean of its group, of the others of its group, or of "
        "the batch; or nothing",
        "group",
    )
    advantage_scale: AdvantageScale = key(
        "scale of advantages: divisor of (reward - baseline), or ranks in the group", "batch_std"
    )
    std_floor: float = key(
        "lower bound of the standard deviation that divides advantages, in units of reward",
        0.05,
        gt=0,
    )
    min_spread: float | None = key(
        "largest difference of raw scores in a group of programs that teaches nothing; null: all "
        "teach",
        None,
        ge=0,
    )
    num_refills: int = key(
        "problems that are tried, one after the other, in the place of one that taught nothing",
        0,
        ge=0,
    )
    truncated: Truncated = key(
        "lesson of a completion that ran out of budget: its score; a reward of 0; none (mask); or, "
        "for any completion, a penalty that grows over the last tokens of the budget",
        "score",
    )
    truncated_cache_tokens: int | None = key(
        "last tokens of the budget, over which the penalty grows; null except with truncated "
        "penalty",
        None,
        ge=1,
    )
    truncated_penalty: float = key(
        "largest penalty of a long completion, in units of reward (truncated penalty)", 1.0, gt=0
    )
    surrogate: SurrogateName = key(
        "bound on what an update gains: clip of the ratio (PPO), of the weight of the gradient "
        "(CISPO), or a soft gate (SAPO)",
        "clip",
    )
    ratio_level: Level = key(
        "probability ratio of an update, new over old: of each token, of the whole completion, or "
        "its geometric mean (GSPO)",
        "token",
    )
    clip_eps_low: float = key(
        "lower clip range of the probability ratio; 1 is no bound", 0.2, gt=0, le=1
    )
    clip_eps_high: float = key(
        "upper clip range of the probability ratio (clip-higher)", 0.28, gt=0
    )
    dual_clip: float | None = key(
        "bound of the loss at negative advantages (dual clip); null turns it off", 3.0, gt=1
    )
    sapo_tau_pos: float = key(
        "steepness of the soft gate at positive advantages (surrogate sapo)", 1.0, gt=0
    )
    sapo_tau_neg: float = key(
        "steepness of the soft gate at other advantages (surrogate sapo)", 1.05, gt=0
    )
    loss_aggregation: Aggregation = key(
        "aggregation of the loss: mean over all completion tokens of the minibatch, mean over "
        "its sequences, or sum over a constant: the most tokens that a minibatch can have",
        "token_mean",
    )
    kl_coef: float = key(
        "weight of the KL penalty to the initial policy; 0 loads no reference", 0.0, ge=0
    )
    kl_kind: KlKind = key("estimator of the KL penalty", "k3")
    kl_gradient: KlGradient = key(
        "gradient of the KL penalty: of the estimator at the sampled tokens, or of its expectation "
        "over what the policy samples",
        "estimator",
    )
    entropy_coef: float = key(
        "weight of the entropy bonus in the loss of a token; 0 gives none", 0.0, ge=0
    )
    max_staleness: int = key(
        "policy versions that rollouts may lag; 0 is strictly on-policy", 0, ge=0
    )
    tis_cap: float | None = key(
        "cap of the truncated importance weight, trainer over engine; null turns it off", 2.0, gt=0
    )
    tis_level: Level = key(
        "importance weight of each token, of the whole completion, or its geometric mean", "token"
    )
    mismatch_bound: float | None = key(
        "largest ratio of trainer over engine, and of engine over trainer; what is beyond carries "
        "no policy gradient; null leaves nothing out",
        None,
        gt=1,
    )
    mismatch_level: Level = key(
        "ratio that mismatch_bound bounds: of each token, of the whole completion, or its "
        "geometric mean",
        "geometric",
    )


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """The vLLM engines that sample (group `rollout`)."""

    engines: int = key("rollout actors", 1, ge=1, le=MAX_ACTORS)
    tensor_parallel: int = key("GPUs of one engine", 1, ge=1)
    temperature: float = key("sampling temperature of training rollouts", 1.0, ge=MIN_TEMPERATURE)
    top_p: float = key(
        "nucleus of training rollouts; below 1 it is exact together with top_k only",
        1.0,
        gt=0,
        le=1,
    )
    top_k: int = key(
        "tokens to sample from, the most likely first, which the update then normalises over; -1 "
        "is all",
        -1,
        ge=-1,
    )
    max_num_seqs: int = key("sequences that one engine runs at once", 256, ge=1, le=MAX_SEQS)
    gpu_memory_utilization: float = key(
        "share of a GPU that a rollout engine takes", 0.85, gt=0, le=1
    )
    kv_cache_gib: float = key("KV cache of a rollout engine on a CPU, GiB", 1.0, gt=0)
    cpu_threads: int = key("threads of one engine on a CPU", 1, ge=1)
    deadline_s: float = key("longest wait for the next finished group, seconds", 600.0, gt=0)
    engine_args: dict[str, Any] | None = key(
        "further arguments of vLLM (EngineArgs) for these engines, checked by its own classes",
        None,
    )

    @property
    def is_exact(self) -> bool:
        """Whether the ranks can compute the probabilities that were sampled from."""
        return 1 <= self.top_k <= MAX_TOP_K or (self.top_p == 1 and self.top_k < 1)


@dataclass(frozen=True, kw_only=True)
class RequestConfig:
    """Requests to servers: judges of `reward.url`, or who writes problems."""

    timeout_s: float = key("longest wait for one answer of a server, seconds", 60.0, gt=0)
    tries: int = key("times that a request is sent, to any address, before the run ends", 5, ge=1)
    backoff_s: float = key(
        "pause before the second try, seconds; it doubles with each further one", 1.0, ge=0
    )
    concurrency: int = key("requests that a shard, or a command, has under way at once", 16, ge=1)
    token_from: str | None = key(
        "name of the variable with the token that the servers need; a run's is one of ray.env_from",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class ReadOutConfig:
    """How a language model is asked about programs, and what is read of its answers."""

    api: Literal["chat", "completions"] = key(
        "paths and form of requests: chat applies the model's own template", "chat"
    )
    read_out: Literal["yes_no", "score", "choice"] = key(
        "reading of a verdict: share of Yes against No in the probabilities of the first token; a "
        "number that the answer states; or how often a program is chosen from lists of its group",
        "yes_no",
    )
    prompt: str | None = key(
        "file with the text that asks about a program, with {question} and {code}; null is one of "
        "ours; a choice has its own",
        None,
    )
    max_tokens: int = key("tokens of an answer that is read as text", 512, ge=1)
    top_logprobs: int = key(
        "most likely first tokens among which Yes and No are looked for; OpenAI's completions "
        "give at most 5",
        20,
        ge=2,
        le=20,
    )
    lowest: float = key("stated number that is worth 0", 0.0)
    highest: float = key("stated number that is worth 1", 10.0)
    num_programs: int = key("programs of a list to choose from, at most", 4, ge=2, le=26)


@dataclass(frozen=True, kw_only=True)
class GenerativeConfig(ReadOutConfig):
    """A served language model that is asked about programs (kind generative)."""

    model: str | None = key("name under which the servers offer the model", None)
    rounds: int = key("lists that each program of a group is in", 2, ge=1)


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """A reward model behind HTTP (kind remote)."""

    api: Literal["codescaler", "openrlhf"] = key(
        "form of requests: that of launch/serve.py, or of OpenRLHF's servers", "codescaler"
    )
    tokenizer: str | None = key(
        "model whose chat template writes what an OpenRLHF server reads; null puts a blank line "
        "between problem and answer",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class LengthConfig:
    """How long an answer is, as a reward from 0 to 1 (component length)."""

    from_chars: int = key("characters of an answer up to which it is worth 0", 0, ge=0)
    to_chars: int = key("characters of an answer from which on it is worth 1", 4000, ge=1)


@dataclass(frozen=True, kw_only=True)
class ComponentConfig:
    """One judge of `reward=sum`, by a name of yours below `reward.components`."""

    judge: Literal["rm", "execution", "generative", "remote", "length", "format"] | ImportPath = (
        key(
            "who judges, as reward.kind has it; or length, how long the answer is; or format, 1 "
            "for an answer with exactly one fenced block, whose program parses"
        )
    )
    args: dict[str, Any] | None = key("arguments of a judge from outside this tree", None)
    weight: float = key("factor of its reward in the sum; below 0 it is a penalty", 1.0)
    shaping: ShapingKind | None = key("its shaping in place of reward.shaping", None)
    execution: Credit | None = key("its worth of tests in place of reward.execution", None)
    url: tuple[str, ...] | None = key("addresses of its servers (generative, remote)", None)
    generative: GenerativeConfig = key("served language model")
    remote: RemoteConfig = key("served reward model")
    length: LengthConfig = key("length of an answer")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Judges of code (group `reward`)."""

    kind: Literal["rm", "execution", "hybrid", "generative", "remote", "sum"] | ImportPath = key(
        "who judges: a reward model; the problem's own tests; tests where a problem has them and "
        "the model elsewhere; a served language model; a served reward model; or several of them"
    )
    args: dict[str, Any] | None = key("arguments of a reward.kind from outside this tree", None)
    model: str | None = key(
        "directory or hub id of the reward model; null with kind execution, which uses none", None
    )
    adapter: AdapterName = key(
        "family of the reward model: template, system prompt, read-out", "codescaler"
    )
    system: str | None = key(
        "file with the system turn that the family was trained with, in place of the adapter's",
        None,
    )
    golden_scores: str | None = key(
        "JSON file of scores by plain transformers that each shard compares itself with; null "
        "is golden_scores.json of the model's directory, if it has one",
        None,
    )
    dtype: Dtype = key("data type of the reward model's weights and activations", "bfloat16")
    shards: int = key(
        "data-parallel reward actors, each with its own engine (or verifier)",
        1,
        ge=1,
        le=MAX_ACTORS,
    )
    tensor_parallel: int = key("GPUs of one shard", 1, ge=1)
    max_tokens: int = key("context of the reward model, problem and code, in tokens", 4096, ge=8)
    max_num_seqs: int = key("sequences that one shard scores at once", 256, ge=1, le=MAX_SEQS)
    gpu_memory_utilization: float = key(
        "share of a GPU that a reward shard takes", 0.85, gt=0, le=1
    )
    kv_cache_gib: float = key("KV cache of a reward shard on a CPU, GiB", 0.5, gt=0)
    cpu_threads: int = key("threads of one reward shard on a CPU", 1, ge=1)
    shaping: ShapingKind = key(
        "function from the reward model's score to the reward of valid code; raw with kind "
        "execution",
        "softplus",
    )
    reads: Reads = key(
        "what of an answer with a program the reward model reads: the program, or all of the "
        "answer after its thinking",
        "code",
    )
    rule: BlockRule | ImportPath = key(
        "fenced block that counts as the program: the only one, or the last", "single_block"
    )
    rule_args: dict[str, Any] | None = key("arguments of a rule from outside this tree", None)
    ignore_think: bool = key(
        "whether thinking (<think>...</think> and the marks of other families) is dropped "
        "before the search for fences",
        True,
    )
    trivial_is_valid: bool = key(
        "whether `pass`, lone comments and bare words count as programs", False
    )
    cache_size: int = key("scores of (problem, program) kept per shard", 100_000, ge=0)
    execution: Credit = key(
        "reward of an executed program: binary is 1 when every test passes, else 0; pass_rate "
        "is the share that passes",
        "binary",
    )
    early_stop: bool = key(
        "whether a program stops at its first failed test where the reward is binary; without "
        "it rollout files hold how many tests each program passes",
        True,
    )
    test_timeout_s: float = key("wall clock of one test of an executed program, seconds", 4.0, gt=0)
    deadline_s: float = key(
        "seconds a reward shard may stay silent while it has requests", 300.0, gt=0
    )
    engine_args: dict[str, Any] | None = key(
        "further arguments of vLLM (EngineArgs) for the shards, checked by its own classes", None
    )
    url: tuple[str, ...] | None = key(
        "addresses of equal servers, with kind generative (ending in /v1) or remote", None
    )
    request: RequestConfig = key("requests to servers")
    generative: GenerativeConfig = key("served language model")
    remote: RemoteConfig = key("served reward model")
    components: dict[str, ComponentConfig] | None = key(
        "judges of kind sum, by names of yours that metrics and rollout files have too", None
    )
    combine: Combine = key(
        "what is weighed and added up (kind sum): rewards, or the advantages that each component "
        "has by itself",
        "sum",
    )
    disagreement_coef: float = key(
        "standard deviations among the rewards of models (rm, remote, generative) that a sum of "
        "rewards loses, at most down to the lowest of them (kind sum)",
        0.0,
        ge=0,
    )

    @property
    def judges(self) -> dict[str, RewardConfig]:
        """The judges of a sum by name, each as if it were alone; else this one, without a name."""
        if self.kind != "sum":
            return {"": self}
        return {name: self._alone(one) for name, one in (self.components or {}).items()}

    @property
    def weights(self) -> dict[str, float]:
        """What the judges of a sum weigh, by name; nothing for one judge."""
        return {name: one.weight for name, one in (self.components or {}).items()}

    def _alone(self, one: ComponentConfig) -> RewardConfig:
        return replace(
            self,
            kind=one.judge,
            args=one.args,
            shaping=one.shaping or self.shaping,
            execution=one.execution or self.execution,
            url=one.url,
            generative=one.generative,
            remote=one.remote,
            components=None,
        ).used

    @property
    def uses_model(self) -> bool:
        """Whether the shards hold a reward model; the others need no device."""
        return self.kind == "hybrid" or any(one.kind == "rm" for one in self.judges.values())

    @property
    def by_tests(self) -> bool:
        """Whether the tests of every problem are run."""
        return any(one.kind == "execution" for one in self.judges.values())

    @property
    def is_served(self) -> bool:
        """Whether servers of somebody else judge."""
        return self.kind in BY_SERVERS

    @property
    def shapes(self) -> bool:
        """Whether rewards are shaped scores."""
        return self.kind in ("rm", "hybrid", "remote", "sum")

    @property
    def used(self) -> RewardConfig:
        """What of it its judges read: without the model, shaping or servers of others."""
        return replace(
            self,
            model=self.model if self.uses_model else None,
            shaping=self.shaping if self.shapes else "raw",
            url=self.url if self.is_served else None,
            components=self.components if self.kind == "sum" else None,
            disagreement_coef=self.disagreement_coef if self.kind == "sum" else 0.0,
        )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters that are trained in the place of the policy's weights (LoRA)."""

    rank: int = key("rank of the adapters; 0 has none, and trains all weights", 0, ge=0)
    alpha: float = key(
        "strength of the adapters: what they add to a weight is multiplied by alpha / rank",
        32.0,
        gt=0,
    )
    layers: tuple[str, ...] | None = key(
        "layers with an adapter, by the last parts of their names, such as [q_proj,v_proj]; null "
        "is every linear layer of the blocks",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The DeepSpeed ZeRO-3 ranks that train (group `policy`)."""

    ranks: int = key("data-parallel ZeRO-3 ranks", 1, ge=1, le=MAX_ACTORS)
    lr: float = key("peak learning rate", gt=0, le=1)
    warmup_steps: int = key("linear warm-up of the learning rate, in optimizer steps", 0, ge=0)
    lr_schedule: Literal["constant", "cosine"] = key(
        "learning rate after the warm-up; cosine ends at 0", "constant"
    )
    weight_decay: float = key("weight decay of AdamW", 0.0, ge=0, le=1)
    adam_beta1: float = key("beta 1 of AdamW", 0.9, ge=0, lt=1)
    adam_beta2: float = key("beta 2 of AdamW", 0.95, ge=0, lt=1)
    grad_clip: float = key(
        "largest global gradient norm; larger gradients are scaled down", 1.0, gt=0
    )
    microbatch_tokens: int = key(
        "tokens of one forward/backward of a rank, padding included", ge=16
    )
    row_tokens: int = key(
        "tokens of one packed row; 0 packs a microbatch into a single row", 0, ge=0
    )
    attention: Attention = key(
        "attention kernel of the ranks; flash_attention_2 and flex_attention need a GPU", "sdpa"
    )
    share_prefix: SharePrefix = key(
        "whether tokens that samples of a prompt begin with are computed once; auto is where that "
        "saves a tenth of them, and off with flash attention",
        "auto",
    )
    gradient_checkpointing: bool = key(
        "whether activations are recomputed in the backward pass", False
    )
    offload_optimizer: bool = key("whether the optimizer state is kept in host memory", False)
    offload_params: bool = key("whether parameters are kept in host memory", False)
    cpu_threads: int = key("threads of one rank on a CPU", 1, ge=1)
    deadline_s: float = key(
        "longest wait for one optimizer step or publication, seconds", 900.0, gt=0
    )
    lora: LoraConfig = field(default=LoraConfig(), metadata={"doc": "adapters"})
    profile_steps: tuple[int, ...] | None = key(
        "RL steps in which torch.profiler records every rank, into profile/ of the run", None, ge=1
    )
    deepspeed: dict[str, Any] | None = key(
        "further settings of DeepSpeed, such as zero_optimization, checked by its own classes", None
    )


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """Sandbox of programs that are run: for labels, evaluation and the execution reward."""

    level: int | None = key(
        "level of the sandbox: 1 own user, 2 Landlock and seccomp, 3 namespaces, 4 gVisor; "
        "null is the highest up to 3",
        None,
        ge=0,
        le=4,
    )
    min_level: int = key("lowest level at which programs are run", 2, ge=0, le=4)
    trusted: bool = key("whether level 0 is allowed, which does not hold a program", False)
    total_s: float = key(
        "time of one program over all its tests, seconds; above 15 tests it grows", 60.0, gt=0
    )
    memory_mib: int = key("memory of one program, beyond its inputs, MiB", 1024, ge=64)
    output_mib: int = key("largest output, report or file of one test, MiB", 4, ge=1)
    scratch_mib: int = key("files that a program may write in all, MiB (from level 3)", 64, ge=1)
    processes: int = key("processes and threads of one program", 32, ge=1)


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """By whose rules programs are judged."""

    protocol: ProtocolName = key(
        "rules by which an output counts as right (docs/evaluation.md); those other than "
        "default reproduce published figures",
        "default",
    )
    tolerance: float | None = key(
        "tolerance of an expected number that is not whole, absolute or relative; null is "
        "1e-6, and with another protocol its own rule",
        None,
        ge=0,
        le=0.1,
    )


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig(ProtocolConfig, SandboxConfig):
    """Sandbox of programs, and the rules by which they are judged."""


@dataclass(frozen=True, kw_only=True)
class ResourceConfig:
    """Resources of one actor of a group."""

    cpus: float = key("CPUs of one actor; may be a fraction", 1.0, ge=0)
    gpus: float = key("GPUs of one actor; below 1 colocates groups on a device", 0.0, ge=0)


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """One machine that a layout is made for; `dry_run` plans with it where the real one is absent.

    A GPU of "80 GB" leaves programs about 79 GiB.
    """

    cpus: float = key("CPUs of one machine", 2.0, gt=0)
    gpus: int = key("GPUs of one machine", 0, ge=0, le=MAX_ACTORS)
    gpu_memory_gib: float = key("memory of one GPU, GiB", 79.0, gt=0)
    memory_gib: float = key("host memory of one machine, GiB", 16.0, gt=0)


@dataclass(frozen=True, kw_only=True)
class PlacementConfig:
    """Layout of the actors (group `placement`)."""

    kind: PlacementName = key("name of the layout")
    device: Device = key("device of the engines")
    num_nodes: int = key("machines that the layout is made for", 1, ge=1, le=MAX_ACTORS)
    colocate: bool = key("whether the groups share devices and take turns (sleep and wake)", False)
    strategy: Strategy = key("strategy by which Ray lays out the bundles of the run", "PACK")
    rollout: ResourceConfig = key("resources of one rollout actor")
    reward: ResourceConfig = key("resources of one reward shard")
    policy: ResourceConfig = key("resources of one policy rank")
    node: NodeConfig = key("one machine that the layout is made for")
    ready_timeout_s: float = key(
        "longest wait for bundles and for engines to start, seconds", 300.0, gt=0
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The held-out evaluation."""

    every: int = key(
        "steps between evaluations during the run; 0 evaluates at both ends only", 0, ge=0
    )
    num_samples: int = key("completions per held-out problem", 8, ge=1, le=MAX_GROUP)
    temperature: float = key(
        "sampling temperature of the held-out completions", 1.0, ge=MIN_TEMPERATURE
    )
    test_timeout_s: float = key(
        "wall clock of one test of the held-out evaluation, seconds", 4.0, gt=0
    )


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Held-out problems that are executed during the run, for `alarm`; never for a reward."""

    every: int = key("steps between probes; 0 turns probe and alarm off", 5, ge=0)
    num_prompts: int = key("problems of the probe", 64, ge=16, le=MAX_MADE)
    num_samples: int = key("completions per problem of the probe", 4, ge=1, le=MAX_GROUP)
    path: str | None = key(
        "canonical parquet of the probe's problems; null takes some with tests out of the "
        "training problems (kind parquet)",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class AlarmConfig:
    """The alarm: the reward climbs while the probe's pass@1 falls."""

    action: Literal["warn", "stop"] = key(
        "action of a firing alarm: warn goes on; stop ends the run with exit code 1, a "
        "checkpoint and the best policy saved",
        "warn",
    )
    false_rate: float = key(
        "bound on the chance that a run whose probe never falls fires at all", 0.05, gt=0, le=0.5
    )


@dataclass(frozen=True, kw_only=True)
class SelfCheckConfig:
    """Comparison of ranks, engines and plain transformers on a few short texts."""

    action: Literal["stop", "warn", "off"] = key(
        "action where ranks and engines differ: end the run, warn, or skip the check", "stop"
    )
    tolerance: float | None = key(
        "difference of log-probs between an engine and the ranks; null is 1e-3 in float32 (the "
        "largest) and 0.1 in bfloat16 (the mean)",
        None,
        gt=0,
    )
    mismatch_kl: float | None = key(
        "bound of rollout/mismatch_kl in a strictly on-policy run; null is 1e-3 in float32 and "
        "0.05 in bfloat16",
        None,
        gt=0,
    )
    plain_gib: float = key(
        "size of weights up to which plain transformers reads them too, on the CPU of rank 0, GiB",
        4.0,
        ge=0,
    )


@dataclass(frozen=True, kw_only=True)
class SupervisionConfig:
    """What becomes of actors that die or no longer answer."""

    restarts: int = key(
        "times within supervision.window_s that an actor which is lost is started again in its "
        "place, the policy ranks together; 0 ends the run at the first loss",
        3,
        ge=0,
    )
    window_s: float = key(
        "time after which a restart no longer counts, seconds: a long run may lose an actor now "
        "and then, but not again and again",
        3600.0,
        gt=0,
    )
    backoff_s: float = key(
        "pause before the first restart of an actor, seconds; it doubles with each further one "
        "that counts",
        1.0,
        ge=0,
    )
    straggler_factor: float | None = key(
        "times the median of a step's finished groups after which an idle engine is asked for the "
        "missing ones too, and the first answer wins; null never does that",
        4.0,
        gt=1,
    )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints and rollout files that a run keeps."""

    every: int = key("steps between checkpoints; 0 goes by the minutes alone", 0, ge=0)
    minutes: float = key(
        "minutes since the newest checkpoint after which the next step is followed by one; 0 goes "
        "by the steps alone",
        10.0,
        ge=0,
    )
    keep: int = key("checkpoints kept, newest first", 2, ge=2)
    stop_s: float = key(
        "seconds in which a run that a signal ends may finish and save its step", 60.0, ge=0
    )
    rollouts_every: int = key("steps between saved rollout files; 0 saves none", 1, ge=0)
    rollout_tokens: bool = key(
        "tokens and their log-probs in rollout files, for launch/replay.py; about 4 bytes a token",
        True,
    )


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """The page that shows the run, `report.html` in its directory."""

    every: int = key("steps between its rewrites; 0 writes it at the end only", 10, ge=0)


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """The Ray cluster."""

    address: str | None = key(
        "address of the Ray cluster to join; null joins the one in RAY_ADDRESS or starts one here",
        None,
    )
    namespace: str | None = key("Ray namespace; null takes one of the run's own", None)
    env: dict[str, str] = key("environment variables of every actor; never secrets")
    env_from: tuple[str, ...] | None = key(
        "names of variables that every actor gets from the environment of the command; their "
        "values are written nowhere",
        None,
    )

    @property
    def cluster(self) -> str | None:
        """Address of the cluster to join; None where a run starts one of its own."""
        return self.address or os.environ.get("RAY_ADDRESS") or None


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """The whole loop: policy and reward model from scratch (`experiment=whole_loop`)."""

    enabled: bool = key("whether the policy and the reward model are built before the RL", False)
    cache_dir: str = key("directory of finished stages, by content", "outputs/cache")
    export_dir: str | None = key(
        "directory to which policy and reward model are copied too, with cards", None
    )
    warm_examples: int = key("answers that the warm start learns from", 20_000, ge=64)
    warm_corrupt: float = key(
        "fraction of warm-start programs with one injected bug", 0.5, ge=0, le=1
    )
    warm_steps: int = key("optimizer steps of the warm start", 500, ge=1)
    warm_batch: int = key("answers per optimizer step of the warm start", 64, ge=1)
    warm_lr: float = key("peak learning rate of the warm start", 3e-3, gt=0, le=1)
    rlvr_steps: int = key(
        "steps of the execution-reward run that rollouts are collected from; 0 skips it",
        60,
        ge=0,
    )
    rollout_prompts: int = key("problems sampled from the warm-start policy", 1500, ge=1)
    pairs_per_prompt: int = key("preference pairs per problem at most", 6, ge=1)
    mutants_per_prompt: int = key(
        "near-miss negatives made from one passing program, at most", 2, ge=0
    )
    swaps_per_prompt: int = key(
        "negatives that are passing programs of other problems, at most", 1, ge=0
    )
    rm_epochs: int = key("passes of the reward model over the pairs", 3, ge=1)
    rm_batch: int = key("pairs per optimizer step of the reward model", 64, ge=1)
    rm_centring: float = key(
        "weight of (chosen + rejected score)^2: pairs alone leave the level of scores open",
        1e-4,
        ge=0,
    )
    rm_lr: float = key("peak learning rate of the reward model", 6e-4, gt=0, le=1)
    rm_eval_prompts: int = key("held-out problems for the pairwise accuracy", 300, ge=1)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run of `launch/train.py`."""

    experiment: str = key("name of the experiment file")
    name: str = key(
        "name of the run directory; a new run that is given none takes the first of run, run-2, "
        "run-3, ... that holds no steps"
    )
    output_dir: str = key("run directories are `output_dir/experiment/name`", "outputs")
    seed: int = key("seed of everything random", 0, ge=0)
    resume: Resume = key(
        "whether the run in the directory is continued from its newest checkpoint (auto), or a "
        "new one is started, which overwrites none (never)",
        "never",
    )
    resume_allow: tuple[str, ...] | None = key(
        "keys, or patterns such as policy.*, that a resumed run may change although its earlier "
        "steps depend on them",
        None,
    )
    overwrite: bool = key(
        "whether an earlier run of this name is moved aside, to NAME.old-DATE-TIME", False
    )
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = key(
        "additional metric sinks", ()
    )
    tracker_rows: int = key(
        "completions of each step that wandb and mlflow show in a table; 0 shows none", 0, ge=0
    )
    recipe: RecipeName | ImportPath = key(
        "what a step asks, rewards and learns: grpo is programs alone; others are published "
        "systems (docs/recipes.md)",
        "grpo",
    )
    recipe_args: dict[str, Any] | None = key("arguments of the recipe", None)
    dry_run: bool = key(
        "whether to only check and print the plan (layout, memory, what would not fit)", False
    )
    data: DataConfig = key("problems")
    model: ModelConfig = key("policy model")
    algorithm: AlgorithmConfig = key("RL algorithm")
    rollout: RolloutConfig = key("sampling engines")
    reward: RewardConfig = key("judges")
    policy: PolicyConfig = key("training ranks")
    placement: PlacementConfig = key("layout of the actors")
    sandbox: ExecutionConfig = key("sandbox of programs, and rules of judging")
    evaluation: EvaluationConfig = key("held-out evaluation")
    probe: ProbeConfig = key("held-out problems executed during the run")
    alarm: AlarmConfig = key("alarm for a hacked reward model")
    self_check: SelfCheckConfig = key("comparison of ranks and engines")
    supervision: SupervisionConfig = key("restarts of lost actors")
    checkpoint: CheckpointConfig = key("what a run keeps")
    report: ReportConfig = key("report page of the run")
    ray: RayConfig = key("Ray cluster")
    loop: PipelineConfig = key("stages of the whole loop")
