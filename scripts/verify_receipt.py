#!/usr/bin/env python3
"""Verifies Assay receipts: a second verifier, beside `assay receipt verify`.

It is written from docs/receipts.md and shares no code with the first, so that a mistake of one shows as a difference
between the two. Both look at the same rules in the same order and must come to the same outcome for each; messages
are their own. It needs Python 3.9 or later and nothing else; signatures are checked with the package `cryptography`
where it can be imported.

    python3 scripts/verify_receipt.py RECEIPT... [options]

    --id HEX           the receipt id (64 hex digits) that a single receipt must have
    --model FILE       hold the receipts to this model file
    --max-age-days N   refuse receipts older than this (--max-age-s N: in seconds)
    --key FILE         an Ed25519 public key whose signature must be there; may be repeated
    --signatures N     how many of the given keys must have signed [all of them]
    --strict           refuse what an honest but careless run may have: local changes, debug builds, fallbacks
    --ledger FILE      the receipt must stand in this ledger (--head HEX: whose last line has this SHA-256)
    --now UNIX         the time that counts as now, in seconds
    --schema FILE      the schema [schemas/receipt-v1.schema.json beside this script's folder]
    --json             print every rule's outcome as JSON

A receipt's verdict is the worst consequence of its rules. Exit code: 5 if any receipt is TAMPERED, else 2 if any
cannot be read (or the command line is wrong), else 7 if any is INCONCLUSIVE, else 0.
"""

from __future__ import annotations

import argparse
import base64
import collections
import decimal
import errno
import functools
import hashlib
import io
import json
import math
import os
import re
import stat
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    Ed25519PublicKey = None

MIB = 1 << 20
PAYLOAD_MAX = 8 * MIB
FILE_MAX = 16 * MIB
DEPTH_MAX = 32
ENVELOPE_DEPTH_MAX = 8
SCHEMA_DEPTH_MAX = 64
SAFE_INTEGER = (1 << 53) - 1
U32_MAX = (1 << 32) - 1
U64_MAX = (1 << 64) - 1
DAY_S = 86_400
THREADS_MAX = 1024

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://assay-project.dev/receipt/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
LEDGER_TYPE = "https://assay-project.dev/ledger/v1"

HELD, BROKEN, NOT_CHECKED = "held", "broken", "not-checked"
VALID, TAMPERED, INCONCLUSIVE = "VALID", "TAMPERED", "INCONCLUSIVE"


class Outcome(NamedTuple):
    """What became of one rule."""

    rule: str
    outcome: str
    message: str
    consequence: Optional[str]


class Broken(Exception):
    """The rule at hand is broken."""


class Skipped(Exception):
    """A rule is not checked; without a consequence it need not be."""

    def __init__(self, message: str, consequence: Optional[str] = None) -> None:
        super().__init__(message)
        self.consequence = consequence


class Usage(Exception):
    """The command line, or a file that it names, cannot be used."""


def require(condition: bool, message: str) -> None:
    """Breaks the rule at hand unless the condition is met."""
    if not condition:
        raise Broken(message)


