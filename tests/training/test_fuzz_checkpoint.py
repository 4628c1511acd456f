"""Random and damaged bytes as a checkpoint: a dictionary or one line that names the file, and no code of it is run."""

import io
import os
import pickle
from argparse import Namespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzzing import fuzz, one_line_or

from motivation.training.checkpoint import read_checkpoint


class MakesAFolder:
    """What is made when it is unpickled as pickles usually are."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


def checkpoint_bytes(place):
    """Small checkpoints in both of torch's formats, without and with code, and bare pickles of code."""
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}
    plain = {"epoch": 1, "arch": "x", "state_dict": state, "args": Namespace(lr=0.1, mean=[1, 2], kwargs={"a": None})}
    found = []
    for contents in (plain, {**plain, "more": MakesAFolder(place)}):
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(contents, file, _use_new_zipfile_serialization=zipped)
            found.append(file.getvalue())
        found.append(pickle.dumps({name: contents.get(name) for name in ("epoch", "more")}))
    return found


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    place = tmp_path_factory.mktemp("code") / "was_run"
    yield checkpoint_bytes(str(place))
    assert not place.exists()


@st.composite
def damages(draw):
    """How to change bytes: bits to flip, as parts of the length, and where to end."""
    where = st.floats(0, 1, exclude_max=True)
    flips = draw(st.lists(st.tuples(where, st.integers(0, 7)), max_size=6))
    return flips, draw(st.none() | where)


def of_checkpoint(path, contents):
    path.write_bytes(contents)
    one_line_or(dict, read_checkpoint, path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(fuzz, max_examples=1000)
@given(st.integers(0, 5), damages())
def test_a_damaged_checkpoint_is_one_line_and_runs_no_code(originals, tmp_path, which, damage):
    contents = bytearray(originals[which])
    flips, end = damage
    for where, bit in flips:
        contents[int(where * len(contents))] ^= 1 << bit
    of_checkpoint(tmp_path / "x.pth", contents if end is None else contents[: int(end * len(contents))])


@settings(fuzz, max_examples=150)
@given(st.binary(max_size=80))
def test_any_bytes_are_no_checkpoint_or_a_dictionary(tmp_path, contents):
    of_checkpoint(tmp_path / "x.pth", contents)
