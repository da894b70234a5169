"""Run folders: one for each configuration, and the difference where there is one."""

import pytest

from scigen.errors import UserError
from scigen.workflows.folder import claim, digest


def test_a_choice_that_is_not_made_is_no_other_configuration(tmp_path):
    """A key that a newer version adds, null by default, neither renames a folder nor refuses it."""
    old = {"a": {"b": 1}, "c": [1, {"d": 2}]}
    new = {"a": {"b": 1, "new": None}, "c": [1, {"d": 2, "e": None}], "f": None}
    assert digest(old) == digest(new) and digest(old) != digest({"a": {"b": 1, "new": 0}, "c": [1, {"d": 2}]})
    claim(tmp_path / "r", old)
    assert claim(tmp_path / "r", new) == tmp_path / "r"


def test_every_refusal_shows_a_difference(tmp_path):
    claim(tmp_path / "r", {"a": {"b": 1}})
    with pytest.raises(UserError, match=r"a\.b: there 1, asked for 2"):
        claim(tmp_path / "r", {"a": {"b": 2}})
    with pytest.raises(UserError, match=r"a\.b: there 1, asked for None"):
        claim(tmp_path / "r", {"a": {}})
