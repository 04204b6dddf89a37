"""The engine that runs containers: Docker's, or Podman by its compatible socket.

The library waits for each answer, so every call has a thread of its own: some last as long as a job.
A call that is cancelled is waited for all the same, or nobody would know what it has made.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import docker
from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException

from jobs.executors.container_images import Image

CALL_SECONDS = 60.0
# No call of these waits for another.
CONNECTIONS = 64
PULL_LOOK_SECONDS = 0.2
STACK_BYTES = 1 << 20

T = TypeVar("T")

# What calls of the library raise when the engine refuses, fails or is not there.
ENGINE_ERRORS = (DockerException, RequestException, OSError)
# One pull at a time on a node: they share its line and its disk.
_pulling = threading.Lock()


class PullFailed(Exception):
    """The image could not be had."""


def connect(address: str, seconds: float = CALL_SECONDS) -> docker.APIClient:
    """Return a client of the engine at this address, which must answer."""
    # Where nobody listens, the library would leave its socket to the garbage collector.
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(seconds)
        probe.connect(address.removeprefix("unix://"))
    return docker.APIClient(
        base_url=address, version="auto", timeout=seconds, max_pool_size=CONNECTIONS
    )


# By address; made when first needed, in the process that needs it.
_clients: dict[str, docker.APIClient] = {}


def _client(address: str) -> docker.APIClient:
    if address not in _clients:
        # Two threads may make one each; the later one is kept.
        _clients[address] = connect(address)
    return _clients[address]


class Engine:
    """The engine of this node."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.api: Any = None

    async def connect(self) -> None:
        """Make sure that it is there; a failed attempt is not remembered."""
        # Each job takes threads for its whole life; what is reserved for them counts as memory here.
        threading.stack_size(STACK_BYTES)
        self.api = await threaded(lambda: _client(self.address))

    async def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Make one call of the library, by its name there."""
        return await threaded(lambda: getattr(self.api, name)(*arguments, **named))

    async def fetch(self, image: Image, registry: tuple[str, str] | None) -> None:
        """Have the image on this host: what is there already is not looked for anywhere else."""
        stop = threading.Event()
        try:
            await threaded(lambda: self._fetch(str(image), registry, stop), is_left=True)
        finally:
            # The thread of a pull that nobody waits for any more ends with the next piece.
            stop.set()

    def _fetch(self, image: str, registry: tuple[str, str] | None, stop: threading.Event) -> None:
        if self._has(image):
            return
        while not _pulling.acquire(timeout=PULL_LOOK_SECONDS):
            if stop.is_set():
                return
        try:
            if not self._has(image):
                self._pull(image, registry, stop)
        finally:
            _pulling.release()

    def _has(self, image: str) -> bool:
        try:
            self.api.inspect_image(image)
        except ImageNotFound:
            return False
        return True

    def _pull(self, image: str, registry: tuple[str, str] | None, stop: threading.Event) -> None:
        given = {"username": registry[0], "password": registry[1]} if registry else None
        failure = ""
        try:
            pieces = self.api.pull(image, auth_config=given, stream=True, decode=True)
            for piece in pieces:
                if stop.is_set():
                    pieces.close()
                    return
                # Read to its end all the same, so that the connection serves again.
                failure = failure or str(piece.get("error") or "")
        except DockerException as error:
            failure = words(error)
        if failure:
            raise PullFailed(f"image {image}: {failure}")


async def threaded(work: Callable[[], T], *, is_left: bool = False) -> T:
    """Do something that waits on a thread; cancelled, its end is awaited unless it may be left."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        # The loop may be gone, at the end of the process.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name="engine", daemon=True).start()
    try:
        return await (future if is_left else asyncio.shield(future))
    except asyncio.CancelledError:
        if not is_left:
            await settled(future)
        raise


async def settled(future: asyncio.Future[Any]) -> None:
    """Wait for the end, and take no notice of cancellation."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()


def close_stream(stream: Any) -> None:
    """End a stream at once; the library leaves half of that to the garbage collector."""
    with contextlib.suppress(Exception):
        stream.close()
    with contextlib.suppress(Exception):
        stream._response.close()


def words(error: BaseException) -> str:
    """What the engine says went wrong, in one line."""
    text = str(getattr(error, "explanation", "") or error) or type(error).__name__
    return " ".join(text.split())[:500]
