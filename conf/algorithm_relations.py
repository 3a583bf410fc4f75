"""Rules between parts of the algorithm, of those that judge its answers, and of what is trained.

They say what cannot be combined, and what should not be.
"""

from __future__ import annotations

from conf.recipes import OFFLINE, ActorCriticArgs, CureArgs, is_unweighed
from conf.relation import Relation
from conf.rules.arguments import OUTSIDE_JUDGE_RELATIONS
from conf.schema import BY_SERVERS, MAX_TOP_K, Config

TAKEN_NAMES = ("reason",)  # of metrics below reward/
_UP_TO_ONE = ("sigmoid", "rank")  # shapings whose rewards of different models can be compared
_BEYOND_GROUPS = ("batch", "none")  # baselines that read no group
_TOKEN_CLIP = 0.05  # a clip range that no geometric mean of a completion's ratios reaches


def _cache_fits(config: Config) -> bool:
    cache = config.algorithm.truncated_cache_tokens
    if config.algorithm.truncated != "penalty":
        return cache is None
    return cache is not None and cache <= config.model.max_completion_tokens


def _has_length_to_settle(config: Config) -> bool:
    kind = config.algorithm.truncated
    if config.recipe in OFFLINE:
        return kind == "score"
    return kind in ("score", "mask") or not is_unweighed(config.recipe, config.recipe_args)


def _has_lists(config: Config) -> bool:
    judges = config.reward.judges.values()
    chooses = any(o.kind == "generative" and o.generative.read_out == "choice" for o in judges)
    return not chooses or config.algorithm.group_size > 1


def _of_critic(config: Config, name: str) -> str:
    """An argument of recipe=actor_critic; "none" in every other run."""
    if config.recipe != "actor_critic":
        return "none"
    return str((config.recipe_args or {}).get(name, getattr(ActorCriticArgs, name)))


def _has_long_enough(config: Config) -> bool:
    """Whether an answer can be longer than the lower bound of recipe=cure's regularised lengths."""
    args = config.recipe_args or {}
    if config.recipe != "cure" or not args.get("regularise_length"):
        return True
    bound = args.get("min_length_tokens", CureArgs.min_length_tokens)
    return bound < config.model.max_completion_tokens


def _has_addresses(config: Config) -> bool:
    url = config.reward.url or ()
    return bool(url) and all(one.startswith(("http://", "https://")) for one in url)


def _has_components(config: Config) -> bool:
    return config.reward.kind != "sum" or bool(config.reward.components)


def _has_one_model(config: Config) -> bool:
    return [one.kind for one in config.reward.judges.values()].count("rm") <= 1


def _adds_advantages(config: Config) -> bool:
    return config.reward.kind == "sum" and config.reward.combine == "normalized"


def _can_disagree(config: Config) -> bool:
    """Whether at least two models are added up, with rewards from 0 to 1."""
    reward = config.reward
    if reward.kind != "sum" or reward.disagreement_coef == 0:
        return True
    models = {n: one for n, one in reward.judges.items() if one.kind in (*BY_SERVERS, "rm")}
    return len(models) > 1 and all(
        reward.weights[name] > 0 and (one.kind == "generative" or one.shaping in _UP_TO_ONE)
        for name, one in models.items()
    )


