"""Questions in one row: each sees the segment and itself, and shared beginnings are there once."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from xl3m_integrations.backends.question_tree import QuestionTree

CPU = torch.device("cpu")
questions = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=6)


@given(asked=questions)
def test_beginnings_are_in_the_row_once_and_each_question_is_whole(asked: list[list[int]]) -> None:
    tree = QuestionTree.of(asked)
    assert [[tree.row[place] for place in path] for path in tree.paths] == asked
    assert len(tree.row) == len({tuple(own[: n + 1]) for own in asked for n in range(len(own))})


@given(asked=questions, kept=st.integers(0, 4), padding=st.integers(0, 3))
def test_a_token_sees_the_segment_and_what_stands_before_it_in_its_question(
    asked: list[list[int]], kept: int, padding: int
) -> None:
    tree = QuestionTree.of(asked)
    whole = kept + len(tree.row) + padding
    behind = tree.behind(kept, whole, torch.float32, CPU)
    assert behind["attention_mask"].shape == (1, 1, len(tree.row), whole)
    sees, positions = behind["attention_mask"][0, 0] == 0, behind["position_ids"][0]
    for path in tree.paths:
        for n, place in enumerate(path):
            seen = set(sees[place].nonzero()[:, 0].tolist())
            assert seen == set(range(kept)) | {kept + before for before in path[: n + 1]}
            assert positions[place] == kept + n


@given(asked=questions, wanted=st.integers(1, 3))
def test_the_last_tokens_of_each_question_are_among_those_kept(asked: list[list[int]], wanted: int) -> None:
    tree = QuestionTree.of(asked)
    keep, places = tree.last([min(wanted, len(own)) for own in asked], CPU)
    row = torch.tensor(tree.row)
    for own, among in zip(asked, places, strict=True):
        assert row[keep][among].tolist() == own[-wanted:]
    assert keep.tolist() == sorted({place for path in tree.paths for place in path[-wanted:]})