def shown(value: object) -> str:
    """A value from a receipt, for a message: quoted and not longer than a line."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- JSON -------------------------------------------------------------------------------------------------------
# Python's own reader is not used: it takes NaN, keeps half of a surrogate pair and the last of two equal keys, and
# makes -0 an integer.


class JsonError(Exception):
    """Not one JSON value."""


def nesting(raw: bytes, limit: int) -> int:
    """How deep brackets are nested outside strings; stops at the first that is past the limit."""
    depth = deepest = at = 0
    inside = False
    while True:
        found = (_IN_STRING if inside else _OUTSIDE).search(raw, at)
        if found is None:
            return deepest
        at = found.end()
        byte = found.group()
        if byte == b'"':
            inside = not inside
        elif byte == b"\\":
            at += 1
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > limit:
                return deepest
        else:
            depth = max(0, depth - 1)


_OUTSIDE = re.compile(rb'[\[\]{}"]')
_IN_STRING = re.compile(rb'["\\]')


class Reader:
    """Reads one JSON value, as RFC 8259 has it. Call only where `nesting` is bounded: it recurses.

    Integers of 64 bits become `int`; every other number, -0 among them, a `float`.
    """

    _SPACE = re.compile(r"[ \t\n\r]*")
    _PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
    _NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
    _HEX = re.compile(r"[0-9A-Fa-f]{4}")
    _ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
    _WORDS = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}

    def __init__(self, raw: bytes) -> None:
        try:
            self.text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise JsonError(f"not UTF-8 at byte {error.start}") from None
        self.at = 0
        self.duplicate: Optional[str] = None

    def read(self) -> Any:
        value = self._value()
        self._space()
        if self.at != len(self.text):
            raise self._error("more than one value")
        return value

    def _error(self, problem: str) -> JsonError:
        return JsonError(f"{problem} at character {self.at}")

    def _space(self) -> None:
        if self._peek().isspace():
            self.at = _end(self._SPACE, self.text, self.at)

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self, character: str) -> bool:
        taken = self.text.startswith(character, self.at)
        self.at += taken
        return taken

    def _value(self) -> Any:
        self._space()
        first = self._peek()
        if first == '"':
            return self._string()
        if first == "{":
            return self._object()
        if first == "[":
            return self._array()
        if first in self._WORDS:
            word, value = self._WORDS[first]
            if not self.text.startswith(word, self.at):
                raise self._error("not a value")
            self.at += len(word)
            return value
        return self._number()

    def _number(self) -> Any:
        found = self._NUMBER.match(self.text, self.at)
        if found is None:
            raise self._error("not a value")
        self.at = found.end()
        text = found.group()
        # Twenty characters hold every integer of 64 bits; Python refuses to read integers of thousands of digits.
        if not found.group(1) and len(text) <= 20 and text != "-0":
            number = int(text)
            if -(1 << 63) <= number <= U64_MAX:
                return number
        real = float(text)
        if math.isinf(real):
            raise self._error("a number out of range")
        return real

    def _string(self) -> str:
        self.at += 1
        parts = []
        while True:
            end = _end(self._PLAIN, self.text, self.at)
            parts.append(self.text[self.at : end])
            self.at = end
            if self._take('"'):
                return "".join(parts)
            if not self._take("\\"):
                raise self._error("a string without an end, or a control character")
            parts.append(self._escape())

    def _escape(self) -> str:
        letter = self._peek()
        self.at += 1
        if letter != "u":
            if letter not in self._ESCAPES:
                raise self._error("an unknown escape")
            return self._ESCAPES[letter]
        unit = self._unit()
        if 0xDC00 <= unit < 0xE000:
            raise self._error("half of a surrogate pair")
        if not 0xD800 <= unit < 0xDC00:
            return chr(unit)
        if not (self._take("\\") and self._take("u")):
            raise self._error("half of a surrogate pair")
        low = self._unit()
        if not 0xDC00 <= low < 0xE000:
            raise self._error("half of a surrogate pair")
        return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))

    def _unit(self) -> int:
        found = self._HEX.match(self.text, self.at)
        if found is None:
            raise self._error("not four hexadecimal digits")
        self.at = found.end()
        return int(found.group(), 16)

    def _array(self) -> List[Any]:
        self.at += 1
        values: List[Any] = []
        self._space()
        if self._take("]"):
            return values
        while True:
            values.append(self._value())
            self._space()
            if self._take("]"):
                return values
            if not self._take(","):
                raise self._error("no comma and no end of an array")

    def _object(self) -> Dict[str, Any]:
        self.at += 1
        members: Dict[str, Any] = {}
        self._space()
        if self._take("}"):
            return members
        while True:
            self._space()
            if self._peek() != '"':
                raise self._error("no key")
            key = self._string()
            if key in members and self.duplicate is None:
                self.duplicate = key
            self._space()
            if not self._take(":"):
                raise self._error("no colon")
            members[key] = self._value()
            self._space()
            if self._take("}"):
                return members
            if not self._take(","):
                raise self._error("no comma and no end of an object")


def _end(pattern: "re.Pattern[str]", text: str, at: int) -> int:
    """Where a pattern that always matches ends."""
    found = pattern.match(text, at)
    assert found is not None
    return found.end()


def is_safe(number: Any) -> bool:
    """An integer that every reader of JSON holds exactly."""
    return isinstance(number, int) and -SAFE_INTEGER <= number <= SAFE_INTEGER


@functools.lru_cache(maxsize=1)
def read_json(raw: bytes) -> Tuple[Any, Optional[str]]:
    """A value, and the first key that stands twice in an object. What is no envelope is asked for twice."""
    reader = Reader(raw)
    return reader.read(), reader.duplicate


def canonical(value: Any) -> str:
    """The one spelling of a JSON value (RFC 8785)."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return str(value) if is_safe(value) else ecmascript_number(float(value))
    if isinstance(value, str):
        return '"' + _ESCAPED.sub(_escape, value) + '"'
    if isinstance(value, list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
    return "{" + ",".join(canonical(key) + ":" + canonical(value[key]) for key in keys) + "}"


_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(found: "re.Match[str]") -> str:
    return _SHORT.get(found.group()) or f"\\u{ord(found.group()):04x}"


def ecmascript_number(number: float) -> str:
    """As JavaScript writes it, which is what RFC 8785 asks for."""
    if number == 0:
        return "0"
    sign, digits, exponent = decimal.Decimal(repr(number)).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + int(exponent)
    if len(text) <= point <= 21:
        text += "0" * (point - len(text))
    elif 0 < point <= 21:
        text = text[:point] + "." + text[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + text
    else:
        fraction = "." + text[1:] if len(text) > 1 else ""
        text = f"{text[0]}{fraction}e{point - 1:+d}"
    return "-" * sign + text


def canonical_sha256(value: Any) -> str:
    return sha256(canonical(value).encode())


# --- forms of strings -------------------------------------------------------------------------------------------

HEX64 = re.compile(r"[0-9a-f]{64}")
_MOMENT = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z")
_U64 = re.compile(r"0|[1-9][0-9]{0,19}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")
_FILE_NAME = re.compile(r"[^/\\\x00-\x1f]{1,255}")


def is_u64(text: str) -> bool:
    return _U64.fullmatch(text) is not None and int(text) <= U64_MAX


def is_decimal(text: str) -> bool:
    """The shortest decimal that reads back to the same f64. None is longer than the smallest of them."""
    return len(text) <= 400 and _DECIMAL.fullmatch(text) is not None and text == shortest(float(text))


def shortest(number: float) -> str:
    """Of two that are as short and as near, the one further from zero; Python writes the even one."""
    if math.isinf(number):
        return "infinity"
    python = decimal.Decimal(repr(number))
    upward = decimal.Decimal(number).quantize(python.normalize(), decimal.ROUND_HALF_UP, _EXACT)
    text = format(upward if float(upward) == number else python, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


_EXACT = decimal.Context(prec=1200)


def is_moment(text: str) -> bool:
    return seconds(text) is not None


def is_file_name(text: str) -> bool:
    return _FILE_NAME.fullmatch(text) is not None and text not in (".", "..") and len(text.encode()) <= 255


def seconds(moment: str) -> Optional[int]:
    """Seconds since 1970 of a moment in UTC; none for a day or an hour that there is not, or one before 1970."""
    found = _MOMENT.fullmatch(moment)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups())
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    real_day = year >= 1970 and 1 <= month <= 12 and 1 <= day <= lengths[month - 1]
    if not (real_day and hour < 24 and minute < 60 and second < 60):
        return None
    before = year - 1
    leap_days = before // 4 - before // 100 + before // 400
    days = year * 365 + leap_days + sum(lengths[: month - 1]) + day - 1 - _DAYS_TO_1970
    return ((days * 24 + hour) * 60 + minute) * 60 + second


_DAYS_TO_1970 = 1970 * 365 + 1969 // 4 - 1969 // 100 + 1969 // 400


# --- JSON Schema ------------------------------------------------------------------------------------------------


class Schema:
    """The part of JSON Schema 2020-12 that the receipt's schema is written in.

    A keyword that is not implemented is an error when the schema is read: nothing passes because it was not understood.
    """

    _NOTES = frozenset(["$schema", "$defs", "title", "description"])
    # The schema gives these by their shape alone; their values have bounds that no pattern says.
    _VALUES: Dict[str, Callable[[str], bool]] = {
        "U64": is_u64,
        "Decimal": is_decimal,
        "DateTime": is_moment,
        "FileName": is_file_name,
    }
    _TYPES: Dict[str, Callable[[Any], bool]] = {
        "object": lambda value: isinstance(value, dict),
        "array": lambda value: isinstance(value, list),
        "string": lambda value: isinstance(value, str),
        "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
        "boolean": lambda value: isinstance(value, bool),
        "null": lambda value: value is None,
    }

    def __init__(self, root: Any) -> None:
        self._root = root
        self._definitions: Dict[str, Any] = {}
        self._keywords: Dict[str, Callable[[Any, Any, Any], Optional[str]]] = {
            "type": self._type,
            "const": self._const,
            "pattern": self._pattern,
            "minimum": self._minimum,
            "maximum": self._maximum,
            "minItems": self._min_items,
            "maxItems": self._max_items,
            "items": self._items,
            "properties": self._properties,
            "required": self._required,
            "additionalProperties": self._additional,
            "oneOf": self._one_of,
            "anyOf": self._any_of,
            "$ref": self._ref,
        }
        if not isinstance(root, dict) or not isinstance(root.get("$defs", {}), dict):
            raise Usage("the schema is no object with definitions")
        self._definitions = root.get("$defs", {})
        for schema in [root, *self._definitions.values()]:
            self._understand(schema)

    @staticmethod
    def load(path: Path) -> "Schema":
        try:
            raw = read_bounded(str(path), FILE_MAX)
            require(nesting(raw, SCHEMA_DEPTH_MAX) <= SCHEMA_DEPTH_MAX, "nested too deep")
            return Schema(Reader(raw).read())
        except (JsonError, Broken, re.error) as error:
            raise Usage(f"the schema {path}: {error}") from None

    def _understand(self, schema: Any) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise Usage(f"the schema has {shown(schema)} where a schema is due")
        for keyword, argument in schema.items():
            if keyword in self._NOTES:
                continue
            if keyword not in self._keywords:
                raise Usage(f"the schema has the keyword {shown(keyword)}, which this verifier does not implement")
            if not self._fits(keyword, argument):
                raise Usage(f"the schema says {keyword}: {shown(argument)}, which this verifier does not implement")
            for part in self._parts(keyword, argument):
                self._understand(part)

    def _fits(self, keyword: str, argument: Any) -> bool:
        if keyword == "type":
            return all(isinstance(name, str) and name in self._TYPES for name in _as_list(argument))
        if keyword == "$ref":
            return isinstance(argument, str) and self._name(argument) in self._definitions
        if keyword == "pattern":
            return isinstance(argument, str) and _pattern(argument) is not None
        if keyword in ("items", "additionalProperties"):
            return True
        forms = {"const": str, "properties": dict, "required": list, "oneOf": list, "anyOf": list}
        return isinstance(argument, forms.get(keyword, int))

    @staticmethod
    def _parts(keyword: str, argument: Any) -> List[Any]:
        """The schemas in a keyword's argument."""
        if keyword == "properties":
            return list(argument.values())
        if keyword in ("oneOf", "anyOf"):
            return list(argument)
        return [argument] if keyword in ("items", "additionalProperties") else []

    @staticmethod
    def _name(reference: str) -> str:
        start = "#/$defs/"
        return reference[len(start) :] if reference.startswith(start) else ""

    def problem(self, value: Any) -> Optional[str]:
        """Where a value is not as the schema says, and what is wrong there."""
        return self._check(self._root, value)

    def _check(self, schema: Any, value: Any) -> Optional[str]:
        if isinstance(schema, bool):
            return None if schema else ": nothing may stand here"
        for keyword, argument in schema.items():
            if keyword not in self._NOTES:
                problem = self._keywords[keyword](argument, value, schema)
                if problem is not None:
                    return problem
        return None

    def _type(self, names: Any, value: Any, _: Any) -> Optional[str]:
        wanted = _as_list(names)
        if any(self._TYPES[name](value) for name in wanted):
            return None
        return f": {shown(value)} is not of the type {' or '.join(wanted)}"

    def _const(self, constant: str, value: Any, _: Any) -> Optional[str]:
        same = isinstance(value, str) and value == constant
        return None if same else f": {shown(value)} is not {shown(constant)}"

    def _pattern(self, pattern: str, value: Any, _: Any) -> Optional[str]:
        if not isinstance(value, str) or _pattern(pattern).search(value):
            return None
        return f": {shown(value)} does not match {pattern}"

    def _minimum(self, limit: int, value: Any, _: Any) -> Optional[str]:
        below = self._TYPES["integer"](value) and value < limit
        return f": {value} is below {limit}" if below else None

    def _maximum(self, limit: int, value: Any, _: Any) -> Optional[str]:
        above = self._TYPES["integer"](value) and value > limit
        return f": {value} is above {limit}" if above else None

    def _min_items(self, limit: int, value: Any, _: Any) -> Optional[str]:
        few = isinstance(value, list) and len(value) < limit
        return f": fewer than {limit} entries" if few else None

    def _max_items(self, limit: int, value: Any, _: Any) -> Optional[str]:
        many = isinstance(value, list) and len(value) > limit
        return f": more than {limit} entries" if many else None

    def _items(self, schema: Any, value: Any, _: Any) -> Optional[str]:
        for index, item in enumerate(value if isinstance(value, list) else []):
            problem = self._check(schema, item)
            if problem is not None:
                return f"/{index}{problem}"
        return None

    def _properties(self, schemas: Dict[str, Any], value: Any, _: Any) -> Optional[str]:
        for key, schema in schemas.items():
            problem = self._check(schema, value[key]) if isinstance(value, dict) and key in value else None
            if problem is not None:
                return f"/{key}{problem}"
        return None

    def _required(self, keys: List[str], value: Any, _: Any) -> Optional[str]:
        missing = [key for key in keys if isinstance(value, dict) and key not in value]
        return f": {shown(missing[0])} is missing" if missing else None

    def _additional(self, schema: Any, value: Any, beside: Any) -> Optional[str]:
        known = beside.get("properties", {})
        for key in value if isinstance(value, dict) else []:
            problem = self._check(schema, value[key]) if key not in known else None
            if problem is not None:
                return f"/{shown(key)}{problem}"
        return None

    def _one_of(self, schemas: List[Any], value: Any, _: Any) -> Optional[str]:
        problems = [self._check(schema, value) for schema in schemas]
        fits = problems.count(None)
        return None if fits == 1 else f": {fits} of {len(schemas)} forms fit, where one must"

    def _any_of(self, schemas: List[Any], value: Any, _: Any) -> Optional[str]:
        problems = [self._check(schema, value) for schema in schemas]
        return None if None in problems else problems[0]

    def _ref(self, reference: str, value: Any, _: Any) -> Optional[str]:
        name = self._name(reference)
        problem = self._check(self._definitions[name], value)
        if problem is None and name in self._VALUES and not self._VALUES[name](value):
            return f": {shown(value)} is no {name}"
        return problem


def _as_list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else [value]


@functools.lru_cache(maxsize=None)
def _pattern(pattern: str) -> "re.Pattern[str]":
    # `$` of JSON Schema is the end; Python's is also before a last line feed. No pattern has a `$` in brackets.
    return re.compile(re.sub(r"(?<!\\)\$", r"\\Z", pattern))


# --- envelope and signatures ------------------------------------------------------------------------------------


class Signature(NamedTuple):
    keyid: str
    raw: bytes


class Envelope(NamedTuple):
    """A DSSE envelope, version 1."""

    payload: bytes
    signatures: List[Signature]

    def signed(self) -> bytes:
        """What a signature is over."""
        kind = PAYLOAD_TYPE.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)


ENVELOPE_KEYS = {"payload", "payloadType", "signatures"}
SIGNATURES_MAX = 16
SIGNATURE_BYTES = 64


def open_envelope(raw: bytes) -> Optional[Envelope]:
    """The envelope that these bytes are; none if they are something else."""
    if not is_envelope(raw):
        return None
    value, duplicate = read_json(raw)
    require(duplicate is None, f"the key {shown(duplicate)} stands twice in one object")
    require(value.keys() == ENVELOPE_KEYS, "keys other than payload, payloadType and signatures")
    require(value["payloadType"] == PAYLOAD_TYPE, f"the payload is of the type {shown(value['payloadType'])}")
    entries = value["signatures"]
    require(isinstance(entries, list), "signatures are no list")
    require(1 <= len(entries) <= SIGNATURES_MAX, f"{len(entries)} signatures, not 1 to {SIGNATURES_MAX}")
    payload = strict_base64(value["payload"])
    require(not is_envelope(payload), "the payload is an envelope")
    return Envelope(payload, [read_signature(entry) for entry in entries])


def is_envelope(raw: bytes) -> bool:
    """Whether these bytes look like an envelope, sound or not."""
    if len(raw) > FILE_MAX or nesting(raw, ENVELOPE_DEPTH_MAX) > ENVELOPE_DEPTH_MAX:
        return False
    try:
        value, _ = read_json(raw)
    except JsonError:
        return False
    return isinstance(value, dict) and "_type" not in value and bool(ENVELOPE_KEYS & value.keys())


def read_signature(entry: Any) -> Signature:
    require(isinstance(entry, dict), "a signature is no object")
    require(entry.keys() in ({"sig"}, {"keyid", "sig"}), "keys of a signature other than keyid and sig")
    keyid = entry.get("keyid", "")
    require(isinstance(keyid, str), "a keyid is no string")
    signature = Signature(keyid, strict_base64(entry["sig"]))
    require(len(signature.raw) == SIGNATURE_BYTES, f"a signature of {len(signature.raw)} bytes")
    return signature


def strict_base64(text: Any) -> bytes:
    """Base64 in the standard or the URL-safe alphabet that has no other spelling."""
    decoded = read_base64(text) if isinstance(text, str) else None
    if decoded is None:
        raise Broken("not base64, or not as it is written")
    return decoded


def read_base64(text: str) -> Optional[bytes]:
    if not text.isascii():
        return None
    for decode, encode in [
        (base64.b64decode, base64.b64encode),
        (base64.urlsafe_b64decode, base64.urlsafe_b64encode),
    ]:
        try:
            decoded = decode(text)
        except ValueError:
            continue
        # Python skips what is not in the alphabet and takes bits that are not used: only writing it again tells.
        if encode(decoded).decode() == text:
            return decoded
    return None


class Key(NamedTuple):
    """An Ed25519 public key, from outside the receipt."""

    raw: bytes

    def id(self) -> str:
        return sha256(SPKI_START + self.raw)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Strict Ed25519: points of small order, which verify messages that nobody signed, are refused."""
        if small_order(self.raw) or small_order(signature[:32]):
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


KEY_BYTES = 32
KEY_FILE_MAX = 16 << 10
SPKI_START = bytes.fromhex("302a300506032b6570032100")
_FIELD = (1 << 255) - 19
_CURVE_D = -121665 * pow(121666, _FIELD - 2, _FIELD) % _FIELD
# The y of a point of order 8, and those of all eight points whose order divides 8.
_Y_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y = frozenset([0, 1, _FIELD - 1, _Y_8, _FIELD - _Y_8])


def y_of(point: bytes) -> int:
    return (int.from_bytes(point, "little") & ((1 << 255) - 1)) % _FIELD


def small_order(point: bytes) -> bool:
    return y_of(point) in _SMALL_ORDER_Y


def on_curve(point: bytes) -> bool:
    """Whether the curve has a point with this y: whether x^2 = (y^2 - 1) / (d y^2 + 1) is a square."""
    square = y_of(point) ** 2
    x_square = (square - 1) * pow(_CURVE_D * square + 1, _FIELD - 2, _FIELD) % _FIELD
    return pow(x_square, (_FIELD - 1) // 2, _FIELD) in (0, 1)


def load_key(path: str) -> Key:
    found = key_bytes(read_bounded(path, KEY_FILE_MAX))
    if found is None:
        raise Usage(f"the key {path}: neither SPKI PEM, nor 32 bytes, nor 64 hex digits or base64 of 32 bytes")
    if not on_curve(found) or small_order(found):
        raise Usage(f"the key {path}: no Ed25519 public key, or a weak one")
    return Key(found)


def key_bytes(raw: bytes) -> Optional[bytes]:
    if len(raw) == KEY_BYTES:
        return raw
    try:
        text = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        return None
    pem = _PEM.fullmatch(text)
    if pem is not None:
        der = read_base64("".join(pem.group(1).split())) or b""
        right = der.startswith(SPKI_START) and len(der) == len(SPKI_START) + KEY_BYTES
        return der[len(SPKI_START) :] if right else None
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    decoded = None if set(text) & set("-_") else read_base64(text)
    return decoded if decoded is not None and len(decoded) == KEY_BYTES else None


_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\r?\n((?:[A-Za-z0-9+/=]+\r?\n)+)-----END PUBLIC KEY-----")


# --- ledger -----------------------------------------------------------------------------------------------------

LEDGER_MAX = 1 << 30
LEDGER_LINE_MAX = 4096
ZEROS = "0" * 64
KINDS = ("model-run", "parity", "kernel-check", "plugin-check")


class Ledger(NamedTuple):
    """What a ledger says of receipts: claim id and kind by receipt id. Or what is wrong with it."""

    entries: Dict[str, Tuple[str, str]]
    broken: Optional[str] = None
    unreadable: Optional[str] = None


def load_ledger(path: str, head: Optional[str]) -> Ledger:
    entries: Dict[str, Tuple[str, str]] = {}
    try:
        with open_regular(path) as file:
            last = read_ledger(file, entries)
        require(head in (None, last), f"its head is {last[:12]}, not {(head or '')[:12]}")
    except (OSError, ValueError) as error:
        return Ledger({}, unreadable=why(error))
    except Broken as error:
        return Ledger({}, broken=str(error))
    return Ledger(entries)


def read_ledger(file: BinaryIO, entries: Dict[str, Tuple[str, str]]) -> str:
    """Fills in the entries, and gives the digest of the last line."""
    previous, size, index = ZEROS, 0, 0
    while True:
        line = file.readline(LEDGER_LINE_MAX + 2)
        if not line:
            return previous
        size += len(line)
        require(size <= LEDGER_MAX, "more than 1 GiB")
        require(len(line.rstrip(b"\n")) <= LEDGER_LINE_MAX, f"line {index} is longer than {LEDGER_LINE_MAX} bytes")
        require(line.endswith(b"\n"), f"line {index} is torn: it has no line feed")
        entry = read_ledger_line(line[:-1], index, previous)
        require(entry["receipt_id"] not in entries, f"line {index}: the receipt stands there twice")
        entries[entry["receipt_id"]] = (entry["claim_id"], entry["kind"])
        previous = sha256(line[:-1])
        index += 1


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and HEX64.fullmatch(value) is not None


_LEDGER_FORMS: Dict[str, Callable[[Any], bool]] = {
    "appended": lambda value: isinstance(value, str) and is_moment(value),
    "claim_id": _is_digest,
    "file": lambda value: isinstance(value, str) and is_file_name(value),
    "index": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "kind": lambda value: isinstance(value, str) and value in KINDS,
    "previous": _is_digest,
    "receipt_id": _is_digest,
    "type": lambda value: isinstance(value, str) and value == LEDGER_TYPE,
}


def read_ledger_line(line: bytes, index: int, previous: str) -> Any:
    require(nesting(line, 1) <= 1, f"line {index} is nested")
    try:
        entry = Reader(line).read()
    except JsonError as error:
        raise Broken(f"line {index}: {error}") from None
    closed = isinstance(entry, dict) and entry.keys() == _LEDGER_FORMS.keys()
    require(closed, f"line {index} has other keys than a line has")
    for key, fits in _LEDGER_FORMS.items():
        require(fits(entry[key]), f"line {index}: {shown(entry[key])} as {key}")
    # A key that stands twice is found here too.
    require(canonical(entry).encode() == line, f"line {index} is not canonical")
    require(entry["index"] == index, f"line {index} has the index {entry['index']}")
    require(entry["previous"] == previous, f"line {index} does not follow from the line before")
    return entry


# --- models -----------------------------------------------------------------------------------------------------


class Format(NamedTuple):
    """A weight format: a row of K columns takes ceil(K / block) * block_bytes bytes, the tail follows the last row."""

    block: int
    block_bytes: int
    tail: int
    kernel: str
    ternary: bool = False
    whole_blocks: bool = True
    block_scales: bool = False
    rows_multiple: int = 1

    def row_bytes(self, columns: int) -> int:
        return -(-columns // self.block) * self.block_bytes

    def fits(self, rows: int, columns: int) -> bool:
        whole = not self.whole_blocks or columns % self.block == 0
        return whole and rows % self.rows_multiple == 0 and rows * columns <= U64_MAX

    def bytes(self, rows: int, columns: int) -> int:
        return rows * self.row_bytes(columns) + self.tail


FORMATS = {
    "F32": Format(1, 4, 0, "f32_f32"),
    "F16": Format(1, 2, 0, "f16_f32"),
    "BF16": Format(1, 2, 0, "bf16_f32"),
    "I2_S": Format(128, 32, 32, "i2s_i8", ternary=True),
    "I2_S-64/16": Format(64, 16, 32, "i2s_i8", ternary=True),
    "linear-pm2": Format(256, 64, 0, "pm2_i8", ternary=True, whole_blocks=False),
    "QK256": Format(256, 64, 4, "i2s_i8", ternary=True, whole_blocks=False),
    "I2_R4": Format(128, 32, 4, "r4_i8", ternary=True, whole_blocks=False, rows_multiple=4),
    "T5": Format(320, 64, 4, "t5_i8", ternary=True, whole_blocks=False),
    "BitNet32-F16": Format(32, 10, 0, "bitnet32_i8", ternary=True, block_scales=True),
    "TQ1_0": Format(256, 54, 0, "tq1_0_q8_k", ternary=True, block_scales=True),
    "TQ2_0": Format(256, 66, 0, "tq2_0_q8_k", ternary=True, block_scales=True),
    "Q2_0": Format(64, 18, 0, "q2_0_q8_0", ternary=True, block_scales=True),
    "Q8_0": Format(32, 34, 0, "q8_0_q8_0"),
    "Q4_0": Format(32, 18, 0, "q4_0_q8_0"),
    "Q4_1": Format(32, 20, 0, "q4_1_q8_1"),
    "Q6_K": Format(256, 210, 0, "q6_k_q8_k"),
}


class Architecture(NamedTuple):
    sub_norms: bool
    own_head: bool


ARCHITECTURES = {
    "bitnet-b1.58": Architecture(sub_norms=True, own_head=False),
    "bitnet-25": Architecture(sub_norms=True, own_head=False),
    "bitnet": Architecture(sub_norms=True, own_head=False),
    "llama": Architecture(sub_norms=False, own_head=True),
}
ACTIVATIONS = ("relu2", "silu")
LINEAR_LAYERS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down")


# The largest hyper-parameter that the loader takes, and the widest heads together.
SIZE_MAX = 1 << 22


class Shape(NamedTuple):
    embedding: int
    feed_forward: int
    head_dim: int
    heads: int
    heads_kv: int
    layers: int
    vocab: int

    @property
    def query(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        return self.heads_kv * self.head_dim

    def linear(self) -> Dict[str, Tuple[int, int]]:
        """Rows and columns of the matrices of a layer."""
        d, ff = self.embedding, self.feed_forward
        sizes = [(self.query, d), (self.kv, d), (self.kv, d), (d, self.query), (ff, d), (ff, d), (d, ff)]
        return dict(zip(LINEAR_LAYERS, sizes))

    def required(self, tokens: int) -> Dict[str, Dict[int, int]]:
        """Rows by row length that each operation multiplies, for a sequence of so many tokens."""
        linear: Dict[int, int] = collections.Counter()
        for rows, columns in self.linear().values():
            linear[columns] += rows * self.layers * tokens
        attention = self.layers * self.heads * (tokens * (tokens + 1) // 2)
        return {
            "linear": linear,
            "head": {self.embedding: self.vocab * tokens},
            "attention_scores": {self.head_dim: attention},
            "attention_values": {self.head_dim: attention},
        }

    def macs(self, tokens: int) -> int:
        return sum(multiply_adds(rows) for rows in self.required(tokens).values())


def multiply_adds(rows_by_length: Dict[int, int]) -> int:
    return sum(columns * rows for columns, rows in rows_by_length.items())


class Place(NamedTuple):
    """What a tensor's name says that it must be; columns are none where the shape does not say."""

    rows: int
    columns: Optional[int]
    dense: bool
    owed: bool


def places_in_layer(shape: Shape, architecture: Architecture) -> Dict[str, Place]:
    norms = {"attn_norm": shape.embedding, "ffn_norm": shape.embedding}
    if architecture.sub_norms:
        norms.update(attn_sub_norm=shape.query, ffn_sub_norm=shape.feed_forward)
    places = {f"{name}.weight": Place(1, width, dense=True, owed=True) for name, width in norms.items()}
    for name, (rows, columns) in shape.linear().items():
        places[f"{name}.weight"] = Place(rows, columns, dense=False, owed=True)
        places[f"{name}.scale"] = Place(1, 1, dense=True, owed=False)
    return places


def places_outside(shape: Shape, architecture: Architecture) -> Dict[str, Place]:
    places = {
        "token_embd.weight": Place(shape.vocab, shape.embedding, dense=True, owed=True),
        "output_norm.weight": Place(1, shape.embedding, dense=True, owed=True),
        "rope_freqs.weight": Place(1, None, dense=True, owed=False),
    }
    if architecture.own_head:
        places["output.weight"] = Place(shape.vocab, shape.embedding, dense=False, owed=False)
        places["output.scale"] = Place(1, 1, dense=True, owed=False)
    return places


class InLayer(NamedTuple):
    """A tensor's name of the form blk.<layer>.<part>."""

    layer: int
    part: str


_IN_LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,9})\.(.*)", re.DOTALL)


