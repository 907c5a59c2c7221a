"""`xl3m demo`: what it prints, and the text and the figures behind that."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import run, run_json

from xl3m_integrations import XL3M, demo
from xl3m_integrations.demo import longest_end, make_haystack, same_answer

DEMO_KEYS = {"document_tokens", "seed", "select_seconds", "tokens_per_second", "peak_rss_mb", "questions"}
ASKED_KEYS = {
    "question", "expected", "answer", "correct", "needle_found", "truncated_answer", "truncated_correct", "depth",
}  # fmt: skip


def steady(body: dict[str, Any]) -> dict[str, Any]:
    """What of a demonstration does not depend on the machine."""
    return {key: body[key] for key in ("document_tokens", "seed", "questions")}


def test_demo_as_json(model: str):
    arguments = ("demo", "--tokens", "1500", "--questions", "3", "--model", model)
    body = run_json(*arguments, "--seed", "5")
    assert body.keys() == DEMO_KEYS
    assert len(body["questions"]) == 3
    assert all(asked.keys() == ASKED_KEYS for asked in body["questions"])
    assert body["seed"] == 5
    assert body["document_tokens"] >= 1_500
    assert body["select_seconds"] > 0
    assert body["tokens_per_second"] > 0
    assert body["peak_rss_mb"] > 10
    for asked in body["questions"]:
        assert 0 <= asked["depth"] <= 1
        assert asked["correct"] is same_answer(asked["answer"], asked["expected"])
        assert asked["truncated_correct"] is same_answer(asked["truncated_answer"], asked["expected"])
    assert len({asked["question"] for asked in body["questions"]}) == 3
    again, other = run_json(*arguments, "--seed", "5"), run_json(*arguments, "--seed", "6")
    assert steady(again) == steady(body)
    assert [a["question"] for a in other["questions"]] != [a["question"] for a in body["questions"]]


def test_a_demo_without_seed_draws_one_and_tells_it(model: str):
    arguments = ("demo", "--tokens", "1000", "--questions", "1", "--model", model)
    drawn = run_json(*arguments)
    assert steady(run_json(*arguments, "--seed", str(drawn["seed"]))) == steady(drawn)


def test_a_demo_with_the_first_layers(model: str):
    arguments = ("demo", "--tokens", "1000", "--questions", "2", "--seed", "5", "--model", model)
    whole, early = run_json(*arguments), run_json(*arguments, "--exit-layer", "1")
    assert [one["question"] for one in early["questions"]] == [one["question"] for one in whole["questions"]]
    assert run(*arguments, "--exit-layer", "0").exit_code == 2


def test_a_demo_for_people(model: str):
    result = run("demo", "--tokens", "1000", "--questions", "2", "--seed", "5", "--model", model)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("XL3M says") == 2
    assert "of 2 right through XL3M" in " ".join(result.stdout.split())
    assert "seed 5" in " ".join(result.stdout.split())


def test_the_needles_stand_where_the_haystack_says(model: str):
    xl3m = XL3M.from_pretrained(model)
    haystack = make_haystack(xl3m, 2_000, 4, seed=9)
    assert xl3m.scorer.tokenizer.count(haystack.text) >= 2_000
    for at, fact in haystack.needles:
        assert haystack.text[at : at + len(fact.statement)] == fact.statement
        assert haystack.text.count(fact.statement) == 1
        value = at + fact.value_at
        assert haystack.text[value : value + len(fact.value)] == fact.value


def test_a_needle_counts_as_found_where_its_value_was_read(model: str):
    xl3m = XL3M.from_pretrained(model, dtype="float32")
    haystack = make_haystack(xl3m, 1_000, 2, seed=3)
    for asked, (at, fact) in zip(demo.ask(xl3m, haystack), haystack.needles, strict=True):
        end = at + fact.value_at + len(fact.value)
        inside = haystack.text[at:end] in asked.full.key_context.text
        assert asked.needle_found is inside
        assert asked.depth == pytest.approx(at / len(haystack.text))


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        (" 4711.", "4711", True),
        ('"Blue Harbour"', "blue harbour", True),
        ("4711 is it", "4711", False),
        ("", "4711", False),
        ("47 11", "4711", False),
    ],
)
def test_same_answer(answer: str, expected: str, same: bool):
    assert same_answer(answer, expected) is same


@pytest.mark.parametrize("room", [1, 2, 5, 40])
def test_the_longest_end(room: int):
    words = [f"w{number}" for number in range(200)]
    assert longest_end(" ".join(words), room, lambda text: len(text.split())) == " ".join(words[-room:])


@pytest.mark.parametrize("room", [0, 2])
def test_the_longest_end_of_a_text_of_which_nothing_fits(room: int):
    assert longest_end("unbreakable", room, lambda text: 3 * len(text)) == ""
