"""Answers as whisper.cpp's whisper-server does, for a machine without one: the same options, requests and texts."""

from __future__ import annotations

import argparse
import io
import json
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, HTTPServer

import soundfile
from pywhispercpp.model import Model


class Handler(BaseHTTPRequestHandler):
    model: Model

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/health" else 404, {"status": "ok"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = {part.get_param("name", header="content-disposition"): part for part in self.parts(head + body)}
        samples, rate = soundfile.read(io.BytesIO(parts["file"].get_payload(decode=True)), dtype="float32")
        assert (self.path, rate) == ("/inference", 16_000)
        assert parts["response_format"].get_payload(decode=True) == b"json"
        self.answer(200, {"text": " ".join(s.text for s in self.model.transcribe(samples))})

    def parts(self, message: bytes) -> list:
        return BytesParser().parsebytes(message).get_payload()

    def answer(self, status: int, body: dict[str, str]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--model", "--threads", "--language", "--host", "--port"):
        parser.add_argument(name, required=True)
    parser.add_argument("--no-gpu", action="store_true", required=True)
    options = parser.parse_args()
    Handler.model = Model(options.model, n_threads=int(options.threads), language=options.language)
    HTTPServer((options.host, int(options.port)), Handler).serve_forever()


main()
