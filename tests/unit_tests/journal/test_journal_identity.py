"""The journal gives back only what the same model and settings have computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from journaling import TEXT, LoggingScorer, engine, reused, scored, segments_of
from models import QUESTION, ROUNDING, make_model, make_tokenizer, shared_model, shared_tokenizer

from xl3m_integrations import XL3M, SettingError
from xl3m_integrations.backends.journal import JournaledScorer
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.certainty import AnswerEntropy, Blend, Entropy, Measure, QuestionLikelihood

CHANGES: dict[str, Callable[[], tuple[dict[str, Any], str, Any]]] = {
    "weights": lambda: ({"model": make_model(seed=1)}, QUESTION, "blend"),
    "architecture": lambda: ({"model": make_model("mistral")}, QUESTION, "blend"),
    "dtype": lambda: ({"model": make_model().bfloat16()}, QUESTION, "blend"),
    "tokenizer": lambda: ({"tokenizer": make_tokenizer(bos=False)}, QUESTION, "blend"),
    "template": lambda: ({"template": "{segment}\n{question}"}, QUESTION, "blend"),
    "question": lambda: ({}, QUESTION + " ", "blend"),
    "measure": lambda: ({}, QUESTION, "entropy"),
    "setting of the measure": lambda: ({}, QUESTION, Blend(gain_weight=0.5)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_or_setting_reuses_nothing(tmp_path: Path, change: str):
    path = tmp_path / "run.db"
    engine().select(TEXT, QUESTION, journal=path)
    changed, question, measure = CHANGES[change]()
    other = engine(**changed)
    selection = other.select(TEXT, question, measure=measure, journal=path)
    assert selection.reused == 0
    quiet = engine(**changed).select(TEXT, question, measure=measure)
    # A second look of the same settings is the same look, at segments that may have been read in other batches.
    assert selection.scores == pytest.approx(quiet.scores, abs=ROUNDING if change == "setting of the measure" else 0)
    assert other.select(TEXT, question, measure=measure, journal=path).reused == len(selection.scores)


@pytest.mark.parametrize(
    ("one", "other"),
    [(AnswerEntropy(2), AnswerEntropy(3)), (QuestionLikelihood(), QuestionLikelihood("Really.")), (Entropy(), Blend())],
    ids=repr,
)
def test_settings_of_every_measure_count(tmp_path: Path, one: Measure, other: Measure):
    scored(JournaledScorer(LoggingScorer(), tmp_path / "run.db"), segments_of(range(3)), one)
    again = JournaledScorer(LoggingScorer(), tmp_path / "run.db")
    assert reused(scored(again, segments_of(range(3)), other)) == 0
    assert reused(scored(again, segments_of(range(3)), one)) == 3


class TestFingerprint:
    @staticmethod
    def of(model: Any, **options: Any) -> str:
        return TransformersBackend(model, shared_tokenizer(), **options).fingerprint

    def test_is_the_same_for_the_same_model_loaded_again(self, tmp_path: Path):
        shared_model().save_pretrained(tmp_path)
        shared_tokenizer().save_pretrained(tmp_path)
        loaded = [XL3M.from_pretrained(tmp_path, dtype="float32", device="cpu").scorer for _ in range(2)]
        assert len({one.fingerprint for one in loaded}) == 1

    def test_batches_do_not_count(self):
        assert self.of(shared_model(), batch_tokens=100) == self.of(shared_model(), batch_tokens=900)

    @pytest.mark.parametrize("architecture", ["llama", "gpt2"])
    def test_any_single_weight_counts(self, architecture: str):
        model = make_model(architecture)
        seen = {self.of(model)}
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters(), 2):
                flat = parameter.view(-1)
                at = number * 37 % len(flat)
                flat[at] = torch.nextafter(flat[at], torch.tensor(9.0))
                seen.add(self.of(model))
                assert len(seen) == number

    def test_moved_rows_count(self):
        model = make_model()
        before = self.of(model)
        with torch.no_grad():
            table = model.get_input_embeddings().weight
            table.copy_(table.flip(0))
        assert self.of(model) != before


def test_a_scorer_without_a_fingerprint_is_refused(tmp_path: Path):
    class Nameless:
        window, tokenizer = 4096, None

    with pytest.raises(SettingError, match="no fingerprint"):
        JournaledScorer(Nameless(), tmp_path / "run.db")
    assert not list(tmp_path.iterdir())


def test_a_measure_whose_settings_are_not_known_is_refused(tmp_path: Path):
    class Homemade:
        name, columns = "homemade", ("a",)

    with pytest.raises(SettingError, match="frozen dataclass"):
        scored(JournaledScorer(LoggingScorer(), tmp_path / "run.db"), segments_of([1]), Homemade())
