"""What a migration's statement is, as far as how it is run depends on that; told by its words alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from lakebase_provider.core.base.sql.sql_text import tokens

#: Whole statements of a transaction; a file is one already.
_TRANSACTIONS = ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE")
#: First words of what the server refuses within a transaction, whatever follows.
_ALWAYS_OUTSIDE = (
    ("VACUUM",),
    ("ALTER", "SYSTEM"),
    ("CREATE", "DATABASE"),
    ("DROP", "DATABASE"),
    ("CREATE", "TABLESPACE"),
    ("DROP", "TABLESPACE"),
    ("CREATE", "SUBSCRIPTION"),
    ("DROP", "SUBSCRIPTION"),
)
_REINDEXED_ONE_BY_ONE = ("SCHEMA", "DATABASE", "SYSTEM")


@dataclass(frozen=True)
class Concurrent:
    """A change made beside others' work, whose failure leaves something behind.

    Attributes:
        action: ``"build"``, ``"drop"``, ``"rebuild"`` or ``"detach"``.
        target: What is changed, as it is written: the table of an index that is built or of a partition that
            is detached, else the index, table, schema or database; empty for the current database.
        part: The index that is built, or the partition that is detached; of a rebuild the kind of the target,
            such as ``"INDEX"``. Empty for an index without a name.
    """

    action: str
    target: str
    part: str = ""


@dataclass(frozen=True)
class Statement:
    """A statement of a file.

    Attributes:
        number: Its number in the file, from 1.
        text: The statement, with its comments, without the semicolon.
        line: The line on which its first word stands, from 1.
        title: Its first words, which say what it does and hold no values.
        outside: Whether it cannot run within a transaction.
        committed: Whether it has to be committed before a later statement of the file.
        concurrent: What it changes concurrently, if it does.
    """

    number: int
    text: str
    line: int
    title: str
    outside: bool = False
    committed: bool = False
    concurrent: Concurrent | None = None

    @classmethod
    def of(cls, number: int, text: str, line: int) -> Statement:
        """The statement, told by its words."""
        pieces = list(_pieces(text))
        words = _words(pieces)
        concurrent = _concurrent(pieces)
        outside = concurrent is not None or _is_outside(words, pieces)
        return cls(number, text, line, _title(words, concurrent), outside, False, concurrent)

    def refusal(self) -> tuple[str, str] | None:
        """Why it has no place in a file of migrations, and what to do; None if it has."""
        pieces = list(_pieces(self.text))
        words = _words(pieces)
        first, second = (*words, "", "")[:2]
        if first in _TRANSACTIONS or (first, second) == ("PREPARE", "TRANSACTION"):
            return (
                f"{first} has no place here: a file is one transaction",
                "Remove it; put what is to be committed alone into a file of its own.",
            )
        if (first, second) == ("DISCARD", "ALL"):
            return (
                "DISCARD ALL would release the lock that keeps other runs out",
                "Remove it: each file begins with a fresh session.",
            )
        if _calls(pieces, "PG_ADVISORY_UNLOCK_ALL"):
            return (
                "pg_advisory_unlock_all would release the lock that keeps other runs out",
                "Remove it: each file begins with a fresh session.",
            )
        if first == "COPY" and any(pair in (("FROM", "STDIN"), ("TO", "STDOUT")) for pair in pairwise(words)):
            return (
                "COPY from or to the client does not work in a file of SQL",
                "Use INSERT, or load the rows with client.load.",
            )
        if self.concurrent and self.concurrent.action == "build" and not self.concurrent.part:
            return (
                "an index that is built concurrently needs a name here, by which a leftover of it is found",
                "Give the index a name.",
            )
        return None


def only_in_transaction(statement: Statement) -> str | None:
    """What of the statement has no effect beyond its transaction; None if it is no such statement."""
    pieces = list(_pieces(statement.text))
    first, second = (*_words(pieces), "", "")[:2]
    if first == "SET" and second in ("LOCAL", "CONSTRAINTS", "TRANSACTION"):
        return f"{first} {second}"
    if first == "LOCK":
        return first
    # A run that goes on in another session repeats SET alone.
    return "set_config" if first == "SELECT" and _calls(pieces, "SET_CONFIG") else None


def new_label(statement: Statement) -> str | None:
    """The label, as a literal, that ALTER TYPE … ADD VALUE adds; it can be used only once it is committed."""
    pieces = [piece for piece in _pieces(statement.text) if piece[2] == 0]
    words = [text.upper() if kind == "word" else kind for kind, text, _ in pieces]
    if words[:2] != ["ALTER", "TYPE"]:
        return None
    for at in range(len(words) - 1):
        if words[at : at + 2] == ["ADD", "VALUE"]:
            return next((text for kind, text, _ in pieces[at:] if kind == "string"), None)
    return None


def mentions(statement: Statement, label: str) -> bool:
    """Whether a string of the statement, a routine's body included, holds that literal's text."""
    inner = re.sub(r"^\w?'|'$|^\$\w*\$|\$\w*\$$", "", label)
    # A short label stands within many words.
    found = re.compile(rf"(?<!\w){re.escape(inner)}(?!\w)")
    return any(kind == "string" and found.search(text) for kind, text, _ in _pieces(statement.text))


#: Kind, text and depth of parentheses of a token that is neither space nor a comment.
_Piece = tuple[str, str, int]


def _pieces(text: str) -> Iterator[_Piece]:
    depth = 0
    for kind, at, end in tokens(text):
        if kind in ("space", "comment"):
            continue
        piece = text[at:end]
        if piece == ")":
            depth = max(0, depth - 1)
        yield kind, piece, depth
        if piece == "(":
            depth += 1


def _calls(pieces: list[_Piece], name: str) -> bool:
    return any(kind == "word" and text.upper() == name for kind, text, _ in pieces)


def _words(pieces: list[_Piece]) -> list[str]:
    """The words outside of parentheses, in capital letters; a name in quotes is an empty one."""
    return [
        text.upper() if kind == "word" else ""
        for kind, text, depth in pieces
        if depth == 0 and kind in ("word", "name")
    ]


def _is_outside(words: list[str], pieces: list[_Piece]) -> bool:
    if any(tuple(words[: len(first)]) == first for first in _ALWAYS_OUTSIDE):
        return True
    if words[:1] == ["REINDEX"]:
        return any(word in _REINDEXED_ONE_BY_ONE for word in words[1:2])
    if words[:2] == ["ALTER", "DATABASE"]:
        return words[-3:-1] == ["SET", "TABLESPACE"]
    if words[:2] == ["ALTER", "SUBSCRIPTION"]:
        return "REFRESH" in words or "PUBLICATION" in words
    # Without a table it is about all of them.
    return words[:1] == ["CLUSTER"] and len(words) == 1 + (words[1:2] == ["VERBOSE"])


def _title(words: list[str], concurrent: Concurrent | None) -> str:
    # Of what follows the first two words, much is names.
    kept = [word for word in words[:3] if _TITLES.fullmatch(word) or word == words[0]]
    if concurrent is not None:
        kept.append("CONCURRENTLY")
    return " ".join(kept) or "statement"


#: Of a statement's first words, those that are no names.
_TITLES = re.compile(
    r"CREATE|ALTER|DROP|UNIQUE|INDEX|TABLE|VIEW|MATERIALIZED|FUNCTION|PROCEDURE|TRIGGER|TYPE|DOMAIN"
    r"|SCHEMA|SEQUENCE|POLICY|EXTENSION|ROLE|DATABASE|RULE|STATISTICS|OR|REPLACE|ON|INTO|FROM|SYSTEM|AGGREGATE"
    r"|REFRESH|COMMENT|DEFAULT|PRIVILEGES|SUBSCRIPTION|TABLESPACE"
)


class _Reader:
    """Reads the beginning of a statement, word by word."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self._pieces, self._at = pieces, 0

    def takes(self, *words: str) -> bool:
        """Whether these words come next; they are taken if so."""
        found = self._pieces[self._at : self._at + len(words)]
        if tuple(text.upper() for kind, text, _ in found if kind == "word") != words:
            return False
        self._at += len(words)
        return True

    def skip_options(self) -> list[str]:
        """What stands in the parentheses that may come next, in capital letters."""
        found: list[str] = []
        if self._pieces[self._at : self._at + 1] and self._pieces[self._at][1] == "(":
            while self._at < len(self._pieces):
                _, text, _ = self._pieces[self._at]
                self._at += 1
                found.append(text.upper())
                if text == ")":
                    break
        return found

    def name(self) -> str:
        """The name that comes next, as it is written, with dots; empty if there is none."""
        parts: list[str] = []
        while self._at < len(self._pieces):
            kind, text, _ = self._pieces[self._at]
            if kind not in ("word", "name"):
                break
            parts.append(text)
            self._at += 1
            if self._pieces[self._at : self._at + 1] and self._pieces[self._at][1] == ".":
                self._at += 1
                continue
            break
        return ".".join(parts)


