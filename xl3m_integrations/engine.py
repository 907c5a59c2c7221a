"""XL3M: document -> segments -> scored segments -> selection -> key context -> answer (arXiv 2405.17755).

The engine owns the defaults and the order of the stages; each stage is a module that knows nothing of the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from typing_extensions import Unpack

from xl3m_integrations.assembly import assemble
from xl3m_integrations.backends import make_backend
from xl3m_integrations.backends.base import Generator, Scorer, supported
from xl3m_integrations.backends.journal import JournaledScorer
from xl3m_integrations.certainty import Measure, get_measure
from xl3m_integrations.choice import Choice, selector_of
from xl3m_integrations.documents import Document, Prepared, Text
from xl3m_integrations.errors import InputError, SettingError
from xl3m_integrations.hops import score_hops
from xl3m_integrations.prompts import require_question, stop_strings
from xl3m_integrations.scoring import Scored, score
from xl3m_integrations.segmentation import Segmenter
from xl3m_integrations.selection import AdaptiveGap, Selector
from xl3m_integrations.types import Answer, Certainty, KeyContext, ScoredSegment, Selection

if TYPE_CHECKING:
    import torch

    from xl3m_integrations.backends.tuned_lens import TunedLens
    from xl3m_integrations.index import Index

KEPT = 8  # segments that are kept by default, at most; how many is decided by where the scores drop
LEAST_KEPT = 4  # segments are made short enough for so many to fit the reader's window
LONGEST_SEGMENT = 512  # tokens, by default
CACHE_BYTES = 2 << 30  # of keys and values that an index keeps, by default
CHARACTERS_A_TOKEN = 24  # a text with more per token of the window is taken for one that does not fit


class XL3M:
    """Answers questions about texts far longer than its model's window.

    Make one with `from_pretrained` or `default`. One engine may serve many threads.

    Args:
        scorer: Reads every segment with the question.
        reader: Answers from the key context; None where only selection is wanted.
        segment_tokens: Length of a segment in the scorer's tokens; None makes it so that at least four fit the window,
            512 at most.
        overlap_tokens: Tokens that neighbouring segments share, about (see `Segmenter`); None takes a quarter of
            `segment_tokens`.
        measure: Name of the default measure, or a measure object.
        max_new_tokens: Default length limit of an answer, in the reader's tokens; None takes a tenth of its window, at
            least 16 and at most 256.

    Raises:
        SettingError: A parameter is out of its range.
    """

    def __init__(
        self,
        scorer: Scorer,
        reader: Generator | None = None,
        *,
        segment_tokens: int | None = None,
        overlap_tokens: int | None = None,
        measure: str | Measure | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        self.scorer = scorer
        self.reader = reader
        self.name = type(scorer).__name__  # what frameworks show as the model's name
        self.origin: object = uuid4().hex  # the same only where the same model answers, for caches of answers
        self.exit_layer: int | None = getattr(scorer, "exit_layer", None)
        self.measure = get_measure(getattr(scorer, "default_measure", None) if measure is None else measure)
        self.window = min(scorer.window, reader.window) if reader is not None else scorer.window
        reserve = min(self.window // 2, max(64, self.window // 5))
        if segment_tokens is None:
            segment_tokens = max(8, min(LONGEST_SEGMENT, (self.window - reserve) // LEAST_KEPT) // 8 * 8)
        if segment_tokens >= scorer.window:
            raise SettingError(
                f"segment_tokens is {segment_tokens}, but the scoring model's window is {scorer.window} tokens and "
                "must hold the question too; lower segment_tokens."
            )
        overlap = segment_tokens // 4 if overlap_tokens is None else overlap_tokens
        self.segmenter = Segmenter(scorer.tokenizer, segment_tokens, overlap)
        self.max_new_tokens = max(16, min(256, self.window // 10))
        self.max_new_tokens = self._limit(max_new_tokens)
        self._most_kept = max(1, min(KEPT, (self.window - reserve) // segment_tokens))

    # ------------------------------------------------------------------------------------------ making one
    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        backend: str = "transformers",
        model: Any = None,
        tokenizer: Any = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        quantization_config: Any = None,
        trust_remote_code: bool = False,
        model_options: dict[str, Any] | None = None,
        template: str | None = None,
        window: int | None = None,
        batch_tokens: int | None = None,
        exit_layer: int | None = None,
        lens: TunedLens | str | Path | None = None,
        segment_tokens: int | None = None,
        overlap_tokens: int | None = None,
        measure: str | Measure | None = None,
        max_new_tokens: int | None = None,
        **backend_options: Any,
    ) -> XL3M:
        """An engine whose scorer and reader are one causal language model.

        Args:
            name: Hub id or local folder. Leave it out to pass loaded objects instead. With `backend="openai"` the
                model's name on the server.
            backend: `transformers` runs the model in this process, `ray` runs copies of it on a cluster, `openai` asks
                an OpenAI-compatible completions server.
            model: A loaded causal language model, with `tokenizer`.
            tokenizer: Its tokenizer. With `backend="openai"` also a hub id or folder.
            device: `cuda`, `mps`, `cpu`, …; None takes the first of these that is there.
            dtype: `bfloat16`, `float16`, `float32`; None takes bfloat16 where the hardware computes in it.
            attn_implementation: Passed to transformers.
            quantization_config: Passed to transformers.
            trust_remote_code: Whether code from the model's repository may run. Off by default.
            model_options: More arguments for the model's `from_pretrained`, such as `revision` or `token`.
            template: Text around segment and question with `{segment}` and `{question}`; None takes the
                tokenizer's chat template, or a plain one where it has none.
            window: Tokens that the model reads at most; None takes the configuration's.
            batch_tokens: Tokens of one scoring pass; None takes a value that suits device and model.
            exit_layer: Decoder layers that the pass over the segments runs, from 1 on, before the model's own final
                norm and head; None runs all. It saves time, and costs recall where there is no lens. The second look
                at the best segments and the answer use all layers in any case.
            lens: Translates for norm and head what the exit layer gives: see `fit_lens`, or the file of one. None
                takes `tuned_lens.safetensors` from the model's folder, where there is one.
            segment_tokens: See the class.
            overlap_tokens: See the class.
            measure: See the class.
            max_new_tokens: See the class.
            **backend_options: Those of `backends.transformers.TransformersBackend` (`compile`),
                `backends.openai.OpenAIBackend` (`base_url`, `concurrency`, …) or `backends.ray.RayBackend`
                (`num_replicas`, `num_gpus_per_replica`, `address`, …).

        Raises:
            ModelLoadError: There is no such model, or it is no causal language model.
            SettingError: A parameter is out of its range.
        """
        arguments = {
            "model": model,
            "tokenizer": tokenizer,
            "device": device,
            "dtype": dtype,
            "attn_implementation": attn_implementation,
            "quantization_config": quantization_config,
            "trust_remote_code": trust_remote_code or None,
            "model_options": model_options,
            "template": template,
            "window": window,
            "batch_tokens": batch_tokens,
            "exit_layer": exit_layer,
            "lens": lens,
        }
        made = make_backend(backend, name, arguments, backend_options)
        engine = cls(
            made,
            made,
            segment_tokens=segment_tokens,
            overlap_tokens=overlap_tokens,
            measure=measure,
            max_new_tokens=max_new_tokens,
        )
        engine.name = str(name or getattr(model, "name_or_path", "") or type(model).__name__)
        if model is None:
            engine.origin = (backend, str(name))
        return engine

    @classmethod
    def default(cls, **settings: Any) -> XL3M:
        """An engine on the bundled model: small, English, no download. `settings` are those of `from_pretrained`."""
        from xl3m_integrations.bundled import MODEL_FOLDER

        engine = cls.from_pretrained(MODEL_FOLDER, **settings)
        engine.name = "xl3m-bundled"
        return engine

    @property
    def most_kept(self) -> int:
        """How many segments are kept at most where a call does not say how many."""
        return self._most_kept

    # ------------------------------------------------------------------------------------------ the five steps
    def select(self, text: Text | Document, question: str, **how: Unpack[Choice]) -> Selection:
        """Keep the segments after which the model is most certain.

        Args:
            text: The document: a string, the `Path` of a UTF-8 file, or an iterable of strings; the latter two are read
                once and never held whole.
            question: The plain question.
            **how: How much to keep and by which measure; see `Choice`. With nothing said, the best segments are kept
                up to where the scores drop most: as many as fit the reader's window, and eight at most.

        Raises:
            InputError: Document or question is empty, not valid Unicode, or too long for the window.
            SettingError: A parameter is unknown or out of its range.
            ScoringError: The model failed on a segment.
            JournalError: The journal cannot be used; it was left as it is.
        """
        return self.select_documents([text], question, **how)[0]

    def select_documents(
        self, texts: Sequence[Text | Document], question: str, **how: Unpack[Choice]
    ) -> list[Selection]:
        """`select` over several documents at once: their segments compete, and ranks run over all of them.

        Args:
            texts: The documents.
            question: The plain question.
            **how: See `Choice`; `keep_first` and `keep_last` are meant of every document.

        Returns:
            One selection per document, in order; a document of which nothing is kept has one without segments.
        """
        return self.select_documents_many(texts, [question], **how)[0]

    def select_many(self, text: Text | Document, questions: Sequence[str], **how: Unpack[Choice]) -> list[Selection]:
        """`select` for several questions in one pass: each segment is read once, and each question behind it.

        Args:
            text: See `select`.
            questions: The questions.
            **how: See `Choice`; the same for all questions.

        Returns:
            A selection for each question, in order, each with the time of the whole pass.

        Raises:
            InputError: See `select`.
        """
        return [selections[0] for selections in self.select_documents_many([text], questions, **how)]

    def select_documents_many(
        self, texts: Sequence[Text | Document], questions: Sequence[str], **how: Unpack[Choice]
    ) -> list[list[Selection]]:
        """`select_documents` for several questions in one pass; for each question, one selection per document."""
        asked = [require_question(question) for question in _listed(questions)]
        # A small reader is led astray by look-alikes beside the right passage, so the cut is where the scores drop.
        selector = selector_of(**how) or AdaptiveGap(1, self._most_kept)
        measure = how.get("measure")
        chosen = supported(self.scorer, self.measure if measure is None else get_measure(measure))
        documents = [Document.of(text) for text in texts]
        if not asked:
            return []
        journal = how.get("journal")
        scorer = self.scorer if journal is None else JournaledScorer(self.scorer, journal)
        hops = how.get("hops", 1)
        prefilter = how.get("prefilter")
        found = score_hops(documents, asked, chosen, hops, self.segmenter, scorer, how.get("progress"), prefilter)
        first, last = how.get("keep_first", 0), how.get("keep_last", 0)
        settings = self._settings(selector, hops=hops if hops > 1 else 0, keep_first=first, keep_last=last)
        if prefilter is not None:
            settings["prefilter"] = getattr(prefilter, "__name__", repr(prefilter))
        return [
            _selections(question, scored, documents, scored.keep(selector, first, last), chosen, settings)
            for question, scored in zip(asked, found, strict=True)
        ]

    def prepare(self, texts: Sequence[Text]) -> list[Document]:
        """Documents cut into segments once, which `select_documents` takes as it takes texts.

        Raises:
            InputError: A document is empty or not valid Unicode.
        """
        documents = [Document(text) for text in texts]
        for document in documents:
            document.prepared = Prepared(self.segmenter.segments(document.pieces()))
        return documents

    def index(
        self,
        *texts: Text,
        cache_bytes: int = CACHE_BYTES,
        cache_dir: str | Path | None = None,
        cache_dir_bytes: int | None = None,
    ) -> Index:
        """Documents to ask of many times: cut into segments once, what the model computes for them kept.

        The first question costs what `select` costs; the next costs only its own tokens for all segments that are
        kept. What does not fit the budget is computed again.

        With `cache_dir` what is computed is also written to files, from which comes what does not fit memory, in this
        process and in later ones that index the same texts with the same model and `batch_tokens`. A file that is
        damaged is computed again, with a warning. A full disk ends the question with an error; what was written until
        then is used when it is asked again. The files, like the documents, are to be kept from who may not read them.

        Args:
            *texts: One document or several, each as in `select`.
            cache_bytes: Keys and values kept in memory (the model's device), at most; 0 keeps the segments alone.
            cache_dir: Folder of the files; it is made where there is none, and may be shared by indexes and processes.
            cache_dir_bytes: Keys and values kept in the folder, at most, all indexes' together; the least recently used
                go out. None sets no limit but the disk.

        Raises:
            InputError: A document is empty or not valid Unicode.
            SettingError: A number of bytes is negative, or the scorer has no keys and values that could be written.
            CacheError: The folder cannot be written; also raised later, by the question that fills the disk.
        """
        from xl3m_integrations.index import Index, cache_of

        return Index(self, texts, cache_of(self.scorer, cache_bytes, cache_dir, cache_dir_bytes))

    def answer(
        self,
        text: Text | Document,
        question: str,
        *,
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
        reader_options: Mapping[str, Any] | None = None,
        **how: Unpack[Choice],
    ) -> Answer:
        """Select, splice the key context, and let the reader answer from it.

        A text that fits the reader's window together with the question is read whole, without selection, unless `how`
        says how much to keep. Where fewer segments fit than `how` asks for, the best are read, the others are listed in
        `answer.key_context.dropped`, and a warning is given.

        Args:
            text: See `select`.
            question: See `select`.
            max_new_tokens: Tokens of the answer at most; None takes the engine's default.
            stop: Strings that end the answer and are left out of it.
            reader_options: More arguments for the reader, such as `{"do_sample": True, "temperature": 0.7}`.
            **how: See `Choice`.

        Raises:
            InputError: See `select`; or question and answer leave no room in the reader's window.
        """
        settings: Any = {"max_new_tokens": max_new_tokens, "stop": stop, "reader_options": reader_options}
        return self.answer_many(text, [question], **settings, **how)[0]

    def answer_many(
        self,
        text: Text | Document,
        questions: Sequence[str],
        *,
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
        reader_options: Mapping[str, Any] | None = None,
        **how: Unpack[Choice],
    ) -> list[Answer]:
        """`answer` for several questions, which share one pass over a text that is too long to be read whole.

        Args:
            text: See `select`.
            questions: The questions.
            max_new_tokens: Of each answer; see `answer`.
            stop: See `answer`.
            reader_options: See `answer`.
            **how: See `Choice`; the same for all questions.

        Returns:
            An answer to each question, in order.

        Raises:
            InputError: See `answer`.
        """
        limit, stops, all_asked = self._limit(max_new_tokens), stop_strings(stop), _listed(questions)
        reader, options = self._reader(), reader_options or {}
        answers = []
        read = self._read_for(text, all_asked, limit, how)
        for question, (context, selected) in zip(all_asked, read, strict=True):
            if selected is None:
                context = replace(context, certainty=self._certainty(context.text, question, how.get("measure")))
            asked = _asked(question, selected)
            pieces = reader.stream(context.text, asked, max_new_tokens=limit, stop=stops, **options)
            answers.append(
                Answer(
                    text="".join(pieces).strip(),
                    question=question,
                    key_context=context,
                    prompt_tokens=reader.overhead(asked) + reader.count(context.text),
                    selection=selected,
                )
            )
        return answers

    def stream(
        self,
        text: Text | Document,
        question: str,
        *,
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
        reader_options: Mapping[str, Any] | None = None,
        **how: Unpack[Choice],
    ) -> Iterator[str]:
        """`answer`, piece by piece as it is written, with the same arguments. Closing the iterator stops the work."""
        limit = self._limit(max_new_tokens)
        [(context, selected)] = self._read_for(text, [question], limit, how)
        asked, options = _asked(question, selected), reader_options or {}
        yield from self._reader().stream(context.text, asked, max_new_tokens=limit, stop=stop_strings(stop), **options)

    # ------------------------------------------------------------------------------------------ what they share
    def _certainty(self, text: str, question: str, measure: str | Measure | None) -> Certainty | None:
        """For a text that was read whole, from its segments."""
        chosen = self.measure if measure is None else get_measure(measure)
        if getattr(chosen, "second", None) is None:
            return None
        return score([Document(text)], question, chosen, self.segmenter, self.scorer).certainty

    def _read_for(
        self, text: Text | Document, questions: Sequence[str], limit: int, how: Choice
    ) -> list[tuple[KeyContext, Selection | None]]:
        """For each question the key context that fits the reader's window, and the selection that it was made from."""
        reader = self._reader()
        around = [reader.overhead(require_question(question)) for question in questions]
        longest = max(around, default=0)
        if longest + limit >= reader.window:
            raise InputError(
                f"The question takes {longest} tokens with its template and the answer up to {limit}, but the reader's "
                f"window is {reader.window} tokens; shorten the question, or lower max_new_tokens."
            )
        rooms = [reader.window - limit - tokens for tokens in around]
        return self._key_contexts(text, questions, rooms, reader.count, how)

    def key_context(
        self, text: Text | Document, question: str, room: int, count: Callable[[str], int], **how: Unpack[Choice]
    ) -> tuple[KeyContext, Selection | None]:
        """What of a text to hand to any reader: all of it where it fits, else the segments that the question needs.

        Args:
            text: See `select`.
            question: See `select`.
            room: How long the context may be, in the reader's tokens.
            count: Counts the reader's tokens of a text.
            **how: See `Choice`.

        Returns:
            The context, and the selection that it was made from; None where the text fitted and `how` asked for none.

        Raises:
            InputError: See `select`.
            SettingError: Not even the best segment fits.
        """
        return self._key_contexts(text, [question], [room], count, how)[0]

    def _key_contexts(
        self,
        text: Text | Document,
        questions: Sequence[str],
        rooms: Sequence[int],
        count: Callable[[str], int],
        how: Choice,
    ) -> list[tuple[KeyContext, Selection | None]]:
        document = Document.of(text)
        asked = selector_of(**how)
        first, last = how.get("keep_first", 0), how.get("keep_last", 0)
        one_look = asked is None and how.get("hops", 1) == 1
        whole = [_beginning_that_fits(document, room, count) if one_look else None for room in rooms]
        too_long = [question for question, fitting in zip(questions, whole, strict=True) if fitting is None]
        selections = iter(self.select_many(document, too_long, **how))
        contexts: list[tuple[KeyContext, Selection | None]] = []
        for fitting, room in zip(whole, rooms, strict=True):
            if fitting is not None:
                contexts.append((KeyContext(fitting, ((0, len(fitting)),)), None))
                continue
            selected = next(selections)
            total = len(selected.scores)
            ends = {*range(first), *range(total - last, total)}
            context = _spliced(selected, document, room, count, ends)
            if context.dropped and (asked is not None or ends):
                warnings.warn(
                    f"{len(context.dropped)} of {len(selected.segments)} kept segments do not fit the {room} tokens "
                    "that the reader has room for and were left out, the least certain first and those of keep_first "
                    "and keep_last in the end (see key_context.dropped).",
                    stacklevel=5,
                )
            contexts.append((context, selected))
        return contexts

    def _settings(self, selector: Selector, **ends: int) -> dict[str, str | int]:
        """What a selection was made with, by name."""
        return {
            "model": self.name,
            "window": self.window,
            **({} if self.exit_layer is None else {"exit_layer": self.exit_layer}),
            "segment_tokens": self.segmenter.segment_tokens,
            "overlap_tokens": self.segmenter.overlap_tokens,
            "selection": repr(selector),
            **{name: count for name, count in ends.items() if count},
        }

    def _reader(self) -> Generator:
        if self.reader is None:
            raise SettingError("This engine has no reader, so it can select but not answer; pass reader= to XL3M.")
        return self.reader

    def _limit(self, max_new_tokens: int | None) -> int:
        limit = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        if limit < 1:
            raise SettingError(f"max_new_tokens is {limit}; it must be at least 1.")
        return limit


def _listed(questions: Iterable[str]) -> list[str]:
    if isinstance(questions, str):
        raise InputError("questions is one string; pass a list of questions, or ask one with select() or answer().")
    return list(questions)


def _selections(
    question: str,
    scored: Scored,
    documents: Sequence[Document],
    kept: Sequence[tuple[ScoredSegment, ...]],
    measure: Measure,
    settings: dict[str, str | int],
) -> list[Selection]:
    """What is known of each document, and which of its segments are kept."""
    return [
        Selection(
            question=question,
            measure=measure.name,
            segments=own,
            key_context=assemble(own, document.slice, certainty=scored.certainty),
            scores=scored.scores(number),
            tokens=scored.tokens(number),
            characters=document.characters or 0,
            seconds=scored.seconds,
            lead=scored.lead,
            exact=getattr(measure, "exact", True),
            covered_mass=scored.mean("covered_mass", 1.0),
            reused=scored.reused(number),
            table=scored.table(number),
            settings=settings,
        )
        for number, (document, own) in enumerate(zip(documents, kept, strict=True))
    ]


def _beginning_that_fits(document: Document, room: int, count: Callable[[str], int]) -> str | None:
    """The whole text, where it is no longer than `room` by `count`."""
    text = document.beginning(room * CHARACTERS_A_TOKEN)
    return text if text is not None and text.strip() and count(text) <= room else None


def _spliced(
    selected: Selection, document: Document, room: int, count: Callable[[str], int], ends: set[int]
) -> KeyContext:
    """The key context with as many of the kept segments as fit beside what earlier hops found; `ends` before others."""
    left = room - (count(selected.lead) if selected.lead else 0)
    return assemble(selected.segments, document.slice, lambda text: count(text) <= left, selected.certainty, ends)


def _asked(question: str, selected: Selection | None) -> str:
    """What the reader is asked: the question, after what earlier hops found."""
    return question if selected is None else selected.lead + question
