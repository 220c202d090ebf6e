#!/usr/bin/env python3
"""Verifies exported audit logs, independently of Privity's own code.

Written from docs/wire.md and the documents that it names; needs Python 3.9 and `cryptography` 47 or newer.
Usage: verify_audit.py BUNDLE...      one line each: "ok SIZE ROOT" or "bad WHY"; exit code 1 if any is bad.
"""
import base64
import hashlib
import pathlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey, MLDSA65PublicKey

def need(condition, why):
    if not condition:
        raise ValueError(why)

def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def base64_of(text):
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "base64 that is written otherwise")
    return data

def key_id(name, kind, key):
    return sha256(name.encode(), b"\n", bytes([kind]), key)[:4]

def vkey(name, kind, key):
    return f"{name}+{key_id(name, kind, key).hex()}+{base64.b64encode(bytes([kind]) + key).decode()}"

def signed(key, label, message, signature):
    message = f"privity/1 {label}\0".encode() + message
    Ed25519PublicKey.from_public_bytes(key[:32]).verify(signature[:64], message)
    MLDSA65PublicKey.from_public_bytes(key[32:]).verify(signature[64:], message)

def read_keys(text):
    """The file `keys`: verifier keys, the relay's key and its signature, and those of each key before, with its word for the next."""
    lines, newest, above = text.split("\n"), None, None
    need(lines.pop() == "" and len(lines) % 5 == 4, "keys: other lines than they have")
    while lines:
        need(lines[2].startswith("relay ") and lines[3].startswith("signature "), "keys: no relay or signature")
        relay, signature = base64_of(lines[2][6:]), base64_of(lines[3][10:])
        signed(relay, "log keys", f"{lines[0]}\n{lines[1]}\n".encode(), signature)
        origin, cosigner = lines[0].split("+")[0], base64_of(lines[1].split("+", 2)[2])[1:]
        need(lines[:2] == [vkey(origin, 1, relay[:32]), vkey(origin, 6, cosigner)], "keys: another verifier key")
        if above:
            word, body, signature = lines.pop(4).split(" ")
            fields = b"\0\x58\x30" + hashlib.sha384(relay).digest() + b"\1\x59\x07\xc0" + above + b"\2"
            need(word == "rotation" and base64_of(body)[1:len(fields) + 1] == fields and relay != above, "keys: another word")
            signed(relay, "relay rotation", base64_of(body), base64_of(signature))
        newest, above, lines = newest or (origin, relay[:32], cosigner), relay, lines[4:]
    return newest

def read_checkpoint(text, origin, ed25519, cosigner):
    """The signed note: size and root, if both signatures of the log are there and good."""
    lines = text.split("\n")
    need(len(lines) == 7 and lines[3] == "" and lines[6] == "", "checkpoint: not five lines")
    need(lines[0] == origin and str(int(lines[1])) == lines[1], "checkpoint: of another log, or no size")
    size, root = int(lines[1]), base64_of(lines[2])
    mark = f"\u2014 {origin} "
    need(lines[4].startswith(mark) and lines[5].startswith(mark), "checkpoint: the signatures' names")
    first, second = base64_of(lines[4][len(mark):]), base64_of(lines[5][len(mark):])
    need(first[:4] == key_id(origin, 1, ed25519) and second[:4] == key_id(origin, 6, cosigner), "checkpoint: key ids")
    Ed25519PublicKey.from_public_bytes(ed25519).verify(first[4:], "".join(f"{line}\n" for line in lines[:3]).encode())
    name = bytes([len(origin)]) + origin.encode()
    message = b"subtree/v1\n\0" + name + second[4:12] + name + bytes(8) + size.to_bytes(8, "big") + root
    MLDSA44PublicKey.from_public_bytes(cosigner).verify(second[12:], message)
    return size, root

def mth(hashes):
    """Merkle tree hash, RFC 9162, section 2.1.1, over leaf hashes."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01", mth(hashes[:split]), mth(hashes[split:]))

def cbor(major, number):
    """The shortest head of that type and number."""
    length = next(length for length in (1, 2, 4, 8) if number < 256**length)
    long = bytes([major << 5 | 23 + length.bit_length()]) + number.to_bytes(length, "big")
    return bytes([major << 5 | number]) if number < 24 else long

def read_leaf(entry):
    """A leaf's person, number and predecessor: read, written again, and the same."""
    person = previous = None
    at = 3
    if entry[at:at + 2] == b"\x01\x50":
        person, at = entry[at + 2:at + 18], at + 18
    short = entry[at + 1]
    need(short < 28, "no leaf")
    length = 0 if short < 24 else 1 << short - 24
    number = int.from_bytes(entry[at + 2:at + 2 + length], "big") if length else short
    at += 2 + length
    if entry[at:at + 3] == b"\x03\x58\x20":
        previous, at = entry[at + 3:at + 35], at + 35
    pairs = [b"\x00\x01"] + ([b"\x01\x50" + person] if person is not None else []) + [b"\x02" + cbor(0, number)]
    pairs += ([b"\x03\x58\x20" + previous] if previous is not None else []) + [b"\x04\x58\x30" + entry[at + 3:at + 51]]
    need(cbor(5, len(pairs)) + b"".join(pairs) == entry and len(entry) == at + 51, "no leaf")
    return person, number, previous

def tiles(kind, count):
    """The paths of a level's tiles, or of the entries, each with the number of its first hash or entry."""
    for first in range(0, count, 256):
        number, width = first // 256, min(256, count - first)
        text = f"{number % 1000:03}"
        while number := number // 1000:
            text = f"x{number % 1000:03}/{text}"
        yield f"tile/{kind}/{text}" + (f".p/{width}" if width < 256 else ""), first

def verify(folder):
    found = [path for path in pathlib.Path(folder).rglob("*") if not path.is_dir()]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in found}
    size, root = read_checkpoint(files.pop("checkpoint").decode(), *read_keys(files.pop("keys").decode()))
    need(size < 256 * (len(files) + 1), "a file is missing")
    hashes, last = [], {}
    for name, first in tiles("entries", size):
        rest = files.pop(name)
        for index in range(first, min(first + 256, size)):
            length = int.from_bytes(rest[:2], "big")
            entry, rest = rest[2:2 + length], rest[2 + length:]
            person, number, previous = read_leaf(entry)
            need((number, previous) == last.get(person, (1, None)), f"leaf {index} does not follow")
            hashes.append(sha256(b"\x00", entry))
            last[person] = (number + 1, hashes[-1])
        need(rest == b"", f"{name} goes on")
    need(mth(hashes) == root, "another root")
    for level in range(8):
        for name, first in tiles(level, len(hashes)):
            need(files.pop(name) == b"".join(hashes[first:first + 256]), name)
        hashes = [mth(hashes[first:first + 256]) for first in range(0, len(hashes) - 255, 256)]
    need(not files, f"files that do not belong here: {sorted(files)}")
    return f"ok {size} {root.hex()}"

if __name__ == "__main__":
    good = True
    for bundle in sys.argv[1:]:
        try:
            print(verify(bundle))
        except (InvalidSignature, KeyError, ValueError, IndexError, OverflowError) as error:
            good = False
            print(f"bad {type(error).__name__} {error}".replace("\n", " "))
    sys.exit(0 if good else 1)
