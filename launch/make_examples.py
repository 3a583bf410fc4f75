"""Given examples of minipy: `python launch/make_examples.py output=DIR num=512`.

`answers.jsonl` has prompts with right answers, for `recipe=sft`; `pairs.parquet` has preference
pairs of a right and a wrong program, for `recipe=dpo` and for reward models.
`assets/minipy/examples` is made by this command.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.commands.make_examples import MakeExamplesArgs
from launch.common.cli import main_simple
from rl.base.console import Console
from rl.base.outputs import check_output_dir


def run(args: MakeExamplesArgs) -> None:
    """Write both files."""
    check_output_dir(args.output, "output")
    from reward.pairs.pairs import Pair, write_pairs  # noqa: PLC0415 - after the arguments are good
    from rl.base.files import replace_file  # noqa: PLC0415
    from rl.base.jsonlines import as_line  # noqa: PLC0415
    from rl.problems.minipy_examples import pairs_of_programs, right_answers  # noqa: PLC0415

    answers, pairs = (Path(args.output) / name for name in ("answers.jsonl", "pairs.parquet"))
    answers.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        as_line({"prompt": question, "completion": answer})
        for question, answer in right_answers(args.num, args.seed)
    ]
    replace_file(answers, "".join(lines))
    made = [
        Pair(
            prompt_id=f"minipy-pair-{index}",
            question_content=question,
            code_pos=right,
            code_neg=wrong,
            source="minipy",
        )
        for index, (question, right, wrong) in enumerate(pairs_of_programs(args.num, args.seed))
    ]
    write_pairs(pairs, made)
    for path in (answers, pairs):
        Console().say(f"{args.num} examples  {path}")


if __name__ == "__main__":
    sys.exit(main_simple(MakeExamplesArgs, run))
