"""Our own rules for source text: what is easy to write, dangerous here, and known to no linter.

A rule finds lines in a syntax tree. Where it is broken with good reason, `ALLOWED` says which, by file;
an entry that nothing needs any more is red as well. `python -m tests.house_rules` prints what they find.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("config", "clusters", "authn", "jobs", "ui")
Rule = Callable[[ast.AST, str], bool]

RULES: dict[str, tuple[str, Rule]] = {}


def rule(name: str, why: str) -> Callable[[Rule], Rule]:
    def keep(found: Rule) -> Rule:
        RULES[name] = (why, found)
        return found

    return keep


# Which file may break which rule, and why.
ALLOWED: dict[tuple[str, str], str] = {
    ("expansion", "authn/keys.py"): "columns that the verb itself names",
    ("expansion", "jobs/demo/timed.py"): "columns that the demo itself names",
    ("expansion", "jobs/demo/watch.py"): "columns that the demo itself names",
    ("expansion", "jobs/engine/alert_rules.py"): "columns that the verb itself names",
    ("expansion", "jobs/engine/started_kinds.py"): "conditions of our own",
    ("expansion", "jobs/failure_figures.py"): "conditions of our own",
    ("expansion", "jobs/models/alert.py"): "columns that the verb itself names",
    ("expansion", "jobs/models/failure.py"): "columns that verbs of the QuerySet name",
    ("expansion", "ui/pages/bulk_operations.py"): "words of the page's own filter",
    ("expansion", "authn/roles.py"): "keys() of a holder: its own column and the cluster",
    ("expansion", "jobs/engine/archive.py"): "conditions of our own, of one table",
    ("expansion", "jobs/engine/reseal.py"): "columns that were read from the same row",
    ("expansion", "jobs/engine/rollup.py"): "conditions of our own, of one table",
    ("expansion", "jobs/management/commands/schedules.py"): "an order of the table ORDERS",
    ("expansion", "jobs/models/bulk_operation.py"): "columns that the verb itself names",
    ("expansion", "jobs/models/job_queryset.py"): "columns that verbs of the QuerySet name",
    ("expansion", "jobs/models/queue.py"): "policies that were checked against their table",
    ("expansion", "jobs/models/secret.py"): "columns that the verb itself names",
    ("markup", "ui/fragments.py"): "what a template has made",
    ("markup", "ui/charts.py"): "an empty text",
    ("raw statement", "jobs/raw.py"): "the one door for statements that give rows of a model",
    ("raw statement", "jobs/step_logs.py"): "a text of our own; every value is a parameter",
    ("raw statement", "jobs/step_tree.py"): "a text of our own; every value is a parameter",
    ("raw statement", "jobs/engine/overflow.py"): "a text without values",
    ("raw statement", "jobs/models/queue.py"): "a text without values",
    ("network", "jobs/executors/http.py"): "the guarded client itself",
    ("network", "jobs/executors/http_addresses.py"): "its guard",
    ("network", "jobs/executors/http_answers.py"): "what its answers are made of",
    ("network", "jobs/executors/container_sidecars.py"): "asks the container it has just started",
    ("network", "clusters/management/commands/up.py"): "asks the server it has just started",
    ("network", "authn/single_sign_on.py"): "the issuer that the operator has named",
    ("network", "authn/single_sign_on_urls.py"): "catches what the issuer's client raises",
    ("pasted statement", "jobs/engine/ticks.py"): "names of columns and clauses of our own",
    ("code from data", "jobs/expressions/templates.py"): "compile() of its own language, not Python's",
    ("import by name", "authn/providers.py"): "dotted paths of the settings",
    ("import by name", "authn/checks.py"): "dotted paths of the settings",
    ("import by name", "jobs/engine/webhooks.py"): "a table of ours",
    ("import by name", "jobs/executors/__init__.py"): "a table of ours",
    ("import by name", "jobs/registry.py"): "modules that the operator has named",
    ("yaml", "jobs/dialects/asyncjobs/openapi.py"): "the document that lies beside it",
    ("yaml", "jobs/definitions/text.py"): "the safe loader, made safer",
    ("without CSRF", "config/health.py"): "open to all, changes nothing",
    ("without CSRF", "jobs/dialects/forge/views/system.py"): "open to all, changes nothing",
    ("without CSRF", "jobs/dialects/tork/views/system.py"): "open to all, changes nothing",
    ("without rights", "jobs/api/documentation.py"): "sends who is not signed in to the login",
    ("certificates", "config/server.py"): "a server that asks its clients for none",
}  # fmt: skip


def called(node: ast.AST) -> str:
    """The dotted name that is called, as it is written; nothing where that is no name."""
    return _dotted(node.func) if isinstance(node, ast.Call) else ""


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""


def last(name: str) -> str:
    return name.rpartition(".")[2]


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def imports_any(node: ast.AST, *modules: str) -> bool:
    return any(
        name == one or name.startswith(f"{one}.") for name in imported(node) for one in modules
    )


@rule("clock", "In the engine the database tells the time: jobs/engine/clock.py.")
def _clock(node: ast.AST, path: str) -> bool:
    if not path.startswith("jobs/engine/") or path == "jobs/engine/clock.py":
        return False
    name = called(node)
    return (
        name in ("time.time", "time.monotonic")
        or name.endswith(("datetime.now", "datetime.utcnow", "datetime.today", "date.today"))
        or name == "timezone.now"
    )


# Of any receiver, and where it is plainly a set of rows.
_ASKING = {"filter", "exclude", "Q", "order_by", "annotate", "alias", "update", "update_or_create"}
_ASKING_ROWS = {
    "get",
    "create",
    "get_or_create",
    "values",
    "values_list",
    "only",
    "defer",
    "aggregate",
}
_ROWS = re.compile(r"\b(objects|_default_manager|_base_manager|using|filter|exclude)\b")
_OF_CALLERS = re.compile(r"\b(request|GET|POST|query_params|asked|given)\b")


@rule("expansion", "What callers name must not become a look-up: filter(**them) asks any column.")
def _expansion(node: ast.AST, path: str) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = last(_dotted(node.func)) or getattr(node.func, "attr", "")
    if name in _ASKING_ROWS and not _ROWS.search(ast.unparse(node.func)):
        return False
    if name not in _ASKING | _ASKING_ROWS:
        return False
    for keyword in node.keywords:
        if keyword.arg is not None or isinstance(keyword.value, ast.Dict):
            continue
        # Names from a table of ours, values of callers: never the other way round.
        names = (
            keyword.value.generators[0].iter if isinstance(keyword.value, ast.DictComp) else None
        )
        if names is None or _OF_CALLERS.search(ast.unparse(names)):
            return True
    return name == "order_by" and any(_OF_CALLERS.search(ast.unparse(arg)) for arg in node.args)


@rule("markup", "What is marked safe is not escaped; format_html takes a text that is written out.")
def _markup(node: ast.AST, path: str) -> bool:
    name = last(called(node))
    if name in ("format_html", "format_html_join"):
        first = node.args[1 if name == "format_html_join" else 0]  # type: ignore[attr-defined]
        return not isinstance(first, ast.Constant)
    return name in ("mark_safe", "SafeString", "SafeText")


@rule("shell", "A command is a list of words; a shell would read them again.")
def _shell(node: ast.AST, path: str) -> bool:
    if called(node) in (
        "os.system",
        "os.popen",
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
    ):
        return True
    return isinstance(node, ast.Call) and any(
        word.arg == "shell"
        and not (isinstance(word.value, ast.Constant) and word.value.value is False)
        for word in node.keywords
    )


@rule(
    "network", "Requests go out through the client that checks addresses: jobs/executors/http.py."
)
def _network(node: ast.AST, path: str) -> bool:
    clients = ("aiohttp", "requests", "httpx", "http.client", "urllib.request", "urllib3")
    if imported(node)[:1] == ["requests.exceptions"]:
        return False  # what the client of the container engine raises
    return imports_any(node, *clients, "ftplib", "smtplib", "telnetlib") or (
        last(called(node)) in ("create_connection", "open_connection")
    )


@rule("raw statement", "Statements are written where they can be seen, and given parameters.")
def _raw_statement(node: ast.AST, path: str) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = last(_dotted(node.func)) or getattr(node.func, "attr", "")
    # Readers of the dialects have a `raw` of their own, which is about JSON.
    is_of_rows = name in ("raw", "extra") and _ROWS.search(ast.unparse(node.func))
    return name == "RawSQL" or bool(is_of_rows)


@rule("pasted statement", "Values are parameters of a statement, and never part of its text.")
def _pasted_statement(node: ast.AST, path: str) -> bool:
    if last(called(node)) not in ("execute", "executemany", "executescript"):
        return False
    text = node.args[0] if node.args else None  # type: ignore[attr-defined]
    if isinstance(text, ast.BinOp) and isinstance(text.op, ast.Mod):
        return True
    return isinstance(text, ast.Call) and last(_dotted(text.func)) == "format"


@rule("code from data", "Nothing that comes in is code: no pickle, no eval.")
def _code_from_data(node: ast.AST, path: str) -> bool:
    return imports_any(node, "pickle", "marshal", "shelve", "dill", "cloudpickle") or (
        called(node) in ("eval", "exec", "compile", "__import__")
    )


@rule("import by name", "No name that a caller gives is imported.")
def _import_by_name(node: ast.AST, path: str) -> bool:
    return last(called(node)) in ("import_module", "import_string")


@rule("yaml", "One loader reads YAML: without tags and aliases, and with limits.")
def _yaml(node: ast.AST, path: str) -> bool:
    loaders = ("load", "load_all", "safe_load", "safe_load_all", "full_load", "unsafe_load")
    return called(node) in {f"yaml.{name}" for name in loaders}


@rule("XML", "No parser of XML is safe against its entities.")
def _xml(node: ast.AST, path: str) -> bool:
    return imports_any(node, "xml", "lxml")


@rule("archive", "An archive is unpacked entry by entry, with limits.")
def _archive(node: ast.AST, path: str) -> bool:
    return last(called(node)) in ("extractall", "unpack_archive")


@rule("without CSRF", "Every POST of the screen has a token.")
def _without_csrf(node: ast.AST, path: str) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef) and any(
        "csrf_exempt" in ast.unparse(one) for one in node.decorator_list
    )


@rule("without rights", "Every view asks who is calling.")
def _without_rights(node: ast.AST, path: str) -> bool:
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = {_dotted(target) for target in targets}
    value = ast.unparse(node.value)
    return bool(names & {"permission_classes", "authentication_classes"}) and (
        value in ("[]", "()") or "AllowAny" in value
    )


@rule("certificates", "Certificates are checked.")
def _certificates(node: ast.AST, path: str) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in ("CERT_NONE", "_create_unverified_context")
    return isinstance(node, ast.keyword) and (
        node.arg in ("verify", "check_hostname", "ssl")
        and isinstance(node.value, ast.Constant)
        and node.value.value is False
    )


@rule("chance", "What must not be guessed comes from `secrets`.")
def _chance(node: ast.AST, path: str) -> bool:
    return path.startswith(("authn/", "clusters/")) and imports_any(node, "random")


@rule("cells", "Cells of a spreadsheet are made safe in one place: clusters/csv_text.py.")
def _cells(node: ast.AST, path: str) -> bool:
    return path != "clusters/csv_text.py" and called(node) in ("csv.writer", "csv.DictWriter")


_LOOKED_AT = (ast.Call, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
_LOOKED_AT += (ast.AnnAssign, ast.Attribute, ast.keyword)


def broken(source: str, path: str) -> Iterator[tuple[str, int]]:
    """Which rules a file breaks, and in which lines."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, _LOOKED_AT):
            continue
        for name, (_, found) in RULES.items():
            if found(node, path):
                yield name, getattr(node, "lineno", 0)


def everywhere() -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for folder in OURS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = str(file.relative_to(ROOT))
            if "/migrations/" not in path:
                for name, line in broken(file.read_text(), path):
                    found.setdefault((name, path), []).append(line)
    return found


if __name__ == "__main__":
    for (name, path), lines in everywhere().items():
        if (name, path) not in ALLOWED:
            sys.stdout.write(f"{path}:{lines[0]}: {name}: {RULES[name][0]}\n")
