"""What the embedded ClickHouse's HTTP edge must know of SQL text; everything else is left to the engine's parser.

Pure functions: where an INSERT's data begins, which statements a read-only user may run, how values are quoted.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

_TOKEN = re.compile(
    rb"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
    |(?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<open>\()|(?P<close>\))|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_AFTER_FORMAT_NAME = re.compile(rb"[ \t\f]*\r?\n?")
_TRAILING_FORMAT = re.compile(r"\bFORMAT\s+(\w+)(?:\s+SETTINGS\s[^']*)?[\s;]*$", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)\.")
_VERSION = re.compile(r" \(version [^()]*\)\s*$")

_SELECTS = frozenset({"SELECT", "WITH", "FROM"})
_READS = frozenset({"SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"}) | _SELECTS
# The scalar `file` reads any file of the server, `sqlite` makes one before it is refused, `python` and `arrowstream`
# look for an object in this very process, and `eval` would run a text that nobody has checked.
_UNGUARDED_FUNCTIONS = frozenset({"ARROWSTREAM", "EVAL", "FILE", "PYTHON", "SQLITE"})

BAD_ARGUMENTS = 36
NOT_IMPLEMENTED = 48
SYNTAX_ERROR = 62
UNKNOWN_FORMAT = 73
UNKNOWN_SETTING = 115
READONLY = 164
TOO_MANY_SIMULTANEOUS_QUERIES = 202
CANNOT_DECOMPRESS = 271
ACCESS_DENIED = 497
AUTHENTICATION_FAILED = 516
_NAMES = {
    BAD_ARGUMENTS: "BAD_ARGUMENTS",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    SYNTAX_ERROR: "SYNTAX_ERROR",
    UNKNOWN_FORMAT: "UNKNOWN_FORMAT",
    UNKNOWN_SETTING: "UNKNOWN_SETTING",
    READONLY: "READONLY",
    TOO_MANY_SIMULTANEOUS_QUERIES: "TOO_MANY_SIMULTANEOUS_QUERIES",
    CANNOT_DECOMPRESS: "CANNOT_DECOMPRESS",
    ACCESS_DENIED: "ACCESS_DENIED",
    AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
}


class ClickHouseError(RuntimeError):
    """An error as ClickHouse words it: `Code: 60. DB::Exception: … (UNKNOWN_TABLE)`; `code` is its number."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def of(cls, code: int, text: str) -> "ClickHouseError":
        """One of ours, in the engine's wording."""
        return cls(code, f"Code: {code}. DB::Exception: {text} ({_NAMES[code]})")

    @classmethod
    def from_engine(cls, text: str) -> "ClickHouseError":
        """The engine's text, without what chDB's wrappers put in front of it, and without the version behind it."""
        text = _VERSION.sub("", text)
        found = _CODE.search(text)
        if found is None:
            return cls(1001, f"Code: 1001. DB::Exception: {text} (STD_EXCEPTION)")
        return cls(int(found[1]), text[found.start() :])


@dataclass(frozen=True)
class InlineInsert:
    """An INSERT whose data follows it: `head` without its FORMAT or VALUES, and where in the text the data begins."""

    head: str
    format: str
    data_offset: int


def split_insert(text: bytes) -> InlineInsert | None:
    """Find the data of an `INSERT … FORMAT x` or `INSERT … VALUES`; None for every other statement.

    `text` is the beginning of a statement: at least the whole of what stands before the data.

    Raises:
        ClickHouseError: INSERT … FROM INFILE, which would read the server's files.
    """
    depth = position = words = 0
    head: str | None = None  # once FORMAT was seen: the next word names it
    while match := _TOKEN.match(text, position):
        position, kind = match.end(), match.lastgroup
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "word":
            word = match.group().upper()
            if head is not None:
                return InlineInsert(head, match.group().decode(), _skip_line_end(text, position))
            if words == 0 and word != b"INSERT":
                return None
            words += 1
            # The first word after INTO is a name, whatever it is.
            if depth == 0 and words > 3:
                if word == b"VALUES":
                    return InlineInsert(_decode(text[: match.start()]), "Values", position)
                if word == b"INFILE":
                    raise ClickHouseError.of(BAD_ARGUMENTS, "FROM INFILE is not allowed over HTTP.")
                if word in (b"SELECT", b"WITH"):
                    return None
                if word == b"FORMAT":
                    head = _decode(text[: match.start()])
        elif kind in ("quoted", "other"):
            if words == 0:
                return None
            # `INTO "name"` is a name too, but the dot of db.table is not.
            words += kind == "quoted"
    return None


def trailing_format(sql: str) -> str | None:
    """The format that a query asks for itself, or None."""
    found = _TRAILING_FORMAT.search(sql)
    return found[1] if found else None


def is_select(text: str) -> bool:
    """Whether the statement's result can be streamed."""
    return _first_word(text) in _SELECTS


def is_read(text: str) -> bool:
    """Whether the statement has a result and changes nothing."""
    return _first_word(text) in _READS


def needs_parsing(sql: str) -> bool:
    """Whether `sql` may hold a second statement or write a file, which only the engine's parser can tell."""
    return ";" in sql.rstrip("; \t\r\n") or "outfile" in sql.lower()


def refuse_files(canonical: str) -> None:
    """Refuse a query that writes its result to a file of the server. `canonical` is as the engine printed it."""
    words = _words(canonical)
    if any(pair == ("INTO", "OUTFILE") for pair in pairwise(words)):
        raise ClickHouseError.of(BAD_ARGUMENTS, "INTO OUTFILE is not allowed over HTTP.")


def refuse_unless_read(canonical: str) -> None:
    """Let a single read through, as the engine's parser printed it.

    Only what the engine's own grants and readonly mode let through in chDB is refused here: changing the role, KILL
    QUERY, and the functions that no grant covers. Those are refused by name, wherever it stands: `APPLY(file)` and
    `arrayMap(file, …)` call them without a parenthesis.
    """
    refuse_files(canonical)
    words = _words(canonical)
    pairs = list(pairwise(words))
    if not words or words[0] not in _READS or ("PARALLEL", "WITH") in pairs:
        raise ClickHouseError.of(READONLY, "analyst: Cannot execute query in readonly mode.")
    for function in _UNGUARDED_FUNCTIONS.intersection(words):
        raise ClickHouseError.of(ACCESS_DENIED, f"analyst: Not enough privileges for {function.lower()}().")


def quote_string(text: str) -> str:
    """A string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def quote_name(name: str) -> str:
    """An identifier, whatever it holds."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def escape_parameter(text: str) -> str:
    """A string as the value of a query parameter, which ClickHouse reads in TSV's escapes."""
    return (
        text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    )


def _first_word(text: str) -> str:
    for match in _TOKEN.finditer(text.encode()):
        if match.lastgroup == "word":
            return match.group().decode().upper()
        if match.lastgroup not in ("space", "open"):
            break
    return ""


def _words(canonical: str) -> list[str]:
    """Words, opening parentheses and unquoted names in upper case; string literals are left out."""
    found = []
    for match in _TOKEN.finditer(canonical.encode()):
        if match.lastgroup in ("word", "open"):
            found.append(_decode(match.group()).upper())
        elif match.lastgroup == "quoted" and match.group()[:1] != b"'":
            found.append(_decode(match.group()[1:-1]).upper())
    return found


def _skip_line_end(text: bytes, position: int) -> int:
    match = _AFTER_FORMAT_NAME.match(text, position)
    return match.end() if match else position


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")
