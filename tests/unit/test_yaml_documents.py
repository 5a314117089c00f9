"""Of YAML, the directory reads what is JSON, and quotes nothing of what it does not read."""

from typing import Any

import pytest
import yaml

from broker.directory import documents as reading
from broker.directory.documents import MAX_DEPTH, NotPlainError, documents


@pytest.fixture(params=["in C", "in Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with each of PyYAML's parsers: which one is there depends on how it was built."""
    if request.param == "in Python":
        monkeypatch.setattr(reading, "_PARSER", yaml.SafeLoader)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: text", {"a": "text"}),
        ("a: [1, -2, 0]", {"a": [1, -2, 0]}),
        ("a: {b: [{c: d}, []], e: {}}", {"a": {"b": [{"c": "d"}, []], "e": {}}}),
        ("a: 1.5", {"a": 1.5}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: .5", {"a": 0.5}),
        ("a: 0.5", {"a": 0.5}),
        ("[true, yes, On, false, no, OFF]", [True, True, True, False, False, False]),
        ("[null, ~, NULL, ]", [None, None, None]),
        ("a:", {"a": None}),
        ("['true', \"1\", '', 'null']", ["true", "1", "", "null"]),
        ("a: |\n  1\n", {"a": "1\n"}),
        ("a: 2027-06-30T00:00:00Z", {"a": "2027-06-30T00:00:00Z"}),
        ("a: 2027-06-30", {"a": "2027-06-30"}),
        ("[1.2.3, 10.0.0.1, 12:30, 1h30m, x, -, .]", ["1.2.3", "10.0.0.1", "12:30", "1h30m", "x", "-", "."]),
        ("{'y': 1, \"n\": 2, <<: {a: b}}", {"y": 1, "n": 2, "<<": {"a": "b"}}),
    ],
)
def test_documents_are_read_as_the_api_server_gets_them(text: str, value: Any) -> None:
    """Times are texts, words such as yes are truth, and what is quoted is text."""
    assert documents(text.encode()) == [value]


@pytest.mark.usefixtures("parser")
def test_a_file_has_many_documents() -> None:
    """Empty ones between them are nothing."""
    assert documents(b"---\na: 1\n---\n---\n# only this\n---\nb: 2\n...\n") == [{"a": 1}, {"b": 2}]
    assert documents(b"") == []


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2", "line 2: a name is there twice"),
        ("a: {b: 1, c: 2, 'b': 3}", "line 1: a name is there twice"),
        ("a: &x [1]\nb: *x", "line 1: anchors and aliases are not read"),
        ("a: &x 1", "line 1: anchors and aliases are not read"),
        ("a: !!python/object/apply:os.system [x]", "line 1: tags are not read"),
        ("a: !!str 1", "line 1: tags are not read"),
        ("a: ! 1", "line 1: tags are not read"),
        ("a: !secret x", "line 1: tags are not read"),
        ("1: a", "line 1: a name that is no text; quote it"),
        ("true: a", "line 1: a name that is no text; quote it"),
        ("? [a]\n: b", "line 1: a name that is no text; quote it"),
        ("a: 010", "line 1: a number that not everybody reads alike; quote it"),
        ("a: 0x1f", "line 1: a number that not everybody reads alike; quote it"),
        ("a: 0o17", "line 1: a number that not everybody reads alike; quote it"),
        ("a: 1_000", "line 1: a number that not everybody reads alike; quote it"),
        ("a: 01.5", "line 1: a number that not everybody reads alike; quote it"),
        ("a: .inf", "line 1: a number that not everybody reads alike; quote it"),
        ("a: .NaN", "line 1: a number that not everybody reads alike; quote it"),
        ("a: y", "line 1: a word that not everybody reads alike; quote it"),
        ("n: a", "line 1: a word that not everybody reads alike; quote it"),
        ("a: 12345678901234567890", "line 1: a number that not everybody reads alike; quote it"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text: str, line: str) -> None:
    """The line is named."""
    with pytest.raises(NotPlainError) as refused:
        documents(text.encode())

    assert str(refused.value) == line


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "content",
    [b"token: s3cret: s3cret", b"\ts3cret", b"%s3cret", b"[s3cret", b"@s3cret", b"a: *s3cret", b"a: \x00s3cret"],
)
def test_what_is_no_yaml_is_not_quoted(content: bytes) -> None:
    """A link may lead to a file that is none of the reader's business."""
    with pytest.raises(NotPlainError) as refused:
        documents(content)

    assert "s3cret" not in str(refused.value)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("text", [r'a: "\ud800"', r'"\udcff": a', r'a: "\U00110000"', r'a: "\U99999999"'])
def test_an_escape_that_is_no_character_is_refused(text: str) -> None:
    """No JSON can hold it, so the API server would never have seen it."""
    with pytest.raises(NotPlainError, match="is not YAML"):
        documents(text.encode())


def test_what_is_no_text_is_refused() -> None:
    """Only UTF-8 counts, without guessing."""
    with pytest.raises(NotPlainError, match="is not UTF-8"):
        documents(b"a: \xff")


@pytest.mark.usefixtures("parser")
def test_a_bomb_of_aliases_is_refused_before_it_is_lit() -> None:
    """Ten lines that would be ten thousand million entries."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    with pytest.raises(NotPlainError, match="line 1: anchors and aliases"):
        documents("\n".join(lines).encode())


def test_nesting_has_an_end() -> None:
    """Nothing exhausts the stack, however deep it goes."""
    assert documents(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) != []
    with pytest.raises(NotPlainError, match="nested more than 32 deep"):
        documents(b"[" * 200_000)
