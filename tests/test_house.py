"""The house in order: what files promise of each other is so."""

from __future__ import annotations

import ast
import re
import shlex
import sqlite3
from importlib.metadata import distributions
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.documents import all_pages

ROOT = Path(__file__).resolve().parent.parent
SQLITE_FLOOR = (3, 51, 3)
PINNED = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[a-z,]+\])?==([^=<>!~*\s]+)")


def text(name: str) -> str:
    return (ROOT / name).read_text()


def requirements(name: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in text(name).splitlines())
    return [line for line in lines if line and not line.startswith("-r ")]


def check_management_command(words: list[str]) -> None:
    """The command exists and takes these flags."""
    name, *arguments = words
    commands = get_commands()
    assert name in commands, f"manage.py has no {name}"
    command = load_command_class(commands[name], name)
    parser = command.create_parser("manage.py", name)
    known = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action.choices, dict) and arguments and arguments[0] in action.choices:
            known |= set(action.choices[arguments[0]]._option_string_actions)
        elif isinstance(action.choices, dict):
            pytest.fail(f"{name} has no verb {arguments[:1]}")
    flags = {word.split("=")[0] for word in arguments if word.startswith("--")}
    assert flags <= known, f"{name} knows no {flags - known}"


# -- Makefile, .ci/run -----------------------------------------------------------------------------


def makefile_recipes() -> list[str]:
    unwrapped = text("Makefile").replace("\\\n", " ")
    return [line.strip() for line in unwrapped.splitlines() if line.startswith("\t")]


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))


def test_every_target_the_makefile_tells_of_exists():
    told = set(re.findall(r'"make ([a-z-]+)', text("Makefile")))
    assert {"up", "test", "lint", "bench", "clean"} <= told
    assert told <= makefile_targets()
    phony = re.search(r"^\.PHONY: (.*)$", text("Makefile"), re.MULTILINE)
    assert phony and set(phony[1].split()) == makefile_targets()


def test_every_management_command_in_the_makefile_exists():
    found = re.findall(r"manage\.py ([a-z][^\n|&;]*)", "\n".join(makefile_recipes()))
    assert len(found) >= 3
    for words in found:
        check_management_command(shlex.split(words.replace("$(BIND)", "127.0.0.1:8080")))


def test_every_module_and_file_in_the_makefile_exists():
    recipes = "\n".join(makefile_recipes())
    for module in set(re.findall(r"-m ([a-z][a-z0-9_.]*)", recipes)) - {"venv", "pip"}:
        is_ours = (ROOT / module.replace(".", "/") / "__main__.py").exists()
        assert is_ours or installed_version(module), module
    for name in re.findall(r"requirements[a-z-]*\.txt", text("Makefile")):
        assert (ROOT / name).is_file()


def test_continuous_integration_runs_what_a_developer_runs():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = [line for line in text(".ci/run").splitlines() if "make" in line]
    assert lines == ["exec make test"]
    assert "test" in makefile_targets()


@pytest.mark.parametrize("name", ["Makefile", ".ci/run", "Dockerfile", "compose.yaml"])
def test_no_package_registry_is_named(name):
    assert not re.search(r"index-url|find-links|trusted-host", text(name), re.IGNORECASE)


# -- Dockerfile, compose.yaml ----------------------------------------------------------------------


def dockerfile() -> list[list[str]]:
    unwrapped = text("Dockerfile").replace("\\\n", " ")
    return [line.split(None, 1) for line in unwrapped.splitlines() if line and line[0] != "#"]


def test_every_file_the_image_copies_exists_and_is_sent_to_the_builder():
    sent = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    for word, rest in dockerfile():
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in sent, source


def test_every_package_of_ours_is_in_the_image():
    from django.conf import settings

    copied = {rest.split()[0] for word, rest in dockerfile() if word == "COPY"}
    ours = {app.split(".")[0] for app in settings.INSTALLED_APPS if (ROOT / app).is_dir()}
    assert ours | {"config", "manage.py", "requirements.txt"} <= copied


def test_the_image_starts_a_command_that_exists_as_nobody_special():
    words = dict(dockerfile())
    entry, command = ast.literal_eval(words["ENTRYPOINT"]), ast.literal_eval(words["CMD"])
    assert entry == ["python", "manage.py"]
    check_management_command(command)
    assert words["USER"] not in ("root", "0")


def test_the_services_name_commands_secrets_and_volumes_that_exist():
    document = yaml.safe_load(text("compose.yaml"))
    secrets = document["secrets"]
    for name, service in document["services"].items():
        for secret in service.get("secrets", ()):
            assert secret in secrets, (name, secret)
        for mount in service.get("volumes", ()):
            assert mount.split(":")[0] in document["volumes"]
        for config in service.get("configs", ()):
            assert config["source"] in document["configs"]
        for other in service.get("depends_on", {}):
            assert other in document["services"]
        if service.get("image") == "yardmaster":
            check_management_command(service["command"])
        check = service.get("healthcheck", {}).get("test", [])
        if "manage.py" in check:
            check_management_command(check[check.index("manage.py") + 1 :])
    written = makefile_recipes()
    for secret in secrets.values():
        name = Path(secret["file"]).name
        assert any(f"keep {name}" in line for line in written), f"make secrets writes no {name}"


def test_the_variables_of_the_services_are_settings():
    document = yaml.safe_load(text("compose.yaml"))
    known = variables_read() | {"YARDMASTER_CLUSTER"}
    for service in document["services"].values():
        for name in service.get("environment", {}):
            if name.startswith("YARDMASTER_"):
                assert name.removesuffix("_FILE") in known, name


