"""What every framework adapter shares: which engine it uses, and how much of a text it keeps."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator
from typing_extensions import Self

from xl3m_integrations.backends.kv_cache import KVCache
from xl3m_integrations.choice import Choice
from xl3m_integrations.engine import XL3M
from xl3m_integrations.index import Index
from xl3m_integrations.types import Segment

# A framework's own base class may ignore what it does not know; a misspelt setting is an error here.
STRICT = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())


_SECRET = re.compile(r"token$|key$|secret|password|credential|^auth", re.IGNORECASE)


def without_secrets(options: Any) -> Any:
    """Options, those within them too, without the ones that are named like a secret."""
    if not isinstance(options, dict):
        return options
    return {name: without_secrets(value) for name, value in options.items() if not _SECRET.search(str(name))}


class HeldIndex:
    """An index of texts, made anew only where they have changed since; what was computed for the others is kept.

    Args:
        cache: Keeps it.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._index: Index | None = None

    def of(self, engine: XL3M, texts: Sequence[str]) -> Index:
        """The index of `texts`."""
        with self._lock:
            if self._index is None or self._texts != list(texts):
                self._index, self._texts = Index(engine, texts, self._cache), list(texts)
            return self._index


class EngineFields(BaseModel):
    """Fields of an adapter.

    Attributes:
        xl3m: An engine to share with others; instead of `model`.
        model: Hub id or folder of a causal language model; None takes the bundled model.
        model_options: Arguments of `XL3M.from_pretrained`, such as `device` or `segment_tokens`. What is named like a
            secret, such as `token`, is neither shown nor serialized.
        top_k: Keep so many segments.
        token_budget: Keep as many segments as fit so many tokens of the scoring model.
        measure: Name of the certainty measure; None takes the engine's.
        hops: Passes over the text, each led by what those before have found; see `Choice`.
        prefilter: Chooses the segments that the model reads; None lets it read all.
    """

    xl3m: XL3M | None = Field(default=None, exclude=True, repr=False)
    model: str | None = None
    model_options: dict[str, Any] = Field(default_factory=dict, repr=False)
    top_k: int | None = None
    token_budget: int | None = None
    measure: str | None = None
    hops: int = Field(default=1, ge=1)
    prefilter: Callable[[str, Iterable[Segment]], Iterable[Segment]] | None = Field(default=None, exclude=True)

    model_config = STRICT

    @model_validator(mode="after")
    def _load(self) -> Self:
        asked = (self.model, self.model_options)
        # A framework may make an adapter anew from the fields of another, the engine that this one loaded among them.
        if self.xl3m is not None and asked not in ((None, {}), getattr(self.xl3m, "loaded_for", None)):
            raise ValueError("Pass either xl3m=, or model= with model_options=, not both.")
        if self.xl3m is None:
            name = () if self.model is None else (self.model,)
            make = XL3M.default if self.model is None else XL3M.from_pretrained
            engine = make(*name, **self.model_options)
            vars(engine)["loaded_for"] = asked
            object.__setattr__(self, "xl3m", engine)
        return self

    @field_serializer("model_options")
    def _shown(self, options: dict[str, Any]) -> Any:
        return without_secrets(options)

    @property
    def engine(self) -> XL3M:
        """The engine."""
        assert self.xl3m is not None
        return self.xl3m

    @property
    def engine_name(self) -> str:
        """Name of the engine's model."""
        return self.engine.name

    def engine_identity(self) -> dict[str, Any]:
        """Everything about the engine that changes what is selected."""
        engine = self.engine
        segmenter = engine.segmenter
        return {
            "model": self.engine_name,
            "origin": engine.origin,
            "model_options": {n: repr(value) for n, value in sorted(without_secrets(self.model_options).items())},
            "template": repr(getattr(engine.scorer, "template", None)),
            "window": engine.window,
            "exit_layer": engine.exit_layer,
            "segment_tokens": segmenter.segment_tokens,
            "overlap_tokens": segmenter.overlap_tokens,
            "measure": repr(self.measure or engine.measure),
            "max_new_tokens": engine.max_new_tokens,
            "top_k": self.top_k,
            "token_budget": self.token_budget,
            "hops": self.hops,
            "prefilter": repr(self.prefilter),
        }

    @property
    def choice(self) -> Choice:
        """How much to keep, as the engine's arguments."""
        return {
            "top_k": self.top_k,
            "token_budget": self.token_budget,
            "measure": self.measure,
            "hops": self.hops,
            "prefilter": self.prefilter,
        }
