"""The model that answers, for LangChain's LLM and chat model: one of our own, or any LangChain model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, cast

from langchain_core.language_models import BaseLanguageModel
from pydantic import AliasChoices, BaseModel, Field, model_validator

from xl3m_integrations.adapting import EngineFields
from xl3m_integrations.backends.base import Generator
from xl3m_integrations.choice import Choice
from xl3m_integrations.concurrency import Cancellation
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import SettingError
from xl3m_integrations.fitting import Window

# Where LangChain's local models say how many tokens they read.
_WINDOW_FIELDS = ("n_ctx", "num_ctx", "context_window", "max_input_tokens", "max_model_len")
_UNBOUNDED = 10**8
_PLAIN = (str, int, float, bool, type(None))  # what of a wrapped model's settings is the same in every run
CHOICE_NAMES = ("top_k", "token_budget", "selection", "measure", "keep_first", "keep_last", "hops", "prefilter")


def window_of(llm: Any, given: int | None) -> int:
    """Tokens that a wrapped model reads and writes.

    Args:
        llm: The model.
        given: What the user says; believed.

    Raises:
        SettingError: Nobody says.
    """
    profile = getattr(llm, "profile", None) or {}
    pipeline = getattr(llm, "pipeline", None)
    config = getattr(getattr(pipeline, "model", None), "config", None)
    said = [given, *(getattr(llm, name, None) for name in _WINDOW_FIELDS), profile.get("max_input_tokens")]
    said.append(getattr(config, "max_position_embeddings", None))
    window = next((tokens for tokens in said if isinstance(tokens, int) and 0 < tokens < _UNBOUNDED), None)
    if window is None:
        raise SettingError(f"{type(llm).__name__} does not say how many tokens it reads; pass reader_window=.")
    return window


def counter_of(llm: BaseLanguageModel[Any]) -> Callable[[str], int]:
    """Counts a wrapped model's tokens by its own tokenizer; three bytes make a token where it has none to hand."""

    def count(text: str) -> int:
        return llm.get_num_tokens(text)

    has_own = llm.custom_get_token_ids is not None or any(
        name in vars(cls)
        for cls in type(llm).__mro__
        if cls is not BaseLanguageModel and cls.__module__ != "langchain_core.language_models.base"
        for name in ("get_num_tokens", "get_token_ids")
    )
    return count if has_own else lambda text: (len(text.encode("utf-8")) + 2) // 3


def pipeline_parts(llm: Any) -> tuple[Any, Any, dict[str, Any]] | None:
    """Model, tokenizer and generation arguments of a loaded `HuggingFacePipeline`; None for any other model."""
    pipeline = getattr(llm, "pipeline", None)
    model, tokenizer = getattr(pipeline, "model", None), getattr(pipeline, "tokenizer", None)
    if model is None or tokenizer is None:
        return None
    arguments = dict(getattr(llm, "pipeline_kwargs", None) or {})
    arguments.pop("return_full_text", None)
    return model, tokenizer, arguments


