import struct
import zlib

import cv2
import numpy as np
import pytest

from posesdk.png import PNG_START, clean_png
from posesdk.sources import read_image
from posesdk_runtimes.errors import SourceError

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)


def png(picture: np.ndarray = PICTURE) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    found = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", found)


def with_chunk(extra: bytes) -> bytes:
    data = png()
    after_header = len(PNG_START) + 25
    return data[:after_header] + extra + data[after_header:]


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"no profile")),
        chunk(b"tEXt", b"Comment\0hello", checksum=1),
        chunk(b"gAMA", b"\0"),
    ],
    ids=["profile", "text", "gamma"],
)
def test_what_does_not_change_the_pixels_does_not_matter(tmp_path, capfd, extra):
    path = tmp_path / "a.png"
    path.write_bytes(with_chunk(extra))
    assert (read_image(path) == PICTURE).all()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "picture",
    [PICTURE, PICTURE[..., 0], np.dstack([PICTURE, PICTURE[..., :1]]), PICTURE.astype(np.uint16) * 257],
    ids=["color", "grey", "alpha", "16 bit"],
)
def test_a_whole_file_stays_as_it_is(picture):
    assert clean_png(png(picture)) == png(picture)
    assert clean_png(png(picture) + b"more") == png(picture)


def test_every_cut_and_every_damaged_byte_is_found_and_named(tmp_path, capfd):
    data = png(PICTURE[:4, :4])
    path = tmp_path / "a.png"
    for place in range(len(PNG_START), len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        for content in (data[:place], bytes(damaged)):
            path.write_bytes(content)
            with pytest.raises(SourceError, match=r"cannot read image .*a\.png: the file is (cut off|damaged)"):
                read_image(path)
    assert capfd.readouterr().err == ""
