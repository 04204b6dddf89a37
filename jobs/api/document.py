"""The finishing of the native document: what is true of every operation is said once, and in one place.

Called by the generator at its end, on the plain dictionaries that it has made of the views.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.conf import settings

from clusters.api.schema import ABOUT, ALWAYS, BODY
from clusters.policy import CLUSTER_ID
from config.problems import CONTENT_TYPE
from jobs.api.body_examples import BODY_EXAMPLES
from jobs.api.problem_examples import EXAMPLES

# A word on each group of operations, in the order of the page.
TAGS = {
    "clusters": "The clusters you may see.",
    "whoami": "Who you are to this server.",
    "token": "Short-lived tokens in place of a password.",
    "keys": "API keys.",
    "roles": "Who may do what, on which cluster.",
    "access-audit": "What was done to keys, roles and users, and who was turned away.",
    "jobs": "One piece of work each: enqueue, watch, cancel, retry.",
    "bulk-operations": "One verb on all jobs that match a filter, carried out in the background.",
    "queues": "Where jobs wait: order, limits, pauses.",
    "schedules": "When jobs come about by themselves.",
    "calendars": "Days and hours on which schedules do not run.",
    "workflows": "Schedules that run one after another.",
    "nodes": "The processes that run jobs.",
    "failures": "Failed jobs, grouped by what went wrong.",
    "alerts": "What somebody wants to be told of, and whether it is so.",
    "stats": "Figures of the present.",
    "timeline": "Figures over time.",
    "logs": "Who asked this cluster for what.",
    "settings": "How the cluster behaves.",
    "secrets": "Values that jobs may use and nobody may read.",
    "audit": "Who did what.",
}
_HEADERS = {
    "RequestId": (
        "The id of this request, your own `X-Request-ID` if it was sound; the log knows it.",
        {"type": "string"},
    ),
    "RetryAfter": ("In how many seconds it is worth trying again.", {"type": "integer"}),
    "Challenge": ("What kind of credentials is asked for.", {"type": "string"}),
}
_OF_ALL = {"X-Request-ID": "RequestId"}
_OF_STATUS = {
    "401": {"WWW-Authenticate": "Challenge"},
    "429": {"Retry-After": "RetryAfter"},
    "503": {"Retry-After": "RetryAfter"},
}
_END = r"\Z"
SIGN_IN = "token_issue"
_METHODS = ("get", "post", "put", "patch", "delete")
_WITHOUT_BODY = ("get",)


def finish(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Say of every operation what all of them have."""
    components = result["components"]
    components["headers"] = {
        name: {"description": about, "schema": schema} for name, (about, schema) in _HEADERS.items()
    }
    components["responses"] = {_name(status): _problem(status) for status in sorted(ABOUT)}
    components["securitySchemes"], result["security"] = security()
    used = set()
    for operations in result["paths"].values():
        for method in _METHODS:
            if method in operations:
                _finish_operation(operations[method], method)
                if operations[method]["operationId"] == SIGN_IN:
                    operations[method]["security"] = _with_password(result["security"])
                used.update(operations[method]["tags"])
    for name, schema in components["schemas"].items():
        if name.endswith("Request") and schema.get("type") == "object":
            # A field that is not known is refused.
            schema.setdefault("additionalProperties", False)
            if name.startswith("Patched"):
                # Nor does anybody mean to change nothing.
                schema["minProperties"] = 1
    result["info"]["x-jobmaster-doc"] = "jobmaster"
    result["tags"] = [
        {"name": name, "description": about} for name, about in TAGS.items() if name in used
    ]
    return result


def _with_password(ways: list[dict[str, list[str]]]) -> list[dict[str, list[str]]]:
    """Where one signs in: by a password in headers, or by none, with one in the body."""
    return [way for way in ways if way.keys() & {"Password", "Basic"}] + [{}]


def _finish_operation(operation: dict[str, Any], method: str) -> None:
    # That of the document holds for all.
    operation.pop("security", None)
    responses = operation["responses"]
    problems = {int(status) for status in responses if int(status) >= 400} | set(ALWAYS)
    if method not in _WITHOUT_BODY:
        problems |= set(BODY)
    for status in problems:
        responses[str(status)] = {"$ref": f"#/components/responses/{_name(status)}"}
    operation["responses"] = {status: responses[status] for status in sorted(responses)}
    for status, response in operation["responses"].items():
        if "$ref" not in response:
            response["description"] = response.get("description") or HTTPStatus(int(status)).phrase
            response["headers"] = {**_references(_OF_ALL), **response.get("headers", {})}

    for parameter in operation.get("parameters", ()):
        if (parameter["in"], parameter["name"]) == ("path", "cluster_id"):
            parameter.update(_CLUSTER_ID)
    if examples := BODY_EXAMPLES.get(operation["operationId"]):
        content = operation["requestBody"]["content"]["application/json"]
        content["examples"] = {name: {"value": value} for name, value in examples.items()}


_CLUSTER_ID = {
    "description": "The id of a cluster, as `clusters` lists them.",
    "schema": {"type": "string", "pattern": f"^{CLUSTER_ID.pattern.removesuffix(_END)}$"},
}


def _problem(status: int) -> dict[str, Any]:
    headers = _references({**_OF_ALL, **_OF_STATUS.get(str(status), {})})
    schema = {"$ref": "#/components/schemas/Problem"}
    examples = {
        name: {"value": {**_EXAMPLE, "status": status, **value}}
        for name, value in EXAMPLES[status].items()
    }
    return {
        "description": ABOUT[status],
        "headers": headers,
        "content": {CONTENT_TYPE: {"schema": schema, "examples": examples}},
    }


_EXAMPLE = {
    "type": "about:blank",
    "request_id": "01a20191-868c-7979-8cdf-31c02d86b8b8",
    "errors": [],
}


def _name(status: int) -> str:
    return f"Problem{status}"


def _references(headers: dict[str, str]) -> dict[str, Any]:
    return {
        header: {"$ref": f"#/components/headers/{component}"}
        for header, component in headers.items()
    }


def security() -> tuple[dict[str, Any], list[dict[str, list[str]]]]:
    """The ways to say who one is, and that one of them is enough."""
    taken = settings.AUTH_MECHANISMS
    schemes: dict[str, Any] = {}
    ways: list[tuple[str, ...]] = []
    if "api_key" in taken:
        schemes["ApiKey"] = _header(settings.API_KEY_HEADER, "An API key.")
        ways.append(("ApiKey",))
    jwt_header, jwt_scheme = settings.JWT_HEADER, settings.JWT_SCHEME
    is_usual = (jwt_header.lower(), jwt_scheme.lower()) == ("authorization", "bearer")
    if "api_key" in taken or ("jwt" in taken and is_usual):
        schemes["Bearer"] = {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A token: an API key, or a JWT.",
        }
        ways.append(("Bearer",))
    if "jwt" in taken and not is_usual:
        schemes["Token"] = _header(jwt_header, f"`{jwt_scheme}`, a blank, and a JWT.")
        ways.append(("Token",))
    if "password" in taken:
        about = "The name of a user; goes with the password."
        schemes["UserName"] = _header(settings.USER_HEADER, about)
        schemes["Password"] = _header(settings.PASSWORD_HEADER, "The password of that user.")
        schemes["Basic"] = {"type": "http", "scheme": "basic", "description": "The two in one."}
        ways += [("UserName", "Password"), ("Basic",)]
    return schemes, [{scheme: [] for scheme in way} for way in ways]


def _header(name: str, about: str) -> dict[str, str]:
    return {"type": "apiKey", "in": "header", "name": name, "description": about}
