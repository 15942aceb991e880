"""Components, candidates and edits: content-addressed, immutable, and edited with errors one can act on."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_evolve import Candidate, Component, Edit
from asi_evolve.errors import InvalidEdit

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
line = st.text(alphabet="abcxyz =()", min_size=1, max_size=12).filter(lambda s: s.strip())


def plain(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(st.dictionaries(st.text(min_size=1, max_size=6).filter(plain), json_values, max_size=4))
def test_a_component_is_its_content(params):
    try:
        made = Component("data", params, {"a.py": "x = 1\n"})
    except (ValueError, UnicodeEncodeError):
        return  # lone surrogates
    again = Component.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    assert again.hash == made.hash
    assert pickle.loads(pickle.dumps(made)) == made
    assert Component("algorithm", params, {"a.py": "x = 1\n"}).hash != made.hash


def test_order_of_parameters_and_files_does_not_matter():
    a = Component("data", {"x": 1, "y": 2}, {"a.py": "1\n", "b.py": "2\n"})
    b = Component("data", {"y": 2, "x": 1}, {"b.py": "2\n", "a.py": "1\n"})
    assert a.hash == b.hash


def test_nothing_can_be_changed():
    made = Component("data", {"x": [1, {"y": 2}]}, {"a.py": ""})
    for attempt in (
        lambda: made.params.__setitem__("x", 2),
        lambda: made.files.__setitem__("a.py", "2"),
        lambda: made.params["x"][1].__setitem__("y", 3),
        lambda: setattr(made, "domain", "other"),
    ):
        with pytest.raises((TypeError, AttributeError)):
            attempt()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {"deep": [float("-inf")]}])
def test_non_finite_parameters_are_refused(bad):
    with pytest.raises(ValueError, match="params"):
        Component("data", {"x": bad})


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.py", "a/../../x", "", "a//b", "a\\b", "a\0b", "./a"])
def test_paths_stay_inside(path):
    with pytest.raises(InvalidEdit):
        Component("data", {}, {path: ""})
    with pytest.raises(InvalidEdit):
        Edit(files={path: ""}).apply(Component("data"))


def test_a_candidate_is_a_triple():
    a, r, d = (Component(n, {"x": 1}) for n in ("architecture", "algorithm", "data"))
    triple = Candidate([d, a, r])
    assert list(triple) == ["architecture", "algorithm", "data"]
    assert triple == Candidate({"x": r, "y": d, "z": a})
    assert triple.architecture == a
    changed = triple.replace(Component("data", {"x": 2}))
    assert changed.changed(triple) == ("data",)
    assert Candidate.from_json(changed.to_json()) == changed
    with pytest.raises(ValueError, match="no 'other' component"):
        triple.replace(Component("other"))
    with pytest.raises(ValueError, match="same domain"):
        Candidate([a, a])


# -- edits ------------------------------------------------------------------------------------------------------------

FILE = "def f(x):\n    y = x + 1\n    return y\n"


def block(search, replace, path="m.py"):
    return f"{path}\n<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


@given(st.lists(line, min_size=1, max_size=8, unique_by=str.strip), st.data())
def test_any_unique_line_can_be_replaced(lines, data):
    index = data.draw(st.integers(0, len(lines) - 1))
    new = data.draw(line)
    component = Component("data", {}, {"m.py": "\n".join(lines) + "\n"})
    edited = Edit.parse(block(lines[index], new)).apply(component)
    expected = [*lines[:index], new, *lines[index + 1 :]]
    assert edited.files["m.py"].splitlines() == expected
    assert component.files["m.py"] == "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "search", ["    y = x + 1", "    y = x + 1   ", "y = x + 1", "\n    y = x + 1\n", "\ty = x + 1"]
)
def test_whitespace_is_tolerated(search):
    component = Component("data", {}, {"m.py": FILE})
    replace = "z = x" if search.strip() == search else search.rstrip().strip("\n").replace("y = x + 1", "z = x")
    assert "    z = x\n" in Edit.parse(block(search, replace)).apply(component).files["m.py"]


def test_the_line_that_did_not_match_is_named():
    component = Component("data", {}, {"m.py": FILE})
    with pytest.raises(InvalidEdit, match=r"block 1 of m\.py: line 2 .*'y = x \+ 2'; the file has 'y = x \+ 1'"):
        Edit.parse(block("def f(x):\n    y = x + 2", "")).apply(component)
    with pytest.raises(InvalidEdit, match=r"matches 2 places \(lines 1, 2\)"):
        Edit.parse(block("a = 1", "b")).apply(Component("data", {}, {"m.py": "a = 1\na = 1\n"}))
    with pytest.raises(InvalidEdit, match=r"no file 'n\.py'; files: m\.py"):
        Edit.parse(block("a", "b", "n.py")).apply(component)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "no SEARCH/REPLACE"),
        ("m.py\n<<<<<<< SEARCH\na\n", "line 2: .*no ======="),
        ("m.py\n<<<<<<< SEARCH\na\n=======\nb\n", "line 4: .*REPLACE"),
        ("<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE", "no file path"),
    ],
)
def test_malformed_blocks_name_their_line(text, message):
    with pytest.raises(InvalidEdit, match=message):
        Edit.parse(text)


def test_an_edit_of_everything():
    component = Component("data", {"x": 1, "y": 2}, {"m.py": FILE, "old.py": ""})
    edit = Edit(
        params={"x": 5},
        files={"old.py": None, "new.py": "n\n"},
        blocks=Edit.parse(block("    return y", "    return 0")).blocks,
    )
    edited = edit.apply(component)
    assert dict(edited.params) == {"x": 5, "y": 2}
    assert set(edited.files) == {"m.py", "new.py"}
    assert "return 0" in edited.files["m.py"]
    assert Edit.from_json(json.loads(json.dumps(edit.to_json()))).apply(component) == edited
    assert "x: 1 -> 5" in component.diff(edited)
    assert "-    return y" in component.diff(edited)
