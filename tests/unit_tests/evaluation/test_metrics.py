"""Figures: by hand, by brute force, and against published values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xl3m_integrations.evaluation.metrics import (
    auroc,
    bootstrap,
    contained,
    estimate,
    gold_rank,
    is_exact,
    recall,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)  # the last is Newcombe's example (1998), table I
def test_wilson(right: int, n: int, low: float, high: float):
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)


def test_no_values_have_no_estimate():
    assert estimate([]) is None


def test_shares_get_wilsons_interval_and_means_a_bootstraps():
    share, mean = estimate([1, 0, 1, 1]), estimate([0.5, 0.25, 1.0, 0.75])
    assert share is not None and mean is not None
    assert (share.value, share.n) == (0.75, 4)
    assert (share.low, share.high) == wilson(3, 4)
    assert (mean.value, mean.n) == (0.625, 4)
    assert (mean.low, mean.high) == bootstrap([0.5, 0.25, 1.0, 0.75])


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40))
def test_a_bootstrap_interval_is_inside_the_values_and_around_the_mean(values: list[float]):
    low, high = bootstrap(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == bootstrap(values)


def test_a_bootstrap_interval_is_about_two_standard_errors_wide():
    values = [float(number % 10) for number in range(400)]  # standard deviation 2.872
    low, high = bootstrap(values)
    assert high - low == pytest.approx(2 * 1.96 * 2.872 / 400**0.5, rel=0.1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_auroc_counts_pairs(positive: list[int], negative: list[int]):
    found = auroc(positive, negative)
    pairs = [(a > b) + (a == b) / 2 for a in positive for b in negative]
    assert found is not None
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert found.low <= found.high + 1e-9
    assert found.n == min(len(positive), len(negative))


def test_auroc_of_nothing():
    assert auroc([], [1.0]) is None
    assert auroc([1.0], []) is None


spans = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda span: (span[0], span[0] + span[1]))


@given(gold=spans, ranked=st.lists(spans, max_size=8), cover=st.sampled_from([0.5, 1.0]))
def test_gold_rank_is_the_first_k_whose_union_covers(gold, ranked, cover):
    def covered(k: int) -> float:
        held = {at for start, end in ranked[:k] for at in range(start, end)}
        return len(held & set(range(*gold))) / (gold[1] - gold[0])

    enough = [k for k in range(1, len(ranked) + 1) if covered(k) >= cover]
    assert gold_rank(gold, ranked, cover) == min(enough, default=None)


def test_recall():
    assert [recall((1, 5, None, 2), k) for k in (1, 2, 5)] == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("answer", "answers", "needs_all", "exact", "contains"),
    [
        (" 4711.", ("4711",), False, True, 1.0),
        ("It is 4711.", ("4711",), False, False, 1.0),
        ("14711", ("4711",), False, False, 0.0),
        ("oslo", ("Bergen", "Oslo"), False, True, 1.0),
        ("", ("Oslo",), False, False, 0.0),
        ("12, 34 and 56", ("56", "12", "34"), True, True, 1.0),
        ("12, 34", ("56", "12", "34"), True, False, 2 / 3),
        ("12, 34, 56, 78", ("56", "12", "34"), True, False, 1.0),
        ("A+B (x)", ("A+B (x)",), False, True, 1.0),
    ],
)
def test_answers(answer: str, answers: tuple[str, ...], needs_all: bool, exact: bool, contains: float):
    assert is_exact(answer, answers, needs_all=needs_all) is exact
    assert contained(answer, answers, needs_all=needs_all) == pytest.approx(contains)
