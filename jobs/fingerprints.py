"""Which failures are alike: exception type, message without what differs from job to job, and place.

Pure, and called for every attempt that fails: what is looked at is bounded, and every pattern goes
through it once, whatever a hostile message holds.
"""

from __future__ import annotations

import hashlib
import re
import sysconfig
from functools import lru_cache
from typing import NamedTuple

MAX_ERROR_TYPE, MAX_MESSAGE, MAX_FRAME = 200, 500, 300
# So much of a message is read, and so much of the end of a trace.
_READ_MESSAGE, _READ_TRACE = 1000, 16_384

# In this order; the first that matches at a place wins. Where a run of characters could be entered at
# each of its places, a look behind lets only the first one try: without it, time would be quadratic.
_MARKS = {
    # Few, and they say what kind of failure it is: status and exit codes stay.
    "kept": r"(?<!\w)(?:answered|exit code|exit status|status|status code|HTTP|[Ee]rrno) \d{1,3}(?!\w)",
    "text": r"""(?<!\w)'[^']*+'(?!\w)|"[^"]*+"|`[^`]*+`""",
    "url": r"(?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]*+://[^\s,;)>\]]++",
    "email": r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+",
    "uuid": r"(?<![0-9A-Za-z])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9A-Za-z])",
    "time": r"(?<!\d)\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d++)?)?(?:Z|[+-]\d\d:?\d\d)?)?(?!\d)"
    r"|(?<![\d:])\d\d:\d\d(?::\d\d(?:[.,]\d++)?)?(?![\d:])",
    "address": r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\d.])"
    r"|(?<![\w:])(?=[0-9a-fA-F]{0,4}:)(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?![\w:])",
    "path": r"(?<![\w.\\/])(?:[A-Za-z]:)?(?:[\\/][\w.@%+~=-]++)++[\\/]?",
    "hex": r"(?<!\w)(?:0x[0-9a-fA-F]++|(?=[a-fA-F]*+\d)[0-9a-fA-F]{8,})(?!\w)",
    "id": r"(?<!\w)(?=\w{12})(?=[^\W\d]*+\d++[^\W\d]++\d)\w++",
    "number": r"\d++(?:[.,]\d++)*+",
}
_VARIES = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _MARKS.items()))
# What no mark can do without; most messages that are plain words end here.
_MAY_VARY = re.compile(r"""[\d'"`/\\@:]""")
_FRAME_START = '  File "'
_FRAME = re.compile(r'  File "([^"\n]*)", line \d+, in ([^\n]*)')
_OWN_LINE = re.compile(r'  File "([^"\n]*)", line (\d+), in ([^\n]*)\Z')
# Of a recursion without end, so many frames are looked at.
_MAX_FRAMES = 200
_TRACE_START = "Traceback (most recent call last):"
# Where Python and what was installed into it live, on this host or on another.
_INSTALLED = re.compile(
    r"[\\/](?:site|dist)-packages[\\/]|[\\/]lib(?:64)?[\\/]python\d[\d.]*t?[\\/]|^<(?!string)", re.I
)
_STDLIB = sysconfig.get_paths()["stdlib"].rstrip("\\/")
_SEPARATORS = re.compile(r"[\\/]+")


class Parts(NamedTuple):
    error_type: str
    message: str
    frame: str


def fingerprint(error_type: str | None, error: str | None, trace: str | None) -> str:
    """Sixteen hexadecimal digits that failures of one kind have in common."""
    joined = "\0".join(parts(error_type, error, trace))
    digest = hashlib.blake2b(joined.encode("utf-8", "replace"), digest_size=8)
    return digest.hexdigest()


def parts(error_type: str | None, error: str | None, trace: str | None) -> Parts:
    """What a fingerprint is made of, fit to show."""
    return Parts(
        (error_type or "")[:MAX_ERROR_TYPE],
        normalised(first_line(error or "")),
        own_frame(trace or "")[:MAX_FRAME],
    )


def first_line(text: str) -> str:
    """The first line that says something, cut to what is read of it."""
    return text[: 4 * _READ_MESSAGE].strip().partition("\n")[0][:_READ_MESSAGE].strip()


@lru_cache(maxsize=1024)
def normalised(message: str) -> str:
    """A message with marks in place of numbers, names, ids, paths and the like."""
    message = message[:_READ_MESSAGE]
    if _MAY_VARY.search(message):
        message = _VARIES.sub(_mark, message)
    return message[:MAX_MESSAGE]


def _mark(match: re.Match[str]) -> str:
    name = match.lastgroup
    return match[0] if name == "kept" else f"<{name}>"


def message_of(trace: str) -> str:
    """The message at the end of a trace; the text itself where it is none."""
    lines = trace[-_READ_TRACE:].rpartition(_TRACE_START)[2].split("\n")
    for number in range(len(lines) - 1, 0, -1):
        # The last line of a frame is indented, and the exception follows it.
        if lines[number - 1][:1].isspace() and lines[number][:1] not in ("", " ", "\t"):
            return "\n".join([lines[number].partition(": ")[2], *lines[number + 1 :]])
    return trace


class OwnFrame(NamedTuple):
    """A place in the handler's own code that a failure went through."""

    place: str
    function: str
    # The line as it stands there, or empty.
    code: str


def own_frames(trace: str, most: int = 10) -> list[OwnFrame]:
    """The frames of the last exception outside Python and installed packages, innermost first."""
    trace = trace[-_READ_TRACE:]
    trace = trace[max(trace.rfind(_TRACE_START), 0) :]
    lines, found = trace.split("\n"), []
    for number in range(len(lines) - 1, -1, -1):
        match = _OWN_LINE.match(lines[number])
        if match is None or match[1].startswith(_STDLIB) or _INSTALLED.search(match[1]):
            continue
        following = lines[number + 1 : number + 2]
        is_code = bool(following) and following[0].startswith("    ")
        code = following[0].strip() if is_code else ""
        place = f"{'/'.join(_SEPARATORS.split(match[1])[-3:])}:{match[2]}"
        found.append(OwnFrame(place[:MAX_FRAME], match[3].strip()[:200], code[:MAX_FRAME]))
        if len(found) == most:
            break
    return found


def own_frame(trace: str) -> str:
    """File and function of the innermost frame that is not of Python or an installed package.

    Without line number and directory: an edit above it, or a new release's directory, changes neither.
    """
    trace = trace[-_READ_TRACE:]
    # Of exceptions that were chained the last one ended the attempt.
    first = max(trace.rfind(_TRACE_START), 0)
    at = len(trace)
    for _ in range(_MAX_FRAMES):
        at = trace.rfind(_FRAME_START, first, at)
        if at < 0:
            break
        match = _FRAME.match(trace, at)
        if match and not (match[1].startswith(_STDLIB) or _INSTALLED.search(match[1])):
            return f"{'/'.join(_SEPARATORS.split(match[1])[-2:])}:{match[2].strip()}"
    return ""
