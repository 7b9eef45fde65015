"""Where the pieces of a statement begin and end: Postgres' lexical rules, and psql's rule for semicolons.

This is the only place that knows what is a quote, a comment, a name or the end of a statement. It is correct
for ``standard_conforming_strings=on``, as servers have it since 9.1, and for Postgres from 15 on, where a
letter right after a number is an error. One pass takes time and memory proportional to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

#: What Postgres treats as space; Python strips more, such as a no-break space, which is part of a name here.
SPACE = " \t\n\r\f\v"

# Postgres treats everything beyond ASCII as letters. Classes that name only ASCII compile fast.
_START = r"[^\x00-@\[-^`{-\x7f]"
_WITHIN_TAG = r"[^\x00-/:-@\[-^`{-\x7f]"
_WITHIN = r"[^\x00-\#%-/:-@\[-^`{-\x7f]"
#: The beginning of each kind of token; of a quote and a nested comment, no more than that.
_TOKEN = rf"""
      (?P<space>[ \t\n\r\f\v]+)
    | (?P<word>(?![eEbBxX]'|[uU]&['"]){_START}{_WITHIN}*)
    | (?P<line>--[^\n\r]*)
    | (?P<block>/\*)
    | (?P<placeholder>PLACEHOLDER)
    | (?P<escaped>[eE]')
    | (?P<string>(?:[uU]&|[bBxX])?')
    | (?P<name>(?:[uU]&)?")
    | (?P<number>\.?[0-9][0-9_]*(?:\.(?!\.)[0-9_]*)?(?:{_START}{_WITHIN}*)?)
    | (?P<parameter>\$[0-9]+)
    | (?P<dollar>\$(?:{_START}{_WITHIN_TAG}*)?\$)
    | (?P<operator>(?:(?!--|/\*)[-~!@\#^&|`?+*/<>=PERCENT])+)
    | (?P<symbol>.)
    """
#: No name is that long: without a limit, repeated ``%(`` would take quadratic time.
_PLACEHOLDER = r"%(?:\([^)]{1,1000}\))?[sbt]|%%?"
_COMMENT_EDGE = r"/\*|\*/"
#: Each matches whatever follows, so that none is retried from elsewhere; if the quote, which is the group, is
#: missing, the text ends there.
_ENDS = {
    "string": r"[^']*(?:''[^']*)*(?:(')|\Z)",
    "escaped": r"[^'\\]*(?:(?:''|\\(?:.|\Z))[^'\\]*)*(?:(')|\Z)",
    "name": r'[^"]*(?:""[^"]*)*(?:(")|\Z)',
}
#: Between the parts of one literal: space with a line's end in it, and comments to the line's end.
_CONTINUED = r"[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*'"


#: A piece of a statement: its kind, where it begins in the text and where it ends. The kinds are ``space``,
#: ``comment``, ``string`` (dollar quotes and the like among them), ``name`` (in quotes), ``word``,
#: ``number``, ``parameter`` (``$1``), ``operator``, ``symbol``, ``placeholder`` (psycopg's, or a percent
#: sign), and ``open``: a quote or comment without an end.
Token = tuple[str, int, int]

_COMPLETE = frozenset({"space", "word", "placeholder", "number", "parameter", "operator", "symbol"})


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # Compiling takes time, and a task may have nothing to scan.
    return re.compile(pattern, re.DOTALL)


@cache
def _token(placeholders: bool) -> re.Pattern[str]:
    # With parameters, psycopg interprets a percent sign anywhere, even inside an operator.
    pattern = _TOKEN.replace("PLACEHOLDER", _PLACEHOLDER if placeholders else "(?!)")
    return re.compile(pattern.replace("PERCENT", "" if placeholders else "%"), re.VERBOSE | re.DOTALL)


def tokens(sql: str, *, placeholders: bool = False) -> Iterator[Token]:
    """The pieces of a text, which put together are the text.

    Args:
        sql: The text. Bytes in any ASCII-compatible encoding work too, decoded as latin-1.
        placeholders: Whether psycopg is to be given parameters with it, so that ``%s`` and ``%(name)s``
            outside quotes and comments stand for values.
    """
    token = _token(placeholders).match
    at, length = 0, len(sql)
    while at < length:
        match = token(sql, at)
        assert match is not None  # the last alternative matches any character
        kind, end = match.lastgroup or "", match.end()
        if kind in _COMPLETE:
            yield kind, at, end
            at = end
            continue
        if kind == "line":
            kind = "comment"
        elif kind == "block":
            kind, end = "comment", _end_of_comment(sql, at)
        elif kind in _ENDS:
            end = _end_of_quote(sql, end, kind)
            kind = "name" if kind == "name" else "string"
        elif kind == "dollar":
            found = sql.find(match.group(), end)
            kind, end = "string", -1 if found < 0 else found + len(match.group())
        if end < 0:
            kind, end = "open", length
        yield kind, at, end
        at = end


def _end_of_comment(sql: str, start: int) -> int:
    # Postgres' comments nest.
    depth = 0
    for edge in _compiled(_COMMENT_EDGE).finditer(sql, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return -1


def _end_of_quote(sql: str, at: int, kind: str) -> int:
    rest, further = _compiled(_ENDS[kind]), _compiled(_CONTINUED)
    while True:
        closed = rest.match(sql, at)
        assert closed is not None
        if closed[1] is None:
            return -1
        # A part on another line has the first one's kind: backslashes escape in it, or do not.
        if kind == "name" or (again := further.match(sql, closed.end())) is None:
            return closed.end()
        at = again.end()


def statements(sql: str, *, placeholders: bool = False, keep_semicolons: bool = False) -> list[str]:
    """The statements of a text, each with the comments in and before it.

    Semicolons end a statement where they do for psql: not within parentheses (``CREATE RULE``), nor in the
    body of a function or procedure (``BEGIN ATOMIC … END``). Text with only comments is not a statement.

    Args:
        sql: The text.
        placeholders: As for :func:`tokens`.
        keep_semicolons: Whether the semicolon at its end is part of a statement.
    """
    return [text for _, text in placed_statements(sql, placeholders, keep_semicolons)]


def placed_statements(
    sql: str, placeholders: bool = False, keep_semicolons: bool = False
) -> list[tuple[int, str]]:
    """As :func:`statements`, each with where in the text its first word, past space and comments, begins."""
    found: list[tuple[int, str]] = []
    start, depth = 0, 0
    runs, first = False, 0
    words: list[str] = []
    before = ""
    in_body = False
    for kind, at, end in tokens(sql, placeholders=placeholders):
        if kind in ("space", "comment"):
            continue
        piece = sql[at:end] if kind in ("symbol", "word") else ""
        if piece == ";" and depth == 0 and not in_body:
            if runs:
                found.append((first, sql[start : end if keep_semicolons else at].strip(SPACE)))
            start, runs, words, before = end, False, [], ""
            continue
        if not runs:
            runs, first = True, at
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(0, depth - 1)
        elif kind == "word":
            piece = piece.lower()
            if len(words) < _FIRST_WORDS:
                words.append(piece)
            if not in_body:
                in_body = piece == "atomic" and before == "begin" and depth == 0 and _makes_routine(words)
            # Each statement of a body ends in a semicolon, so that the END of a CASE never follows one.
            elif piece == "end" and depth == 0 and before in (";", "atomic"):
                in_body = False
        before = piece
    if runs:
        found.append((first, sql[start:].strip(SPACE)))
    return found


#: Enough words to tell that a statement creates a function or procedure.
_FIRST_WORDS = 4


def _makes_routine(words: list[str]) -> bool:
    kind = words[3:4] if words[1:3] == ["or", "replace"] else words[1:2]
    return words[:1] == ["create"] and kind in (["function"], ["procedure"])


_READS = frozenset({"select", "values", "table", "with"})
#: Words of statements that change data; WITH may hold them, and they cannot stand in a subquery.
_CHANGES = frozenset({"insert", "update", "delete", "merge"})


def is_query(sql: str) -> bool:
    """Whether a statement is certainly a query that another one's FROM can contain.

    Args:
        sql: One statement. Bytes work too, as for :func:`tokens`.
    """
    first = before = ""
    for kind, at, end in tokens(sql):
        piece = sql[at:end].lower()
        if kind in ("space", "comment") or (not first and piece == "("):
            continue
        if not first:
            if piece not in _READS:
                return False
            if piece != "with":
                return True
            first = piece
        # SELECT FOR UPDATE and FOR NO KEY UPDATE are queries all the same.
        elif kind == "word" and piece in _CHANGES and before not in ("for", "key"):
            return False
        before = piece
    return first != ""


def first_word(sql: str) -> str:
    """The word with which a statement begins, in capital letters; empty if there is none.

    Args:
        sql: The statement.
    """
    return next((sql[at:end].upper() for kind, at, end in tokens(sql) if kind == "word"), "")


def ends_transaction(sql: str) -> bool:
    """Whether a statement ends the transaction that it runs in.

    Args:
        sql: One statement; bodies of functions cannot.
    """
    words = [sql[at:end].upper() for kind, at, end in tokens(sql) if kind not in ("space", "comment")]
    if words[:1] == ["ROLLBACK"]:
        # TO, perhaps after WORK or TRANSACTION: only back to a savepoint.
        return "TO" not in words[1:3]
    return words[:1] in (["COMMIT"], ["END"], ["ABORT"]) or words[:2] == ["PREPARE", "TRANSACTION"]


def without_end(sql: str) -> str:
    """A statement without the semicolon, space and comments at its end.

    Args:
        sql: The statement. Bytes work too, as for :func:`tokens`.
    """
    sql = sql.rstrip(SPACE)
    if ";" not in sql:
        return sql
    return sql[: max((end for kind, at, end in tokens(sql) if _says(kind, sql[at:end])), default=0)]


def _says(kind: str, piece: str) -> bool:
    return kind not in ("space", "comment") and piece != ";"


def without_quotes(sql: str) -> str:
    """The text with each quote and comment replaced by a space, which leaves words and symbols.

    Args:
        sql: A statement without parameters.
    """
    return "".join(" " if kind in _QUOTED else sql[at:end] for kind, at, end in tokens(sql))


_QUOTED = frozenset({"comment", "string", "name", "open"})


def with_inert_comments(query: Any, params: object) -> Any:
    """A statement, for psycopg, without placeholders in its comments.

    psycopg sees placeholders in comments too: a commented-out condition would require its parameter, and a
    percent sign would be an error.

    Args:
        query: The statement with its placeholders; anything other than text or bytes is left alone.
        params: The parameters; without any psycopg leaves percent signs alone.
    """
    if params is None or not isinstance(query, (str, bytes)):
        return query
    sql = query.decode("latin-1") if isinstance(query, bytes) else query
    if "%" not in sql or ("--" not in sql and "/*" not in sql):
        return query
    text = "".join(
        sql[at:end].replace("%", "%%") if kind == "comment" else sql[at:end]
        for kind, at, end in tokens(sql, placeholders=True)
    )
    return text.encode("latin-1") if isinstance(query, bytes) else text
