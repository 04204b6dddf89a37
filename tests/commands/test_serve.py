"""`manage.py serve`: what it refuses, how it ends, and what slow clients get."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from authn.keys import create_key
from clusters.binding import cluster_bound
from clusters.management.addresses import Address
from clusters.models import ClusterSetting
from jobs.models import Job
from tests.processes import free_port, manage, started, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def admin_key() -> str:
    return create_key("test", "admin", ["*"])[1]


def get(port: int, path: str = "/livez") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def answers(port: int) -> bool:
    try:
        return get(port).status == 200
    except OSError:
        return False


@contextmanager
def serving(eventually, *flags: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    arguments = ("serve", "--bind", f"127.0.0.1:{port}", "--workers", "1", *flags)
    with started(*arguments, env=worker_environment(**env)) as process:
        eventually(lambda: process.poll() is not None or answers(port), seconds=60)
        assert process.poll() is None, process.stdout.read()
        yield process, port


@pytest.fixture(scope="module")
def port(django_db_setup: None) -> Iterator[int]:
    """The port of a server that the tests share which neither change nor end it."""
    chosen = free_port()
    arguments = ("serve", "--bind", f"127.0.0.1:{chosen}", "--workers", "1")
    with started(*arguments, env=worker_environment()) as process:
        deadline = time.monotonic() + 60
        while not answers(chosen):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield chosen


# -- Refused ---------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("flags", "env", "expected"),
    [
        ((), {"YARDMASTER_SECRET_KEY": ""}, "no secret key"),
        (("--bind", "0.0.0.0:1"), {"YARDMASTER_DEBUG": "yes"}, "YARDMASTER_DEBUG"),
        (("--bind", "0.0.0.0:1"), {"YARDMASTER_ANONYMOUS": "scheduler=viewer"}, "--unsafe-bind"),
        (
            ("--bind", "0.0.0.0:1"),
            {"YARDMASTER_REQUIRE_AUTHENTICATION": "no"},
            "(YARDMASTER_REQUIRE_AUTHENTICATION)",
        ),
        ((), {"YARDMASTER_JWT_PROVIDER": "no.such.module"}, "YARDMASTER_JWT_PROVIDER"),
        (("--tls-cert", "/x"), {}, "go together"),
        (("--tls-client-ca", "/x"), {}, "needs --tls-cert"),
        (("--tls-cert", "/nowhere", "--tls-key", "/nowhere"), {}, "TLS"),
        (("--bind", "192.0.2.1:8080"), {}, "cannot listen on 192.0.2.1:8080"),
    ],
)
def test_what_must_not_be_served_is_refused_with_the_reason(tmp_path, flags, env, expected):
    env = worker_environment(YARDMASTER_HOME=str(tmp_path), **env)
    done = manage("serve", *flags, env=env)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_wrong_with_credentials_is_told_at_once():
    wrong = {
        "YARDMASTER_JWT_KEY": "short",
        "YARDMASTER_USER_HEADER": "x-api-key",
        "YARDMASTER_AUTH_CONFIG": "/nowhere.toml",
        "YARDMASTER_TRUSTED_PROXIES": "proxy.example",
        "YARDMASTER_AUTH_MECHANISMS": "magic",
        "YARDMASTER_ANONYMOUS_ROLE": "king",
    }
    done = manage("serve", env=worker_environment(**wrong))
    assert done.returncode == 2
    assert all(f"- {name}" in done.stderr for name in wrong), done.stderr
    assert "Traceback" not in done.stderr


def test_an_open_surface_is_served_to_others_when_that_is_said(eventually):
    port = free_port()
    flags = ("--bind", f"0.0.0.0:{port}", "--workers", "1", "--unsafe-bind", "--read-timeout", "5s")
    env = worker_environment(YARDMASTER_ANONYMOUS="scheduler=viewer")
    with started("serve", *flags, env=env) as process:
        eventually(lambda: process.poll() is not None or answers(port), seconds=60)
        assert process.poll() is None, process.stdout.read()
        assert get(port, "/api/v1/scheduler/jobs").status == 200
        assert get(port, "/jm-api/alpha/jobs").status == 401
        process.terminate()
        process.wait(60)
        assert "is open to others" in process.stdout.read()


@pytest.mark.once
@pytest.mark.parametrize(
    "flags",
    [
        ("--bind", "8080"),
        ("--bind", ":8080"),
        ("--bind", "127.0.0.1:99999"),
        ("--workers", "0"),
        ("--max-body", "7"),
        ("--read-timeout", "soon"),
        ("--read-timeout", "0s"),
        ("--write-timeout", "61m"),
    ],
)
def test_bad_flags_are_2(flags):
    done = manage("serve", *flags, env=worker_environment())
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_a_port_in_use_is_said_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = manage("serve", "--bind", bind, env=worker_environment())
    assert done.returncode == 1
    assert "is in use" in done.stderr


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_who_can_reach_an_address(host, is_loopback):
    assert Address(host, 1).is_loopback is is_loopback


# -- Served ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing(eventually, how):
    with serving(eventually) as (process, port):
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) == 1
        process.send_signal(how)
        assert process.wait(60) == 0
        assert not answers(port)
        psutil.wait_procs(workers, timeout=30)
        assert not any(worker.is_running() for worker in workers)


def test_the_server_does_not_tell_its_version(port):
    response = get(port)
    assert response.status == 200
    assert not any(character.isdigit() for character in response.headers["Server"])


def test_no_thread_runs_beside_the_requests(eventually):
    with serving(eventually) as (process, _):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        assert [one.num_threads() for one in family] == [1, 1]


def test_silent_connections_hold_up_nobody(port):
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
    begun = time.monotonic()
    assert get(port).status == 200
    assert time.monotonic() - begun < 10
    for one in silent:
        one.close()


def test_a_client_that_sends_slowly_is_cut_off_in_time(eventually):
    with serving(eventually, "--read-timeout", "1") as (_, port):
        slow = socket.create_connection(("127.0.0.1", port))
        begun = time.monotonic()
        # Each byte is in time; all of them together are not.
        try:
            for character in b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 200:
                slow.sendall(bytes([character]))
                time.sleep(0.1)
        except OSError:
            pass
        assert time.monotonic() - begun < 12
        slow.close()
        assert answers(port)


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 70 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_lines_and_headers_have_limits(port, request_text):
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(request_text)
    assert client.recv(12).split()[1] in (b"400", b"414", b"431")
    client.close()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("garbage\r\n\r\n", 400),
        ("GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        ("POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400),
        (f"GET /?a={'x' * 100_000} HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (f"GET / HTTP/1.1\r\nHost: localhost\r\nA: {'x' * 20_000}\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused_as_a_problem(port, request_text, status):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(request_text.encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == status


@pytest.mark.once
@pytest.mark.parametrize(
    "body",
    [
        b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"type":"x"}\r\n0\r\n\r\n',
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b'Transfer-Encoding: chunked\r\n\r\n20\r\n{"type":"x"}',
        b'Content-Length: 500\r\n\r\n{"type":"demo:noop"}',
    ],
)
@pytest.mark.parametrize("path", ["/jm-api/alpha/jobs", "/v1/tasks", "/jobs/enqueue"])
def test_a_body_that_is_not_what_it_says_is_refused(port, admin_key, path, body):
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {admin_key}\r\n"
    client.sendall(head.encode() + b"Content-Type: application/json\r\n" + body)
    client.shutdown(socket.SHUT_WR)
    answer = b"".join(iter(lambda: client.recv(65536), b""))
    client.close()
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    with cluster_bound("alpha"):
        assert not Job.objects.exists()


def test_a_client_that_does_not_close_holds_no_worker(port, admin_key):
    with ExitStack() as clients:
        request = (
            f"GET /jm-api/whoami HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {admin_key}\r\n\r\n"
        )
        took = []
        for _ in range(5):
            begun = time.monotonic()
            client = socket.create_connection(("127.0.0.1", port), timeout=60)
            clients.enter_context(client)
            client.sendall(request.encode())
            # The whole answer, to the server's end; the client's own end is not sent.
            answer = b"".join(iter(lambda client=client: client.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"}")
            took.append(time.monotonic() - begun)
        # One worker: each would wait half a second for the one before. A busy machine slows not all.
        assert min(took[1:]) < 0.45


def test_a_client_that_says_more_than_its_request_reads_the_whole_answer(port, admin_key):
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"GET /jm-api/openapi.json HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {admin_key}\r\n\r\n"
    client.sendall(head.encode() + b"x" * 100_000)
    answer = b"".join(iter(lambda: client.recv(65536), b""))
    client.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["openapi"]


def test_a_client_that_stops_for_a_moment_reads_why_it_is_refused(port, admin_key):
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = (
        f"POST /jm-api/alpha/jobs HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {admin_key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 9000000\r\n\r\n"
    )
    client.sendall(head.encode())
    for _ in range(3):
        time.sleep(0.1)
        client.sendall(b"x" * 500)
    client.sendall(b"x" * 1_000_000)
    answer = b"".join(iter(lambda: client.recv(65536), b""))
    client.close()
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_far_too_much_reads_why_it_is_refused(port, admin_key):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"x-api-key": admin_key, "content-type": "application/json"}
    connection.request("POST", "/jm-api/alpha/jobs", b"x" * 20_000_000, headers)
    response = connection.getresponse()
    problem = json.loads(response.read())
    connection.close()
    assert (response.status, problem["code"]) == (413, "body_too_large")
    assert problem["errors"][0]["field"] == "body"


def test_the_settings_of_the_configuration_are_stored_and_a_dead_cluster_does_not_matter(
    eventually, tmp_path
):
    env = worker_environment()
    url = env["YARDMASTER_CLUSTERS"].split(",beta=")[0].removeprefix("alpha=")
    config = tmp_path / "clusters.toml"
    config.write_text(
        f'[clusters.alpha]\ndatabase_url = "{url}"\nsettings = {{max_crashes = 9}}\n'
        '[clusters.dead]\ndatabase_url = "postgresql://u:p@127.0.0.1:1/x"\n'
        "settings = {max_crashes = 9}\n"
    )
    with serving(eventually, YARDMASTER_CLUSTERS="", YARDMASTER_CONFIG=str(config)):
        with cluster_bound("alpha"):
            rows = [*ClusterSetting.objects.values_list("name", "value", "updated_by")]
        assert rows == [("max_crashes", 9, "serve")]


def test_tls_and_client_certificates(eventually, authority):
    certificate, key = authority
    port = free_port()
    context = ssl.create_default_context(cafile=certificate)

    def status(path: str = "/livez") -> int | None:
        connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    flags = ("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", certificate)
    bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
    with started("serve", *bind, *flags, env=worker_environment()) as process:
        context.load_cert_chain(certificate, key)
        eventually(lambda: process.poll() is not None or status() == 200, seconds=60)
        assert process.poll() is None, process.stdout.read()
        # The certificate is all that a client of asyncjobs needs, and nothing elsewhere.
        assert status("/v1/tasks") == 200
        assert status("/jm-api/alpha/jobs") == 401
        context = ssl.create_default_context(cafile=certificate)
        assert status() is None
