"""Images that are not on the host: fetched one at a time, with a password that nobody sees."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.executors import container
from tests.engines import IMAGE
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment
from tests.jobs.executors.container_work import SECONDS, once, outcome_of
from tests.registries import USER, Registry, registry

pytestmark = once


@pytest.fixture
def images(settings, engine) -> Iterator[Registry]:
    with registry(f"canary-{secrets.token_hex(8)}") as found:
        settings.CONTAINER_IMAGES = [f"{found.address}/*", IMAGE]
        yield found
        for one in engine.api.images():
            if any(found.address in tag for tag in one["RepoTags"] or ()):
                engine.api.remove_image(one["Id"], force=True)


def credentials(images: Registry) -> dict[str, str]:
    return {"username": USER, "password": images.password}


def arguments_of_all() -> str:
    """What `ps` shows of every process, and their environment, which root may see."""
    texts = []
    for path in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                texts.append((path / name).read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return "\n".join(texts)


def test_an_image_is_fetched_once_with_the_password_of_the_job(images):
    recorder = Recorder()
    image = f"{images.address}/team/one:1"
    payload = {"image": image, "run": "cat /etc/name"}
    outcome = outcome_of(recorder, **payload, registry=credentials(images))
    assert outcome.ok, outcome
    assert recorder.text("stdout") == "name of the image: team/one\n"
    fetched = images.most_at_once
    assert fetched >= 1
    images.password = "changed since"
    assert outcome_of(**payload).ok


@pytest.mark.parametrize("password", [None, "wrong"])
def test_without_the_password_there_is_no_image(images, password):
    more = {"registry": {"username": USER, "password": password}} if password else {}
    outcome = outcome_of(image=f"{images.address}/two", run="true", **more)
    assert (outcome.ok, outcome.error_type, outcome.is_permanent) == (False, "PullFailed", False)
    assert outcome.error.startswith(f"image {images.address}/two:latest: ")
    assert images.most_at_once == 0


def test_a_password_is_seen_nowhere(images, engine, caplog):
    images.delay_seconds = 1.0
    seen: list[str] = []
    recorder = Recorder()
    payload = {
        "image": f"{images.address}/three",
        "run": "env; exit 1",
        "registry": credentials(images),
    }

    async def story() -> object:
        task = asyncio.create_task(container.run(make_assignment(payload), recorder))
        while not task.done():
            seen.append(arguments_of_all())
            seen.extend(str(one) for one in await asyncio.to_thread(engine.containers))
            await asyncio.sleep(0.1)
        return task.result()

    outcome = in_loop(story(), SECONDS)
    assert len(seen) > 3
    everything = "\n".join([*seen, str(outcome), str(recorder.written), caplog.text])
    everything += (engine.top / "log").read_text()
    assert images.password not in everything
    assert "three" in everything


def test_images_are_fetched_one_at_a_time(images):
    images.delay_seconds = 0.4

    async def story() -> list[object]:
        return await asyncio.gather(
            *(
                container.run(
                    make_assignment(
                        {
                            "image": f"{images.address}/n{number}",
                            "run": "true",
                            "registry": credentials(images),
                        }
                    ),
                    Recorder(),
                )
                for number in range(3)
            )
        )

    outcomes = in_loop(story(), SECONDS)
    assert all(outcome.ok for outcome in outcomes), outcomes
    # Configuration and layer of one image may come side by side.
    assert images.most_at_once <= 2


def test_a_cancel_waits_for_no_fetch(images):
    images.delay_seconds = 5.0

    async def story() -> tuple[float, object]:
        payload = {
            "image": f"{images.address}/slow",
            "run": "true",
            "registry": credentials(images),
        }
        first, second = (
            asyncio.create_task(container.run(make_assignment(payload), Recorder()))
            for _ in range(2)
        )
        while not images.most_at_once:
            await asyncio.sleep(0.05)
        began_at = time.monotonic()
        for task in (first, second):
            task.cancel()
        await asyncio.wait([first, second])
        took = time.monotonic() - began_at
        assert first.cancelled() and second.cancelled()
        # The next one is not kept waiting by those that are gone.
        images.delay_seconds = 0.0
        return took, await container.run(make_assignment(payload), Recorder())

    took, outcome = in_loop(story(), SECONDS)
    assert took < 4.5
    assert outcome.ok, outcome
