"""Runs timm's train.py and ours from one process that has imported torch and timm once.

Reads a JSON line ``{"program": "timm" | "ours", "argv": [...], "log": file}`` from standard input, runs it in a forked
child with standard output and error in the log, and answers with the exit code on a line. Usage:

    python tests/support/timm_harness.py /path/to/timm/train.py
"""

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]


def timm_main(script: str):
    spec = importlib.util.spec_from_file_location("timm_train_script", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.main


def run_in_child(program, argv, log) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["train.py", *argv]
        code = program() or 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    from support import comparison_models  # noqa: F401  (teachers with local weights)

    from motivation.tools.train import main as our_main

    programs = {"ours": our_main, "timm": timm_main(sys.argv[1])}
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        case = json.loads(line)
        code = run_in_child(programs[case["program"]], case["argv"], case["log"])
        answers.write(f"{code}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
