from __future__ import annotations

import pytest

from config.mistakes import configuration_problems

SOUND = {
    "secret_key": "x" * 32,
    "webhook_key": "",
    "base_path": "/jm-api",
    "anonymous_roles": {"scheduler": "viewer"},
    "certificate_roles": {"asyncjobs": "admin"},
    "verification_key": "",
    "allowed_hosts": ["localhost"],
    "worker_kinds": ["python", "http", "procedure"],
    "procedures": ["billing"],
    "file_roots": ["reports=/srv/reports", "archive=/srv/archive:ro"],
    "container_engine": "unix:///run/podman/podman.sock",
    "container_images": ["busybox", "busybox:1.36", "python:*", "ghcr.io/team/*"],
    "container_bind_mounts": ["/srv/in:ro", "/srv/out"],
    "http_allow": ["127.0.0.1:8080"],
    "http_ports": ["80", "443"],
    "clusters": ["payroll"],
    "logged_clusters": ["payroll", "*"],
    "chosen_cluster": "",
    "default_cluster": "payroll",
    "public_url": "https://jobs.example.com",
}


def test_sound_settings_have_no_problem():
    assert configuration_problems(**SOUND) == []


@pytest.mark.parametrize(
    ("name", "value", "variable"),
    [
        ("secret_key", "short", "SECRET_KEY"),
        ("base_path", "/", "BASE_PATH"),
        ("base_path", "/admin", "BASE_PATH"),
        ("base_path", "/livez/api", "BASE_PATH"),
        ("base_path", "/v1", "BASE_PATH"),
        ("base_path", "/asyncjobs", "BASE_PATH"),
        ("verification_key", "x" * 64, "ASYNCJOBS_VERIFICATION_KEY"),
        ("verification_key", "ab" * 31, "ASYNCJOBS_VERIFICATION_KEY"),
        ("base_path", "/api/v1", "BASE_PATH"),
        ("base_path", "/clusters", "BASE_PATH"),
        ("base_path", "/scheduler", "BASE_PATH"),
        ("base_path", "/queue/api", "BASE_PATH"),
        ("base_path", "/metrics", "BASE_PATH"),
        ("base_path", "/scheduled-jobs/api", "BASE_PATH"),
        ("base_path", "/a b", "BASE_PATH"),
        ("anonymous_roles", {"native": "viewer"}, "ANONYMOUS"),
        ("certificate_roles", {"asyncjobs": "all"}, "CERTIFICATE_ROLES"),
        ("anonymous_roles", {"scheduler": "root"}, "ANONYMOUS"),
        ("allowed_hosts", [], "ALLOWED_HOSTS"),
        ("worker_kinds", [], "WORKER_KINDS"),
        ("worker_kinds", ["python", "cobol"], "WORKER_KINDS"),
        ("procedures", [], "WORKER_KINDS"),
        ("container_engine", "tcp://10.0.0.1:2375", "CONTAINER_ENGINE"),
        ("container_engine", "unix://run/podman.sock", "CONTAINER_ENGINE"),
        ("container_images", ["Busy Box"], "CONTAINER_IMAGES"),
        ("container_images", ["busybox@sha256:12"], "CONTAINER_IMAGES"),
        ("container_images", ["a/**"], "CONTAINER_IMAGES"),
        ("container_bind_mounts", ["srv"], "CONTAINER_BIND_MOUNTS"),
        ("container_bind_mounts", ["/"], "CONTAINER_BIND_MOUNTS"),
        ("container_bind_mounts", ["/srv/../etc"], "CONTAINER_BIND_MOUNTS"),
        ("file_roots", ["/srv/reports"], "FILE_ROOTS"),
        ("file_roots", ["reports=srv/reports"], "FILE_ROOTS"),
        ("file_roots", ["reports=/srv/../etc"], "FILE_ROOTS"),
        ("file_roots", ["all=/"], "FILE_ROOTS"),
        ("file_roots", ["a=/srv/a", "a=/srv/b"], "FILE_ROOTS"),
        ("file_roots", ["outer=/srv", "inner=/srv/reports:ro"], "FILE_ROOTS"),
        ("http_allow", ["10.0.0.0/99"], "HTTP_ALLOW"),
        ("http_ports", ["eighty"], "HTTP_PORTS"),
        ("chosen_cluster", "payrol", "CLUSTER"),
        ("default_cluster", "payrol", "DEFAULT_CLUSTER"),
        ("public_url", "https://jobs.example.com/ops", "PUBLIC_URL"),
        ("public_url", "javascript:alert(1)", "PUBLIC_URL"),
        ("logged_clusters", ["*", "payrol"], "REQUEST_LOG"),
    ],
)
def test_a_mistake_names_its_variable(name, value, variable):
    (problem,) = configuration_problems(**{**SOUND, name: value})
    assert f"YARDMASTER_{variable}" in problem


def test_nodes_run_no_file_jobs_without_a_root():
    wrong = {**SOUND, "worker_kinds": ["python", "files"], "file_roots": []}
    (problem,) = configuration_problems(**wrong)
    assert "YARDMASTER_FILE_ROOTS" in problem


def test_all_mistakes_are_told_at_once():
    wrong = {**SOUND, "secret_key": "x", "base_path": "/", "http_ports": ["x"]}
    assert len(configuration_problems(**wrong)) == 3
