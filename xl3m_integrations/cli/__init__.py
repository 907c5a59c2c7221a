"""The command line: `xl3m demo`, `ask`, `select`, `bench`, `eval` and `export-gguf`.

Exit codes: 0 where the run succeeded, 1 where it failed, 2 where it was called wrongly.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from xl3m_integrations.cli import timings
from xl3m_integrations.cli.console import (
    certainty_json,
    err,
    out,
    progress_bar,
    selection_json,
    show_asked,
    show_certainty,
    show_context,
    show_reused,
)
from xl3m_integrations.cli.controls import visible
from xl3m_integrations.cli.files import read_files
from xl3m_integrations.cli.options import (
    Choosing,
    CompileOption,
    DebugOption,
    DeviceOption,
    DtypeOption,
    EncodingOption,
    ExitOption,
    FilesArgument,
    HtmlOption,
    JsonOption,
    Loading,
    MeasureOption,
    ModelOption,
    QuestionOption,
    SeedOption,
    SegmentOption,
    grouped,
    load_engine,
)
from xl3m_integrations.errors import SettingError, XL3MError

if TYPE_CHECKING:
    from xl3m_integrations.cli.files import Sources
    from xl3m_integrations.types import Answer, Selection

P = ParamSpec("P")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Ask questions of texts far longer than a local model's window.",
)


def main() -> None:
    """Entry point of the `xl3m` command."""
    app()


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors into one readable message and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        """The command; its warnings come as notes behind what it shows."""
        try:
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always", UserWarning)
                command(*args, **kwargs)
            for note in given:
                err.print(visible(f"Note: {note.message}"), markup=False, soft_wrap=True)
        except (typer.Exit, typer.BadParameter):
            raise
        except BrokenPipeError:  # who reads it, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the flush at exit complain
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            err.print("Interrupted.")
            raise typer.Exit(130) from None
        except Exception as error:
            if kwargs.get("debug"):
                raise
            known = isinstance(error, XL3MError)
            message = str(error) if known else f"{type(error).__name__}: {error} (--debug shows where)"
            err.print("[bold red]Error:[/] ", end="")
            err.print(visible(message), markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2 if isinstance(error, SettingError) else 1) from None

    return run


@app.command()
@reported
def demo(
    tokens: Annotated[int, typer.Option("--tokens", help="Length of the text, in tokens.")] = 1_000_000,
    questions: Annotated[int, typer.Option("--questions", help="How many facts to hide and ask for.")] = 5,
    seed: SeedOption = None,
    model: ModelOption = None,
    exit_layer: ExitOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Hide facts in a long generated text, ask for them, and show what is found."""
    from xl3m_integrations import demo as demonstration

    seed = random.randrange(2**31) if seed is None else seed
    xl3m = load_engine(model, exit_layer=exit_layer)
    haystack = demonstration.make_haystack(xl3m, tokens, questions, seed)
    with progress_bar("reading", quiet=as_json) as progress:
        began = time.monotonic()
        asked = demonstration.ask(xl3m, haystack, progress)
        seconds = time.monotonic() - began
    selections = [one.full.selection for one in asked if one.full.selection is not None]
    seconds = max((selection.seconds for selection in selections), default=seconds)
    document = selections[0].tokens if selections else xl3m.scorer.tokenizer.count(haystack.text)
    result = {
        "document_tokens": document,
        "seed": seed,
        "select_seconds": round(seconds, 3),
        "tokens_per_second": round(document / seconds, 1),
        "peak_rss_mb": round(demonstration.peak_rss_mb(), 1),
        "questions": [{name: getattr(one, name) for name in _ASKED_FIELDS} for one in asked],
    }
    if as_json:
        print(json.dumps(result, ensure_ascii=False))  # noqa: T201
        return
    for one in asked:
        show_asked(one, xl3m.window, len(haystack.text))
    right, cut = sum(one.correct for one in asked), sum(one.truncated_correct for one in asked)
    out.print(
        f"\n[bold]{right} of {questions}[/] right through XL3M; {cut} of {questions} from the end of the text alone.\n"
        f"{document:,} tokens read once for {questions} questions by a window of {xl3m.window}, in {seconds:.1f} s: "
        f"{result['tokens_per_second']:,.0f} tokens/s. Peak memory {result['peak_rss_mb']:,.0f} MB, seed {seed}."
    )