def in_layer(name: str) -> Optional[InLayer]:
    found = _IN_LAYER.fullmatch(name)
    if found is None or int(found.group(1)) > U32_MAX:
        return None
    return InLayer(int(found.group(1)), found.group(2))


OUTSIDE_LAYERS = ("embedding", "output_norm", "logits")


def operations_of(layers: int, architecture: Architecture) -> Iterator[str]:
    """Names of the operations of a pass, in order."""
    first, *last = OUTSIDE_LAYERS
    yield first
    for layer in range(layers):
        for name in operations_of_layer(architecture):
            yield f"blk.{layer}.{name}"
    yield from last


def operations_of_layer(architecture: Architecture) -> List[str]:
    names = "attn_norm q k v q_rope k_rope attention attn_sub_norm attn_output attn_residual".split()
    names += "ffn_norm ffn_up ffn_gate ffn_gated ffn_sub_norm ffn_down layer_output".split()
    return [name for name in names if architecture.sub_norms or not name.endswith("sub_norm")]


# --- kernels ----------------------------------------------------------------------------------------------------

OPERATIONS = ("linear", "head", "attention_scores", "attention_values")
_OF_WEIGHTS = frozenset(f"{form}_{f.kernel}" for f in FORMATS.values() for form in ("gemv", "gemm"))
KERNELS_OF: Dict[str, FrozenSet[str]] = {
    "linear": _OF_WEIGHTS,
    "head": _OF_WEIGHTS,
    "attention_scores": frozenset(["gemm_f16_f32", "gemv_f16_f32"]),
    "attention_values": frozenset(["weigh_f16"]),
}
# Keys and values are f16.
ATTENTION_BYTES = 2

