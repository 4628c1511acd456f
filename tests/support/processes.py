"""Processes of their own that are quick to start: forked from a server that has imported the program's packages.

Their exit codes, signals and output are real, and they have no state of the process of the tests.
"""

import logging
import multiprocessing
import os
import runpy
import socket
import sys
from unittest.mock import patch

from support.program import ROOT, FewDigits

import motivation.data.datasets

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["motivation.tools.train", "sklearn.datasets", "sklearn.model_selection", "torch.distributed.run"]
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment():
    """The environment of a process of one thread that is no rank and finds the program and the tests."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def start(function, *arguments, log):
    """Start ``function(*arguments)`` in a process and a session of its own that writes to the file ``log``."""
    variables = environment()
    process = _context.Process(target=_run, args=(function, arguments, variables, log))
    with patch.dict(os.environ, variables):  # for the server, which the first process starts
        process.start()
    return process


def finish(process, timeout=120):
    """Wait for a process, killed after the timeout; return its exit code."""
    process.join(timeout)
    process.kill()
    process.join()
    return process.exitcode


def _run(function, arguments, variables, log):
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(variables)
    multiprocessing.set_start_method(None, force=True)  # data workers are started as in any other process
    function(*arguments)


def run_script(*words):
    """Run a script as ``python *words`` does."""
    sys.argv = [str(word) for word in words]
    runpy.run_path(sys.argv[0], run_name="__main__")


def run_module(*words):
    """Run a module as ``python -m *words`` does."""
    sys.argv = [str(word) for word in words]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


class ForkedRun:
    """Stands in for `subprocess.Popen` where a sweep starts ``python -m motivation ...``, on `FewDigits`."""

    def __init__(self, command, stdout, **_):
        self._process = start(on_few_digits, run_module, *command[2:], log=stdout.name)
        self.pid = self._process.pid
        self.returncode = None

    def poll(self):
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self):
        self._process.join()
        return self.poll()


def run_unheard(*words):
    """The same with an output whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    run_script(*words)


def on_few_digits(function, *words):
    """Do ``function(*words)`` with `FewDigits` as data."""
    motivation.data.datasets.SklearnDigits = FewDigits
    function(*words)


def torchrun(*words):
    """Do what ``torchrun *words`` does, but fork the ranks."""
    from torch.distributed.run import main

    # a rank that fails is logged with a traceback of torchrun's own if it was forked
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    main(["--run-path", "--start-method=fork", *map(str, words)])
