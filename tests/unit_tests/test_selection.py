"""How many of the best segments stay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xl3m_integrations.errors import SettingError
from xl3m_integrations.selection import AdaptiveGap, Budget, TopK

quick = settings(deadline=None, max_examples=100)
ranked_scores = st.lists(st.integers(-20, 20).map(float), max_size=12).map(lambda s: sorted(s, reverse=True))


@pytest.mark.parametrize(("k", "there", "kept"), [(1, 5, 1), (5, 5, 5), (9, 5, 5), (3, 0, 0)])
def test_top_k_keeps_k_or_all_there_are(k, there, kept):
    assert TopK(k).count([0.0] * there, [8] * there) == kept


@quick
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12), budget=st.integers(50, 300))
def test_budget_keeps_the_longest_run_of_best_segments_that_fits(lengths, budget):
    fitting = [n for n in range(len(lengths) + 1) if sum(lengths[:n]) <= budget]
    assert Budget(budget).count([0.0] * len(lengths), lengths) == max(fitting)


def test_budget_takes_no_later_segment_in_place_of_one_that_did_not_fit():
    assert Budget(10).count([3.0, 2.0, 1.0], [6, 5, 1]) == 1


def test_budget_below_the_best_segment_is_refused_with_the_length_that_would_do():
    with pytest.raises(SettingError, match="token_budget is 5 tokens, but the best segment has 6; raise token_budget"):
        Budget(5).count([1.0, 0.0], [6, 2])


def test_budget_of_nothing_keeps_nothing():
    assert Budget(5).count([], []) == 0


@pytest.mark.parametrize(
    ("low", "high", "scores", "kept"),
    [
        (1, 16, [9.0, 8.0, 2.0, 1.0], 2),
        (1, 16, [9.0, 1.0, 0.0], 1),
        (2, 16, [9.0, 1.0, 0.0], 2),
        (1, 2, [9.0, 8.0, 7.0, 0.0], 1),
        (1, 3, [9.0, 8.0, 7.0, 0.0], 3),
        (3, 5, [1.0, 0.0], 2),
        (1, 16, [1.0], 1),
        (1, 16, [], 0),
    ],
)
def test_adaptive_gap_cuts_at_the_widest_gap_in_range(low, high, scores, kept):
    assert AdaptiveGap(low, high).count(scores, [8] * len(scores)) == kept


@quick
@given(scores=ranked_scores, low=st.integers(1, 6), more=st.integers(0, 8))
def test_adaptive_gap_stays_in_range_and_no_gap_in_range_is_wider(scores, low, more):
    kept = AdaptiveGap(low, low + more).count(scores, [8] * len(scores))
    assert min(low, len(scores)) <= kept <= min(low + more, len(scores))
    if low < len(scores):
        gaps = {k: scores[k - 1] - scores[k] for k in range(low, min(low + more, len(scores) - 1) + 1)}
        assert kept == min(k for k, gap in gaps.items() if gap == max(gaps.values()))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TopK(0), "top_k is 0; it must be at least 1"),
        (lambda: Budget(-3), "token_budget is -3; it must be at least 1"),
        (lambda: AdaptiveGap(low=0), "low is 0; it must be at least 1"),
        (lambda: AdaptiveGap(low=4, high=3), "high is 3; it must be at least 4"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(SettingError, match=message):
        build()


@pytest.mark.parametrize("value", [2.5, "3", None, True])
@pytest.mark.parametrize(
    "make", [TopK, Budget, lambda value: AdaptiveGap(low=value), lambda value: AdaptiveGap(high=value)]
)
def test_what_is_no_whole_number_is_refused(make, value):
    with pytest.raises(SettingError, match="whole number"):
        make(value)
