"""The one look: fixed colours for roles, pictures without a screen."""

import base64

from scigen.plots import style


def test_roles_keep_their_colours_whoever_else_is_drawn():
    alone = style.looks({"s": "student"})
    crowd = style.looks({"e": "exact", "t": "teacher", "new": "crps model", "s": "student"})
    assert alone["s"] == crowd["s"] == style.Look(style.ROLES["student"])
    assert len({look.color for look in crowd.values()}) == 4


def test_a_second_contender_of_a_role_is_dashed():
    looks = style.looks({"teacher": "teacher", "teacher at 1 call": "teacher"})
    first, second = looks.values()
    assert first.color == second.color and first.dash == "-" != second.dash


def test_unknown_roles_have_colours_of_their_own():
    looks = style.looks({name: name for name in "abcd"})
    assert len({look.color for look in looks.values()} - set(style.ROLES.values())) == 4


def test_pictures_are_equal_files_and_become_data_uris(tmp_path):
    paths = []
    for name in ("a.png", "deep/b.png"):
        with style.canvas(2, 1) as figure:
            figure.subplots().plot([0, 1])
            paths.append(style.save(figure, tmp_path / name))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    head, _, body = style.data_uri(paths[0]).partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(body).startswith(b"\x89PNG")


def test_legends_state_the_cost_where_it_is_known():
    texts = style.labelled(["teacher", "student", "exact", "other", "teacher, 4 steps"], [40, 1, 0, float("nan"), 4])
    assert list(texts.values()) == ["teacher, 40 calls", "student, 1 call", "exact", "other", "teacher, 4 steps"]


def test_panels_fill_rows():
    assert [style.grid_shape(n) for n in (1, 3, 4, 7)] == [(1, 1), (1, 3), (2, 3), (3, 3)]
