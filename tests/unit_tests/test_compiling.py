"""A compiled scoring pass gives what the plain one gives."""

from __future__ import annotations

import shutil

import pytest
import torch
from models import QUESTION, assert_same, shared_model, shared_tokenizer, text_of

from xl3m_integrations import XL3M, SettingError
from xl3m_integrations.backends.shared_pass import Sharing
from xl3m_integrations.backends.transformers import TransformersBackend

# torch's own, of its compiler, in whichever test of a process loads it first
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
TEXT = text_of(3_000, seed=21)


def engine(*, compile: bool) -> XL3M:
    backend = TransformersBackend(shared_model(), shared_tokenizer(), batch_tokens=500, compile=compile)
    return XL3M(backend, backend)


@pytest.mark.slow
@needs_compiler
def test_compiled_is_plain():
    plain, compiled = engine(compile=False), engine(compile=True)
    expected = plain.select(TEXT, QUESTION, top_k=10**6)
    assert_same(compiled.select(TEXT, QUESTION, top_k=10**6), expected)
    assert_same(compiled.select_many(TEXT, ["Who?", QUESTION], top_k=10**6)[1], expected)


def test_a_compiled_pass_leaves_segments_shared_between_questions():
    """Compiled code rounds in other places than the model itself, which must not pass for a model that cannot share."""
    compiled = XL3M.default(compile=True, dtype="bfloat16").scorer
    assert isinstance(compiled, TransformersBackend)
    assert compiled.sharing is XL3M.default().scorer.sharing is Sharing.PACKS


def test_where_compiling_fails_the_error_says_so(monkeypatch: pytest.MonkeyPatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no compiler here")

    torch._dynamo.reset()
    monkeypatch.setattr("xl3m_integrations.backends.compiling.BACKEND", broken)
    with pytest.raises(SettingError, match=r"torch\.compile fails on LlamaForCausalLM.*no compiler here"):
        engine(compile=True).select(TEXT, "Who?")
