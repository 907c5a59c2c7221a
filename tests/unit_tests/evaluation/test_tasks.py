"""Tasks: what is gold stands where it should, and nothing else in the document answers the question."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xl3m_integrations import SettingError
from xl3m_integrations.evaluation import TASKS, Example
from xl3m_integrations.evaluation.documents import Material, Needle, plant
from xl3m_integrations.evaluation.tasks import example_of, get_tasks

TOKENS = 1_500
NAMES = sorted(TASKS)
ONE_VALUE = sorted(set(NAMES) - {"niah_multivalue", "niah_multiquery", "vt_2", "vt_3", "vt_4"})


def made(material: Material, name: str, seed: int = 1, number: int = 0, tokens: int = TOKENS) -> Example:
    return example_of(TASKS[name], material, tokens, number, seed)


def values_in_place(example: Example, number: int) -> list[str]:
    """What the document says in the words of one gold statement, whatever stands in place of the value."""
    (start, end), (fact_start, fact_end) = example.gold[number], example.facts[number]
    assert start == fact_start and end <= fact_end
    told = example.text[start:end]
    value = next((answer for answer in example.answers if told.endswith(answer)), "")
    before, after = told[: len(told) - len(value)], example.text[end:fact_end].partition(value or "\0")[0]
    return re.findall(re.escape(before) + r"[^\n]{0,200}?" + re.escape(after), example.text)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_gold_is_unambiguous(material: Material, name: str, seed: int):
    """As often as the gold statements' words occur, so many gold statements there are."""
    example = made(material, name, seed)
    statements = [example.text[start:end] for start, end in example.facts]
    assert statements and all(example.text.count(statement) == 1 for statement in statements)
    for number in range(len(statements)):
        found = len(values_in_place(example, number))
        assert found == (len(statements) if name == "niah_multivalue" else 1)
    gold = [example.text[start:end] for start, end in example.gold]
    assert gold[-1].endswith(example.answers) or name.startswith("vt")


