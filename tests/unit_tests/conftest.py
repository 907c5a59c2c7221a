"""What unit tests share: tokenizers of each kind, a tiny model on disk, progress at every step, endless answers."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from models import make_model, make_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from xl3m_integrations import scoring
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.bundled import corpus
from xl3m_integrations.bundled.tokenizer import train_tokenizer
from xl3m_integrations.tokens import TextTokenizer

settings.register_profile("untimed", deadline=None)  # how long a machine takes is no property of the code
settings.load_profile("untimed")

_TEXT = "".join(corpus.stream_document(random.Random(7), [], 60_000))


def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2 and Qwen have: a character may be several tokens; it has a chat template."""
    return train_tokenizer([_TEXT], vocab_size=700, window=4096)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As Llama 2: a space is put before the text, spaces are "▁", an unknown character falls back on its bytes."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    learner.train_from_iterator(
        [_TEXT, "\n\n\n"], trainers.BpeTrainer(vocab_size=500, show_progress=False, special_tokens=["<unk>"])
    )
    model = json.loads(learner.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {name: number for number, name in enumerate([*names, *(v for v in model["vocab"] if v not in names)])}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def dropping() -> PreTrainedTokenizerFast:
    """A vocabulary of ASCII with neither bytes nor an unknown token: any other character leaves no trace."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\w+|[^\w]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.train_from_iterator(
        ["".join(map(chr, range(32, 127))) + "\n\r\t", *_TEXT.encode("ascii", "ignore").decode().splitlines()],
        trainers.BpeTrainer(vocab_size=500, show_progress=False, special_tokens=["<|end|>"]),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", model_max_length=4096, clean_up_tokenization_spaces=False
    )


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte_level": byte_level,
    "sentencepiece_like": sentencepiece_like,
    "dropping": dropping,
}


@pytest.fixture(scope="session")
def pretrained() -> dict[str, PreTrainedTokenizerFast]:
    """The `transformers` tokenizers, by kind."""
    return {kind: build() for kind, build in KINDS.items()}


@pytest.fixture(scope="session", params=sorted(KINDS))
def tokenizer(request: pytest.FixtureRequest, pretrained: dict[str, PreTrainedTokenizerFast]) -> TextTokenizer:
    """Each kind in turn, as the package reads it."""
    return TextTokenizer(pretrained[request.param])


@pytest.fixture(scope="session")
def byte_level_tokenizer(pretrained: dict[str, PreTrainedTokenizerFast]) -> TextTokenizer:
    return TextTokenizer(pretrained["byte_level"])


@pytest.fixture(scope="session")
def sentencepiece_tokenizer(pretrained: dict[str, PreTrainedTokenizerFast]) -> TextTokenizer:
    return TextTokenizer(pretrained["sentencepiece_like"])


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved tiny Llama with its tokenizer; to be left as it is."""
    path = tmp_path_factory.mktemp("llama")
    make_model().save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def model(saved_model: Path) -> str:
    """The same folder, as the command line takes it."""
    return str(saved_model)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is reported after every segment."""
    monkeypatch.setattr(scoring, "_SECONDS_BETWEEN_REPORTS", 0)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Models write for ever; set when they are told to stop."""
    closed = threading.Event()

    def complete(self: TransformersBackend, prompt: str, **options: Any) -> Iterator[str]:
        try:
            while True:
                yield "rain "
        finally:
            closed.set()

    monkeypatch.setattr(TransformersBackend, "complete", complete)
    return closed
