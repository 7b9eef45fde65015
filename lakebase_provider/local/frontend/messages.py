"""The few messages of Postgres' wire protocol that the front end reads and writes itself."""

from __future__ import annotations

import struct

SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102
#: First byte of a TLS handshake: the client asked for TLS at once (sslnegotiation=direct).
TLS_HANDSHAKE = b"\x16"
#: Bytes; Postgres' own limit for a StartupMessage, and room for a token of any sensible length.
MAX_STARTUP = 10_000
MAX_PASSWORD = 65_536
#: Bytes; what Postgres answers to a login.
MAX_ANSWER = 65_536

#: First bytes of messages.
AUTHENTICATION, NEGOTIATE_PROTOCOL, ERROR, PASSWORD = b"R", b"v", b"E", b"p"

CLEARTEXT_PASSWORD = AUTHENTICATION + struct.pack("!ii", 8, 3)


def header(packet: bytes) -> tuple[int, int]:
    """Return length and code of a startup packet, from its first 8 bytes."""
    length, code = struct.unpack("!ii", packet[:8])
    return length, code


def startup_parameters(body: bytes) -> dict[str, str]:
    """Parse what follows the version in a StartupMessage."""
    parts = body.split(b"\0")
    texts = [part.decode(errors="replace") for part in parts]
    # The list ends with an empty name.
    return {name: value for name, value in zip(texts[0::2], texts[1::2], strict=False) if name}


def error(code: str, text: str, detail: str = "") -> bytes:
    """Encode a FATAL ErrorResponse.

    Args:
        code: SQLSTATE.
        text: One line.
        detail: A second line, where there is more to say.
    """
    pairs = [("S", "FATAL"), ("V", "FATAL"), ("C", code), ("M", text)]
    if detail:
        pairs.append(("D", detail))
    body = b"".join(f"{key}{value}\0".encode() for key, value in pairs) + b"\0"
    return ERROR + struct.pack("!i", len(body) + 4) + body


def error_fields(body: bytes) -> dict[str, str]:
    """Parse an ErrorResponse's body into its fields, by their one-letter keys."""
    parts = (part.decode(errors="replace") for part in body.split(b"\0") if part)
    return {part[0]: part[1:] for part in parts}
