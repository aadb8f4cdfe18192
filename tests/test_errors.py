from __future__ import annotations

import pytest

from compress.errors import first_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one  \ntwo"), "one  "),
        (ValueError(""), "ValueError"),
        (KeyError(), "KeyError"),
        (RuntimeError("\n \n"), "RuntimeError"),
    ],
)
def test_an_error_is_said_in_one_line(error, said):
    """The first line that says something; its type where none does."""
    assert first_line(error) == said
