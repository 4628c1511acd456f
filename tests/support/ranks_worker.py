"""One rank of some runs that end early, one after the other: ``ranks_worker.py PLAN.json RANK``.

The plan is a list of ``{"port": ..., "environment": [of rank 0, of rank 1], "flags": [of rank 0, of rank 1]}``. Writes
a list of ``[exit code, standard error]`` beside it.
"""

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch.distributed as dist

from motivation.__main__ import main


def run_all(plan, rank):
    ends = []
    for case in plan:
        for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
            os.environ.pop(name, None)
        os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(case["port"]))
        os.environ.update(case["environment"][rank])
        said = io.StringIO()
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            code = main(["train", *case["flags"][rank]])
        ends.append([code, said.getvalue()])
        if dist.is_initialized():
            dist.destroy_process_group()
    return ends


if __name__ == "__main__":
    file, rank = Path(sys.argv[1]), int(sys.argv[2])
    ends = run_all(json.loads(file.read_text()), rank)
    file.with_name(f"rank{rank}.json").write_text(json.dumps(ends))
