"""The options that several commands share, and groups of them that a command takes as one argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial, wraps
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xl3m_integrations.cli.console import err
from xl3m_integrations.prefilter import BM25

if TYPE_CHECKING:
    from xl3m_integrations.engine import XL3M

ModelOption = Annotated[str | None, typer.Option("--model", help="Hub id or folder; the bundled model if left out.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cuda, mps or cpu; the best there is if left out.")]
DtypeOption = Annotated[str | None, typer.Option("--dtype", help="bfloat16, float16 or float32.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the text; drawn and shown if left out.")]
FilesArgument = Annotated[list[str], typer.Argument(help="Text files or globs; - is standard input.", metavar="FILE…")]
QuestionOption = Annotated[str, typer.Option("--question", "-q", help="The question.")]
MeasureOption = Annotated[
    str | None, typer.Option("--measure", help="blend, hybrid, entropy, question_likelihood or answer_entropy.")
]
SegmentOption = Annotated[int | None, typer.Option("--segment-tokens", help="Length of a segment in tokens.")]
ExitOption = Annotated[
    int | None, typer.Option("--exit-layer", help="Score from so many of the model's layers; faster.")
]
CompileOption = Annotated[
    bool | None, typer.Option("--compile", help="torch.compile the model: faster, for long texts.", show_default=False)
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write the certainty map to this file.", metavar="FILE")
]
EncodingOption = Annotated[str, typer.Option("--encoding", help="How the files are encoded.")]
_server = partial(typer.Option, rich_help_panel="With --backend openai")
_cluster = partial(typer.Option, rich_help_panel="With --backend ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """Which model, and where it runs: the arguments of `XL3M.from_pretrained`."""

    model: Annotated[
        str | None,
        typer.Option("--model", help="Hub id, folder, or name on the server; the bundled model if left out."),
    ] = None
    backend: Annotated[
        str, typer.Option("--backend", help="transformers: in this process; openai: a server; ray: a cluster.")
    ] = "transformers"
    segment_tokens: SegmentOption = None
    window: Annotated[int | None, typer.Option("--window", help="Tokens that the model reads at most.")] = None
    device: DeviceOption = None
    dtype: DtypeOption = None
    exit_layer: ExitOption = None
    compile: CompileOption = None
    base_url: Annotated[
        str | None, _server("--base-url", help="Address, such as http://localhost:8000/v1. Key: $OPENAI_API_KEY.")
    ] = None
    tokenizer: Annotated[
        str | None, _server("--tokenizer", help="Hub id or folder of the model's tokenizer; --model if left out.")
    ] = None
    concurrency: Annotated[int | None, _server("--concurrency", help="Requests in flight at most. [16]")] = None
    top_logprobs: Annotated[
        int | None, _server("--top-logprobs", help="Log-probabilities to ask for, as the server allows. [20]")
    ] = None
    num_replicas: Annotated[int | None, _cluster("--num-replicas", help="Copies of the model. [1]")] = None
    num_gpus_per_replica: Annotated[float | None, _cluster("--num-gpus-per-replica", help="GPUs of each. [0]")] = None
    num_cpus_per_replica: Annotated[float | None, _cluster("--num-cpus-per-replica", help="Cores of each. [1]")] = None
    address: Annotated[
        str | None, _cluster("--address", help="The cluster, such as auto; one of this machine alone if left out.")
    ] = None

    def engine(self) -> XL3M:
        """The engine that they ask for."""
        return load_engine(**asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choosing:
    """How much to keep, by which measure: see `choice.Choice`."""

    top_k: Annotated[int | None, typer.Option("--top-k", help="Keep so many segments.")] = None
    token_budget: Annotated[int | None, typer.Option("--token-budget", help="Keep as many as fit so many tokens.")] = (
        None
    )
    measure: MeasureOption = None
    hops: Annotated[int, typer.Option("--hops", help="Read so often, each time with what was found before.")] = 1
    journal: Annotated[
        str | None, typer.Option("--journal", help="File that keeps the scores, so that a stopped run goes on.")
    ] = None
    prefilter: Annotated[
        int | None, typer.Option("--prefilter", help="Let the model read only so many segments, the best by BM25.")
    ] = None

    def how(self) -> dict[str, Any]:
        """The same as arguments of `XL3M.select`."""
        return asdict(self) | {"prefilter": None if self.prefilter is None else BM25(self.prefilter)}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options: their fields become options of the command itself."""
    own = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)}
    shown: list[inspect.Parameter] = []
    for name, parameter in own.items():
        inner = inspect.signature(groups[name], eval_str=True).parameters.values() if name in groups else [parameter]
        shown += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in inner]

    @wraps(command)
    def run(**given: Any) -> None:
        """The command, its options gathered into the dataclasses."""
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return run


def load_engine(model: str | None, backend: str = "transformers", **settings: Any) -> XL3M:
    """An engine on a model, the bundled one where none is named."""
    with err.status("loading the model"):
        from transformers.utils import logging

        from xl3m_integrations.engine import XL3M

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        getLogger("huggingface_hub").setLevel(ERROR)  # it tells of every retry; what fails in the end is one message
        given = {name: value for name, value in settings.items() if value is not None}
        if model is None and backend != "openai":
            return XL3M.default(backend=backend, **given)
        return XL3M.from_pretrained(model, backend=backend, **given)
