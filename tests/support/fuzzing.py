"""Settings and judgements of tests with random input."""

from hypothesis import HealthCheck, settings

fuzz = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def one_line(text):
    assert len(text.splitlines()) == 1, text
    assert text.strip()


def one_line_or(kind, read, path):
    """``read`` gives a ``kind``, or a `ValueError` that names the file on one line."""
    try:
        found = read(path)
    except ValueError as error:
        found = str(error)
    if isinstance(found, str):
        one_line(found)
        assert str(path) in found
    else:
        assert isinstance(found, kind)
