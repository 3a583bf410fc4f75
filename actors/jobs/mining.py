"""Mine preference pairs from rollouts of any size, streamed through Ray Data.

    files -> programs -> verdicts where they are missing -> problems -> pairs

Programs flow in bounded batches; the shuffle that brings the programs of one problem together
spills to disk, so only the programs of one problem have to fit into memory.
"""

# Ray Data and pyarrow are typed in parts; what leaves them is narrowed before use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import heapq
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext, Dataset
from ray.exceptions import RayError

from actors.cluster.deadlines import get, translate
from actors.cluster.session import session
from actors.groups.verifiers import check_sandbox, make_verifier
from conf.errors import UserError
from conf.schema import ExecutionConfig, RayConfig
from reward.pairs.mining import MiningConfig, mine_problem
from reward.pairs.near_miss import NearMissConfig, near_miss_pairs
from reward.pairs.pairs import LabelledCode, Pair, PairWriter, is_for_validation
from reward.pairs.rollout_sources import RolloutCode, RolloutFile, iter_codes, question_digest
from reward.verify.execute import program_of, require_decided, verify_persistently
from reward.verify.verdict import ProgramResult
from rl.base.console import Console
from rl.base.files import replace_json
from rl.run.rollouts import row_of, schema_of
from rl.types import Prompt, Verdict

_log = logging.getLogger(__name__)

_CHUNK_CODES = 256
_NUM_DONORS = 512  # problems whose solution may be another problem's wrong answer
_PARTITIONS_PER_CPU = 4
_SHARED_DEADLINE_S = 600.0

