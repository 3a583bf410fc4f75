#!/usr/bin/env bash
# A reward model of trl's RewardTrainer reads another text in trl's GRPOTrainer: without the first and the last token of its training.
#
# Guess: `reward_funcs=DIRECTORY` gives prompt and completion to the model as its training gave it prompt and chosen.
# Seen: of plain text, RewardTrainer makes BOS prompt chosen EOS, and trains the score at EOS. GRPOTrainer tokenizes prompt +
#   completion with no special token, so the score is read at the last token of the text, where none was trained, and the
#   first token is missing. Of 64 held-out pairs all are in order at EOS, and 41 in GRPO; the scores of right
#   programs are 3.98 +- 0.17, and -0.92 +- 3.75. Where the tokenizer has no padding, EOS becomes the padding: it is still
#   appended, and the score is that of the token before it. Conversations are rendered by the chat template in both places.
# Version: trl 1.16.0, transformers 5.19.0, datasets 5.2.0, torch 2.13.0 (CPU); Python 3.11.
# Hurt: whoever trains a reward model on programs as plain text, and a policy by it: `eval_accuracy` is 1, rewards have a usual
#   size, and right programs are told apart by how they end. Whoever serves the model elsewhere has to know of the padding.
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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast, Qwen2Config
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

SPECIALS = ["<bos>", "<eos>", "<pad>"]
QUIET = {"use_cpu": True, "bf16": False, "report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
NAMES = {"+": "add", "-": "take", "*": "times", "/": "by"}


def tokenizer(pads: bool) -> PreTrainedTokenizerFast:
    """Bytes; texts begin with BOS, as those of Llama and Gemma."""
    pieces = SPECIALS + sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE(vocab={piece: idx for idx, piece in enumerate(pieces)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens(SPECIALS)
    plain.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    padding = {"pad_token": "<pad>"} if pads else {}
    return PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<bos>", eos_token="<eos>", **padding)


def pair(rng: random.Random) -> dict[str, str]:
    right, wrong = rng.sample("+-*/", 2)
    n = rng.randint(10, 99)
    return {"prompt": f"# {NAMES[right]} {n}\n", "chosen": f"x {right} {n}", "rejected": f"x {wrong} {n}"}


def config() -> Qwen2Config:
    sizes = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_labels": 1}
    return Qwen2Config(num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, **sizes)


def of_training(text: str) -> list[int]:
    return reader(text)["input_ids"] + [1]


def of_grpo(text: str) -> list[int]:
    return reader(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def score(model, ids: list[int]) -> float:
    return model(input_ids=torch.tensor([ids])).logits.item()


rng = random.Random(0)
pairs = [pair(rng) for _ in range(576)]
held_out = pairs[512:]
as_described = True
for pads, steps in ((True, 300), (False, 1)):
    torch.manual_seed(0)
    reader = tokenizer(pads)
    args = RewardConfig(f"rm-{pads}", max_steps=steps, learning_rate=3e-3, per_device_train_batch_size=16, per_device_eval_batch_size=64, **QUIET)
    data = {"train_dataset": Dataset.from_list(pairs[:512]), "eval_dataset": Dataset.from_list(held_out)}
    trainer = RewardTrainer(AutoModelForSequenceClassification.from_config(config()), args, processing_class=reader, **data)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
        accuracy = trainer.evaluate()["eval_accuracy"]
    trainer.save_model()
    texts = [[p["prompt"] + p[side] for side in ("chosen", "rejected")] for p in held_out]
    as_described &= trainer.eval_dataset["chosen_ids"] == [of_training(right) for right, _ in texts]

    grpo = GRPOConfig(f"policy-{pads}", per_device_train_batch_size=4, num_generations=4, max_completion_length=4, max_steps=1, **QUIET)
    prompts = Dataset.from_list([{"prompt": p["prompt"]} for p in held_out])
    policy = AutoModelForCausalLM.from_config(config())
    run = GRPOTrainer(policy, f"rm-{pads}", grpo, train_dataset=prompts, processing_class=tokenizer(True))
    read = []
    run.reward_funcs[0].register_forward_pre_hook(lambda _, args, given: read.append(given), with_kwargs=True)
    with contextlib.redirect_stdout(io.StringIO()):
        run.train()
    rows = [ids[mask == 1].tolist() for given in read for ids, mask in zip(given["input_ids"], given["attention_mask"])]
    print(f"trained on {''.join(reader.convert_ids_to_tokens(of_training(texts[0][0])))}")
    print(f"GRPO reads {''.join(reader.convert_ids_to_tokens(rows[0]))}")
    as_described &= len(rows) == 4 and all(reader.decode(row).startswith("# ") for row in rows)
    as_described &= not any(idx in row for row in rows for idx in range(len(SPECIALS)))

    model = trainer.model.eval()
    if pads:
        for name, ids in (("training", of_training), ("GRPO", of_grpo)):
            scores = torch.tensor([[score(model, ids(text)) for text in both] for both in texts])
            in_order = int((scores[:, 0] > scores[:, 1]).sum())
            print(f"{name:8} {in_order} of 64 in order; right programs {scores[:, 0].mean():.2f} +- {scores[:, 0].std():.2f}")
            as_described &= in_order == 64 if ids is of_training else in_order < 60
        as_described &= accuracy == 1.0
    else:
        ids = of_training(texts[0][0])
        print(f"without padding: score with EOS {score(model, ids):.4f}, without {score(model, ids[:-1]):.4f}, in GRPO {score(model, ids[1:-1]):.4f}")
        as_described &= abs(score(model, ids) - score(model, ids[:-1])) < 1e-5 < abs(score(model, ids) - score(model, ids[1:-1]))
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PY
