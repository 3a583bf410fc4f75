"""GRPO with TRL, as its documentation has it: run in TRL's own environment by `what=rivals`.

    python trl_grpo.py JOB.json

Prints a JSON line after each step: `{"step", "wall_s", "cpu_s"}`, the first with `first_s`, the
seconds from the start of the process to the end of step 1. Nothing of this project is imported.
"""

# A script of another environment.
# ruff: noqa: ANN001, ANN003, ANN202, ANN204, PLC0415, T201
# pyright: basic

import json
import os
import sys
import time
from pathlib import Path

STARTED_S = time.time()


def main(job) -> None:
    """Train as the job says."""
    os.environ["OMP_NUM_THREADS"] = str(job["threads"])

    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        TrainerCallback,
    )
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(job["threads"])

    class Clock(TrainerCallback):
        """Times each step."""

        def __init__(self):
            self.wall_s = self.cpu_s = 0.0

        def on_step_begin(self, args, state, control, **kwargs):
            """Take the time."""
            self.wall_s, self.cpu_s = time.time(), time.process_time()

        def on_step_end(self, args, state, control, **kwargs):
            """Print what the step took."""
            line = {
                "step": state.global_step,
                "wall_s": time.time() - self.wall_s,
                "cpu_s": time.process_time() - self.cpu_s,
            }
            if state.global_step == 1:
                line["first_s"] = time.time() - STARTED_S
            print(json.dumps(line), flush=True)

    trainer = GRPOTrainer(
        # As they are loaded by default, in the float16 of their files, a CPU takes far longer.
        model=AutoModelForCausalLM.from_pretrained(job["policy"], dtype=torch.float32),
        reward_funcs=AutoModelForSequenceClassification.from_pretrained(
            job["reward_model"], dtype=torch.float32
        ),
        args=GRPOConfig(
            output_dir=job["output"],
            per_device_train_batch_size=job["rows"],
            gradient_accumulation_steps=job["prompts_per_step"] * job["group_size"] // job["rows"],
            num_generations=job["group_size"],
            max_completion_length=job["max_completion_tokens"],
            temperature=job["temperature"],
            learning_rate=job["lr"],
            lr_scheduler_type="constant",
            beta=job["kl_coef"],
            max_steps=job["steps"],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=job["seed"],
        ),
        train_dataset=Dataset.from_list([{"prompt": messages} for messages in job["prompts"]]),
        callbacks=[Clock()],
    )
    trainer.train()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
