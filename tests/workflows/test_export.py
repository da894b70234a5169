"""The verb export."""

import json

import pytest

from scigen.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_fitted_student_leaves_and_says_what_it_takes(fitted, tmp_path, capsys):
    out = tmp_path / "student.pt2"
    assert main(["export", f"bundle={fitted.student}", f"output={out}", "device=cpu"]) == 0
    said = capsys.readouterr().out
    assert "coarse [" in said and "away from the bundle" in said
    assert json.loads(out.with_suffix(".json").read_text())["checked"]["distance"] < 1e-4
    assert main(["export", f"bundle={fitted.student}", f"output={out}", "device=cpu"]) == 2
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "said"), [("tflite", "expected one of"), ("onnx", "end in .onnx")])
def test_a_format_that_is_none_or_does_not_fit_its_name_is_a_line(fitted, tmp_path, capsys, form, said):
    assert main(["export", f"bundle={fitted.student}", f"format={form}", f"output={tmp_path / 'x.pt2'}"]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
