#!/usr/bin/env bash
# The `eval_accuracy` of trl's RewardTrainer is not the share of pairs in order: it goes by the batch size, and by how large the scores are.
#
# Guess: of 9 pairs of which 8 are in order it says 0.889, whatever the batch size, as `eval_loss` beside it does; and a model in
#   float32 is compared by its float32 scores.
# Seen: it is the mean over batches, in which a last batch of one pair counts as much as one of eight: 0.889 for batches of 1, 3
#   and 9, and 0.5 for the default of 8; `eval_margin` is 0 then. `eval_loss` is weighted. And evaluation runs under bfloat16 by
#   default, the score head too: scores around 20 are multiples of 0.125, equal ones count as wrong, and of 64 pairs that are all in
#   order in float32, 54 are. Around 0 all are.
# Version: trl 1.16.0, transformers 5.19.0, datasets 5.2.0, torch 2.13.0 (CPU); Python 3.11.
# Hurt: whoever picks a checkpoint by it (`metric_for_best_model`), or compares models that were evaluated with another batch
#   size or whose scores have another level: a Bradley-Terry loss leaves the level free.
#
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile "trl==1.16.0" "transformers==5.19.0" "datasets==5.2.0" "accelerate==1.15.0" "torch==2.13.0" "numpy==2.3.5"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/home" OMP_NUM_THREADS=1
venv/bin/python - 2>errors.txt <<'PY' || { tail -5 errors.txt; exit 1; }
import contextlib
import io
import random
import sys

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, Qwen2Config
from trl import RewardConfig, RewardTrainer

pieces = ["<eos>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
plain = Tokenizer(models.BPE(vocab={piece: idx for idx, piece in enumerate(pieces)}, merges=[]))
plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
plain.add_special_tokens(pieces[:2])
reader = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", pad_token="<pad>")
sizes = {"vocab_size": 258, "hidden_size": 64, "intermediate_size": 64, "num_labels": 1, "pad_token_id": 1}
torch.manual_seed(0)
model = AutoModelForSequenceClassification.from_config(Qwen2Config(num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, **sizes)).eval()


@torch.no_grad()
def hidden(text: str) -> torch.Tensor:
    return model.model(input_ids=torch.tensor([reader(text)["input_ids"] + [0]])).last_hidden_state[0, -1]


def in_order(one: str, other: str, *, turned: bool = False) -> dict[str, str]:
    """A pair as the model sees it in float32; or the other way around."""
    head = model.score.weight.data[0]
    better, worse = (one, other) if (hidden(one) @ head > hidden(other) @ head) != turned else (other, one)
    return {"prompt": "", "chosen": better, "rejected": worse}


def evaluated(pairs: list[dict[str, str]], batch_size: int) -> dict[str, float]:
    rows = Dataset.from_list(pairs)
    args = RewardConfig("out", per_device_eval_batch_size=batch_size, use_cpu=True, report_to=[], disable_tqdm=True)
    with contextlib.redirect_stdout(io.StringIO()):
        return RewardTrainer(model, args, processing_class=reader, train_dataset=rows, eval_dataset=rows).evaluate()


as_described = True
pairs = [in_order("x = 1\n", "yyyy = 2\n")] * 8 + [in_order("x = 1\n", "yyyy = 2\n", turned=True)]
losses = []
for batch_size in (1, 3, 8, 9):
    found = evaluated(pairs, batch_size)
    losses.append(found["eval_loss"])
    print(f"8 of 9 in order, batches of {batch_size}: accuracy {found['eval_accuracy']:.3f}, margin {found['eval_margin']:.4f}, loss {found['eval_loss']:.4f}")
    as_described &= abs(found["eval_accuracy"] - (0.5 if batch_size == 8 else 8 / 9)) < 1e-6
as_described &= max(losses) - min(losses) < 1e-3

rng = random.Random(0)
texts = [(f"x = {rng.randint(0, 9999)}\n", f"x = {rng.randint(0, 9999)}\n") for _ in range(64)]
mean = torch.stack([hidden(text) for both in texts for text in both]).mean(0)
torch.manual_seed(1)
apart = 0.05 * torch.randn(64)
apart -= mean * (apart @ mean) / (mean @ mean)
for level in (0, 20):
    model.score.weight.data = (apart + level * mean / (mean @ mean))[None]
    pairs = [in_order(one, other) for one, other in texts]
    found = evaluated(pairs, 64)
    print(f"64 of 64 in order in {model.dtype}, scores around {level}: accuracy {found['eval_accuracy']:.3f}")
    as_described &= found["eval_accuracy"] < 0.95 if level else found["eval_accuracy"] > 0.98
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PY
