"""Progress through documents, which are read piece by piece as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from models import QUESTION, TEXT, make_backend, text_of

from xl3m_integrations import XL3M, Progress
from xl3m_integrations.backends import transformers


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("streamed", [False, True])
def test_progress_rises_to_the_end(xl3m: XL3M, streamed: bool):
    seen: list[Progress] = []
    selection = xl3m.select(iter([TEXT]) if streamed else TEXT, QUESTION, progress=seen.append)
    assert len(seen) > len(selection.scores)
    characters = [progress.characters for progress in seen]
    assert characters == sorted(characters)
    assert characters[0] > 0
    assert characters[-1] == seen[-1].total == len(TEXT)
    assert {progress.total for progress in seen[:-1]} <= {None if streamed else len(TEXT), len(TEXT)}
    assert seen[-1].segments == len(selection.scores)
    everything = xl3m.select(TEXT, QUESTION, top_k=10**6).segments
    assert seen[-1].tokens == sum(s.tokens + xl3m.scorer.overhead(QUESTION) for s in everything)


@pytest.mark.usefixtures("unhurried")
def test_progress_over_several_documents(xl3m: XL3M):
    texts, seen = [text_of(size, seed=size) for size in (400, 900, 200)], []
    xl3m.select_documents(texts, QUESTION, progress=seen.append)
    characters = [progress.characters for progress in seen]
    assert characters == sorted(characters)
    assert all(progress.total == 1_500 for progress in seen)
    assert characters[-1] == 1_500


@pytest.mark.usefixtures("unhurried")
def test_a_streamed_document_is_read_once_and_as_it_is_needed(xl3m: XL3M):
    """Memory must not grow with the document: it is not drained before the first segments are scored."""
    handed_out = 0

    def pieces() -> Iterator[str]:
        nonlocal handed_out
        for _ in range(400):
            handed_out += 1
            yield TEXT

    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise Enough

    with pytest.raises(Enough):
        xl3m.select(pieces(), QUESTION, progress=stop)
    assert 0 < handed_out < 200


@pytest.mark.usefixtures("unhurried")
def test_a_large_model_tells_of_its_progress_after_less_work(monkeypatch: pytest.MonkeyPatch):
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise Stop

    def read_before_the_first_report() -> int:
        backend = make_backend("llama", batch_tokens=200)
        read, forward = 0, backend.logits

        def logits(ids: Any, *arguments: Any, **settings: Any) -> Any:
            nonlocal read
            read += ids.numel()
            return forward(ids, *arguments, **settings)

        monkeypatch.setattr(backend, "logits", logits)
        with pytest.raises(Stop):
            XL3M(backend).select(TEXT * 4, QUESTION, measure="entropy", progress=stop)
        return read

    small = read_before_the_first_report()
    monkeypatch.setattr(transformers, "LARGE", 1)
    assert read_before_the_first_report() < 2 / 3 * small