# Version of the list of cases of a kernel check, and the operations that it has.
CASES_VERSION = 3
CHECKED_OPERATIONS = (
    """gemv_i2s_i8 gemm_i2s_i8 gemv_pm2_i8 gemm_pm2_i8 gemv_r4_i8 gemm_r4_i8 gemv_t5_i8 gemm_t5_i8 gemv_bitnet32_i8
    gemm_bitnet32_i8 gemv_tq1_0_q8_k gemm_tq1_0_q8_k gemv_tq2_0_q8_k gemm_tq2_0_q8_k gemv_q2_0_q8_0 gemm_q2_0_q8_0
    gemv_q8_0_q8_0 gemm_q8_0_q8_0 gemv_q4_0_q8_0 gemm_q4_0_q8_0 gemv_q4_1_q8_1 gemm_q4_1_q8_1 gemv_q6_k_q8_k
    gemm_q6_k_q8_k gemv_f16_f32 gemm_f16_f32 gemv_bf16_f32 gemm_bf16_f32 gemv_f32_f32 gemm_f32_f32 dot_f32 sum_f32
    max_f32 find_non_finite rms_norm exp_f32 silu_mul relu2_mul softmax scale_f32 add_f32 rope_halves rope_pairs
    quantise_i8 quantise_q8_k quantise_q8_0 quantise_q8_1 dequantise_i32 narrow_f16 widen_f16 round_bf16 weigh_f16"""
).split()

PLUGIN_CASES_VERSION = 1
PLUGIN_GROUPS = (
    """revealing shapes extremes scales mean zeros tokens padding guard-before alignment aliasing repeatability
    threads quantiser"""
).split()