JUDGE_RELATIONS: tuple[Relation, ...] = (
    *OUTSIDE_JUDGE_RELATIONS,
    Relation(
        path="reward.components",
        involves=("reward.kind", "reward.components"),
        rule="reward.kind=sum adds up what its components say",
        fix="give such as 'reward.components={model: {judge: rm}, form: {judge: format, "
        "weight: 0.5}}'",
        holds=_has_components,
    ),
    Relation(
        path="reward.components",
        involves=("reward.components",),
        rule="a shard holds one reward model, so at most one component has the judge rm",
        fix="serve the other one, and give judge: remote with its url",
        holds=_has_one_model,
    ),
    Relation(
        path="reward.components",
        involves=("reward.components",),
        rule=f"metrics are named reward/NAME/mean, and {', '.join(TAKEN_NAMES)} are taken",
        fix="give the component another name",
        holds=lambda c: not set(c.reward.components or ()) & set(TAKEN_NAMES),
    ),
    Relation(
        path="reward.combine",
        involves=("reward.kind", "reward.combine", "recipe"),
        rule="reward.combine=normalized adds up advantages, which recipes beside grpo make anew",
        fix="give reward.combine=sum, or recipe=grpo",
        holds=lambda c: not _adds_advantages(c) or c.recipe == "grpo",
    ),
    Relation(
        path="reward.combine",
        involves=("reward.kind", "reward.combine", "algorithm.truncated"),
        rule="what algorithm.truncated=zero and penalty take from a reward, no component has",
        fix="give algorithm.truncated=score or mask, or a component with judge: length",
        holds=lambda c: not _adds_advantages(c) or c.algorithm.truncated in ("score", "mask"),
    ),
    Relation(
        path="reward.disagreement_coef",
        involves=("reward.disagreement_coef", "reward.components"),
        rule="reward.disagreement_coef compares two or more models (rm, remote, generative) whose "
        "rewards are from 0 to 1 and weigh more than 0",
        fix="give components of them shaping: rank or sigmoid, and a positive weight",
        holds=_can_disagree,
    ),
    Relation(
        path="reward.disagreement_coef",
        involves=("reward.disagreement_coef", "reward.combine"),
        rule="reward.disagreement_coef is taken off a sum of rewards",
        fix="give reward.combine=sum",
        holds=lambda c: not _adds_advantages(c) or c.reward.disagreement_coef == 0,
    ),
    Relation(
        path="algorithm.group_size",
        involves=("reward.kind", "algorithm.group_size"),
        rule="read_out=choice compares the programs of a group, and one alone is in no list",
        fix="set algorithm.group_size=2 or more, or another reward.generative.read_out",
        holds=_has_lists,
    ),
    Relation(
        path="reward.url",
        involves=("reward.kind", "reward.url"),
        rule="reward.kind=generative and remote need addresses that begin with http:// or https://",
        fix="give reward.url=[http://HOST:8000/v1], or of a reward model http://HOST:8000",
        holds=lambda c: not c.reward.is_served or _has_addresses(c),
    ),
    Relation(
        path="reward.generative.model",
        involves=("reward.kind", "reward.generative.model"),
        rule="reward.kind=generative needs the name of the served model",
        fix="give reward.generative.model=NAME, as GET /models of the server lists it",
        holds=lambda c: c.reward.kind != "generative" or bool(c.reward.generative.model),
    ),
    Relation(
        path="reward.generative.highest",
        involves=("reward.generative.lowest", "reward.generative.highest"),
        rule="reward.generative.lowest is below reward.generative.highest",
        fix="change either",
        holds=lambda c: c.reward.generative.lowest < c.reward.generative.highest,
    ),
    Relation(
        path="reward.request.token_from",
        involves=("reward.request.token_from", "ray.env_from"),
        rule="reward.request.token_from is one of ray.env_from, so that every shard has the token",
        fix="give ray.env_from=[NAME] too",
        holds=lambda c: (
            c.reward.request.token_from is None
            or c.reward.request.token_from in (c.ray.env_from or ())
        ),
    ),
)

