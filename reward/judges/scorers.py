"""Scorers of served judges, by `reward.kind`."""

from __future__ import annotations

from conf.schema import RewardConfig
from reward.judges.endpoints import Endpoints
from reward.judges.generative import GenerativeScorer
from reward.judges.remote import RemoteScorer
from reward.judges.served import Scorer

_SHARE = 0.8  # of `reward.deadline_s`: a request fails before its shard counts as silent


def make_scorer(cfg: RewardConfig) -> Scorer:
    """Whoever asks the servers that the configuration names."""
    servers = Endpoints(cfg.url or (), cfg.request, _SHARE * cfg.deadline_s)
    if cfg.kind == "remote":
        return RemoteScorer(cfg, servers)
    return GenerativeScorer(cfg.generative, servers)