# A pair as JSON: its columns are those of the file that it is going to, not of the shuffle.
_MINED_SCHEMA = pa.schema(
    [("prompt_id", pa.string()), ("rank", pa.int64()), ("pair", pa.large_string())]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MineJob:
    """What `mine` does."""

    files: tuple[RolloutFile, ...]
    prompts: Mapping[str, Prompt]  # with tests; needed where something has to be executed
    output: Path  # directory of train.parquet and validation.parquet
    mining: MiningConfig
    near_miss: NearMissConfig
    validation_share: float  # of the problems
    sandbox: ExecutionConfig
    test_timeout_s: float

    @property
    def makes_near_misses(self) -> bool:
        """Whether programs are made that no policy wrote."""
        return self.near_miss.mutants_per_prompt + self.near_miss.swaps_per_prompt > 0


def mine(cluster: RayConfig, job: MineJob, *, executes: bool) -> dict[str, Any]:
    """Write the pairs of all problems; returns what is in `mining.json`.

    `executes` says whether some program has no verdict yet.

    Raises:
        UserError: where the machine cannot hold programs, or no problem gives a pair.
        SandboxError: when a program could not be run at all.
    """
    if executes or job.makes_near_misses:
        check_sandbox(job.sandbox)
    console = Console()
    try:
        with session(cluster, f"mine-{job.output.name}"):
            _quieten(console)
            console.stage("programs", f"{len(job.files)} files")
            programs = _programs(job, executes=executes).materialize()
            donors = _donors(programs) if job.near_miss.swaps_per_prompt else []
            console.stage("pairs", f"{programs.count()} programs, problem by problem")
            return _write(job, _mined(job, programs, donors), console)
    except RayError as error:
        raise translate(error, "mining") from error


def _quieten(console: Console) -> None:
    """Ray Data shows its progress on a terminal and says nothing else."""
    context = DataContext.get_current()
    context.enable_progress_bars = console.live
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


# ---------------------------------------------------------------- programs with verdicts


def _programs(job: MineJob, *, executes: bool) -> Dataset:
    files = [{"path": str(file.path.resolve()), "run": file.run} for file in job.files]
    programs = ray.data.from_items(files, override_num_blocks=len(files)).map_batches(
        _read, batch_size=1, batch_format="pyarrow"
    )
    if executes:
        programs = programs.map_batches(
            _Verify,
            batch_size=_CHUNK_CODES,
            batch_format="pyarrow",
            concurrency=_num_workers(),
            fn_constructor_args=(job.sandbox, job.test_timeout_s, ray.put(dict(job.prompts))),
        )
    return programs


def _num_workers() -> int:
    """Actors of one stage: half the cores, so that the stages before and after it have the rest."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)) // 2)


def _read(batch: pa.Table) -> Iterator[pa.Table]:
    codes: list[RolloutCode] = []
    for item in batch.to_pylist():
        for code in iter_codes(RolloutFile(Path(item["path"]), item["run"])):
            if code.verdict is None or code.verdict.is_label:
                codes.append(code)
            if len(codes) >= _CHUNK_CODES:
                yield _table(codes)
                codes = []
    yield _table(codes)


def _table(codes: Sequence[RolloutCode]) -> pa.Table:
    return pa.Table.from_pylist([asdict(code) for code in codes], schema_of(RolloutCode))


def _code(row: Mapping[str, Any]) -> RolloutCode:
    return row_of(RolloutCode, row, "programs")


class _Verify:
    """Runs the programs that have no verdict."""

    def __init__(self, sandbox: ExecutionConfig, timeout_s: float, prompts: Any) -> None:  # noqa: ANN401 - an object reference
        self._verifier = make_verifier(sandbox, timeout_s)
        self._prompts: Mapping[str, Prompt] = get(prompts, _SHARED_DEADLINE_S, "the problems")

    def __call__(self, batch: pa.Table) -> pa.Table:
        codes = [_code(row) for row in batch.to_pylist()]
        missing = [code for code in codes if code.verdict is None]
        programs = [program_of(self._prompts[code.prompt_id], code.code) for code in missing]
        judgements = verify_persistently(self._verifier, programs)
        require_decided(judgements, "rollouts")
        unjudged = [judgement for judgement in judgements if not judgement.is_label]
        if unjudged:
            _log.warning(
                "%d programs could not be judged and are left out (%s)",
                len(unjudged),
                unjudged[0].detail,
            )
        found = iter(judgements)
        decided = [_judged(c, next(found)) if c.verdict is None else c for c in codes]
        return _table([code for code in decided if code.verdict and code.verdict.is_label])


def _judged(code: RolloutCode, judgement: ProgramResult) -> RolloutCode:
    return replace(
        code,
        verdict=judgement.verdict,
        num_passed=judgement.num_passed,
        num_tests=judgement.num_tests,
    )


def _donors(programs: Dataset) -> list[LabelledCode]:
    """One solution each of some problems; which ones does not depend on the order of the rows."""
    chosen: dict[bytes, tuple[bytes, LabelledCode]] = {}
    for row in programs.iter_rows():
        found = _code(row)
        if found.verdict is not Verdict.PASSED:
            continue
        code = found.labelled()
        problem, digest = question_digest(code.prompt_id), question_digest(code.code)
        if problem not in chosen or digest < chosen[problem][0]:
            chosen[problem] = (digest, code)
        if len(chosen) > 2 * _NUM_DONORS:
            chosen = {key: chosen[key] for key in heapq.nsmallest(_NUM_DONORS, chosen)}
    return [chosen[key][1] for key in heapq.nsmallest(_NUM_DONORS, chosen)]


# ---------------------------------------------------------------- problems and their pairs


def _mined(job: MineJob, programs: Dataset, donors: Sequence[LabelledCode]) -> Dataset:
    num_partitions = _PARTITIONS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    problems = programs.groupby("prompt_id", num_partitions=num_partitions)
    mined = problems.map_groups(
        _Mine,
        batch_format="pyarrow",
        concurrency=_num_workers(),
        fn_constructor_args=(
            job.mining,
            job.near_miss if job.makes_near_misses else None,
            job.sandbox,
            job.test_timeout_s,
            ray.put((dict(job.prompts), list(donors))),
        ),
    )
    return mined.sort(["prompt_id", "rank"])


class _Mine:
    """Pairs of one problem: mined from its programs, and near misses that are executed."""

    def __init__(
        self,
        mining: MiningConfig,
        near_miss: NearMissConfig | None,
        sandbox: ExecutionConfig,
        timeout_s: float,
        shared: Any,  # noqa: ANN401 - an object reference
    ) -> None:
        self._mining = mining
        self._near_miss = near_miss
        self._verifier = None if near_miss is None else make_verifier(sandbox, timeout_s)
        self._prompts: Mapping[str, Prompt]
        self._donors: list[LabelledCode]
        self._prompts, self._donors = get(shared, _SHARED_DEADLINE_S, "problems and donors")

    def __call__(self, group: pa.Table) -> pa.Table:
        codes = sorted(map(_code, group.to_pylist()), key=_identity)
        labelled = [code.labelled() for code in codes]
        pairs = mine_problem(labelled, self._mining)
        if self._verifier is not None and self._near_miss is not None:
            donors = [d for d in self._donors if d.prompt_id != labelled[0].prompt_id]
            pairs += near_miss_pairs(
                labelled, self._prompts, self._verifier, self._near_miss, donors
            )
        return pa.Table.from_pylist(
            [
                {"prompt_id": pair.prompt_id, "rank": rank, "pair": json.dumps(asdict(pair))}
                for rank, pair in enumerate(pairs)
            ],
            _MINED_SCHEMA,
        )


def _identity(code: RolloutCode) -> tuple[str, int, int, str]:
    """An order of programs that does not depend on the shuffle."""
    return code.run, code.step, code.sample_idx, code.code


# ---------------------------------------------------------------- files


def _write(job: MineJob, mined: Dataset, console: Console) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    problems: dict[str, set[bytes]] = {"train": set(), "validation": set()}
    train = PairWriter(job.output / "train.parquet")
    validation = PairWriter(job.output / "validation.parquet")
    with train, validation:
        for row in mined.iter_rows():
            pair = Pair(**json.loads(row["pair"]))
            held_out = is_for_validation(pair.prompt_id, job.validation_share, job.mining.seed)
            side = "validation" if held_out else "train"
            (validation if held_out else train).add(pair)
            counts[f"{side}/{pair.source}"] += 1
            problems[side].add(blake2b(pair.prompt_id.encode(), digest_size=8).digest())
        if not train.num_rows + validation.num_rows:
            raise UserError(
                "input: no problem has both a right and a wrong program; give more rollouts, or "
                "rollouts of a policy that solves some of the problems"
            )
    record = {
        "num_pairs": {"train": train.num_rows, "validation": validation.num_rows},
        "num_problems": {side: len(ids) for side, ids in problems.items()},
        "num_by_source": dict(sorted(counts.items())),
        "settings": {
            "files": [str(file.path) for file in job.files],
            "validation_share": job.validation_share,
            "mining": asdict(job.mining),
            "near_miss": asdict(job.near_miss),
        },
    }
    replace_json(job.output / "mining.json", record, indent=1)
    rows = [
        (
            side,
            str(record["num_pairs"][side]),
            str(record["num_problems"][side]),
            _parts(counts, side),
        )
        for side in ("train", "validation")
    ]
    console.table("preference pairs", rows, ("part", "pairs", "problems", "negatives"))
    console.say(f"\nwritten to {train.path}, {validation.path}")
    return record


def _parts(counts: Counter[str], side: str) -> str:
    found = {key.split("/")[1]: num for key, num in counts.items() if key.startswith(f"{side}/")}
    return ", ".join(f"{num} {source}" for source, num in found.items())
