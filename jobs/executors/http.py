"""Kind ``http``: one request, and what was answered.

Every hop resolves its host once, has all addresses checked, and connects to exactly those: the
resolver the client gets knows nothing else, and the last gate is where its sockets are made. Nothing
is kept between requests: no connection, no cookie, no name.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from urllib.parse import urljoin

import aiohttp
from django.conf import settings
from multidict import CIMultiDict
from yarl import URL

from jobs.errors import InvalidJob
from jobs.executors import Assignment, Outcome, Output
from jobs.executors.address_guard import AddressPolicy, AddressRefused, read_url
from jobs.executors.http_addresses import CONNECT_SECONDS, CheckedAddresses, Gate, resolve
from jobs.executors.http_answers import REDIRECTS, Answer, read_answer
from jobs.executors.http_request import SAFE_METHODS, HttpRequest, read
from jobs.executors.http_targets import Targets

# Whoever runs us cancels at the deadline and says so on the attempt; our own clock comes after that.
BACKSTOP_SECONDS = 1.0
MAX_REDIRECTS = 5
_TRANSIENT = (408, 425, 429)
# What may follow to another origin; any other header may hold what only the first one should know.
_PORTABLE_HEADERS = ("accept", "accept-language", "cache-control", "content-type", "user-agent")
TARGETS = Targets()


async def run(assignment: Assignment, output: Output) -> Outcome:
    """Send the request and return how it ended. Cancel the task to close the socket at once."""
    try:
        request = read(assignment.payload)
    except InvalidJob as error:
        return _permanent(f"{error.field}: {error}", "InvalidJob")
    try:
        policy = AddressPolicy.read(settings.HTTP_ALLOW, settings.HTTP_PORTS)
    except ValueError as error:
        # The node is at fault, and the next attempt may run on another one.
        return Outcome(False, error=f"addresses allowed here: {error}", error_type="Misconfigured")
    host, port = request.target.host, request.target.port
    is_retry = assignment.attempt > 1
    seconds = assignment.timeout_seconds
    if refusal := TARGETS.refuse(host, port, is_retry=is_retry, seconds=seconds):
        output.write("log", f"{refusal.why}; later again", "warning")
        return Outcome(
            False,
            error=refusal.why,
            error_type="LeftAlone",
            is_throttled=True,
            retry_after_seconds=refusal.seconds,
        )
    attempt = _Attempt(assignment, request, policy)
    level = "warning"
    try:
        outcome = await attempt.run()
        level = "info" if outcome.ok else "warning"
    finally:
        output.write("log", attempt.line(), level)
        if (answered := attempt.has_answered()) is None:
            TARGETS.forget_probe(host, port)
        else:
            TARGETS.note(host, port, answered=answered)
    return outcome


def _permanent(error: str, error_type: str) -> Outcome:
    return Outcome(False, error=error, error_type=error_type, is_permanent=True)


class _Attempt:
    """One attempt over all its hops. ``request`` is the hop it is at."""

    def __init__(self, assignment: Assignment, request: HttpRequest, policy: AddressPolicy) -> None:
        self.assignment = assignment
        self.request = request
        self.policy = policy
        self.redirects = 0
        self.began_at = time.monotonic()
        # What the log line says happened.
        self.end = "stopped"
        # From here on the other side may have acted on the current hop.
        self.is_connected = False
        self.status: int | None = None

    @property
    def elapsed_seconds(self) -> float:
        return round(time.monotonic() - self.began_at, 3)

    def has_answered(self) -> bool | None:
        """Whether the other side is well, as far as one call can tell; None if it tells nothing."""
        if self.status is not None:
            return self.status < 500
        if self.end == "stopped":
            # Out of time is the other side's fault, anything else that stops a call is ours.
            return False if self.elapsed_seconds >= self.assignment.timeout_seconds * 0.9 else None
        return None if self.end == "refused" else False

    @property
    def _seconds(self) -> float:
        """Until when an answer must be there; the node stops what is out of the job's time itself."""
        own = self.request.timeout_seconds
        most = self.assignment.timeout_seconds + BACKSTOP_SECONDS
        return most if own is None else min(own, most)

    def line(self) -> str:
        """Tell what happened without query, headers or body, which may hold secrets."""
        hops = f", {self.redirects} redirects" if self.redirects else ""
        return (
            f"{self.request.method} {self.request.target.host} {self.end}"
            f" in {round(self.elapsed_seconds * 1000)} ms{hops}"
        )

    async def run(self) -> Outcome:
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._follow()
        except AddressRefused as error:
            self.end = "refused"
            where = "redirected: " if self.redirects else ""
            return _permanent(where + str(error), "AddressRefused")
        except aiohttp.InvalidURL:
            self.end = "refused"
            return _permanent("payload.url: the client cannot read this URL", "InvalidUrl")
        except TimeoutError:
            return self._broken("no answer in time", "Timeout")
        except (aiohttp.ClientError, OSError) as error:
            return self._broken(_words(error), "ConnectionError")
        self.end, self.status = str(answer.status), answer.status
        return self._judge(answer)

    def _broken(self, error: str, error_type: str) -> Outcome:
        self.end = "failed"
        is_safe = self.request.method in SAFE_METHODS
        return Outcome(
            False,
            error=f"{self.request.target.host}: {error}",
            error_type=error_type,
            effect_unknown=self.is_connected and not is_safe,
        )

    def _judge(self, answer: Answer) -> Outcome:
        result = {
            "status": answer.status,
            "headers": answer.headers,
            "body": answer.body,
            "is_truncated": answer.is_truncated,
            "elapsed_seconds": self.elapsed_seconds,
        }
        if answer.status in self.request.expected_status:
            return Outcome(True, result)
        return Outcome(
            False,
            result,
            error=f"{self.request.target.host} answered {answer.status}",
            error_type="HttpStatus",
            is_permanent=not self._may_pass(answer.status),
            is_throttled=self._may_pass(answer.status)
            and (
                answer.status == 429
                or (answer.status == 503 and answer.retry_after_seconds is not None)
            ),
            retry_after_seconds=answer.retry_after_seconds,
        )

    def _may_pass(self, status: int) -> bool:
        """Whether another attempt may be answered in another way."""
        if self.request.retry_status is not None:
            return status in self.request.retry_status
        return status >= 500 or status in _TRANSIENT

    async def _follow(self) -> Answer:
        while True:
            answer = await self._exchange()
            if (
                not self.request.follow_redirects
                or answer.status not in REDIRECTS
                or answer.location is None
            ):
                return answer
            self.redirects += 1
            if self.redirects > MAX_REDIRECTS:
                raise AddressRefused(f"more than {MAX_REDIRECTS} times")
            self.request = _redirected(self.request, answer.status, answer.location)

    async def _exchange(self) -> Answer:
        """Check where the current hop leads, go there, and read the answer."""
        self.is_connected = False
        request, target = self.request, self.request.target
        addresses = await resolve(target)
        self.policy.check(target, addresses)
        gate = Gate(target, addresses)
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(self._connected)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=CheckedAddresses(target, addresses),
                use_dns_cache=False,
                force_close=True,
                socket_factory=gate.open,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
            trust_env=False,
            auto_decompress=False,
            trace_configs=[tracing],
        )
        async with session:
            try:
                response = await session.request(
                    request.method,
                    # As it is: requoting would send something else than what was checked.
                    URL(target.url, encoded=True),
                    headers=self._headers(),
                    data=request.body,
                    allow_redirects=False,
                )
                try:
                    return await read_answer(response)
                finally:
                    response.close()
            except asyncio.CancelledError:
                # A transport would first send what it still has; a stopped job sends nothing more.
                gate.cut()
                raise
            except (aiohttp.ClientError, OSError):
                if gate.has_refused:
                    raise AddressRefused(f"{target.host} leads elsewhere by now") from None
                raise

    async def _connected(self, *event: object) -> None:
        self.is_connected = True

    def _headers(self) -> CIMultiDict[str]:
        headers = CIMultiDict(
            {
                "User-Agent": f"Yardmaster/{settings.VERSION}",
                "Accept-Encoding": "gzip, deflate",
                "X-Job-Id": self.assignment.id,
                "X-Job-Fence": str(self.assignment.fence),
                "X-Job-Attempt": str(self.assignment.attempt),
                "Idempotency-Key": self.assignment.id,
            }
        )
        headers.update(self.request.headers)
        return headers


def _redirected(request: HttpRequest, status: int, location: str) -> HttpRequest:
    """Return the request of the next hop, without what belongs to the origin it leaves."""
    try:
        target = read_url(urljoin(request.target.url, location))
    except ValueError:
        raise AddressRefused("to what is not a URL") from None
    headers = dict(request.headers)
    method, body = request.method, request.body
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", None
        headers = {
            name: value
            for name, value in headers.items()
            if not name.lower().startswith("content-")
        }
    if target.origin != request.target.origin:
        headers = {
            name: value for name, value in headers.items() if name.lower() in _PORTABLE_HEADERS
        }
    return dataclasses.replace(request, target=target, method=method, body=body, headers=headers)


def _words(error: Exception) -> str:
    """Say what went wrong without the URL, which the client's own texts may hold."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)[:300]
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut short"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not HTTP"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno and cause.strerror:
        # The loop's own words tell the address; failed look-ups have negative codes of their own.
        return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror[:300]
    return type(cause).__name__
