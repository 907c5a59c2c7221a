"""Runs: the same numbers from the same seed, the same examples for all, a time limit that ends cleanly."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from conftest import BUILT_IN

from xl3m_integrations import XL3M, MissingExtraError, ScoringError, SettingError
from xl3m_integrations.evaluation import (
    METHODS,
    TASKS,
    Evaluation,
    EvaluationProgress,
    Example,
    Record,
    evaluate,
    rankers,
    runner,
)
from xl3m_integrations.evaluation.documents import Material
from xl3m_integrations.evaluation.metrics import estimate
from xl3m_integrations.evaluation.tasks import example_of


def steady(records: tuple[Record, ...]) -> list[Record]:
    """Records but for their times."""
    return [replace(record, seconds=0.0) for record in records]


def test_the_same_seed_gives_the_same_numbers(xl3m: XL3M, evaluation: Evaluation):
    again = evaluate(xl3m, tasks=["kv", "vt_2"], lengths=[300, 600], n=2, seed=5, methods=BUILT_IN)
    assert steady(again.records) == steady(evaluation.records)
    assert again.settings == evaluation.settings


def test_a_part_of_the_run_gives_the_same_part_of_the_numbers(xl3m: XL3M, evaluation: Evaluation):
    part = evaluate(xl3m, tasks=["vt_2"], lengths=[600], n=1, seed=5, methods=["tail", "xl3m"])
    wanted = [
        record
        for method in ("tail", "xl3m")
        for record in steady(evaluation.records)
        if (record.task, record.length, record.number, record.method) == ("vt_2", 600, 0, method)
    ]
    assert steady(part.records) == wanted


def test_every_method_answers_every_example(evaluation: Evaluation):
    counts = Counter((record.method, record.task, record.length) for record in evaluation.records)
    methods = [method for method in BUILT_IN if method != "full"]
    assert counts == {(m, task, length): 2 for m in methods for task in ("kv", "vt_2") for length in (300, 600)}
    assert evaluation.complete
    assert "has room for" in evaluation.left_out["full"]
    assert all(record.tokens == pytest.approx(record.length, rel=0.25) for record in evaluation.records)


def test_cells_are_means_of_their_records(evaluation: Evaluation):
    for cell in evaluation.cells(by=("task", "method")):
        own = [r for r in evaluation.records if (r.task, r.method) == (cell.key["task"], cell.key["method"])]
        assert (cell.n, cell.errors) == (len(own), 0)
        at_four = [sum(rank is not None and rank <= 4 for rank in record.ranks) / len(record.ranks) for record in own]
        assert cell.figures["recall@4"] == estimate(at_four)
        assert cell.figures["all@4"] == estimate([float(share == 1) for share in at_four])
        assert cell.figures["kept_tokens"].value == sum(record.kept_tokens for record in own) / len(own)
        assert cell.figures["contains"] == estimate([record.contains for record in own])


def test_depths_are_grouped_into_equal_parts(evaluation: Evaluation):
    cells = evaluation.cells(by=("depth",), bins=4)
    counts = Counter(min(3, int(record.depths[0] * 4)) for record in evaluation.records)
    assert {cell.key["depth"]: cell.n for cell in cells} == counts
    with pytest.raises(SettingError, match="Cannot group by colour"):
        evaluation.cells(by=("colour",))


def test_json_holds_everything(evaluation: Evaluation):
    body = json.loads(evaluation.to_json())
    assert body["settings"]["seed"] == 5
    assert len(body["records"]) == len(evaluation.records)
    assert {cell["key"]["method"] for cell in body["by_length"]} == set(BUILT_IN) - {"full"}
    assert body["by_task"][0]["figures"]["recall@1"].keys() == {"value", "low", "high", "n"}
    assert body["records"][0]["gold"] == list(evaluation.records[0].gold)


class Clock:
    """Every look at it is a second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize(("limit", "done"), [(0, 0), (3, 2), (100, 6)])
def test_a_time_limit_ends_between_examples(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch, limit: int, done: int):
    monkeypatch.setattr(runner, "time", Clock())
    seen: list[EvaluationProgress] = []
    found = evaluate(
        xl3m,
        tasks=["kv", "lines"],
        lengths=[300],
        n=3,
        methods=["head", "tail"],
        time_limit=limit,
        progress=seen.append,
    )
    assert found.complete is (done == 6)
    assert len(found.records) == 2 * done
    assert [at.done for at in seen] == list(range(done)) and {at.total for at in seen} <= {6}
    ns = [cell.n for cell in found.cells(by=("task", "method"))]
    assert not ns or max(ns) - min(ns) <= 1
    json.loads(found.to_json())


def test_an_interrupt_gives_what_there_is(xl3m: XL3M):
    class Interrupted(Broken):
        def run(self, asked: Any) -> Any:
            raise KeyboardInterrupt if asked.example.number else ScoringError("no probabilities")

    found = evaluate(xl3m, tasks=["kv"], lengths=[300], n=3, methods=["head", Interrupted()])
    assert (found.complete, len(found.records)) == (False, 2)