# -- Requirements ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned(name):
    for line in requirements(name):
        assert PINNED.fullmatch(line), f"{line!r} is not pinned with =="


def test_what_runs_here_is_what_is_pinned():
    for line in requirements("requirements.txt"):
        match = PINNED.fullmatch(line)
        assert match and installed_version(match[1]) == match[2], f"{line}: another is installed"


# SECURITY.md section 5: what must be among the advisories.
FLOORS = {"Django": "5.2.12", "djangorestframework": "3.17.1", "PyJWT": "2.12"}


def advisories() -> list[tuple[str, SpecifierSet, str]]:
    """The package, its versions that have the hole, and what that is."""
    found = []
    for line in text("tests/corpora/advisories.txt").splitlines():
        if not line.startswith("#"):
            name, versions, about = line.split(" ", 2)
            found.append((name, SpecifierSet(versions, prereleases=True), about))
    return found


def holes_in(versions: dict[str, str]) -> list[str]:
    known = {canonicalize_name(name): version for name, version in versions.items()}
    return [
        f"{name} {version}: {about}"
        for name, affected, about in advisories()
        if (version := known.get(canonicalize_name(name))) and version in affected
    ]


def test_no_version_of_ours_has_a_hole_that_is_known():
    """Neither what is pinned, nor what came with it."""
    pinned = {}
    for name in ("requirements.txt", "requirements-sso.txt", "requirements-dev.txt"):
        matches = (PINNED.fullmatch(line) for line in requirements(name))
        pinned |= {match[1]: match[2] for match in matches if match}
    assert len(pinned) > 40
    assert holes_in(pinned) == []
    assert holes_in({one.metadata["Name"]: one.version for one in distributions()}) == []


def test_a_version_with_a_hole_is_told():
    assert len(advisories()) >= 30
    for name, version in FLOORS.items():
        assert holes_in({name.lower(): version}), name
    assert holes_in({"zope": "1.0"}) == []


def test_sqlite_is_sound():
    assert sqlite3.sqlite_version_info >= SQLITE_FLOOR


# -- Settings --------------------------------------------------------------------------------------


def variables_read() -> set[str]:
    return set(re.findall(r'"(YARDMASTER_[A-Z_]+)"', text("config/settings.py")))


def test_every_variable_is_documented():
    documented = set(re.findall(r"YARDMASTER_[A-Z_]+", text("docs/configuration.md")))
    undocumented = variables_read() - documented
    assert not undocumented, f"docs/configuration.md does not tell of {sorted(undocumented)}"


def test_every_documented_variable_is_read_somewhere():
    documented = set(re.findall(r"\bYARDMASTER_[A-Z_]+[A-Z]\b", all_pages()))
    sources = [
        path.read_text()
        for folder in ("config", "clusters", "authn", "jobs", "ui", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for name in documented:
        base = name.removesuffix("_FILE")
        assert any(base in source for source in sources), f"nobody reads {name}"


def test_every_setting_of_a_cluster_is_told_of_as_it_is():
    from clusters.policy import FIELDS

    document = text("docs/configuration.md")
    number = r"([0-9.]+)"
    row = rf"^\| `([a-z_]+)` \| {number} \| {number} to {number} \| (.+) \|$"
    told = {
        name: (float(default), float(low), float(high), about)
        for name, default, low, high, about in re.findall(row, document, re.MULTILINE)
    }
    assert told == {
        name: (setting.default, *(setting.metadata[key] for key in ("minimum", "maximum", "about")))
        for name, setting in FIELDS.items()
        if "minimum" in setting.metadata
    }
    # And those that are words.
    for name in FIELDS.keys() - told.keys():
        assert f"| `{name}` |" in document, name


def test_every_policy_of_a_queue_is_told_of_with_its_option():
    from jobs.models.queue_policies import POLICIES

    rows = re.findall(r"^\| `([a-z_]+)` \| `(--[a-z-]+)` \|", text("docs/queues.md"), re.MULTILINE)
    assert {name for name, _ in rows} == set(POLICIES)
    for _, option in rows:
        check_management_command(["queues", "change", "mail", option])


# -- Style that no linter knows --------------------------------------------------------------------


def test_nothing_is_called_utils_helpers_or_services():
    names = {"utils.py", "helpers.py", "services.py"}
    found = [
        path
        for folder in ("config", "clusters", "authn", "jobs", "ui", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path.name in names
    ]
    assert found == []


# -- Secrets ---------------------------------------------------------------------------------------

SECRET_NAMES = re.compile(r"(digest|secret|signature|password|proof|mark|mac)\Z")


def names_in(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Name):
        return {node.id}
    return {node.attr} if isinstance(node, ast.Attribute) else set()


def compared_by_equality(source: str) -> list[int]:
    """Lines that compare a secret, or what is made of one, so that time tells how much is right."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
        and any(
            SECRET_NAMES.search(name)
            for side in (node.left, *node.comparators)
            for name in names_in(side)
        )
    ]


def test_secrets_are_compared_in_constant_time():
    found = {
        str(path): lines
        for path in sorted((ROOT / "authn").rglob("*.py"))
        if (lines := compared_by_equality(path.read_text()))
    }
    assert found == {}
    assert compared_by_equality("a = 1\nif row.digest == found:\n    pass") == [2]


def test_the_map_of_the_engine_has_every_file_and_no_other():
    folder = ROOT / "jobs" / "engine"
    told = re.findall(r"\b([a-z_]+\.py)\b", (folder / "__init__.py").read_text())
    there = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert {*told} == there
    assert len(told) == len(there)