def _concurrent(pieces: list[_Piece]) -> Concurrent | None:
    reader = _Reader(pieces)
    if reader.takes("CREATE"):
        return _built(reader)
    if reader.takes("DROP", "INDEX", "CONCURRENTLY"):
        reader.takes("IF", "EXISTS")
        return Concurrent("drop", reader.name())
    if reader.takes("REINDEX"):
        return _rebuilt(reader)
    if reader.takes("ALTER", "TABLE"):
        return _detached(reader)
    return None


def _built(reader: _Reader) -> Concurrent | None:
    reader.takes("UNIQUE")
    if not reader.takes("INDEX", "CONCURRENTLY"):
        return None
    reader.takes("IF", "NOT", "EXISTS")
    name = "" if reader.takes("ON") else reader.name()
    if name:
        reader.takes("ON")
    reader.takes("ONLY")
    return Concurrent("build", reader.name(), name)


def _rebuilt(reader: _Reader) -> Concurrent | None:
    options = reader.skip_options()
    for kind in ("INDEX", "TABLE", *_REINDEXED_ONE_BY_ONE):
        if reader.takes(kind):
            if reader.takes("CONCURRENTLY") or _is_on(options):
                return Concurrent("rebuild", reader.name(), kind)
            return None
    return None


def _is_on(options: list[str]) -> bool:
    at = options.index("CONCURRENTLY") if "CONCURRENTLY" in options else None
    return at is not None and options[at + 1].strip("'") not in ("FALSE", "OFF", "0")


def _detached(reader: _Reader) -> Concurrent | None:
    reader.takes("IF", "EXISTS")
    reader.takes("ONLY")
    table = reader.name()
    if not reader.takes("DETACH", "PARTITION"):
        return None
    partition = reader.name()
    return Concurrent("detach", table, partition) if reader.takes("CONCURRENTLY") else None
