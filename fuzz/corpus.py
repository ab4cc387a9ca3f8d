#!/usr/bin/env python3
"""Makes the corpus from WAL files: corpus.py NAME SEGMENT...

`segment/NAME-n`: the first pages of each segment, said to be of 1 MiB. `records/NAME`: one record of each kind
(resource manager and operation), in the form that check.rs reads.
"""
import pathlib
import struct
import sys

PAGE, PAGES, LONGEST, PER_FILE = 8192, 2, 900, 24
MAGICS = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118, 0xD122]
here = pathlib.Path(__file__).parent / "corpus"


def records(data):
    """Records that start and end within the file, as (rmid, info, body)."""
    body, rest = bytearray(), []
    for at in range(0, len(data), PAGE):
        _, flags, _, _, remaining = struct.unpack_from("<HHIQI", data, at)
        head = 40 if flags & 2 else 24
        body += data[at + head : at + PAGE]
        rest.append(remaining)
    at = (rest[0] + 7) & ~7
    # Alignment is that of the page, and headers are multiples of eight long.
    while at + 24 <= len(body):
        total, _, _, info, rmid = struct.unpack_from("<IIQBB", body, at)
        if total < 24 or at + total > len(body):
            return
        yield rmid, info, bytes(body[at + 24 : at + total])
        at = (at + total + 7) & ~7


name, seen, out = sys.argv[1], set(), []
for number, path in enumerate(sys.argv[2:]):
    data = pathlib.Path(path).read_bytes()
    magic = struct.unpack_from("<H", data)[0]
    start = bytearray(data[: PAGE * PAGES])
    struct.pack_into("<I", start, 32, 1 << 20)
    if number < 2:
        (here / "segment" / f"{name}-{number}").write_bytes(start)
    for rmid, info, body in records(data):
        kind = (rmid, info & 0xF0, len(body) > 200)
        if kind not in seen and len(body) <= LONGEST:
            seen.add(kind)
            out.append(struct.pack("<BBBBH", rmid, info, len(out) % 8, 0, len(body)) + body)
major = bytes([MAGICS.index(magic)])
for part in range(0, len(out), PER_FILE):
    (here / "records" / f"{name}-{part // PER_FILE}").write_bytes(major + b"".join(out[part : part + PER_FILE]))
