"""What LangChain's LLM and chat model have in common: which model answers, and the settings of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables.base import RunnableBindingBase
from pydantic import AliasChoices, BaseModel, Field, model_validator
from typing_extensions import Self

from xl3m_integrations.adapting import EngineFields, without_secrets
from xl3m_integrations.choice import Choice
from xl3m_integrations.concurrency import Cancellation
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import SettingError
from xl3m_integrations.langchain.readers import OwnReader, Reader, WrappedReader, unbound
from xl3m_integrations.prompts import stop_strings

_PLAIN = (str, int, float, bool, type(None))  # what of a wrapped model's settings is the same in every run
_CHOICE = ("top_k", "token_budget", "selection", "measure", "keep_first", "keep_last", "hops", "prefilter")
_FITTING = ("question", "delimiter")
_LIMITS = ("max_tokens", "max_new_tokens")
# What a pipeline does around generating; the model itself would refuse it.
_PIPELINE_ONLY = ("return_full_text", "return_text", "return_tensors", "clean_up_tokenization_spaces", "prefix",
                  "handle_long_generation", "truncation", "padding", "batch_size")  # fmt: skip


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
        reader_options: More arguments of the model that answers, such as `{"repetition_penalty": 1.1}`.
    """

    llm: Any = Field(default=None, exclude=True)
    reader_window: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1, validation_alias=AliasChoices("max_tokens", "max_new_tokens"))
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: list[str] | None = Field(default=None, validation_alias=AliasChoices("stop", "stop_sequences"))
    timeout: float | None = Field(default=None, gt=0)
    reader_options: dict[str, Any] = Field(default_factory=dict)

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
        limit = arguments.pop("max_new_tokens", None)
        if limit is not None and not set(_LIMITS) & set(taken):
            taken["max_tokens"] = limit
        for name in ("temperature", "top_p"):
            value = arguments.pop(name, None)
            if value is not None and arguments.get("do_sample"):
                taken.setdefault(name, value)
        taken["reader_options"] = arguments | taken.get("reader_options", {})
        return taken | {"xl3m": engine}

    @model_validator(mode="after")
    def _check(self) -> Self:
        stop_strings(self.stop)
        if self.llm is None and self.reader_window is not None:
            raise SettingError("reader_window is for llm=; an own model's is set by model_options={'window': …}.")
        return self

    @property
    def reader_name(self) -> str:
        """Name of the model that answers."""
        if self.llm is not None:
            bare = unbound(self.llm)
            named = (getattr(bare, name, None) for name in ("model_name", "model", "model_id"))
            return next((name for name in named if isinstance(name, str)), type(bare).__name__)
        return cast("EngineFields", self).engine_name

    def identity(self) -> dict[str, Any]:
        """Everything that changes what is answered: two configurations never share a cache entry."""
        own = cast("EngineFields", self)
        reader = None if self.llm is None else identity_of(self.llm)
        asked = ("reader_window", "max_tokens", "temperature", "top_p", "timeout", "reader_options")
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
        said = {name: kwargs[name] for name in _CHOICE if name in kwargs}
        if {"top_k", "token_budget", "selection"} & set(said):
            own.pop("top_k"), own.pop("token_budget")
        return cast("Choice", own | said | {"progress": cancellation})

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of `text`, by the reader's own tokenizer."""
        bare = unbound(self.llm)
        if isinstance(bare, BaseLanguageModel):
            return bare.get_token_ids(text)
        return cast("EngineFields", self).engine.scorer.tokenizer.ids(text)

    def reader(self, stop: str | Sequence[str] | None, kwargs: dict[str, Any]) -> Reader:
        """The model that answers one call, with the call's own settings before the adapter's.

        Raises:
            SettingError: One of the call's settings is out of its range.
        """
        given = {name: value for name, value in kwargs.items() if name not in (*_CHOICE, *_FITTING)}
        limit = _limit(given) or self.max_tokens
        own = {name: getattr(self, name) for name in ("temperature", "top_p") if getattr(self, name) is not None}
        options = {name: value for name, value in (self.reader_options | own | given).items() if value is not None}
        _require_sampling(options)
        stops = stop_strings(self.stop if stop is None else stop)
        if self.llm is None:
            return OwnReader.of(cast("EngineFields", self).engine, limit, stops, self.timeout, options)
        return WrappedReader.of(self.llm, self.reader_window, limit, stops, options)


def _limit(given: dict[str, Any]) -> int | None:
    """Takes the answer's limit out of a call's settings."""
    limits = {name: given.pop(name) for name in _LIMITS if name in given}
    said = {name: limit for name, limit in limits.items() if limit is not None}
    for name, limit in said.items():
        if not isinstance(limit, int) or limit < 1:
            raise SettingError(f"{name} is {limit!r}; it must be a whole number, at least 1, or None for the default.")
    if len(said) > 1:
        raise SettingError(f"The call says {said}, but both are names of the answer's limit; pass one.")
    return next(iter(said.values()), None)


def _require_sampling(options: dict[str, Any]) -> None:
    temperature, top_p = options.get("temperature", 0), options.get("top_p", 1)
    if not isinstance(temperature, (int, float)) or not temperature >= 0:
        raise SettingError(f"temperature is {temperature!r}; it must be a number, at least 0, which is greedy.")
    if not isinstance(top_p, (int, float)) or not 0 < top_p <= 1:
        raise SettingError(f"top_p is {top_p!r}; it must be a number above 0, at most 1, which leaves nothing out.")


def identity_of(llm: Any) -> dict[str, Any]:
    """Everything known about a wrapped model that changes what it answers."""
    if isinstance(llm, RunnableBindingBase):
        return {"type": type(llm).__name__, "kwargs": repr(llm.kwargs), "bound": identity_of(llm.bound)}
    known = {"type": type(llm).__name__, **dict(getattr(llm, "_identifying_params", {}) or {})}
    own = {name: value for name, value in vars(llm).items() if isinstance(value, _PLAIN)}
    return known | dict(without_secrets(own))  # callbacks and traces show it


def pipeline_parts(llm: Any) -> tuple[Any, Any, dict[str, Any]] | None:
    """Model, tokenizer and generation arguments of a loaded `HuggingFacePipeline`; None for any other model."""
    pipeline = getattr(llm, "pipeline", None)
    model, tokenizer = getattr(pipeline, "model", None), getattr(pipeline, "tokenizer", None)
    if model is None or tokenizer is None:
        return None
    given = getattr(llm, "pipeline_kwargs", None) or {}
    return model, tokenizer, {name: value for name, value in given.items() if name not in _PIPELINE_ONLY}
