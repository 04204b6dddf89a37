"""No file holds a secret: detect-secrets finds what looks like one, and we say of each why it is none."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings

from authn.keys import create_key

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "tests/corpora/no_secrets.txt"
# Those for services that nobody here has ever used would only cost time.
DETECTORS = (
    *("AWSKeyDetector", "BasicAuthDetector", "GitHubTokenDetector", "GitLabTokenDetector"),
    *("Base64HighEntropyString", "HexHighEntropyString", "JwtTokenDetector", "NpmDetector"),
    *("OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector", "SlackDetector"),
)
# Names such as `password`, given a value. Tests are full of passwords that they have just made up.
BY_NAME = "KeywordDetector"
OUR_KEYS = re.compile(r"\bym_[A-Za-z0-9]{6,}_[A-Za-z0-9_-]{30,}")
# Written from the code by `make openapi`.
WRITTEN = {"openapi.json"}


def files() -> list[str]:
    """What is in the repository, or would be after `git add`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a checkout of git")
    names = set(done.stdout.splitlines()) - WRITTEN - {str(CORPUS.relative_to(ROOT))}
    return sorted(name for name in names if (ROOT / name).is_file())


# Only such lines of programs are looked at: each costs a call of every detector.
WORTH_IT = re.compile(
    r"[A-Za-z0-9+/=]{16}|[\w-]{32}|://|-----|pass|pwd|secret|key|token|auth", re.IGNORECASE
)


def secrets_in(path: Path, scratch: Path, *, by_name: bool) -> Iterator[str]:
    text = path.read_text(errors="ignore")
    if path.suffix == ".py":
        path = scratch / "lines.py"
        path.write_text("\n".join(line for line in text.splitlines() if WORTH_IT.search(line)))
    chosen = (*DETECTORS, BY_NAME) if by_name else DETECTORS
    with transient_settings({"plugins_used": [{"name": name} for name in chosen]}):
        yield from (str(found.secret_value) for found in scan_file(str(path)))
    yield from OUR_KEYS.findall(text)


def test_no_file_holds_a_secret(tmp_path: Path) -> None:
    known = dict(
        line.split("  ", 1) for line in CORPUS.read_text().splitlines() if not line.startswith("#")
    )
    found: dict[str, list[str]] = {}
    for name in files():
        for text in secrets_in(ROOT / name, tmp_path, by_name=not name.startswith("tests/")):
            found.setdefault(text, []).append(name)
    new = {text: names for text, names in found.items() if text not in known}
    assert not new, "take it out, or say in tests/corpora/no_secrets.txt why it is no secret"
    # What is gone would allow the next file that holds it.
    assert sorted(known.keys() - found.keys()) == []
    assert all(reason.strip() for reason in known.values())


@pytest.mark.parametrize(
    "line",
    [
        "AWS = 'AKIA" + "Z7QX4HWPLM2DNTRB'",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "url = 'postgresql://yard:" + "h8Kd03lQwz@db/payroll'",
        "token = '" + "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8'",
        "digest = '" + "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'",
        "password = '" + "h8Kd03lQwz'",
    ],
)
def test_a_secret_is_found(line: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.py"
    path.write_text(f"{line}\n")
    assert [*secrets_in(path, tmp_path, by_name=True)] != []


def test_a_key_of_ours_is_found(db: None, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    key = create_key("k", "viewer", ["alpha"])[1]
    path.write_text(f"x-api-key: {key}\n")
    assert key in [*secrets_in(path, tmp_path, by_name=False)]