# Instruction sets: the processor that a program's target names, and the features that it must have.
ISAS: Dict[str, Tuple[Optional[str], Tuple[str, ...]]] = {
    "scalar": (None, ()),
    "avx2": ("x86_64", ("avx2", "fma", "f16c")),
    "avx512bw": ("x86_64", ("avx512f", "avx512bw", "avx512vl", "avx512dq")),
    "avx512vnni": ("x86_64", ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")),
    "neon": ("aarch64", ("neon",)),
    "neondot": ("aarch64", ("neon", "dotprod")),
    "cuda": (None, ()),
}
REGISTER_OF = {"x86_64": "mxcsr", "aarch64": "fpcr"}


# --- a receipt --------------------------------------------------------------------------------------------------


class Options(NamedTuple):
    """What the caller holds receipts to."""

    now: int
    schema: Schema
    id: Optional[str] = None
    model: Optional[str] = None
    max_age_s: Optional[int] = None
    keys: Tuple[Key, ...] = ()
    signatures: Optional[int] = None
    strict: bool = False
    ledger: Optional[Ledger] = None


class Run(NamedTuple):
    """A run of a model, as the receipt has it."""

    model: Dict[str, Any]
    shape: Shape
    claim: Dict[str, Any]
    prompt: List[int]
    steps: int

    @property
    def tokens(self) -> int:
        return len(self.prompt) + self.steps


class Receipt:
    """One file, and what was read of it so far: the rules run in order, and each relies on those before."""

    def __init__(self, raw: bytes, name: str, options: Options) -> None:
        self.raw = raw
        self.name = name
        self.options = options
        self.payload = raw
        self.envelope: Optional[Envelope] = None
        self.duplicate: Optional[str] = None
        self.statement: Any = None

    @property
    def predicate(self) -> Any:
        return self.statement["predicate"]

    @property
    def kind(self) -> str:
        return str(self.predicate["kind"])

    @property
    def execution(self) -> Any:
        return self.predicate["execution"]

    @property
    def work(self) -> List[Dict[str, Any]]:
        return list(self.execution["work"])

    def model_run(self) -> Optional[Run]:
        """The run of a model, if this receipt has all parts of one."""
        claim, model, given = (self.predicate[part] for part in ("claim", "model", "input"))
        if claim["type"] != "model-run" or model is None or given is None:
            return None
        return Run(model, Shape(**model["shape"]), claim, given["prompt_token_ids"], given["steps"])

    def run(self) -> Run:
        """The same, for a rule that applies to nothing else."""
        run = self.model_run()
        if run is None:
            raise Skipped("does not apply to this kind")
        return run


# --- rules: the bytes -------------------------------------------------------------------------------------------
# Each rule says in words why it holds, or raises Broken or Skipped.


def rule_envelope(receipt: Receipt) -> str:
    receipt.envelope = open_envelope(receipt.raw)
    if receipt.envelope is None:
        raise Skipped("not in an envelope")
    receipt.payload = receipt.envelope.payload
    return f"{len(receipt.envelope.signatures)} signatures"


def rule_size(receipt: Receipt) -> str:
    require(len(receipt.payload) <= PAYLOAD_MAX, f"more than {PAYLOAD_MAX} bytes")
    return f"{len(receipt.payload)} bytes"


def rule_depth(receipt: Receipt) -> str:
    depth = nesting(receipt.payload, DEPTH_MAX)
    require(depth <= DEPTH_MAX, f"nested more than {DEPTH_MAX} deep")
    return f"nested {depth} deep"


def rule_json(receipt: Receipt) -> str:
    try:
        receipt.statement, receipt.duplicate = read_json(receipt.payload)
    except JsonError as error:
        raise Broken(str(error)) from None
    return "one JSON value"


def rule_duplicate_keys(receipt: Receipt) -> str:
    require(receipt.duplicate is None, f"the key {shown(receipt.duplicate)} stands twice in one object")
    return "no key twice"


def rule_version(receipt: Receipt) -> str:
    statement = receipt.statement if isinstance(receipt.statement, dict) else {}
    for key, known in [("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)]:
        says, start = statement.get(key), known.rstrip("1")
        other = isinstance(says, str) and says.startswith(start) and says != known
        require(not other, f"{key} is {shown(says)}, another major version")
    return "version 1"


def rule_schema(receipt: Receipt) -> str:
    problem = receipt.options.schema.problem(receipt.statement)
    if problem is not None:
        raise Broken(f"at {problem}")
    return "as the schema says"


def rule_numbers(receipt: Receipt) -> str:
    for number in numbers(receipt.statement):
        if not is_safe(number):
            raise Broken(f"{number!r} is no integer within 2^53 - 1")
    return "integers within 2^53 - 1"


def numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from numbers(part)


def rule_canonical_form(receipt: Receipt) -> str:
    require(canonical(receipt.statement).encode() == receipt.payload, "not its canonical form (RFC 8785)")
    return "canonical"


# --- rules: identity --------------------------------------------------------------------------------------------


def rule_claim_id(receipt: Receipt) -> str:
    predicate = receipt.predicate
    identity = {key: predicate[key] for key in ("claim", "input", "model")}
    identity["subject"] = [subject["digest"] for subject in receipt.statement["subject"]]
    computed = canonical_sha256(identity)
    require(predicate["claim_id"] == computed, f"says {predicate['claim_id'][:12]}, its claim has {computed[:12]}")
    return computed


class Name(NamedTuple):
    """What the name says that a receipt was written under."""

    day: str
    short_id: str


_NAME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})-([0-9a-f]{12})(\.dsse)?\.json")


def name_of(receipt: Receipt) -> Optional[Name]:
    found = _NAME.fullmatch(receipt.name)
    if found is None or not is_moment(f"{found.group(1)}T00:00:00Z"):
        return None
    return Name(found.group(1), found.group(2))


def rule_receipt_id(receipt: Receipt) -> str:
    computed, asked, name = sha256(receipt.payload), receipt.options.id, name_of(receipt)
    if asked is not None:
        require(computed == asked, f"the bytes have the id {computed}, not {asked}")
    if name is not None:
        require(computed[:12] == name.short_id, f"the bytes have the id {computed[:12]}, the name {name.short_id}")
    if asked is not None or name is not None:
        return f"{computed}, as asked for" if asked else f"{computed[:12]}, as the file name says"
    if signature_holds(receipt):
        raise Skipped("no id to hold it to; the signature holds its bytes")
    raise Skipped("no id to hold it to: give --id, or the file the name it was written under", INCONCLUSIVE)


def rule_file_name(receipt: Receipt) -> str:
    name = name_of(receipt)
    if name is None:
        raise Skipped("no file name of the form <date>-<12 hex>.json")
    wrapped = receipt.envelope is not None or not receipt.name.endswith(".dsse.json")
    require(wrapped, "the name of an envelope, but none around it")
    day = receipt.predicate["created"][:10]
    require(name.day == day, f"the file name says {name.day}, the receipt {day}")
    return name.day


def rule_signature(receipt: Receipt) -> str:
    envelope, keys = receipt.envelope, receipt.options.keys
    if envelope is None:
        require(not keys, "not signed")
        raise Skipped("not signed")
    if not keys:
        raise Skipped("signed, but no key was given", INCONCLUSIVE)
    if Ed25519PublicKey is None:
        raise Skipped("signed, but the Python package cryptography is not here to check it", INCONCLUSIVE)
    message = envelope.signed()
    signers = set()
    for signature in envelope.signatures:
        for key in keys:
            named = signature.keyid == key.id()
            if key.verifies(message, signature.raw):
                require(named or not signature.keyid, f"the key {key.id()[:12]} signed under another key's id")
                signers.add(key)
            else:
                require(not named, f"the signature of the key {key.id()[:12]} is wrong")
    given = len({key.id() for key in keys})
    wanted = given if receipt.options.signatures is None else receipt.options.signatures
    require(len(signers) >= wanted, f"{len(signers)} of {len(keys)} keys signed, {wanted} must have")
    return f"signed with {len(signers)} of {len(keys)} keys"


def signature_holds(receipt: Receipt) -> bool:
    try:
        rule_signature(receipt)
    except (Broken, Skipped):
        return False
    return True


def rule_files(receipt: Receipt) -> str:
    path = receipt.options.model
    if path is None:
        raise Skipped("no model given to hold it to")
    run = receipt.model_run()
    if run is None:
        raise Skipped("the receipt names no model", INCONCLUSIVE)
    says, owed = int(run.model["bytes"]), run.model["sha256"]
    try:
        size, digest = file_facts(path, says)
    except OSError as error:
        raise Skipped(f"the model cannot be read: {why(error)}", INCONCLUSIVE) from None
    require(size == says, f"the model has {size} bytes, the receipt says {says}")
    require(digest == owed, f"the model has the digest {digest[:12]}, not {owed[:12]}")
    return digest


@functools.lru_cache(maxsize=None)
def file_facts(path: str, size: int) -> Tuple[int, str]:
    """Length and digest; no digest for a file of another length, which is not read."""
    with open_regular(path) as file:
        there = os.fstat(file.fileno()).st_size
        if there != size:
            return there, ""
        digest, read = hashlib.sha256(), 0
        for block in iter(lambda: file.read(MIB), b""):
            digest.update(block)
            read += len(block)
        return read, digest.hexdigest()


# --- rules: what is claimed, of what ----------------------------------------------------------------------------


def rule_kind(receipt: Receipt) -> str:
    predicate, kind = receipt.predicate, receipt.kind
    runs = kind in ("model-run", "parity")
    claim = "model-run" if runs else kind
    require(predicate["claim"]["type"] == claim, f"{kind} with a claim of {predicate['claim']['type']}")
    wanted = {
        "model": runs,
        "input": runs,
        "parity": kind == "parity",
        "kernel_results": kind == "kernel-check",
        "plugin_results": kind == "plugin-check",
    }
    for part, owed in wanted.items():
        there = predicate.get(part) is not None
        require(there == owed, f"{kind} {'with' if there else 'without'} {part}")
    return f"{kind} with its parts"


def rule_subject(receipt: Receipt) -> str:
    claim, run = receipt.predicate["claim"], receipt.model_run()
    if run is not None:
        digest = run.model["sha256"]
    elif claim["type"] == "kernel-check":
        digest = canonical_sha256(claim["case_list"])
    elif claim["type"] == "plugin-check":
        digest = claim["library_sha256"]
    else:
        raise Skipped("neither a model, nor a list of cases, nor a library", INCONCLUSIVE)
    says = receipt.statement["subject"][0]["digest"]["sha256"]
    require(says == digest, f"the subject has {says[:12]}, what the claim is about has {digest[:12]}")
    return f"{digest}"


def rule_tensors(receipt: Receipt) -> str:
    run = receipt.run()
    model = run.model
    architecture = ARCHITECTURES.get(model["architecture"])
    if architecture is None:
        raise Broken(f"the architecture {shown(model['architecture'])} is none that Assay runs")
    check_shape(run.shape)
    require(model["activation"] in ACTIVATIONS, f"the activation {shown(model['activation'])}")
    check_places(model["tensors"], run.shape, architecture)
    size = sum(tensor_bytes(tensor) for tensor in model["tensors"])
    require(size <= int(model["bytes"]), f"a file of {model['bytes']} bytes with {size} bytes of tensors")
    check_decoded(model)
    return f"{len(model['tensors'])} tensors"


def check_shape(shape: Shape) -> None:
    """The loader takes such a model."""
    for what, value in shape._asdict().items():
        require(1 <= value <= SIZE_MAX, f"a model of {what} {value}")
    require(shape.heads % shape.heads_kv == 0, f"{shape.heads_kv} key-value heads for {shape.heads} heads")
    require(shape.heads * shape.head_dim <= SIZE_MAX, f"{shape.heads} heads of {shape.head_dim}")


def check_places(tensors: List[Dict[str, Any]], shape: Shape, architecture: Architecture) -> None:
    outside, inside = places_outside(shape, architecture), places_in_layer(shape, architecture)
    seen, owed = set(), 0
    for tensor in tensors:
        name = tensor["name"]
        require(name not in seen, f"{shown(name)} stands there twice")
        seen.add(name)
        where = in_layer(name)
        require(where is None or where.layer < shape.layers, f"{shown(name)} is of a layer past the last")
        place = outside.get(name) if where is None else inside.get(where.part)
        if place is None:
            raise Broken(f"{shown(name)} has no place in the graph")
        check_tensor(tensor, place)
        owed += place.owed
    require("output.weight" in seen or "output.scale" not in seen, "output.scale without output.weight")
    # Counted, not named: the number of layers is the receipt's word, and may be in the thousands of millions.
    wanted = sum(p.owed for p in outside.values()) + shape.layers * sum(p.owed for p in inside.values())
    require(owed == wanted, f"{owed} of the {wanted} tensors that such a model has")


def check_tensor(tensor: Dict[str, Any], place: Place) -> None:
    name, rows, columns = shown(tensor["name"]), int(tensor["rows"]), int(tensor["cols"])
    fits = rows == place.rows and place.columns in (None, columns)
    require(fits, f"{name} is {rows} x {columns}, not {place.rows} x {place.columns}")
    form = FORMATS.get(tensor["format"])
    if form is None:
        raise Broken(f"{name} has the unknown format {shown(tensor['format'])}")
    require(not (place.dense and form.ternary), f"{name} is {tensor['format']}, which no kernel reads there")
    require(form.fits(rows, columns), f"{name} is {rows} x {columns}, which {tensor['format']} cannot hold")
    decoded = tensor["decoded_sha256"] is not None
    # Blocks that differ in scale have no digest of decoded values.
    right = decoded == form.ternary or form.block_scales
    require(right, f"{name} is {tensor['format']} {'with' if decoded else 'without'} a digest of decoded values")


def tensor_bytes(tensor: Dict[str, Any]) -> int:
    return FORMATS[tensor["format"]].bytes(int(tensor["rows"]), int(tensor["cols"]))


def check_decoded(model: Dict[str, Any]) -> None:
    pairs = sorted([t["name"], t["decoded_sha256"]] for t in model["tensors"] if t["decoded_sha256"] is not None)
    digest = canonical_sha256(pairs) if pairs else None
    require(model["decoded_weights_sha256"] == digest, "the decoded weights are not those of the tensors")


def rule_sampling(receipt: Receipt) -> str:
    receipt.run()
    method = receipt.predicate["input"]["sampling"]["method"]
    require(method == "greedy", f"{method} sampling is not known to this version")
    return "greedy"


def rule_token_counts(receipt: Receipt) -> str:
    run = receipt.run()
    generated, logits, vocab = run.claim["generated_token_ids"], run.claim["logits"], run.shape.vocab
    require(len(generated) == run.steps, f"{len(generated)} generated tokens for {run.steps} steps")
    require(logits["rows"] == run.tokens, f"{logits['rows']} rows of logits for {run.tokens} tokens")
    require(logits["vocab"] == vocab, f"logits of {logits['vocab']} tokens, a vocabulary of {vocab}")
    past = [token for token in run.prompt + generated if token >= vocab]
    require(not past, f"token {past[:1]} in a vocabulary of {vocab}")
    return f"{run.tokens} tokens"


def rule_layer_chain(receipt: Receipt) -> str:
    run = receipt.run()
    chain = run.claim["layer_chain"]
    require(len(chain) == run.shape.layers, f"{len(chain)} digests for {run.shape.layers} layers")
    return f"{len(chain)} layers"


def rule_trace(receipt: Receipt) -> str:
    trace = receipt.execution.get("trace")
    if trace is None:
        raise Skipped("no operation was recorded")
    run = receipt.model_run()
    if run is None:
        raise Broken("operations of a pass, but no model was run")
    architecture, chain = ARCHITECTURES.get(run.model["architecture"]), run.claim["layer_chain"]
    if architecture is None or run.shape.layers != len(chain):
        raise Skipped("the architecture or the number of layers is wrong, which has its own rule")
    names = [operation["name"] for operation in trace]
    wanted = list(operations_of(run.shape.layers, architecture))
    require(names == wanted, f"{len(names)} operations that are not the {len(wanted)} of the model in order")
    digests = {operation["name"]: operation["sha256"] for operation in trace}
    for layer in range(run.shape.layers):
        same = digests[f"blk.{layer}.layer_output"] == chain[layer]
        require(same, f"the output of layer {layer} is not that of the layer chain")
    require(digests["logits"] == run.claim["logits"]["sha256"], "the logits are not those of the claim")
    return f"{len(names)} operations"


# --- rules: what ran --------------------------------------------------------------------------------------------

# Bits of the control registers: those that change rounding, and those that lose subnormals.
ROUNDING_BITS = {"mxcsr": 0b11 << 13, "fpcr": 0b11 << 22}
SUBNORMAL_BITS = {"mxcsr": 1 << 15 | 1 << 6, "fpcr": 1 << 24 | 1 << 19 | 1 << 0}
# Another f16: no word of the receipt speaks of it.
REGISTER_DIGITS = {"mxcsr": 8, "fpcr": 16}
OTHER_BITS = {"mxcsr": 0, "fpcr": 1 << 26}


def rule_float_environment(receipt: Receipt) -> str:
    says = receipt.execution["float_environment"]
    bits, register = int(says["value"], 16), says["register"]
    nearest, kept = not bits & ROUNDING_BITS[register], not bits & SUBNORMAL_BITS[register]
    honest = (says["nearest"], says["subnormals_kept"]) == (nearest, kept)
    require(honest, f"{says['value']} says nearest: {nearest}, subnormals kept: {kept}; the receipt says otherwise")
    right = nearest and kept and not bits & OTHER_BITS[register]
    require(right, f"{says['value']} is not the arithmetic that exact-v1 demands")
    digits = len(says["value"]) - 2
    require(digits == REGISTER_DIGITS[register], f"{says['value']} is no {register}")
    return f"{says['value']}: to nearest, subnormals kept"


def rule_execution(receipt: Receipt) -> str:
    execution, environment = receipt.execution, receipt.predicate["environment"]
    isa, target = execution["isa"], environment["build"]["target"]
    check_isa(isa, environment)
    register = execution["float_environment"]["register"]
    wanted = next((r for processor, r in REGISTER_OF.items() if processor == target.split("-")[0]), register)
    require(register == wanted, f"the register {register} in a program for {shown(target)}")
    require(1 <= execution["threads"] <= THREADS_MAX, f"{execution['threads']} threads")
    if receipt.predicate["input"] is not None:
        prompt = len(receipt.predicate["input"]["prompt_token_ids"])
        require(1 <= execution["batch"] <= prompt, f"batches of {execution['batch']}, a prompt of {prompt}")
    return f"{isa}, {execution['threads']} threads"


def check_isa(isa: str, environment: Dict[str, Any]) -> None:
    """Code for the instruction set can have run there."""
    require(isa in ISAS, f"the instruction set {isa} is not known")
    processor, features = ISAS[isa]
    target = environment["build"]["target"]
    require(processor is None or processor == target.split("-")[0], f"{isa} in a program for {shown(target)}")
    missing = [name for name in features if name not in environment["cpu"]["features"]]
    require(not missing, f"{isa} on a processor without {', '.join(missing)}")


def rule_compute_path(receipt: Receipt) -> str:
    path = receipt.execution["compute_path"]
    require(path == "real", f"{path}: nothing was computed")
    shown_by = receipt.work
    if receipt.kind == "kernel-check":
        shown_by = receipt.predicate["kernel_results"] or []
    elif receipt.kind == "plugin-check":
        shown_by = receipt.predicate.get("plugin_results") or []
    require(bool(shown_by), "real, but nothing was counted")
    return "real"


def rule_work_rows(receipt: Receipt) -> str:
    seen = set()
    for row in receipt.work:
        what = f"{row['operation']} on {row['kernel']}, {row['columns']} columns"
        calls, rows, columns = int(row["calls"]), int(row["rows"]), int(row["columns"])
        require(int(row["macs"]) == rows * columns, f"{what}: {rows} rows do not make {row['macs']} multiply-adds")
        require(1 <= calls <= rows and columns > 0, f"{what}: {calls} calls for {rows} rows")
        key = (row["operation"], row["kernel"], columns)
        require(key not in seen, f"{what}: counted twice")
        seen.add(key)
    return f"{len(seen)} counters"


def counted_run(receipt: Receipt) -> Run:
    """A run whose counters say something."""
    if receipt.execution["compute_path"] != "real":
        raise Skipped("nothing was computed")
    return receipt.run()


def rule_work(receipt: Receipt) -> str:
    run = counted_run(receipt)
    calls: Dict[str, int] = {}
    for operation, required in run.shape.required(run.tokens).items():
        counters = [row for row in receipt.work if row["operation"] == operation]
        macs, wanted = sum(int(row["macs"]) for row in counters), multiply_adds(required)
        require(macs == wanted, f"{operation}: {macs} multiply-adds counted, the shape requires {wanted}")
        counted: Dict[int, int] = collections.Counter()
        for row in counters:
            counted[int(row["columns"])] += int(row["rows"])
        for columns in {*counted, *required}:
            rows, owed = counted.get(columns, 0), required.get(columns, 0)
            require(rows == owed, f"{operation}: {rows} rows of {columns} columns, the shape requires {owed}")
        calls[operation] = sum(int(row["calls"]) for row in counters)
    check_calls(receipt, run, calls)
    return f"{run.shape.macs(run.tokens)} multiply-adds, as the shape requires for {run.tokens} tokens"


def feeds(prompt: int, batch: int) -> int:
    return -(-prompt // max(1, batch))


def check_calls(receipt: Receipt, run: Run, calls: Dict[str, int]) -> None:
    passes = feeds(len(run.prompt), receipt.execution["batch"]) + run.steps
    least = {
        "linear": len(LINEAR_LAYERS) * run.shape.layers * passes,
        "head": passes,
        "attention_scores": run.shape.layers * passes,
        "attention_values": run.shape.layers * passes,
    }
    for operation, wanted in least.items():
        require(calls[operation] >= wanted, f"{operation}: {calls[operation]} calls, at least {wanted} are needed")


def weight_bytes_per_token(run: Run) -> Optional[Dict[Tuple[str, str], int]]:
    """Bytes of weights that a token reads, by operation and kernels; none if a format or a size is impossible."""
    sizes = {f"{name}.weight": size for name, size in run.shape.linear().items()}
    own_head = any(tensor["name"] == "output.weight" for tensor in run.model["tensors"])
    head = "output.weight" if own_head else "token_embd.weight"
    read: Dict[Tuple[str, str], int] = collections.Counter()
    for tensor in run.model["tensors"]:
        where = in_layer(tensor["name"])
        if tensor["name"] == head:
            operation, (rows, columns) = "head", (run.shape.vocab, run.shape.embedding)
        elif where is not None and where.part in sizes:
            operation, (rows, columns) = "linear", sizes[where.part]
        else:
            continue
        form = FORMATS.get(tensor["format"])
        if form is None or columns > U64_MAX // 4:
            return None
        read[(operation, form.kernel)] += rows * form.row_bytes(columns)
    return read


def rule_weight_bytes(receipt: Receipt) -> str:
    run = counted_run(receipt)
    per_token = weight_bytes_per_token(run)
    if per_token is None:
        raise Skipped("the tensors do not say, which has its own rule")
    required = {key: size * run.tokens for key, size in per_token.items()}
    counted: Dict[Tuple[str, str], int] = collections.Counter()
    for row in receipt.work:
        operation, size = row["operation"], int(row["weight_bytes"])
        if operation in ("linear", "head"):
            counted[(operation, re.sub("^gem[vm]_", "", row["kernel"].split("/")[0]))] += size
        elif operation in OPERATIONS:
            wanted = int(row["rows"]) * int(row["columns"]) * ATTENTION_BYTES
            require(size == wanted, f"{operation}: {size} bytes read, its rows have {wanted}")
    for key in sorted({*required, *counted}):
        says, owed = counted.get(key, 0), required.get(key, 0)
        require(says == owed, f"{key[0]}: kernels on {key[1]} read {says} bytes, the tensors require {owed}")
    return f"{sum(required.values())} bytes of weights"


def rule_kernels(receipt: Receipt) -> str:
    execution = receipt.execution
    explained = {(fallback["operation"], fallback["used"]) for fallback in execution["fallbacks"]}
    for row in receipt.work:
        operation, (name, isa) = row["operation"], row["kernel"].split("/")
        require(operation in KERNELS_OF, f"the operation {operation} is not known")
        require(name in KERNELS_OF[operation], f"{row['kernel']} is no kernel of {operation}")
        if isa != execution["isa"]:
            why_not = f"{operation} ran on {row['kernel']}, {execution['isa']} was asked for"
            require((operation, row["kernel"]) in explained, f"{why_not}, and no fallback explains it")
            check_isa(isa, receipt.predicate["environment"])
    return f"all of {execution['isa']}, or explained"


def rule_fallbacks(receipt: Receipt) -> str:
    execution = receipt.execution
    ran = {(row["operation"], row["kernel"]) for row in execution["work"]}
    for fallback in execution["fallbacks"]:
        operation, used, wanted = fallback["operation"], fallback["used"], fallback["wanted"]
        require((operation, used) in ran, f"{operation}: {used} stood in, but no counter shows it")
        name, isa = wanted.split("/")
        require(name in KERNELS_OF.get(operation, ()), f"{operation}: {wanted} is no kernel of it")
        require(isa == execution["isa"] and wanted != used, f"{operation}: {wanted} was not asked for")
        require(not _BLANK.fullmatch(fallback["reason"]), f"{operation}: {used} stood in without a reason")
    return f"{len(execution['fallbacks'])} fallbacks"


# White space as Unicode has it; Python's own strip takes separators of files and records too.
_BLANK = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*")


def rule_device(receipt: Receipt) -> str:
    execution = receipt.execution
    cuda, device = execution["isa"] == "cuda", execution["device"]
    kernels = [row["kernel"] for row in [*execution["work"], *(receipt.predicate["kernel_results"] or [])]]
    on_device = any(kernel.endswith("/cuda") for kernel in kernels)
    require(cuda or device is None, f"a device, but {execution['isa']}")
    require(not cuda or device is not None, "cuda without a device")
    require(on_device == cuda, "cuda, but every kernel ran on the processor" if cuda else "kernels of cuda")
    return "a device with its kernels" if cuda else "no device"


def rule_measurement(receipt: Receipt) -> str:
    measurement = receipt.predicate["measurement"]
    if measurement is None:
        raise Skipped("nothing was timed")
    run = receipt.model_run()
    if run is None:
        raise Broken("samples, but no model was run")
    samples = measurement["samples"]
    check_samples(samples, run, receipt.execution["batch"])
    discarded = [entry["index"] for entry in measurement["discarded"]]
    require(all(index < len(samples) for index in discarded), f"a sample past {len(samples)} is discarded")
    require(len(set(discarded)) == len(discarded), "a sample is discarded twice")
    return f"{len(samples)} samples"


def check_samples(samples: List[Dict[str, Any]], run: Run, batch: int) -> None:
    require(all(sample["ns"] != "0" for sample in samples), "a sample of no time")
    tokens: Dict[str, List[int]] = {"load": [], "prefill": [], "decode": []}
    for sample in samples:
        tokens[sample["phase"]].append(sample["tokens"])
    prompt, steps = sum(tokens["prefill"]), len(tokens["decode"])
    require(not any(tokens["load"]), "tokens while the model was loaded")
    require(all(1 <= count <= batch for count in tokens["prefill"]), f"a prefill sample that is no batch of {batch}")
    require(prompt == len(run.prompt), f"samples of {prompt} tokens of a prompt of {len(run.prompt)}")
    require(all(count == 1 for count in tokens["decode"]), "a decode sample of several tokens, or of none")
    require(steps == run.steps, f"{steps} decode samples for {run.steps} steps")


def rule_audit(receipt: Receipt) -> str:
    audit = receipt.predicate.get("audit")
    if audit is None:
        raise Skipped("no audit")
    run = receipt.model_run()
    if run is None or receipt.kind != "model-run":
        raise Broken(f"an audit in a {receipt.kind}")
    require(len(audit["repeats"]) >= 2, f"{len(audit['repeats'])} repeats, not 2 at least")
    for repeat in audit["repeats"]:
        times = repeat["decode_ns"]
        require(len(times) == run.steps, f"a repeat with {len(times)} decode times for {run.steps} steps")
        require("0" not in [repeat["prefill_ns"], *times], "a repeat that took no time")
    check_other_prompt(audit["other_prompt"]["prompt_token_ids"], run)
    per_token, says = weight_bytes_per_token(run), int(audit["weight_bytes_per_token"])
    owed = says if per_token is None else sum(per_token.values())
    require(says == owed, f"{says} bytes of weights a token, the tensors have {owed}")
    require(audit["read_bandwidth_bytes_per_s"] != "0", "a bandwidth of nothing")
    return f"{len(audit['repeats'])} repeats"


def check_other_prompt(other: List[int], run: Run) -> None:
    require(len(other) == len(run.prompt), f"another prompt of {len(other)} tokens, not {len(run.prompt)}")
    require(other != run.prompt, "the other prompt is the same")
    require(all(token < run.shape.vocab for token in other), "the other prompt has a token past the vocabulary")


# --- rules: parity ----------------------------------------------------------------------------------------------

COSINE_MIN = 0.9999
COSINE_MIN_CHAOTIC = 0.999
# A rounded cosine of equal rows may be a little past 1.
COSINE_MOST = 1.001
NMSE_FACTOR = 4
OPERATIONS_MIN = 0.75
TIE_FACTOR = 2


def rule_parity_metrics(receipt: Receipt) -> str:
    parity = receipt.predicate["parity"]
    if parity is None:
        raise Skipped("does not apply to this kind")
    live, run = parity.get("live"), receipt.model_run()
    check_ranges(parity)
    check_thresholds(parity, live)
    if run is not None:
        check_greedy(parity, live, run)
        if live is not None:
            check_differences(parity, live, run)
            check_live_ranges(parity, live, run.shape.vocab)
            check_operations_alone(live, run)
    if live is not None and live["thresholds_sha256"] is not None:
        raise Skipped("held to thresholds of a file, which is not here", INCONCLUSIVE)
    return f"{parity['positions']} positions, {parity['greedy']['steps']} greedy steps"


def check_ranges(parity: Dict[str, Any]) -> None:
    low, mean = float(parity["cosine_min"]), float(parity["cosine_mean"])
    require(-COSINE_MOST <= low <= mean <= COSINE_MOST, f"cosines of {low} at least and {mean} in the mean")
    kl_mean, kl_max = float(parity["kl_mean"]), float(parity["kl_max"])
    require(0 <= kl_mean <= kl_max, f"divergences of {kl_max} at most and {kl_mean} in the mean")
    largest, agree, positions = float(parity["max_abs"]), parity["top1_agree"], parity["positions"]
    require(largest >= 0, f"a largest difference of {largest}")
    require(agree <= positions, f"{agree} of {positions} positions agree")
    require(0 <= float(parity["top10_agree"]) <= 1, f"top10_agree {parity['top10_agree']}")
    # Equal rows have a cosine of 1, but for roundings.
    same = kl_max == 0 and agree == positions and low >= 0.999999 and float(parity["top10_agree"]) == 1
    require(largest > 0 or same, "no logits differ, but what follows from them does")


def check_thresholds(parity: Dict[str, Any], live: Optional[Dict[str, Any]]) -> None:
    thresholds = parity["thresholds"]
    says = wanted = float(thresholds["cosine_min"])
    if live is None:
        wanted = COSINE_MIN
    elif live["thresholds_sha256"] is None:
        wanted = COSINE_MIN if float(live["own_cosine"]) >= COSINE_MIN else COSINE_MIN_CHAOTIC
    require(says == wanted, f"held to a cosine of {says}, not {wanted}")
    steps, equal = parity["greedy"]["steps"], thresholds["greedy_equal"]
    require(equal == steps, f"held to {equal} equal steps, not to all {steps}")


def check_greedy(parity: Dict[str, Any], live: Optional[Dict[str, Any]], run: Run) -> None:
    steps, equal = parity["greedy"]["steps"], parity["greedy"]["equal"]
    require(steps == run.steps and steps > 0, f"{steps} greedy steps of {run.steps}")
    # Stored logits end at the row that chose the first different token; a live reference is fed our tokens after it.
    positions = len(run.prompt) + (equal if live is None else steps)
    require(parity["positions"] == positions, f"{parity['positions']} positions, not {positions}")
    require(parity["top1_agree"] >= equal, f"{equal} steps equal, but {parity['top1_agree']} positions agree")
    divergence = parity["greedy"]["first_divergence"]
    if divergence is None:
        require(equal == steps, f"{equal} of {steps} steps are equal, and no divergence")
        return
    step, ours, theirs = divergence["step"], divergence["ours"], divergence["theirs"]
    require(step == equal < steps, f"{equal} of {steps} steps are equal, the first divergence is at {step}")
    generated = run.claim["generated_token_ids"]
    require(step < len(generated) and ours == generated[step], f"{ours} is not the claim's token of step {step}")
    apart = ours != theirs and max(ours, theirs) < run.shape.vocab
    require(apart, f"tokens {ours} and {theirs} at step {step}, in a vocabulary of {run.shape.vocab}")


def check_differences(parity: Dict[str, Any], live: Dict[str, Any], run: Run) -> None:
    differences, positions = live["differences"], parity["positions"]
    agree = parity["top1_agree"]
    require(agree + len(differences) == positions, f"{agree} of {positions} rows agree, and {len(differences)} differ")
    rows = [difference["row"] for difference in differences]
    require(rows == sorted(set(rows)), "rows that differ are out of order, or there twice")
    require(not rows or rows[-1] < positions, f"a row past the {positions} that were compared")
    for difference in differences:
        check_difference(difference, float(live["tie_factor"]), run)


def check_difference(difference: Dict[str, Any], tie_factor: float, run: Run) -> None:
    row, ours, theirs = difference["row"], difference["ours"], difference["theirs"]
    generated, step = run.claim["generated_token_ids"], row - (len(run.prompt) - 1)
    claimed = generated[step] if 0 <= step < len(generated) else ours
    known = ours == claimed and ours != theirs and max(ours, theirs) < run.shape.vocab
    require(known, f"row {row}: {ours} and {theirs} are not the claim's token and another")
    gap, their_gap = float(difference["gap"]), float(difference["their_gap"])
    perturbation = float(difference["perturbation"])
    require(min(gap, their_gap, perturbation) >= 0, f"row {row}: a gap or a perturbation below zero")
    is_class = "tie" if gap + their_gap <= tie_factor * perturbation else "mismatch"
    require(difference["class"] == is_class, f"row {row}: its gaps and perturbation make a {is_class}")


def check_live_ranges(parity: Dict[str, Any], live: Dict[str, Any], vocab: int) -> None:
    own, nmse, rank = float(live["own_cosine"]), float(live["nmse_max"]), live["rank_max"]
    require(-COSINE_MOST <= own <= COSINE_MOST and nmse >= 0, f"an own cosine of {own}, an NMSE of {nmse}")
    same_tokens = not live["differences"]
    # Where both choose the same token everywhere, the reference's is the first among ours; otherwise it is not.
    require(1 <= rank <= vocab and (rank == 1) == same_tokens, f"a rank of {rank} in a vocabulary of {vocab}")
    of_table = live["thresholds_sha256"] is None
    require(not of_table or float(live["tie_factor"]) == TIE_FACTOR, f"a tie factor of {live['tie_factor']}")
    apart = float(parity["max_abs"]) != 0
    follows = apart == (live["max_ulp"] != "0") and (apart or (nmse == 0 and same_tokens))
    require(follows, "no logits differ, but what follows from them does, or the other way round")


def check_operations_alone(live: Dict[str, Any], run: Run) -> None:
    operations = live["operations"]
    if operations is None:
        return
    of_table = live["thresholds_sha256"] is None
    unstable = float(live["own_cosine"]) < COSINE_MIN_CHAOTIC
    require(unstable or not of_table, "operations decide, though the logits say enough")
    architecture = ARCHITECTURES.get(run.model["architecture"], Architecture(sub_norms=True, own_head=False))
    there = len(operations_of_layer(architecture)) * run.shape.layers + len(OUTSIDE_LAYERS)
    compared, asked, wrong = operations["compared"], operations["asked"], len(operations["wrong"])
    require(operations["all"] == there, f"{operations['all']} operations, the model has {there}")
    least = math.ceil(OPERATIONS_MIN * there)
    require(asked == least or not of_table, f"{asked} operations asked for, not {least}")
    require(wrong <= compared <= there, f"{compared} operations compared and {wrong} wrong, of {there}")


def parity_met(receipt: Receipt) -> bool:
    parity, run = receipt.predicate["parity"], receipt.model_run()
    live, expected = parity.get("live"), parity["expected_logits_sha256"]
    logits = None if run is None else run.claim["logits"]["sha256"]
    if expected not in (None, logits):
        return False
    if live is not None and live["operations"] is not None:
        operations = live["operations"]
        return operations["compared"] >= operations["asked"] and not operations["wrong"]
    thresholds = parity["thresholds"]
    if float(parity["cosine_min"]) < float(thresholds["cosine_min"]):
        return False
    if live is None:
        return bool(parity["greedy"]["equal"] >= thresholds["greedy_equal"])
    return live_met(parity, live)


def live_met(parity: Dict[str, Any], live: Dict[str, Any]) -> bool:
    allowed = NMSE_FACTOR * (1 - float(parity["thresholds"]["cosine_min"]))
    ties = all(difference["class"] == "tie" for difference in live["differences"])
    greedy = parity["greedy"]
    agree = greedy["equal"] == greedy["steps"] or divergence_shows(parity, live)
    return float(live["nmse_max"]) <= allowed and ties and agree


def divergence_shows(parity: Dict[str, Any], live: Dict[str, Any]) -> bool:
    """The row that chose the first different token is among those that differ, with that token."""
    divergence, greedy = parity["greedy"]["first_divergence"], parity["greedy"]
    prompt = parity["positions"] - greedy["steps"]
    if divergence is None or prompt < 0:
        return False
    row = prompt + greedy["equal"] - 1
    return any(d["row"] == row and d["theirs"] == divergence["theirs"] for d in live["differences"])


# --- rules: checks of kernels -----------------------------------------------------------------------------------


def rule_kernel_results(receipt: Receipt) -> str:
    kind, results = results_of(receipt)
    if results is None:
        raise Skipped("does not apply to this kind")
    known = CASES_VERSION if kind == "kernel-check" else PLUGIN_CASES_VERSION
    version = receipt.predicate["claim"]["case_list"]["version"]
    if version != known:
        raise Skipped(f"the list of cases has version {version}, this verifier knows {known}", INCONCLUSIVE)
    require(not receipt.work, "counters in a check of kernels")
    return check_kernels(receipt, results) if kind == "kernel-check" else check_plugin(receipt, results)


def results_of(receipt: Receipt) -> Tuple[str, Optional[List[Dict[str, Any]]]]:
    """What a check of kernels claims to be, and its results; none if it is none, or has none."""
    kind = receipt.predicate["claim"]["type"]
    part = {"kernel-check": "kernel_results", "plugin-check": "plugin_results"}.get(kind, "")
    return kind, receipt.predicate.get(part)


def check_kernels(receipt: Receipt, results: List[Dict[str, Any]]) -> str:
    claim = receipt.predicate["claim"]
    claimed = {operation["operation"]: operation for operation in claim["operations"]}
    require(len(claimed) == len(claim["operations"]), "an operation is claimed twice")
    require(set(claimed) == set(CHECKED_OPERATIONS), "operations other than those of the list of cases")
    checked = set()
    require(all(operation["cases"] > 0 for operation in claim["operations"]), "an operation without a case")
    for result in results:
        operation, (name, isa) = result["operation"], result["kernel"].split("/")
        require(operation in claimed, f"{operation} was checked, but is not claimed")
        require(name == operation, f"{operation} was checked on {result['kernel']}")
        require(isa == receipt.execution["isa"], f"{operation} was checked on {result['kernel']}")
        cases = claimed[operation]["cases"]
        require(result["cases"] == cases, f"{operation}: {result['cases']} cases, {cases} are claimed")
        require(operation not in checked, f"{operation} was checked twice")
        checked.add(operation)
    missing = sorted(set(claimed) - checked)
    require(not missing, f"{missing[:1]} is claimed, but no kernel was held to it")
    return f"{len(checked)} operations"


def groups_owed(kernel: Dict[str, Any]) -> Set[str]:
    owed = set(PLUGIN_GROUPS) - {"quantiser"}
    if kernel["max_tokens"] <= 1:
        owed.discard("tokens")
    if kernel["result"] == "i32":
        owed.discard("scales")
    return owed


def check_plugin(receipt: Receipt, results: List[Dict[str, Any]]) -> str:
    kernels = receipt.predicate["claim"]["kernels"]
    owed = {kernel["name"]: groups_owed(kernel) for kernel in kernels}
    require(len(owed) == len(kernels), "a kernel is claimed twice")
    seen: Dict[str, Set[str]] = {name: set() for name in owed}
    for result in results:
        kernel, group = result["kernel"], result["group"]
        require(kernel in owed, f"{kernel} was checked, but is not claimed")
        require(group in PLUGIN_GROUPS, f"{kernel}: the group {group} is not known")
        require(group not in seen[kernel], f"{kernel}: the group {group} is there twice")
        seen[kernel].add(group)
        if result["finding"] is None:
            shows = result["cases"] > 0 and result["outputs_sha256"] is not None
            require(shows, f"{kernel}: {group} held, with no case or digest")
    for kernel, groups in owed.items():
        missing = sorted(groups - seen[kernel])
        require(not missing, f"{kernel}: the groups {missing} are missing")
    return f"{len(owed)} kernels"


# --- rules: status, times, what the caller asks for -------------------------------------------------------------


def rule_status(receipt: Receipt) -> str:
    met = metrics_met(receipt)
    says = receipt.predicate["status"]
    require(says == ("held" if met else "failed"), f"{says}, but its metrics say otherwise")
    return f"{says}, as the metrics say"


def metrics_met(receipt: Receipt) -> bool:
    if receipt.kind == "model-run":
        audit, run = receipt.predicate.get("audit"), receipt.model_run()
        return audit is None or run is None or audit_met(audit, receipt, run)
    if receipt.kind == "parity":
        if receipt.predicate["parity"] is None:
            raise Skipped("no metrics", INCONCLUSIVE)
        return parity_met(receipt)
    kind, results = results_of(receipt)
    if kind != receipt.kind or results is None:
        raise Skipped("no metrics", INCONCLUSIVE)
    if kind == "plugin-check":
        return all(result["finding"] is None for result in results)
    claimed: Dict[str, str] = {}
    for operation in receipt.predicate["claim"]["operations"]:
        claimed.setdefault(operation["operation"], operation["outputs_sha256"])
    return all(result["outputs_sha256"] == claimed.get(result["operation"]) for result in results)


def audit_met(audit: Dict[str, Any], receipt: Receipt, run: Run) -> bool:
    macs = run.shape.macs(run.tokens)
    claimed = run.claim["logits"]["sha256"], run.claim["generated_token_ids"]
    same = all((r["logits_sha256"], r["generated_token_ids"]) == claimed for r in audit["repeats"])
    other = audit["other_prompt"]
    counted = all(int(r["macs"]) == macs for r in [*audit["repeats"], other])
    return same and counted and other["logits_sha256"] != claimed[0] and times_possible(audit, receipt, run)


def times_possible(audit: Dict[str, Any], receipt: Receipt, run: Run) -> bool:
    """No run reads its weights at more than five quarters of the bandwidth that was measured."""
    if audit["read_bandwidth_bytes_per_s"] is None:
        return True
    bandwidth, weights = int(audit["read_bandwidth_bytes_per_s"]), int(audit["weight_bytes_per_token"])
    passes = feeds(len(run.prompt), receipt.execution["batch"])
    reads = [(weights, int(ns)) for repeat in audit["repeats"] for ns in repeat["decode_ns"]]
    reads += [(weights * passes, int(repeat["prefill_ns"])) for repeat in audit["repeats"]]
    return all(size * 4 * 10**9 <= 5 * bandwidth * ns for size, ns in reads)


def rule_created(receipt: Receipt) -> str:
    created = receipt.predicate["created"]
    require(moment(created) <= receipt.options.now + DAY_S, f"written on {created}, more than a day in the future")
    return f"written on {created}"


def moment(text: str) -> int:
    value = seconds(text)
    assert value is not None, "the schema holds it"
    return value


def rule_corrections(receipt: Receipt) -> str:
    corrections = receipt.predicate["corrections"]
    for correction in corrections:
        late = moment(correction["at"]) > receipt.options.now + DAY_S
        require(not late, f"corrected on {correction['at']}, more than a day in the future")
    return f"{len(corrections)} corrections"


def rule_age(receipt: Receipt) -> str:
    limit = receipt.options.max_age_s
    if limit is None:
        raise Skipped("any age will do")
    age = receipt.options.now - moment(receipt.predicate["created"])
    require(age <= limit, f"{age} seconds old, more than {limit}")
    return f"{age} seconds old"


def rule_policy(receipt: Receipt) -> str:
    if not receipt.options.strict:
        raise Skipped("not asked for")
    predicate, build = receipt.predicate, receipt.predicate["environment"]["build"]
    require(not receipt.execution["fallbacks"], "fallbacks")
    require(not predicate["corrections"], "corrections")
    require(receipt.execution["compute_path"] == "real", "nothing was computed")
    commit, lock = predicate["tool"]["commit"], build["cargo_lock_sha256"]
    require(bool(re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", commit)), "built from an unknown commit")
    require(predicate["tool"]["dirty"] is False, "built from files that differ from their commit, or may")
    require(build["profile"] == "release", f"built as {shown(build['profile'])}")
    require(bool(re.fullmatch("[0-9a-f]{64}", lock)), "built from unknown dependencies")
    return "as a release is"


def rule_chain(receipt: Receipt) -> str:
    ledger = receipt.options.ledger
    if ledger is None:
        raise Skipped("no ledger given to hold it to")
    if ledger.unreadable is not None:
        raise Skipped(f"the ledger cannot be read: {ledger.unreadable}", INCONCLUSIVE)
    require(ledger.broken is None, f"the ledger: {ledger.broken}")
    entry = ledger.entries.get(sha256(receipt.payload))
    if entry is None:
        raise Skipped("the ledger does not have this receipt", INCONCLUSIVE)
    same = entry == (receipt.predicate["claim_id"], receipt.kind)
    require(same, "the ledger has another claim or kind under this receipt's id")
    return f"one of {len(ledger.entries)} lines"


# --- the verifier -----------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    name: str
    check: Callable[[Receipt], str]
    consequence: str = TAMPERED
    ends: bool = False


RULES = (
    Rule("envelope", rule_envelope, ends=True),
    Rule("size", rule_size, ends=True),
    Rule("depth", rule_depth, ends=True),
    Rule("json", rule_json, ends=True),
    Rule("duplicate-keys", rule_duplicate_keys, ends=True),
    Rule("version", rule_version, INCONCLUSIVE, ends=True),
    Rule("schema", rule_schema, ends=True),
    Rule("numbers", rule_numbers),
    Rule("canonical-form", rule_canonical_form),
    Rule("claim-id", rule_claim_id),
    Rule("receipt-id", rule_receipt_id),
    Rule("file-name", rule_file_name),
    Rule("signature", rule_signature),
    Rule("files", rule_files),
    Rule("kind", rule_kind),
    Rule("subject", rule_subject),
    Rule("tensors", rule_tensors),
    Rule("sampling", rule_sampling, INCONCLUSIVE),
    Rule("token-counts", rule_token_counts),
    Rule("layer-chain", rule_layer_chain),
    Rule("trace", rule_trace),
    Rule("float-environment", rule_float_environment),
    Rule("execution", rule_execution),
    Rule("compute-path", rule_compute_path, INCONCLUSIVE),
    Rule("work-rows", rule_work_rows),
    Rule("work", rule_work),
    Rule("weight-bytes", rule_weight_bytes),
    Rule("kernels", rule_kernels),
    Rule("fallbacks", rule_fallbacks),
    Rule("device", rule_device),
    Rule("measurement", rule_measurement),
    Rule("audit", rule_audit),
    Rule("parity-metrics", rule_parity_metrics),
    Rule("kernel-results", rule_kernel_results),
    Rule("status", rule_status),
    Rule("created", rule_created),
    Rule("corrections", rule_corrections),
    Rule("age", rule_age, INCONCLUSIVE),
    Rule("policy", rule_policy, INCONCLUSIVE),
    Rule("chain", rule_chain),
)


def verify(raw: bytes, name: str, options: Options) -> Tuple[Receipt, List[Outcome]]:
    """The outcome of every rule, in order."""
    receipt, outcomes, ended = Receipt(raw, name, options), [], None
    for rule in RULES:
        # A receipt of another version still has its bytes and its signature.
        reached = ended is None or (ended == "version" and rule.name in ("receipt-id", "signature"))
        outcome = apply(rule, receipt) if reached else Outcome(rule.name, NOT_CHECKED, "not reached", INCONCLUSIVE)
        outcomes.append(outcome)
        if rule.ends and outcome.outcome == BROKEN:
            ended = rule.name
    return receipt, outcomes


def apply(rule: Rule, receipt: Receipt) -> Outcome:
    try:
        return Outcome(rule.name, HELD, rule.check(receipt), None)
    except Broken as broken:
        return Outcome(rule.name, BROKEN, str(broken), rule.consequence)
    except Skipped as skipped:
        return Outcome(rule.name, NOT_CHECKED, str(skipped), skipped.consequence)


def verdict(outcomes: Sequence[Outcome]) -> str:
    consequences = {outcome.consequence for outcome in outcomes}
    return TAMPERED if TAMPERED in consequences else INCONCLUSIVE if INCONCLUSIVE in consequences else VALID


# --- command line -----------------------------------------------------------------------------------------------

EXIT_BAD_USAGE = 2
EXITS = {VALID: 0, TAMPERED: 5, INCONCLUSIVE: 7}
EXIT_ORDER = (0, 7, EXIT_BAD_USAGE, 5)


def open_regular(path: str) -> BinaryIO:
    """Opens a file that the caller names; not a pipe or a device, which may never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return open(path, "rb")


def read_bounded(path: str, limit: int) -> bytes:
    """A file that the caller names; at most one byte more than the limit."""
    try:
        with open_regular(path) as file:
            return file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise Usage(f"{path}: {why(error)}") from None


def why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise Usage(message)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(description="Verifies Assay receipts.", allow_abbrev=False)
    parser.add_argument("receipts", nargs="+", metavar="RECEIPT")
    parser.add_argument("--id", type=digest, metavar="HEX", help="the receipt id that a single receipt must have")
    parser.add_argument("--model", metavar="FILE", help="hold the receipts to this model file")
    age = parser.add_mutually_exclusive_group()
    age.add_argument("--max-age-days", type=count, metavar="N", help="refuse receipts older than this")
    age.add_argument("--max-age-s", type=count, metavar="N", help="the same in seconds")
    parser.add_argument("--key", action="append", default=[], metavar="FILE", help="a public key that must have signed")
    parser.add_argument("--signatures", type=count, metavar="N", help="how many of the keys must have signed [all]")
    parser.add_argument("--strict", action="store_true", help="refuse local changes, debug builds, fallbacks")
    parser.add_argument("--ledger", metavar="FILE", help="the receipts must stand in this ledger")
    parser.add_argument("--head", type=digest, metavar="HEX", help="the SHA-256 of the ledger's last line")
    parser.add_argument("--now", type=count, metavar="UNIX", help="the time that counts as now")
    parser.add_argument("--schema", metavar="FILE", help="the schema of receipts")
    parser.add_argument("--json", action="store_true", help="every rule's outcome as JSON")
    return parser.parse_args(arguments)


def digest(text: str) -> str:
    if HEX64.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("64 lower-case hexadecimal digits are needed")
    return text


def count(text: str) -> int:
    if not is_u64(text):
        raise argparse.ArgumentTypeError("a whole number is needed")
    return int(text)


def options_of(given: argparse.Namespace) -> Options:
    if given.id is not None and len(given.receipts) > 1:
        raise Usage("--id goes with one receipt")
    if given.head is not None and given.ledger is None:
        raise Usage("--head goes with --ledger")
    keys = tuple(load_key(path) for path in given.key)
    if given.signatures is not None and not 1 <= given.signatures <= len(keys):
        raise Usage(f"--signatures {given.signatures} of {len(keys)} keys")
    schema = Path(given.schema) if given.schema else Path(__file__).parent.parent / "schemas/receipt-v1.schema.json"
    max_age_s = given.max_age_s if given.max_age_days is None else given.max_age_days * DAY_S
    return Options(
        now=int(time.time()) if given.now is None else given.now,
        schema=Schema.load(schema),
        id=given.id,
        model=given.model,
        max_age_s=max_age_s,
        keys=keys,
        signatures=given.signatures,
        strict=given.strict,
        ledger=None if given.ledger is None else load_ledger(given.ledger, given.head),
    )


def report(path: str, options: Options) -> Tuple[Dict[str, Any], int]:
    """What is said of one file, and its exit code."""
    try:
        raw = read_bounded(path, FILE_MAX)
    except Usage as error:
        return {"file": path, "error": str(error)}, EXIT_BAD_USAGE
    receipt, outcomes = verify(raw, Path(path).name, options)
    says = verdict(outcomes)
    rules = [outcome._asdict() for outcome in outcomes]
    return {"file": path, "verdict": says, "receipt_id": sha256(receipt.payload), "rules": rules}, EXITS[says]


def text(entry: Dict[str, Any]) -> str:
    if "error" in entry:
        return f"unreadable    {entry['error']}"
    lines = [f"{entry['verdict']:12}  {entry['file']}"]
    for rule in entry["rules"]:
        if rule["consequence"] is not None and rule["message"] != "not reached":
            lines.append(f"  {rule['rule']}: {rule['outcome']}: {rule['message']}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    try:
        given = parse(arguments)
        options = options_of(given)
    except Usage as error:
        print("verify_receipt:", *str(error).split(), file=sys.stderr)
        return EXIT_BAD_USAGE
    reports = [report(path, options) for path in given.receipts]
    entries = [entry for entry, _ in reports]
    try:
        print(json.dumps(entries, indent=2) if given.json else "\n".join(map(text, entries)), flush=True)
    except BrokenPipeError:
        # Whoever reads has had enough; the exit code still counts.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return max((code for _, code in reports), key=EXIT_ORDER.index)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))
