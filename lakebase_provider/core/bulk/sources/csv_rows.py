"""Whole rows of a CSV file, piece by piece: what of the bytes read so far is certain to be of finished rows.

A quote begins a quoted field only where the field begins; anywhere else it is a character like others. Where
a file holds such ones, and only there, its quotes are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Bytes of a row, at most; of a line of JSON, too.
LONGEST_ROW = 1 << 28
_LINE_ENDS = b"\r\n"
#: Bytes of which the pieces between quotes, however many, may be held at once.
_AT_ONCE = 1 << 22


class RowEnds:
    """Finds where rows end.

    Args:
        delimiter: What parts the fields.
        quote: What stands around a field; None where quotes mean nothing.
    """

    def __init__(self, delimiter: str, quote: str | None) -> None:
        self._quote = b"" if quote is None else quote.encode()
        self._before_field = delimiter.encode() + _LINE_ENDS
        # Of each byte only what it means: a quote, an end of a field, or anything else.
        kinds = bytearray(b"x" * 256)
        for mark in self._before_field:
            kinds[mark] = ord(",")
        if self._quote:
            kinds[self._quote[0]] = ord('"')
        self._kinds = bytes(kinds)

    def last(self, data: bytes) -> int:
        """The place behind the last row that has an end, of data that begin with a row; 0 if none has."""
        if not self._quote or self._quote not in data:
            return _last_line_end(data, 0, len(data))
        if len(data) > _AT_ONCE:
            return self._last_exactly(data)
        # A quote that is written twice, within a field, changes nothing: between the two there is no text.
        pieces = data.translate(self._kinds).split(b'"')
        inside = len(pieces) % 2 == 0
        outside = b'"'.join(pieces[::2] + [b""] * inside)
        if b'x"' in outside or b'"x' in outside:  # a quote where no field begins, or text behind the last one
            return self._last_exactly(data)
        stop = len(data)
        while True:
            begin = data.rfind(self._quote, 0, stop)
            if not inside and (end := _last_line_end(data, begin + 1, stop)):
                return end
            if begin < 0:
                return 0
            inside, stop = not inside, begin

    def _last_exactly(self, data: bytes) -> int:
        return max(_last_line_end(data, begin, stop) for begin, stop in self.outside(data))

    def first(self, data: bytes, *, whole: bool) -> int:
        """The place behind the first row; 0 if it has no end.

        Args:
            data: Begins with a row.
            whole: Whether nothing comes behind it, so that the data's end is a row's, too.
        """
        for begin, stop in self.outside(data):
            found = [end for mark in (b"\n", b"\r") if (end := data.find(mark, begin, stop)) >= 0]
            if found:
                end = min(found) + 1
                if data[end - 1 : end + 1] == b"\r\n":
                    return end + 1
                if end < len(data) or whole or data[end - 1 : end] == b"\n":
                    return end
        return len(data) if whole and self.open_quote(data) < 0 else 0

    def open_quote(self, data: bytes) -> int:
        """The place of the quote that is left open at the end of data that begin with a row; -1 for none."""
        *_, (_, stop) = self.outside(data)
        return stop if stop < len(data) else -1

    def outside(self, data: bytes) -> Iterator[tuple[int, int]]:
        """The pieces outside of quoted fields, by their ends, of data that begin with a row."""
        begin = place = 0
        while self._quote and (opened := data.find(self._quote, place)) >= 0:
            if opened and data[opened - 1] not in self._before_field:
                place = opened + 1
                continue
            yield begin, opened
            closed = data.find(self._quote, opened + 1)
            while closed >= 0 and data[closed + 1 : closed + 2] == self._quote:
                closed = data.find(self._quote, closed + 2)
            if closed < 0:
                return
            begin = place = closed + 1
        yield begin, len(data)

    def blank_line(self, data: bytes) -> int:
        """How many lines come before the first that has nothing in it; -1 for none."""
        data = b"\n" + data
        if not any(mark in data for mark in (b"\n\n", b"\n\r", b"\r\r")):
            return -1
        # The first line's end is ours.
        for begin, stop in self.outside(data):
            for mark in (b"\n\n", b"\n\r", b"\r\r"):
                found = data.find(mark, begin, stop)
                if found >= 0:
                    return data.count(b"\n", 0, found)
        return -1


def _last_line_end(data: bytes, begin: int, stop: int) -> int:
    end = data.rfind(b"\n", begin, stop)
    if end < 0:
        # What ends in a carriage return may go on with the other half of a line's end.
        end = data.rfind(b"\r", begin, min(stop, len(data) - 1))
    return end + 1
