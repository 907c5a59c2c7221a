"""A completions server on loopback: a real model behind the documented request and answer, and faults on demand."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from typing_extensions import Self

from xl3m_integrations.backends.transformers import TransformersBackend

RETRY_AT_ONCE = {"retry-after-ms": "1"}


class CompletionsServer:
    """Used in a `with`. Attributes may be changed between requests.

    Args:
        backend: What answers.
    """

    def __init__(self, backend: TransformersBackend) -> None:
        self.backend = backend
        self.faults: list[str] = []  # one is taken by each request, first to last
        self.refuses_ids: int | None = None  # with this status
        self.logprobs = True
        self.lie = 0  # added to the prompt's tokens in `usage`
        self.status: int | None = None  # of every answer
        self.requests: list[dict[str, Any]] = []
        self.keys: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self._model = threading.Lock()
        self.release = threading.Event()  # lets go of requests that hang

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *_: object) -> None:
                return

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                return  # a client that gave up

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # ------------------------------------------------------------------------------------------ one request
    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            self.requests.append(body)
            self.keys[handler.headers["Authorization"]] += 1
            fault = self.faults.pop(0) if self.faults else ""
        try:
            self._answer(handler, body, fault)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], fault: str) -> None:
        if self.status is not None or fault.isdigit():
            status = self.status or int(fault)
            self._send(handler, {"error": {"message": f"no: {handler.headers['Authorization']}"}}, status)
        elif fault == "drop":
            handler.close_connection = True
            handler.connection.close()
        elif fault == "hang":
            self.release.wait(60)
            handler.close_connection = True
        elif self.refuses_ids is not None and not isinstance(body["prompt"], str):
            self._send(handler, {"error": {"message": f"no string: {body['prompt']}"}}, self.refuses_ids)
        elif body.get("stream"):
            self._stream(handler, body)
        else:
            answer = self._completion(body)
            if fault == "count":
                answer["usage"]["prompt_tokens"] //= 2
            if fault == "empty":
                answer["choices"] = []
            data = json.dumps(answer).encode()
            with self._lock:
                self.answered[json.dumps(body["prompt"])] += not fault
            if fault == "garbage":
                self._send(handler, data[: len(data) // 2])
            elif fault == "short":
                self._send(handler, data[: len(data) // 2], length=len(data))
            else:
                self._send(handler, data)

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, body: Any, status: int = 200, length: int | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in (RETRY_AT_ONCE | {"Content-Type": "application/json"}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.end_headers()
        handler.wfile.write(data)
        handler.wfile.flush()
        if length is not None:
            handler.close_connection = True

    # ------------------------------------------------------------------------------------------ the model
    def ids_of(self, prompt: str | list[int]) -> list[int]:
        return self.backend.tokenizer.prompt_ids(prompt) if isinstance(prompt, str) else prompt

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self.ids_of(body["prompt"])
        with self._model:
            last = self.backend.logits(torch.tensor([ids]), 1).logits[0, -1].double().log_softmax(-1)
        for token, bias in body.get("logit_bias", {}).items():
            last[int(token)] += bias
        values, tokens = last.topk(body.get("logprobs", 1))
        names = [f"token_id:{token}" for token in tokens.tolist()]
        top = dict(zip(names, values.tolist(), strict=True))
        told = {"tokens": names[:1], "token_logprobs": [values[0].item()], "top_logprobs": [top], "text_offset": [0]}
        choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": told if self.logprobs else None}
        usage = {"prompt_tokens": len(ids) + self.lie, "completion_tokens": 1, "total_tokens": len(ids) + 1}
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
        return head | {"choices": [choice], "usage": usage}

    def _stream(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for piece in self._pieces(body):
            choice = {"index": 0, "text": piece, "finish_reason": None, "logprobs": None}
            event = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
            handler.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            handler.wfile.flush()
        handler.wfile.write(b"data: [DONE]\n\n")
        handler.close_connection = True

    def _pieces(self, body: dict[str, Any]) -> Iterator[str]:
        with self._model:
            yield from self.backend._stream_ids(self.ids_of(body["prompt"]), body["max_tokens"], (), {})
