"""Serve a reward model over HTTP: `python launch/serve.py model=DIR`.

`POST /score` takes a line of `launch/score.py`, or a list of them, and returns its fields.
The requests go through the reward group of training, so a served score is a training score.
`GET /health` and `GET /metrics` report its state; docs/serving.md has the rest.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.reward_group import REWARD_KEYS, answer_config, rehearse_reward_model
from actors.serve.listening import check_address, read_token
from conf.commands.reward_model import AnswerArgs
from conf.schema import key
from launch.common.cli import main_simple


@dataclass(frozen=True, kw_only=True)
class ServeArgs(AnswerArgs):
    """What `launch/serve.py` takes."""

    host: str = key("address to listen on; one that others reach needs a token", "127.0.0.1")
    port: int = key("port to listen on", 8000, ge=1, le=65535)
    token_file: str | None = key(
        "file with the token that requests must carry; null takes CODESCALER_SERVE_TOKEN, if set",
        None,
    )
    queue: int = key("answers admitted at once; requests beyond get 429", 1024, ge=1)
    batch: int = key("answers given to a shard at once", 32, ge=1)
    max_body_bytes: int = key(
        "longest body of a request, bytes; longer ones get 413", 8_388_608, ge=1
    )
    timeout_s: float = key("longest time of one request, seconds", 60.0, gt=0)
    drain_s: float = key("longest wait at the end for requests in flight, seconds", 30.0, ge=0)


def run(args: ServeArgs) -> None:
    """Serve until a signal."""
    cfg = answer_config(args)
    token = read_token(None if args.token_file is None else Path(args.token_file))
    check_address(args.host, args.port, token)
    from actors.plan.checks.text_checks import check_reward_texts  # noqa: PLC0415 - after the arguments

    check_reward_texts(cfg.reward, REWARD_KEYS)
    from actors.serve.server import ServeConfig, serve_rewards  # noqa: PLC0415 - heavier still

    rehearse_reward_model(cfg.reward)
    serve_rewards(
        cfg,
        ServeConfig(
            host=args.host,
            port=args.port,
            token=token,
            queue=args.queue,
            batch=args.batch,
            max_body_bytes=args.max_body_bytes,
            timeout_s=args.timeout_s,
            drain_s=args.drain_s,
        ),
    )


if __name__ == "__main__":
    sys.exit(main_simple(ServeArgs, run))
