"""A server of long answers: `python -m tests.streaming_server PORT SLOTS [CERTIFICATE KEY]`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import django


def main(port: int, slots: int, certificate: str | None = None, key: str | None = None) -> None:
    django.setup()
    from django.http import HttpResponse

    from clusters.management.addresses import Address
    from config.server import Server
    from config.streams import LongAnswer, LongAnswers

    def lines(path: str) -> Iterator[bytes]:
        yield f"{os.getpid()}\n".encode()
        if path == "/broken":
            raise RuntimeError("no more lines")
        for number in range(3 if path == "/short" else 600):
            time.sleep(0.1)
            yield b"" if number % 2 else b"tick\n"

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/pid":
            answer: Any = HttpResponse(str(os.getpid()))
        else:
            full = HttpResponse("full", status=429, headers={"Retry-After": "5"})
            caller = environ.get("QUERY_STRING", "")
            answer = LongAnswer(
                lines(path), content_type="text/lines", when_full=full, caller=caller
            )
        answer["X-Request-ID"] = "seven"
        start_response(f"{answer.status_code} {answer.reason_phrase}", list(answer.items()))
        return answer

    class Streaming(Server):
        def load(self) -> Any:
            return LongAnswers(application, slots, slots - 1)

    options = {
        "bind": Address("127.0.0.1", port),
        "workers": 1,
        "tls_cert": certificate,
        "tls_key": key,
        "tls_client_ca": None,
        "read_timeout": 15,
        "write_timeout": 30,
        "access_log": True,
        "pid_file": None,
    }
    Streaming(options).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
