"""PNG files, checked before they are decoded: libpng writes what it thinks of them to standard error."""

import struct
import zlib

__all__ = ["PNG_START", "clean_png"]

PNG_START = b"\x89PNG\r\n\x1a\n"

KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"))
"""What makes the pixels, and how they are turned. Color profiles and texts are not used, and often ill-formed."""
FRAMING = 12
"""Bytes of a chunk beside its content: length, type and checksum (PNG specification, section 5.3)."""


def clean_png(data: bytes) -> bytes:
    """The same picture with nothing in it that does not change it. Raises ValueError if it is cut off or damaged."""
    content = memoryview(data)
    parts: list[bytes | memoryview] = [PNG_START]
    place, kind = len(PNG_START), b""
    while kind != b"IEND":
        if len(data) < place + FRAMING:
            raise ValueError("the file is cut off")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + FRAMING + length
        if not kind.isalpha() or (kind[:1].isupper() and kind not in KEPT):
            raise ValueError(f"the file is damaged at byte {place}")
        if len(data) < end:
            raise ValueError("the file is cut off")
        if kind in KEPT:
            if zlib.crc32(content[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise ValueError(f"the file is damaged between bytes {place} and {end}")
            parts.append(content[place:end])
        place = end
    return b"".join(parts)
