#!/usr/bin/env bash
# vLLM on a CPU: a weight update of a mixture of experts changes what the model says, even when the
# weights that are sent are those that it holds already.
#
# Guess: reloading the very same weights through vLLM's layerwise reload (what its weight-transfer
#   API uses) leaves every log-prob as it was, for Qwen3-MoE as for Qwen3.
# Seen: Qwen3 stays equal to the last bit or so; Qwen3-MoE is more than 1 nat away, in silence. The
#   experts are packed for the CPU kernel only when that kernel is built for the first time
#   (UnquantizedFusedMoEMethod._setup_kernel); an update copies plain weights over packed ones, which
#   have as many numbers.
# Version: vllm-cpu 0.32.0, torch 2.13.0 (CPU), transformers 5.19.0; x86-64, Python 3.11.
# Hurt: whoever trains a mixture of experts with reinforcement learning and samples on CPUs, in tests
#   above all: the run goes on, and learns from samples of another model.
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

cat > reload.py <<'PY'
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
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3MoeConfig
from vllm import LLM, SamplingParams
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

SMALL = dict(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=256,
    dtype="float32",
)
config = (
    Qwen3MoeConfig(
        **SMALL, moe_intermediate_size=64, num_experts=4, num_experts_per_tok=2
    )
    if sys.argv[1] == "moe"
    else Qwen3Config(**SMALL)
)
torch.manual_seed(1)
model = AutoModelForCausalLM.from_config(config)
with torch.no_grad():
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.08)
model.save_pretrained("model-" + sys.argv[1])

llm = LLM(
    "model-" + sys.argv[1],
    dtype="float32",
    skip_tokenizer_init=True,
    enforce_eager=True,
    max_model_len=128,
    max_num_seqs=4,
    distributed_executor_backend="uni",
    enable_prefix_caching=False,
)
prompt = {"prompt_token_ids": list(range(20, 60))}
how = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)


def logprobs():
    (output,) = llm.generate([prompt], how, use_tqdm=False)
    return torch.tensor(
        [at[t].logprob for at, t in zip(output.prompt_logprobs[1:], prompt["prompt_token_ids"][1:])]
    )


def reload(worker):
    held = worker.model_runner.model
    initialize_layerwise_reload(held)
    held.load_weights((name, p.detach().clone()) for name, p in model.named_parameters())
    finalize_layerwise_reload(held, worker.model_config)


def plain():
    ids = torch.tensor([prompt["prompt_token_ids"]])
    with torch.no_grad():
        said = model.eval()(ids).logits[0, :-1].log_softmax(-1)
    return said.gather(-1, ids[0, 1:, None])[:, 0]


before = logprobs()
llm.llm_engine.collective_rpc(reload)
after = logprobs()
print(f"vllm {vllm.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")
print(f"{sys.argv[1]}: before the update {float((before - plain()).abs().max()):.1e} from plain "
      f"transformers, after it {float((after - plain()).abs().max()):.1e}", flush=True)
moved = float((before - after).abs().max())
os._exit(0 if (moved > 0.1) == (sys.argv[1] == "moe") else 1)
PY

status=0
for kind in dense moe; do
    venv/bin/python reload.py "$kind" 2>errors.txt || status=1
done
if [ "$status" = 1 ]; then
    echo "the behaviour has changed"
    tail -5 errors.txt
fi
exit "$status"
