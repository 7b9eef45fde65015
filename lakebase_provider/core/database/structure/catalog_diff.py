"""How what is defined in two databases, or in one at two times, differs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lakebase_provider.core.base.plain_text import code, code_block
from lakebase_provider.core.database.structure.catalog_dump import CatalogDump, CatalogObject


@dataclass(frozen=True)
class CatalogChange:
    """Something that is defined in both, but otherwise.

    Attributes:
        kind: What it is, such as ``"column"``.
        name: Its name in SQL.
        before: Its earlier definition.
        after: Its later definition.
    """

    kind: str
    name: str
    before: str
    after: str


@dataclass(frozen=True)
class CatalogDiff:
    """How two dumps differ.

    Attributes:
        created: What only the later one has.
        removed: What only the earlier one has.
        changed: What both have, with other definitions.
    """

    created: tuple[CatalogObject, ...]
    removed: tuple[CatalogObject, ...]
    changed: tuple[CatalogChange, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is no difference."""
        return not (self.created or self.removed or self.changed)

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON can hold it."""
        return asdict(self)

    def to_markdown(self, *, heading: str = "###", longest: int | None = None) -> str:
        """The difference for people: each object with its definition, or with the lines that changed.

        Args:
            heading: What a heading begins with.
            longest: Characters after which objects are left out.
        """
        if self.is_empty:
            return "No differences.\n"
        kept, size = [], 0
        for part in self._parts(heading):
            size += len(part)
            # A whole part: one that was cut would leave what follows, or its own rest, as code or as no code.
            if longest is not None and size > longest:
                kept.append("(cut off)\n")
                break
            kept.append(part)
        return "\n".join(kept) + "\n"

    def _parts(self, heading: str) -> Iterator[str]:
        for title, objects in (("Created", self.created), ("Removed", self.removed)):
            if objects:
                yield f"{heading} {title} ({len(objects)})\n"
            for one in objects:
                yield _entry(one.kind, one.name, "sql", one.definition)
        if self.changed:
            yield f"{heading} Changed ({len(self.changed)})\n"
        for change in self.changed:
            lines = difflib.ndiff(change.before.splitlines(), change.after.splitlines())
            kept = (line for line in lines if not line.startswith("?"))
            yield _entry(change.kind, change.name, "diff", "\n".join(line[0] + line[2:] for line in kept))


def _entry(kind: str, name: str, language: str, text: str) -> str:
    block = "\n".join(f"  {line}".rstrip() for line in code_block(language, text).splitlines())
    return f"- {kind} {code(name)}\n\n{block}\n"


def diff(before: CatalogDump, after: CatalogDump) -> CatalogDiff:
    """What was created, removed and changed between two dumps.

    Args:
        before: The earlier one, such as that of a branch's parent.
        after: The later one.
    """
    old = {(one.kind, one.name): one for one in before.objects}
    new = {(one.kind, one.name): one for one in after.objects}
    return CatalogDiff(
        tuple(one for key, one in new.items() if key not in old),
        tuple(one for key, one in old.items() if key not in new),
        tuple(
            CatalogChange(one.kind, one.name, old[key].definition, one.definition)
            for key, one in new.items()
            if key in old and old[key].definition != one.definition
        ),
    )