ALGORITHM_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="algorithm.minibatches_per_step",
        involves=("algorithm.prompts_per_step", "algorithm.minibatches_per_step"),
        rule="algorithm.minibatches_per_step divides algorithm.prompts_per_step",
        fix="a minibatch holds whole groups: change either",
        holds=lambda c: c.algorithm.prompts_per_step % c.algorithm.minibatches_per_step == 0,
    ),
    Relation(
        path="algorithm.group_size",
        involves=("algorithm.group_size", "algorithm.advantage_baseline"),
        rule="a group of one has nothing to be compared with but the batch",
        fix="set algorithm.advantage_baseline=batch or none, or algorithm.group_size=2 or more",
        holds=lambda c: (
            c.algorithm.group_size > 1 or c.algorithm.advantage_baseline in _BEYOND_GROUPS
        ),
    ),
    Relation(
        path="algorithm.advantage_baseline",
        involves=("algorithm.advantage_baseline", "algorithm.advantage_scale"),
        rule="ranks are those in the group, so advantage_scale=rank has the baseline of the group",
        fix="set algorithm.advantage_baseline=group, or another algorithm.advantage_scale",
        holds=lambda c: (
            c.algorithm.advantage_scale != "rank" or c.algorithm.advantage_baseline == "group"
        ),
    ),
    Relation(
        path="algorithm.advantage_baseline",
        involves=("algorithm.advantage_baseline", "algorithm.advantage_scale"),
        rule="the distance to the mean of the batch, or to 0, is no multiple of a group's spread",
        fix="set algorithm.advantage_scale=batch_std or none, or another baseline",
        holds=lambda c: (
            c.algorithm.advantage_scale != "group_std"
            or c.algorithm.advantage_baseline not in _BEYOND_GROUPS
        ),
    ),
    Relation(
        path="algorithm.num_refills",
        involves=("algorithm.num_refills", "algorithm.min_spread"),
        rule="which groups teach nothing says algorithm.min_spread",
        fix="set algorithm.min_spread, e.g. 0 for groups whose scores are all equal",
        holds=lambda c: c.algorithm.num_refills == 0 or c.algorithm.min_spread is not None,
    ),
    Relation(
        path="algorithm.min_spread",
        involves=("algorithm.min_spread", "recipe", "recipe_args"),
        rule="recipes that imitate or prefer answers weigh no rewards, and leave no problem out",
        fix="set algorithm.min_spread=null, or a recipe that learns from rewards",
        holds=lambda c: (
            c.algorithm.min_spread is None
            or c.recipe == "aletheia"  # leaves them out whatever it learns from the others
            or not is_unweighed(c.recipe, c.recipe_args)
        ),
    ),
    Relation(
        path="algorithm.truncated",
        involves=("algorithm.truncated", "reward.kind", "reward.shaping"),
        rule="raw scores of a reward model have no zero: a reward of 0 may be the best of a group",
        fix="set algorithm.truncated=mask, or another reward.shaping",
        holds=lambda c: (
            c.algorithm.truncated != "zero"
            or c.reward.shaping not in ("raw", "clip")
            or not c.reward.uses_model
        ),
    ),
    Relation(
        path="algorithm.truncated",
        involves=("algorithm.truncated", "reward.kind"),
        rule="a weighted sum has no zero: a reward of 0 may be the best of a group",
        fix="set algorithm.truncated=mask or penalty",
        holds=lambda c: c.algorithm.truncated != "zero" or c.reward.kind != "sum",
    ),
    Relation(
        path="algorithm.truncated",
        involves=("algorithm.truncated", "recipe", "recipe_args"),
        rule="answers that are imitated or preferred have no reward to lose for their length, and "
        "given ones were not cut off here",
        fix="set algorithm.truncated=score, or mask where answers are sampled",
        holds=_has_length_to_settle,
    ),
    Relation(
        path="algorithm.truncated_cache_tokens",
        involves=(
            "algorithm.truncated",
            "algorithm.truncated_cache_tokens",
            "model.max_completion_tokens",
        ),
        rule=(
            "truncated_cache_tokens belongs to algorithm.truncated=penalty, and is at most the "
            "longest completion"
        ),
        fix="set algorithm.truncated_cache_tokens, e.g. to a fifth of model.max_completion_tokens",
        holds=_cache_fits,
    ),
    Relation(
        path="algorithm.dual_clip",
        involves=("algorithm.dual_clip", "algorithm.surrogate"),
        rule="algorithm.dual_clip bounds the surrogate clip, and no other",
        fix="set algorithm.dual_clip=null, or algorithm.surrogate=clip",
        holds=lambda c: c.algorithm.dual_clip is None or c.algorithm.surrogate == "clip",
    ),
    Relation(
        path="algorithm.kl_gradient",
        involves=("algorithm.kl_gradient", "algorithm.kl_kind"),
        rule="the expectation of k2 is no KL, so its gradient is not that of one",
        fix="set algorithm.kl_kind=k1 or k3, or algorithm.kl_gradient=estimator",
        holds=lambda c: c.algorithm.kl_gradient == "estimator" or c.algorithm.kl_kind != "k2",
    ),
    Relation(
        path="algorithm.tis_cap",
        involves=("algorithm.tis_cap", "algorithm.max_staleness"),
        rule="stale rollouts (algorithm.max_staleness > 0) need algorithm.tis_cap",
        fix="set algorithm.tis_cap=2.0, or algorithm.max_staleness=0",
        holds=lambda c: c.algorithm.max_staleness == 0 or c.algorithm.tis_cap is not None,
    ),
    Relation(
        path="algorithm.advantage_baseline",
        involves=("recipe", "recipe_args", "algorithm.advantage_baseline"),
        rule="the value of a problem is the same for its whole group, whose mean cancels it",
        fix="set algorithm.advantage_baseline=none or batch, or recipe_args.critic=none",
        holds=lambda c: (
            _of_critic(c, "critic") == "none" or c.algorithm.advantage_baseline in _BEYOND_GROUPS
        ),
    ),
    Relation(
        path="algorithm.tis_cap",
        involves=("recipe", "recipe_args", "algorithm.tis_cap"),
        rule="replayed programs are of older policies, which algorithm.tis_cap corrects for",
        fix="set algorithm.tis_cap=2.0, or recipe_args.replay=none",
        holds=lambda c: _of_critic(c, "replay") == "none" or c.algorithm.tis_cap is not None,
    ),
    Relation(
        path="recipe_args.min_length_tokens",
        involves=("recipe", "recipe_args", "model.max_completion_tokens"),
        rule="answers below the lower bound of lengths are never too long, so that none teaches",
        fix="set recipe_args.min_length_tokens well below model.max_completion_tokens, e.g. to 1",
        holds=_has_long_enough,
    ),
    Relation(
        path="algorithm.max_staleness",
        involves=("algorithm.max_staleness", "placement.colocate"),
        rule="groups that share a device take turns, so placement.colocate needs max_staleness 0",
        fix="set algorithm.max_staleness=0, or choose a placement that does not colocate",
        holds=lambda c: not c.placement.colocate or c.algorithm.max_staleness == 0,
    ),
)

