"""The processor that a measurement was made on."""

import platform
import re
from pathlib import Path

__all__ = ["processor"]

INSTRUCTIONS = ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimddp")
"""Those that make int8 or bfloat16 fast, as Linux calls them."""


def processor() -> str:
    """Its name, and which of these instructions it has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    name = re.search(r"model name\s*: (.*)", text)
    found = [flag for flag in INSTRUCTIONS if re.search(rf"\b{flag}\b", text)]
    return f"{name[1] if name else platform.machine()} with {', '.join(found) or 'no instructions for int8'}"
