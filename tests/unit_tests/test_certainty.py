"""Measures against values worked out by hand, in closed form, or with numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xl3m_integrations.certainty import (
    DEFAULT_MEASURE,
    MEASURES,
    RESTRICTIVE_SENTENCE,
    AnswerEntropy,
    Blend,
    Entropy,
    Needs,
    Observation,
    QuestionLikelihood,
    clipped_gain,
    entropy_of,
    get_measure,
    mean_nll,
    standardised,
)
from xl3m_integrations.errors import SettingError

quick = settings(deadline=None, max_examples=100)
weights = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30)
finite = st.floats(-50, 50)


def logs(*rows: list[float]) -> torch.Tensor:
    """Log-probabilities of rows of probabilities; zero gives -inf."""
    return torch.tensor(rows, dtype=torch.float64).log()


# ---------------------------------------------------------------------------------------------- entropy
@pytest.mark.parametrize("size", [1, 2, 10, 50_000])
def test_entropy_of_a_uniform_distribution_is_the_log_of_its_size(size):
    assert entropy_of(torch.full((size,), -math.log(size))).item() == pytest.approx(math.log(size), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entropy_of_a_certain_token_is_zero_although_all_others_are_minus_infinity(dtype):
    row = torch.full((7,), -math.inf, dtype=dtype)
    row[3] = 0.0
    assert entropy_of(row).item() == 0.0


@quick
@given(p=st.floats(0.0, 1.0))
def test_entropy_of_two_outcomes(p):
    expected = -sum(x * math.log(x) for x in (p, 1 - p) if x > 0)
    assert entropy_of(logs([p, 1 - p, 0.0])).item() == pytest.approx(expected, abs=1e-9)


@quick
@given(raw=weights)
def test_entropy_equals_numpys_and_lies_between_zero_and_the_log_of_the_size(raw):
    p = np.array(raw) / np.sum(raw)
    value = entropy_of(logs(p.tolist())).item()
    assert value == pytest.approx(float(-(p * np.log(p)).sum()), abs=1e-9)
    assert -1e-9 <= value <= math.log(len(raw)) + 1e-9


def test_entropy_is_taken_over_the_last_axis_only():
    rows = logs([0.5, 0.5], [1.0, 0.0], [0.25, 0.75])
    together = entropy_of(torch.stack([rows, rows.flip(0)]))
    assert together.shape == (2, 3)
    assert together[0].tolist() == [entropy_of(row).item() for row in rows]


# ---------------------------------------------------------------------------------------------- likelihood
def test_mean_nll_is_the_mean_over_the_questions_tokens():
    assert mean_nll(logs([0.5, 0.25], [1.0, 1.0])).tolist() == pytest.approx([1.5 * math.log(2), 0.0])


def test_mean_nll_of_no_tokens_is_zero():
    assert mean_nll(torch.zeros(3, 0)).tolist() == [0.0, 0.0, 0.0]


def test_clipped_gain_counts_no_token_that_became_unlikelier():
    baseline = logs([0.25, 0.5, 0.5])[0]
    with_segment = logs([0.5, 0.25, 0.5], [0.25, 0.01, 0.01], [1.0, 1.0, 1.0])
    # by hand: only ln 2 of the first token; nothing; ln 4 + ln 2 + ln 2; each over three tokens
    assert clipped_gain(with_segment, baseline).tolist() == pytest.approx([math.log(2) / 3, 0.0, 4 * math.log(2) / 3])


def test_clipped_gain_of_no_tokens_is_zero():
    assert clipped_gain(torch.zeros(2, 0), torch.zeros(0)).tolist() == [0.0, 0.0]


# ---------------------------------------------------------------------------------------------- z
@quick
@given(values=st.lists(finite, min_size=2, max_size=50).filter(lambda v: np.std(v) > 1e-3))
def test_standardised_values_have_mean_zero_and_deviation_one_and_keep_their_order(values):
    z = standardised(torch.tensor(values, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(z, (np.array(values) - np.mean(values)) / np.std(values), atol=1e-6)
    assert z.mean() == pytest.approx(0, abs=1e-7)
    assert z.std() == pytest.approx(1)


@pytest.mark.parametrize("values", [[4.0], [2.5, 2.5, 2.5]])
def test_values_that_do_not_differ_standardise_to_zero(values):
    assert standardised(torch.tensor(values, dtype=torch.float64)).tolist() == [0.0] * len(values)


def test_each_column_is_standardised_alone():
    z = standardised(torch.tensor([[0.0, 1000.0], [2.0, 3000.0]], dtype=torch.float64))
    assert z.tolist() == [[-1.0, -1.0], [1.0, 1.0]]


# ---------------------------------------------------------------------------------------------- measures
NEXT = logs([0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3])


def test_entropy_ranks_the_surest_segment_first():
    evidence = Entropy().evidence(Observation(NEXT))
    assert evidence.shape == (3, 1)
    assert evidence[:, 0].tolist() == pytest.approx([math.log(2), 0.0, math.log(3)])
    assert Entropy().score(evidence).argsort(descending=True).tolist() == [1, 0, 2]


def test_question_likelihood_ranks_the_segment_that_makes_the_question_likeliest_first():
    seen = Observation(NEXT, question=logs([0.1, 0.1], [0.9, 0.9], [0.5, 0.5]))
    evidence = QuestionLikelihood().evidence(seen)
    assert evidence[:, 0].tolist() == pytest.approx([-math.log(0.1), -math.log(0.9), math.log(2)])
    assert QuestionLikelihood().score(evidence).argsort(descending=True).tolist() == [1, 2, 0]


def test_the_restrictive_sentence_follows_the_question_only_where_asked_for():
    assert QuestionLikelihood().asks("Who?") == "Who?"
    assert QuestionLikelihood(RESTRICTIVE_SENTENCE).asks("Who?") == f"Who? {RESTRICTIVE_SENTENCE}"
    assert {measure.asks("Who?") for measure in (Entropy(), AnswerEntropy(), Blend())} == {"Who?"}


def test_answer_entropy_stops_at_the_answers_end():
    answer = torch.stack([logs([0.5, 0.5], [1.0, 0.0], [0.5, 0.5]), logs([0.5, 0.5], [0.5, 0.5], [1.0, 0.0])])
    answered = torch.tensor([[True, True, False], [True, False, False]])
    evidence = AnswerEntropy(3).evidence(Observation(NEXT, answer=answer, answered=answered))
    # by hand: (ln 2 + 0) / 2, the third step not counted; ln 2 / 1
    assert evidence[:, 0].tolist() == pytest.approx([math.log(2) / 2, math.log(2)])
    assert AnswerEntropy(3).score(evidence).argsort(descending=True).tolist() == [0, 1]


def test_answer_entropy_of_an_empty_answer_is_zero_and_not_nan():
    seen = Observation(NEXT, answer=logs([0.5, 0.5])[None], answered=torch.tensor([[False]]))
    assert AnswerEntropy(1).evidence(seen).tolist() == [[0.0]]


def test_answer_entropy_asks_for_the_tokens_it_looks_at():
    assert AnswerEntropy(7).needs == Needs(answer_tokens=7)
    with pytest.raises(SettingError, match="answer_tokens is 0; it must be at least 1"):
        AnswerEntropy(0)


def test_blend_keeps_entropy_and_clipped_gain():
    seen = Observation(NEXT, question=logs([0.5], [0.25], [1.0]), baseline=logs([0.5])[0])
    expected = [[math.log(2), 0.0], [0.0, 0.0], [math.log(3), math.log(2)]]
    torch.testing.assert_close(Blend().evidence(seen), torch.tensor(expected, dtype=torch.float64))


@quick
@given(
    rows=st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=3, max_size=40).filter(
        lambda rows: min(np.std(rows, axis=0)) > 1e-3
    ),
    weight=st.floats(0, 4),
)
def test_blend_is_z_of_certainty_plus_weighted_z_of_gain(rows, weight):
    entropy, gain = np.array(rows).T
    expected = -(entropy - entropy.mean()) / entropy.std() + weight * (gain - gain.mean()) / gain.std()
    scores = Blend(gain_weight=weight).score(torch.tensor(rows, dtype=torch.float64))
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-6)


def test_blend_of_one_segment_is_zero():
    assert Blend().score(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).tolist() == [0.0]


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_every_measure_gives_one_finite_number_per_column_and_segment(name):
    measure = MEASURES[name]
    steps = torch.stack([NEXT, NEXT], dim=1)
    question = logs([0.5, 0.1], [0.2, 0.3], [0.9, 0.9])
    seen = Observation(NEXT, question, question[0], steps, torch.ones(3, 2, dtype=torch.bool))
    evidence = measure.evidence(seen)
    assert evidence.shape == (3, len(measure.columns))
    assert measure.score(evidence).shape == (3,)
    assert bool(evidence.isfinite().all()) and bool(measure.score(evidence).isfinite().all())


@pytest.mark.parametrize("name", [name for name, measure in sorted(MEASURES.items()) if measure.needs != Needs()])
def test_a_measure_says_what_the_backend_left_out(name):
    with pytest.raises(SettingError, match="which the backend did not compute"):
        MEASURES[name].evidence(Observation(NEXT))


# ---------------------------------------------------------------------------------------------- by name
def test_measures_are_found_by_name_and_none_gives_the_default():
    assert {name: get_measure(name).name for name in MEASURES} == {name: name for name in MEASURES}
    assert sorted(MEASURES) == ["answer_entropy", "blend", "entropy", "hybrid", "question_likelihood"]
    assert get_measure(None) is MEASURES[DEFAULT_MEASURE]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        SettingError, match=r"'bm25'; choose one of answer_entropy, blend, entropy, hybrid, question_like"
    ):
        get_measure("bm25")


def test_a_measure_of_ones_own_is_used_as_it_is():
    class Peak:
        name = "peak"
        needs = Needs()
        columns = ("peak",)

        def asks(self, question: str) -> str:
            return question

        def evidence(self, seen: Observation) -> torch.Tensor:
            return seen.next.max(-1).values[:, None]

        def score(self, evidence: torch.Tensor) -> torch.Tensor:
            return evidence[:, 0]

    peak = Peak()
    measure = get_measure(peak)
    assert measure is peak
    assert measure.score(measure.evidence(Observation(NEXT))).argsort(descending=True).tolist() == [1, 0, 2]