LORA_RELATIONS: tuple[Relation, ...] = (
    Relation(
        path="policy.lora.rank",
        involves=("policy.lora.rank", "loop.enabled"),
        rule="the loop trains a policy from nothing, which has no weights for adapters to add to",
        fix="set policy.lora.rank=0, or loop.enabled=false",
        holds=lambda c: c.policy.lora.rank == 0 or not c.loop.enabled,
    ),
    Relation(
        path="policy.lora.layers",
        involves=("policy.lora.rank", "policy.lora.layers"),
        rule="policy.lora.layers names the layers of adapters, so it needs policy.lora.rank",
        fix="set policy.lora.rank, e.g. to 32, or leave out policy.lora.layers",
        holds=lambda c: c.policy.lora.rank > 0 or c.policy.lora.layers is None,
    ),
)

ALGORITHM_CAUTIONS: tuple[Relation, ...] = (
    Relation(
        path="algorithm.kl_kind",
        involves=("algorithm.kl_kind", "algorithm.kl_gradient", "algorithm.kl_coef"),
        rule="k1 as a loss has a gradient of expectation zero: it adds noise and restrains nothing",
        fix="set algorithm.kl_gradient=expectation, or algorithm.kl_kind=k2 or k3",
        holds=lambda c: (
            c.algorithm.kl_coef == 0
            or c.algorithm.kl_kind != "k1"
            or c.algorithm.kl_gradient == "expectation"
        ),
    ),
    Relation(
        path="algorithm.advantage_scale",
        involves=("algorithm.advantage_scale", "reward.kind"),
        rule="advantage_scale=none compares rewards of a hybrid's two judges, whose units differ",
        fix="set algorithm.advantage_scale=batch_std, which scales each judge's groups apart",
        holds=lambda c: c.reward.kind != "hybrid" or c.algorithm.advantage_scale != "none",
    ),
    Relation(
        path="algorithm.clip_eps_high",
        involves=(
            "algorithm.ratio_level",
            "algorithm.surrogate",
            "algorithm.clip_eps_low",
            "algorithm.clip_eps_high",
        ),
        rule=(
            "a geometric mean of a completion's ratios stays close to 1: clip ranges that are made "
            "for tokens never bind it"
        ),
        fix="set e.g. algorithm.clip_eps_low=3e-4 algorithm.clip_eps_high=4e-4 (algorithm=gspo)",
        holds=lambda c: (
            c.algorithm.ratio_level != "geometric"
            or c.algorithm.surrogate == "sapo"
            or c.algorithm.clip_eps_high < _TOKEN_CLIP
        ),
    ),
    Relation(
        path="algorithm.loss_aggregation",
        involves=("algorithm.ratio_level", "algorithm.loss_aggregation"),
        rule="the ratio of a whole completion, summed over its tokens, counts long ones more often",
        fix="set algorithm.loss_aggregation=sequence_mean",
        holds=lambda c: (
            c.algorithm.ratio_level == "token" or c.algorithm.loss_aggregation == "sequence_mean"
        ),
    ),
    Relation(
        path="rollout.top_p",
        involves=("rollout.top_p", "rollout.top_k", "algorithm.max_staleness"),
        rule=(
            "truncated sampling whose tokens are not recorded biases the importance ratio, more so "
            f"with stale rollouts: only a rollout.top_k of 1 to {MAX_TOP_K} is recorded"
        ),
        fix="set e.g. rollout.top_k=20 beside rollout.top_p, or rollout.top_p=1 rollout.top_k=-1",
        holds=lambda c: c.rollout.is_exact,
    ),
)
