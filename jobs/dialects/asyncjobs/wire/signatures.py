"""Signatures of tasks: ed25519 over what says which task it is and what it does."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings

from jobs.dialects.asyncjobs.errors import Refused, refuse
from jobs.dialects.asyncjobs.wire.payloads import to_base64
from jobs.dialects.asyncjobs.wire.times import Moment

MAX_LENGTH = 1024
REQUIRED = "required"


def signed_text(
    *,
    task_id: str,
    queue: str,
    task_type: str,
    max_tries: int,
    created: Moment | None,
    deadline: Moment | None,
    payload: bytes,
) -> bytes:
    """What a signature is of; moments that were left out count as 0."""
    parts = (
        *(task_id, queue, task_type, str(max_tries)),
        *(str(0 if moment is None else moment.ns) for moment in (created, deadline)),
        to_base64(payload),
    )
    return ":".join(parts).encode()


def check_signature(signature: str, text: Callable[[], bytes]) -> None:
    """Refuse what is not signed, or not by the holder of the key; without a key nothing is checked."""
    if len(signature) > MAX_LENGTH:
        refuse("task_invalid", f"signature may have {MAX_LENGTH} characters", "signature")
    key = settings.ASYNCJOBS_VERIFICATION_KEY
    if not key:
        return
    if not signature:
        _refuse_unsigned("tasks must be signed", "signature")
        return
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(signature), text()
        )
    except (InvalidSignature, ValueError):
        message = "the signature is not one of this task by the holder of the key"
        raise Refused(
            400, "signature_invalid", message, "task_signature_invalid", "signature"
        ) from None


def check_schedule() -> None:
    """Refuse a schedule where tasks must be signed: nobody is there to sign what it makes."""
    if settings.ASYNCJOBS_VERIFICATION_KEY:
        _refuse_unsigned("tasks must be signed, and nobody signs those of a schedule", "schedule")


def _refuse_unsigned(message: str, field: str) -> None:
    if settings.ASYNCJOBS_SIGNATURES == REQUIRED:
        raise Refused(400, "signature_required", message, "task_not_signed", field)