class ReaderFields(BaseModel):
    """Fields of an adapter that answers.

    Attributes:
        llm: Any LangChain model that answers instead of the engine's own.
        reader_window: Tokens that `llm` reads and writes; None asks the model.
        max_tokens: Tokens of the answer at most; None takes the engine's default.
        temperature: None or 0 is greedy.
        top_p: Nucleus sampling, with a temperature.
        stop: Strings that end the answer and are left out of it.
        timeout: Seconds after which an answer of the own model is given up.
    """

    llm: Any = Field(default=None, exclude=True)
    reader_window: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1, validation_alias=AliasChoices("max_tokens", "max_new_tokens"))
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: list[str] | None = Field(default=None, validation_alias=AliasChoices("stop", "stop_sequences"))
    timeout: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _take_pipeline_apart(cls, values: Any) -> Any:
        """A loaded pipeline's model becomes the engine's, so that it is not loaded twice and `stop` is honoured."""
        if not isinstance(values, dict) or values.get("xl3m") is not None or values.get("model") is not None:
            return values
        parts = pipeline_parts(values.get("llm"))
        if parts is None:
            return values
        model, tokenizer, arguments = parts
        taken = dict(values)
        del taken["llm"]
        engine = XL3M.from_pretrained(model=model, tokenizer=tokenizer, **taken.pop("model_options", {}))
        if "max_new_tokens" in arguments and "max_tokens" not in taken:
            taken.setdefault("max_new_tokens", arguments["max_new_tokens"])
        for name in ("temperature", "top_p"):
            if arguments.get("do_sample") and arguments.get(name) is not None:
                taken.setdefault(name, arguments[name])
        return taken | {"xl3m": engine}

    @property
    def reader_name(self) -> str:
        """Name of the model that answers."""
        if self.llm is not None:
            named = (getattr(self.llm, name, None) for name in ("model_name", "model", "model_id"))
            return next((name for name in named if isinstance(name, str)), type(self.llm).__name__)
        return cast("EngineFields", self).engine_name

    def identity(self) -> dict[str, Any]:
        """Everything that changes what is answered: two configurations never share a cache entry."""
        own = cast("EngineFields", self)
        reader = None
        if self.llm is not None:
            reader = {"type": type(self.llm).__name__, **dict(getattr(self.llm, "_identifying_params", {}) or {})}
            reader |= {name: value for name, value in vars(self.llm).items() if isinstance(value, _PLAIN)}
        asked = ("reader_window", "max_tokens", "temperature", "top_p", "timeout")
        # A cache key's "stop" is the call's and would cover up this one.
        identity = own.engine_identity() | {"llm": reader, "default_stop": self.stop}
        return identity | {name: getattr(self, name) for name in asked}

    def tracing(self, stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        """What LangSmith wants to know; what a call says comes before what the adapter says."""
        known: dict[str, Any] = {"ls_provider": "xl3m", "ls_model_name": kwargs.get("model", self.reader_name)}
        known |= {f"ls_{name}": kwargs.get(name, getattr(self, name)) for name in ("temperature", "max_tokens")}
        known |= {"ls_stop": stop or self.stop}
        return {name: value for name, value in known.items() if value is not None}

    def choice_of(self, kwargs: dict[str, Any], cancellation: Cancellation) -> Choice:
        """How much to keep: what the call says, else the adapter's own."""
        own = dict(cast("EngineFields", self).choice)
        said = {name: kwargs[name] for name in CHOICE_NAMES if name in kwargs}
        if {"top_k", "token_budget", "selection"} & set(said):
            own.pop("top_k"), own.pop("token_budget")
        return cast("Choice", own | said | {"progress": cancellation})

    def reader(self, stop: list[str] | None, kwargs: dict[str, Any]) -> Reader:
        """The model that answers one call, with the call's own settings before the adapter's."""
        more = {name: value for name, value in kwargs.items() if name not in (*CHOICE_NAMES, "question", "delimiter")}
        limit = more.pop("max_tokens", None) or more.pop("max_new_tokens", None) or self.max_tokens
        said = {name: more.pop(name, getattr(self, name)) for name in ("temperature", "top_p")}
        options = more | {name: value for name, value in said.items() if value is not None}
        stops = stop if stop is not None else self.stop or []
        if self.llm is None:
            return OwnReader.of(cast("EngineFields", self).engine, limit, stops, self.timeout, options)
        return WrappedReader.of(self.llm, self.reader_window, limit, stops, options)


class Reader(Protocol):
    """Answers prompts that fit."""

    @property
    def window(self) -> Window:
        """Its window."""

    def complete(self, prompt: str, cancellation: Cancellation) -> Iterator[str]:
        """The answer to one prompt, in pieces."""

    def complete_many(self, prompts: Sequence[str], cancellation: Cancellation) -> list[str]:
        """The answers to several prompts."""


@dataclass(frozen=True)
class OwnReader:
    """The engine's own model."""

    generator: Generator
    window: Window
    stop: tuple[str, ...]
    timeout: float | None
    options: dict[str, Any]

    @classmethod
    def of(
        cls, engine: XL3M, limit: int | None, stop: Sequence[str], timeout: float | None, options: dict[str, Any]
    ) -> OwnReader:
        """The engine's reader, with these settings."""
        if engine.reader is None:
            raise SettingError("This engine has no reader, so it can select but not answer; pass llm=.")
        if options.get("temperature"):
            options = {"do_sample": True, **options}
        else:
            options = {name: value for name, value in options.items() if name not in ("temperature", "top_p")}
        reader = engine.reader
        window = Window(reader.window, limit or engine.max_new_tokens, reader.count_prompt)
        return cls(reader, window, tuple(stop), timeout, options)

    def complete(self, prompt: str, cancellation: Cancellation) -> Iterator[str]:
        """See `Reader.complete`."""
        pieces = self.generator.complete(prompt, max_new_tokens=self.window.answer, stop=self.stop, **self.options)
        began = time.monotonic()
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                if cancellation.cancelled:
                    return
                if self.timeout is not None and time.monotonic() - began > self.timeout:
                    raise TimeoutError(f"No whole answer within {self.timeout} s; raise timeout or lower max_tokens.")
                yield piece

    def complete_many(self, prompts: Sequence[str], cancellation: Cancellation) -> list[str]:
        """See `Reader.complete_many`. One batch where nothing asks for a watch on each answer."""
        if len(prompts) > 1 and self.timeout is None:
            return self.generator.complete_many(
                prompts, max_new_tokens=self.window.answer, stop=self.stop, **self.options
            )
        return ["".join(self.complete(prompt, cancellation)) for prompt in prompts]


@dataclass(frozen=True)
class WrappedReader:
    """Any LangChain model."""

    llm: Any
    window: Window
    stop: list[str]
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        llm: Any,
        window: int | None,
        limit: int | None,
        stop: Sequence[str],
        options: dict[str, Any],
    ) -> WrappedReader:
        """`llm` with these settings."""
        tokens = window_of(llm, window)
        if limit is not None:
            options = {"max_tokens": limit, **options}
        answer = limit or max(16, min(256, tokens // 10))
        return cls(llm, Window(tokens, answer, counter_of(llm)), list(stop), options)

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of a call."""
        return {**({"stop": self.stop} if self.stop else {}), **self.options}

    def complete(self, prompt: str, cancellation: Cancellation) -> Iterator[str]:
        """See `Reader.complete`."""
        for piece in self.llm.stream(prompt, **self.settings):
            if cancellation.cancelled:
                return
            yield text_of(piece)

    def complete_many(self, prompts: Sequence[str], cancellation: Cancellation) -> list[str]:
        """See `Reader.complete_many`."""
        return [text_of(self.llm.invoke(prompt, **self.settings)) for prompt in prompts]


def text_of(output: Any) -> str:
    """The text of what a LangChain model gave."""
    return output if isinstance(output, str) else str(output.text)