_ASKED_FIELDS = (
    "question", "expected", "answer", "correct", "needle_found", "truncated_answer", "truncated_correct", "depth",
)  # fmt: skip


@app.command()
@reported
@grouped
def ask(
    files: FilesArgument,
    question: QuestionOption,
    loading: Loading,
    choosing: Choosing,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", help="Length limit of the answer.")] = None,
    encoding: EncodingOption = "utf-8",
    html: HtmlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Answer a question from text files of any length, with the passages that the answer was read from."""
    save, how = _page_writer(html), choosing.how()
    sources = read_files(files, encoding)
    xl3m = loading.engine()
    with progress_bar("reading", quiet=as_json) as progress:
        answer = xl3m.answer(sources.text, question, max_new_tokens=max_new_tokens, progress=progress, **how)
    save(answer, sources)
    if as_json:
        body = {"question": question, "answer": answer.text, "prompt_tokens": answer.prompt_tokens}
        body |= certainty_json(answer.certainty)
        selected = selection_json(answer.selection, sources) if answer.selection else {"segments": []}
        shown = {"sources": [source.json() for source in sources.cited(answer.key_context.spans)]}
        print(json.dumps(body | shown | selected, ensure_ascii=False))  # noqa: T201
        return
    out.print(visible(answer.text), style="bold", markup=False)
    show_certainty(answer.certainty)
    show_context(answer.key_context, sources)
    show_reused(answer.selection, choosing.journal)


@app.command()
@reported
@grouped
def select(
    files: FilesArgument,
    question: QuestionOption,
    loading: Loading,
    choosing: Choosing,
    encoding: EncodingOption = "utf-8",
    html: HtmlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the passages that a question needs, without answering it."""
    save, how = _page_writer(html), choosing.how()
    sources = read_files(files, encoding)
    xl3m = loading.engine()
    with progress_bar("reading", quiet=as_json) as progress:
        selection = xl3m.select(sources.text, question, progress=progress, **how)
    save(selection, sources)
    if as_json:
        print(json.dumps({"question": question} | selection_json(selection, sources), ensure_ascii=False))  # noqa: T201
        return
    show_context(selection.key_context, sources)
    show_reused(selection, choosing.journal)


@app.command()
@reported
def bench(
    tokens: Annotated[int, typer.Option("--tokens", help="Length of the text, in tokens.")] = 200_000,
    repeats: Annotated[int, typer.Option("--repeats", help="How often each is timed.")] = 5,
    seed: SeedOption = None,
    model: ModelOption = None,
    measure: MeasureOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    exit_layer: ExitOption = None,
    compile: CompileOption = None,
    shape: Annotated[
        str | None, typer.Option("--shape", help="Time a random model of this shape instead: tiny, 0.5b or 7b.")
    ] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Time what others take for the same text instead.")] = False,
    lengths: Annotated[
        str | None, typer.Option("--lengths", help="With --peers, in tokens: 10k,100k; --tokens if left out.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="With --peers: leave out who would read longer, seconds. [60]")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="With --peers: folder for peers.png and peers.json.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Time selection beside the model's bare forward pass on the same rows, its peers, or what the device can do."""
    if shape is not None and (peers or model is not None or exit_layer is not None):
        raise SettingError(
            "--shape makes a model of its own, reads it whole and times no peers; leave --model, --exit-layer and "
            "--peers out."
        )
    if not peers and (lengths, time_limit, plots) != (None, None, None):
        raise SettingError("--lengths, --time-limit and --plots are for --peers; add it, or leave them out.")
    seed = random.randrange(2**31) if seed is None else seed
    settings: dict[str, Any] = {"measure": measure, "device": device, "dtype": dtype, "compile": compile}
    load = partial(load_engine, model, exit_layer=exit_layer, **settings)
    if peers:
        wanted = str(tokens) if lengths is None else lengths
        limit = 60.0 if time_limit is None else time_limit
        timings.run_peers(load, wanted, seed, repeats, limit, plots, as_json=as_json)
    elif shape is not None:
        timings.run_shape(shape, tokens, seed, repeats, settings, as_json=as_json)
    else:
        timings.run_speed(load, tokens, seed, repeats, as_json=as_json)


@app.command("eval")
@reported
def evaluate(
    tasks: Annotated[str | None, typer.Option("--tasks", help="Names, separated by commas; all for all.")] = None,
    lengths: Annotated[str, typer.Option("--lengths", help="In tokens: 8000,64k,1m.")] = "8000",
    n: Annotated[int, typer.Option("--n", help="Examples for each task and length.")] = 10,
    seed: SeedOption = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Names (also xl3m-hops-N); all that are installed if left out.")
    ] = None,
    haystack: Annotated[list[str] | None, typer.Option("--haystack", help="Text files or globs to hide in.")] = None,
    rows: Annotated[list[Path] | None, typer.Option("--rows", help="File of questions, see load_rows.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Keep so many segments, by every method.")] = None,
    unanswerable: Annotated[
        bool, typer.Option("--unanswerable", help="Ask also where the answer was left out: AUROC of the certainty.")
    ] = False,
    time_limit: Annotated[float | None, typer.Option("--time-limit", help="Begin nothing after these seconds.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here; - is the output.")] = None,
    plots: Annotated[Path | None, typer.Option("--plots", help="Folder to draw heat maps and curves in.")] = None,
    model: ModelOption = None,
    measure: MeasureOption = None,
    segment_tokens: SegmentOption = None,
    exit_layer: ExitOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    encoding: EncodingOption = "utf-8",
    debug: DebugOption = False,
) -> None:
    """Measure XL3M and other methods on fresh documents, or on rows of files: recall, answers, tokens, time."""
    from xl3m_integrations.cli import evaluation as shown

    as_json = json_file is not None and str(json_file) == "-"
    shown.require_writable(None if as_json else json_file, plots)
    wanted = shown.lengths_of(lengths)
    texts = [read_files(haystack, encoding).text] if haystack else []
    xl3m = load_engine(
        model, measure=measure, segment_tokens=segment_tokens, device=device, dtype=dtype, exit_layer=exit_layer
    )
    from xl3m_integrations import evaluation

    with shown.evaluation_bar(quiet=as_json) as progress:
        found = evaluation.evaluate(
            xl3m,
            tasks=shown.names_of(tasks),
            methods=shown.names_of(methods),
            lengths=wanted,
            n=n,
            seed=random.randrange(2**31) if seed is None else seed,
            haystack=texts,
            rows=[row for path in rows or () for row in evaluation.load_rows(path)],
            top_k=top_k,
            unanswerable=unanswerable,
            time_limit=time_limit,
            progress=progress,
        )
    if as_json:
        print(found.to_json())  # noqa: T201
    else:
        if json_file is not None:
            shown.write_json(found, json_file)
        shown.show_evaluation(found)
    if plots is not None:
        evaluation.write_plots(found, plots)


def _page_writer(path: Path | None) -> Callable[[Answer | Selection, Sources], None]:
    """Writes the page to `path`, or nothing where there is none; what would stop it is said before the work begins."""
    if path is None:
        return lambda shown, sources: None
    from xl3m_integrations.report import page, require_writable, write

    require_writable(path)

    def save(shown: Answer | Selection, sources: Sources) -> None:
        write(path, page.render(shown, sources.files))
        err.print(f"Certainty map: {path}", markup=False, soft_wrap=True)

    return save


@app.command("export-gguf")
@reported
def export_gguf(
    file: Annotated[str, typer.Argument(help="The GGUF file to write.", metavar="FILE")],
    model: ModelOption = None,
    debug: DebugOption = False,
) -> None:
    """Write a Llama model as a GGUF file, for llama.cpp and its servers."""
    from xl3m_integrations.bundled import MODEL_FOLDER
    from xl3m_integrations.gguf_export import export_gguf as export

    with err.status("writing"):
        export(MODEL_FOLDER if model is None else model, file)
    out.print(f"{file} written.", markup=False)