@pytest.mark.parametrize("name", NAMES)
def test_a_document_is_about_as_long_as_asked_for(material: Material, name: str):
    tokens = material.xl3m.scorer.tokenizer.count(made(material, name, tokens=4_000).text)
    assert tokens == pytest.approx(4_000, rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_the_same_whatever_else_is_run(material: Material, name: str):
    assert made(material, name, seed=3, number=2) == made(material, name, seed=3, number=2)
    questions = getattr(TASKS[name], "questions", 1)
    others = [made(material, name, seed=4, number=2), made(material, name, seed=3, number=2 + questions)]
    assert all(other.text != made(material, name, seed=3, number=2).text for other in others)


def test_several_questions_are_asked_of_one_document(material: Material):
    examples = [made(material, "lookalike_10", number=number) for number in range(20)]
    assert [example.number for example in examples] == list(range(20))
    assert len({example.text for example in examples[:10]}) == len({example.text for example in examples[10:]}) == 1
    assert len({example.text for example in examples}) == 2
    assert len({example.question for example in examples[:10]}) == 10
    assert all(example.text[start:end].endswith(example.answers) for example in examples for start, end in example.gold)


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_lacks_the_facts_and_nothing_else(material: Material, name: str):
    example = made(material, name)
    twin = example.twin()
    assert twin is not None
    assert (twin.answerable, twin.question, twin.gold) == (False, example.question, ())
    facts = [example.text[start:end] for start, end in example.facts]
    assert not any(fact in twin.text for fact in facts)
    lost = len(example.text) - len(twin.text) - sum(map(len, facts))
    assert 0 <= lost <= len(facts)  # the space or line end after each
    assert "".join(twin.text.split()) == "".join(remove(example).split())


def remove(example: Example) -> str:
    text = example.text
    for start, end in sorted(example.facts, reverse=True):
        text = text[:start] + text[end:]
    return text


def test_a_twin_keeps_its_look_alikes(material: Material):
    example = made(material, "lines")
    twin = example.twin()
    assert twin is not None
    (start, end), *_ = example.facts
    lines = example.text.splitlines()
    lines.remove(example.text[start:end])
    assert twin.text.splitlines() == lines


@pytest.mark.parametrize("name", ONE_VALUE)
def test_depths_cover_the_document_evenly(material: Material, name: str):
    """Ten examples leave no gap of a quarter of the document."""
    if name == "two_hop":
        depths = [made(material, name, number=number).depths[0] for number in range(10)]
    else:
        depths = [max(made(material, name, number=number).depths) for number in range(10)]
    edges = [0.0, *sorted(depths), 1.0]
    assert max(right - left for left, right in pairwise(edges)) < 0.3


@pytest.mark.parametrize("seed", range(5))
def test_a_segment_ends_inside_the_straddling_needle_and_another_holds_it(material: Material, seed: int):
    example = made(material, "straddle", seed)
    ((start, end),) = example.gold
    segments = list(material.xl3m.segmenter.segments([example.text]))
    assert any(segment.start <= start < segment.end < end for segment in segments)
    assert any(segment.start <= start and end <= segment.end for segment in segments)


def test_rulers_parameters(material: Material):
    values = made(material, "niah_multivalue")
    queries = made(material, "niah_multiquery")
    assert [len(example.gold) for example in (values, queries)] == [4, 4]
    key = re.findall(r"for ([\w-]+) mentioned", values.question)[0]
    assert values.text.count(f"numbers for {key} is:") == 4
    assert all(f"numbers for {key} is:" in queries.text for key in re.findall(r"\w+-\w+", queries.question))
    assert made(material, "niah_multikey_1").text.count("One of the special magic numbers for") == 4
    needles = made(material, "niah_multikey_2").text.split(". ")
    assert all(needle.startswith("One of the special magic numbers for ") for needle in needles if needle)
    for hops in (2, 3, 4):
        chain = made(material, f"vt_{hops}")
        assert len(chain.gold) == len(chain.answers) == hops + 1 == chain.text.count("VAR ") - hops
        assert list(chain.depths) == sorted(chain.depths)


def test_given_texts_are_the_haystack(material: Material):
    words = [f"word{number}" for number in range(900)]
    text = " ".join(f"{word}." for word in words)
    own = Material(material.xl3m, [text])
    for name in ("niah_single_1", "passkey", "straddle"):
        example = made(own, name)
        assert "".join(remove(example).split()) in "".join((text * 3).split())
    assert re.search(r"\bword\d+", made(own, "lookalike").text)


def test_names():
    assert [task.name for task in get_tasks(["vt", "kv", "vt_2"])] == ["vt_2", "vt_3", "vt_4", "kv"]
    assert [task.name for task in get_tasks(["all"])] == list(TASKS)
    with pytest.raises(SettingError, match="Unknown task 'nia'"):
        get_tasks(["nia"])


def test_a_document_must_be_longer_than_two_segments(material: Material):
    with pytest.raises(SettingError, match="at least 256"):
        made(material, "kv", tokens=255)


@given(
    depths=st.lists(st.floats(0, 1), max_size=5),
    characters=st.integers(0, 400),
    lines=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_needles_stand_at_their_depths(depths: list[float], characters: int, lines: list[bool]):
    needles = [Needle.of(f"Fact {number} is {{V}}.", f"v{number}", line=line) for number, line in enumerate(lines)]
    given_ones = list(zip(depths, needles, strict=False))
    planted = plant(iter(lambda: "Rain. ", ""), given_ones, characters)
    assert len(planted.text) >= characters
    for (depth, needle), (start, end), (_, gold_end) in zip(given_ones, planted.facts, planted.gold, strict=True):
        assert planted.text[start:end] == needle.statement
        assert planted.text[start:gold_end].endswith(needle.statement.split()[-1].strip("."))
        assert start >= depth * characters
        others = sum(len(other.piece) + 1 for other in needles)
        assert start <= depth * characters + len("Rain. ") + others
        if needle.line:
            assert start == 0 or planted.text[start - 1] == "\n"


def test_a_value_at_the_front_is_written_with_a_capital():
    assert Needle.of("{V} owns it.", "x").statement == "x owns it."
    assert Needle.of("the key is {V}.", "x").statement == "The key is x."
