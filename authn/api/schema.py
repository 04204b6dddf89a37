"""How the OpenAPI document describes credentials."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension


class _SaysNothing(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Says nothing of its own: SPECTACULAR_SETTINGS names the ways to send a credential."""

    name: list[str] = []

    def get_security_requirement(self, auto_schema: Any) -> list[Any]:
        return []

    def get_security_definition(self, auto_schema: Any) -> list[Any]:
        return []


class CredentialScheme(_SaysNothing):  # type: ignore[no-untyped-call]
    target_class = "authn.authentication.CredentialAuthentication"


class OpenScheme(_SaysNothing):  # type: ignore[no-untyped-call]
    target_class = "authn.authentication.OpenNative"


class BodyScheme(_SaysNothing):  # type: ignore[no-untyped-call]
    target_class = "authn.api.tokens.PasswordInBody"
