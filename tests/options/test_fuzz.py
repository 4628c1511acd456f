"""Random words and YAML: a valid result or one line that says what is wrong, and no other end."""

import io
from contextlib import redirect_stdout

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzzing import fuzz, one_line, one_line_or

from motivation.errors import InputError
from motivation.options.checks import option_faults
from motivation.options.parse import make_parser, parse, read_configs
from motivation.tools import finetune

ACTIONS = [action for action in make_parser()._actions if action.dest not in ("help", "config")]
FLAGS = [flag for action in ACTIONS for flag in action.option_strings]
NAMES = [action.dest for action in ACTIONS]

numbers = st.integers().map(str) | st.floats().map(str)
texts = st.text(max_size=8)
values = st.one_of(
    numbers, texts, st.sampled_from(["", "a=1", "a=[", "a={[]:1}", "a=1j", "=", "--", "-", "rand-m9-x3"])
)
given_words = st.one_of(
    st.tuples(st.sampled_from(FLAGS), values).map(list),
    st.tuples(st.sampled_from(FLAGS), values).map(lambda pair: ["=".join(pair)]),
    st.tuples(st.sampled_from(FLAGS)).map(list),
    st.sampled_from(FLAGS).flatmap(lambda flag: st.integers(1, len(flag)).map(lambda end: [flag[:end]])),
    values.map(lambda value: [value]),
)
words = st.lists(given_words, max_size=5).map(lambda parts: [word for part in parts for word in part])


def outcome(parser, argv):
    """The options, or None after an error of one line; words that ask for help are no error."""
    with redirect_stdout(io.StringIO()):
        try:
            return parser(argv)
        except SystemExit as stop:
            code = stop.code
        except InputError as error:
            one_line(str(error))
            return None
    assert code == 0
    return None


@settings(fuzz, max_examples=150)
@given(words)
def test_any_words_are_options_or_one_line(argv):
    found = outcome(parse, argv)
    if found is not None:
        args, text = found
        assert yaml.safe_load(text) is not None
        for fault in option_faults(args):
            one_line(str(fault))


@settings(fuzz, max_examples=40)
@given(words)
def test_any_words_to_fine_tuning_are_options_or_one_line(argv):
    outcome(finetune.parse, ["--checkpoint", "resnet18", *argv])


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.binary(max_size=6),
    st.dates(), st.sampled_from(["1e-3", "resnet8_cifar", "none", 2**70]),
)  # fmt: skip
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


def of_config(path, contents):
    path.write_bytes(contents)
    one_line_or(dict, lambda file: read_configs([str(file)], make_parser()), path)
    outcome(parse, ["-c", str(path)])


@settings(fuzz, max_examples=120)
@given(st.dictionaries(st.sampled_from(NAMES), nested, max_size=3) | nested)
def test_any_values_in_a_config_are_options_or_one_line(tmp_path, value):
    of_config(tmp_path / "config.yaml", yaml.safe_dump(value).encode())


marks = st.sampled_from(
    ["lr", "mean", "model", ": ", "\n", "  ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a", "<<: ", "!!int ", "!!bool ",
     "!!float ", "!!timestamp ", "!!set ", "!!python/name:os.mkdir ", "? ", "|", ">", '"', "'", "#", "---", "...", "1",
     "0x", "2020-13-01", "\t", "%", "@", "\0", "\x85"]
)  # fmt: skip


@settings(fuzz, max_examples=150)
@given(st.lists(marks, max_size=12).map(lambda parts: "".join(parts).encode()) | st.binary(max_size=30))
def test_any_bytes_in_a_config_are_options_or_one_line(tmp_path, contents):
    of_config(tmp_path / "config.yaml", contents)