def test_rows(xl3m: XL3M):
    def row(number: int, pin: str) -> Example:
        text = f"The pin is {pin}. Rain. " * 60
        return Example("mine", text, "What is the pin?", (pin,), ((0, 13),), number=number)

    found = evaluate(xl3m, rows=[row(0, "11"), row(1, "12"), row(2, "13")], n=2, methods=["head"])
    assert [(one.task, one.length, one.answers) for one in found.records] == [
        ("mine", None, ("11",)),
        ("mine", None, ("12",)),
    ]
    assert found.records[0].ranks == (1,)
    assert found.settings["tasks"] == ["mine"]


def test_twins_measure_what_is_said_of_the_text(xl3m: XL3M):
    """Only XL3M says whether the text holds the answer; every question is asked with and without it."""
    found = evaluate(
        xl3m, tasks=["kv", "two_hop"], lengths=[400], n=3, seed=2, methods=["xl3m", "head"], unanswerable=True
    )
    own = [record for record in found.records if record.method == "xl3m"]
    assert Counter(record.answerable for record in own) == {True: 6, False: 6}
    assert all(record.answerable for record in found.records if record.method == "head")
    assert [record.question for record in own if record.answerable] == [r.question for r in own if not r.answerable]
    (cell, head) = found.cells(by=("method",))
    yes, no = ([r.certainty for r in own if r.answerable is held] for held in (True, False))
    assert cell.n == 6 and cell.figures["auroc"].value == pytest.approx(
        sum((a > b) + (a == b) / 2 for a in yes for b in no) / 36
    )
    right = sum(record.found is record.answerable for record in own)
    assert cell.figures["found"] == estimate([1.0] * right + [0.0] * (12 - right))
    assert head.figures["auroc"] is None and head.figures["found"] is None


def test_an_unanswerable_row_is_not_counted_right_or_wrong(xl3m: XL3M):
    row = Example("mine", "Rain. " * 300, "What is the pin?", (), (), answerable=False)
    (record,) = evaluate(xl3m, rows=[row], n=1, methods=["xl3m"]).records
    assert (record.exact, record.contains, record.ranks) == (None, None, ())
    assert record.answer is not None


class Broken:
    name = "broken"

    def check(self) -> None:
        """Nothing is needed."""

    def run(self, asked: Any) -> Any:
        raise ScoringError("no probabilities")


def test_a_failure_is_recorded_and_the_run_goes_on(xl3m: XL3M):
    found = evaluate(xl3m, tasks=["kv"], lengths=[300], n=2, methods=[Broken(), "head"])
    cells = {cell.key["method"]: cell for cell in found.cells(by=("method",))}
    assert (cells["broken"].n, cells["broken"].errors) == (0, 2)
    assert (cells["head"].n, cells["head"].errors) == (2, 0)
    assert cells["broken"].figures["exact"] is None
    assert found.records[0].error == "no probabilities"


def test_what_is_not_installed_is_left_out_unless_it_is_named(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rankers, "find_spec", lambda module: None)
    found = evaluate(xl3m, tasks=["kv"], lengths=[300], n=1)
    assert set(found.settings["methods"]) == set(METHODS) - {"bm25", "embeddings", "llmlingua"}
    assert "xl3m-integrations[eval]" in found.left_out["bm25"]
    with pytest.raises(MissingExtraError, match="BM25"):
        evaluate(xl3m, tasks=["kv"], lengths=[300], n=1, methods=["bm25"])


def test_hops_may_be_asked_for_by_number(xl3m: XL3M):
    found = evaluate(xl3m, tasks=["vt_2"], lengths=[600], n=1, methods=["xl3m-hops-2", "xl3m-hops-3"])
    (record,) = (record for record in found.records if record.method == "xl3m-hops-3")
    example = example_of(TASKS["vt_2"], Material(xl3m), 600, 0, 0)
    assert record.kept == xl3m.answer(example.text, example.question, hops=3).key_context.spans


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n": 0}, "n is 0"),
        ({"methods": ["xl3m-hops-0"]}, "Unknown method"),
        ({"lengths": []}, "lengths"),
        ({"top_k": 0}, "top_k 0"),
        ({"methods": ["magic"]}, "Unknown method 'magic'"),
        ({"tasks": ["magic"]}, "Unknown task 'magic'"),
        ({"lengths": [10]}, "A length is 10 tokens"),
    ],
)
def test_wrong_settings(xl3m: XL3M, wrong: dict[str, Any], said: str):
    with pytest.raises(SettingError, match=said):
        evaluate(xl3m, **({"tasks": ["kv"], "methods": ["head"], "lengths": [300]} | wrong))


class Failing:
    """A method of one's own that fails on its second example."""

    name = "failing"

    def check(self) -> None:
        """It needs nothing."""

    def run(self, asked: Any) -> Any:
        if asked.example.number == 1:
            raise RuntimeError("no more")
        return METHODS["tail"].run(asked)


def test_what_fails_on_one_example_loses_no_other(xl3m: XL3M):
    rows = [Example("row", text, "Where?", ("x",), ((0, 1),), number=n) for n, text in enumerate(["x y", "\ud800 x"])]
    found = evaluate(xl3m, tasks=["kv"], lengths=[300], n=3, seed=5, methods=[Failing(), "tail"])
    assert [bool(record.error) for record in found.records if record.method == "failing"] == [False, True, False]
    assert "RuntimeError: no more" in [record.error for record in found.records]
    with pytest.warns(UserWarning, match="row could not be asked"):
        found = evaluate(xl3m, rows=rows, n=2, methods=["tail"])
    assert [record.number for record in found.records] == [0] and found.complete
