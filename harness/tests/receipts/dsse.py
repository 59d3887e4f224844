"""Holds envelopes to other programs: python3 -c SCRIPT check|update VECTOR_FOLDER FOLDER.

Makes the vector anew with `cryptography` and compares it with the committed one (or writes it), reads our envelope and our
private key with `cryptography`, and our envelope with `securesystemslib`, where that is installed.
"""

import base64
import copy
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TYPE = "application/vnd.in-toto+json"
mode, vector, folder = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])


def pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(payload), payload)


def same(path: pathlib.Path, content: bytes) -> None:
    if mode == "update":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert path.read_bytes() == content, f"{path} is not what this program makes"


seed = hashlib.sha256(b"a key of a test vector: known to all the world").digest()
key = Ed25519PrivateKey.from_private_bytes(seed)
form = serialization.PublicFormat.SubjectPublicKeyInfo
der = key.public_key().public_bytes(serialization.Encoding.DER, form)
statement = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicate": {"text": 'a "quoted" word, é, \u20ac'},
    "predicateType": "https://example.com/vector/v1",
    "subject": [{"digest": {"sha256": hashlib.sha256(b"subject").hexdigest()}, "name": "subject"}],
}
payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
signature = {"keyid": hashlib.sha256(der).hexdigest(), "sig": base64.b64encode(key.sign(pae(payload))).decode()}
envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": TYPE, "signatures": [signature]}
same(vector / "statement.json", payload)
same(vector / "seed.hex", seed.hex().encode() + b"\n")
same(vector / "key.pub", key.public_key().public_bytes(serialization.Encoding.PEM, form))
# Indented: our envelopes are canonical, those of others need not be.
same(vector / "envelope.json", json.dumps(envelope, indent=2).encode() + b"\n")

ours = json.loads((folder / "ours.dsse.json").read_bytes())
alice_pem = (folder / "alice.pub").read_bytes()
alice = serialization.load_pem_public_key(alice_pem)
alice.verify(base64.b64decode(ours["signatures"][0]["sig"]), pae(base64.b64decode(ours["payload"])))
private = serialization.load_pem_private_key((folder / "fresh").read_bytes(), password=None)
assert private.public_key().public_bytes(serialization.Encoding.PEM, form) == alice_pem, "our private key reads otherwise"

try:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey
except ImportError:
    print("skipped: no Python package securesystemslib: envelopes were read with cryptography alone")
else:
    keyid = ours["signatures"][0]["keyid"]
    public = SSlibKey.from_crypto(alice, keyid=keyid)
    found = Envelope.from_dict(copy.deepcopy(ours)).verify([public], 1)
    assert keyid in found, found
    theirs = Envelope.from_dict(copy.deepcopy(envelope))
    assert theirs.verify([SSlibKey.from_crypto(key.public_key(), keyid=signature["keyid"])], 1)
    print("read with securesystemslib")
