//! Broken headers.

use super::draft::Draft;
use super::{Hostile, parse};

const WHOLE: &str = "the file has all its bytes";
const COUNTS: &str = "counts fit the bytes left";
const VERSION: &str = "the version is 2 or 3";

/// The first 24 bytes.
pub(super) fn cases() -> Vec<Hostile> {
    let start = |n: usize| Draft::valid().bytes()[..n].to_vec();
    let version = |version| Draft::with(|draft| draft.version = version);
    vec![
        parse(
            "empty file",
            WHOLE,
            Vec::new(),
            "GGUF header at byte 0: bytes needed 4, left 0; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "magic cut",
            WHOLE,
            start(3),
            "GGUF header at byte 0: bytes needed 4, left 3; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "magic of an older format",
            "the file starts with GGUF",
            Draft::with(|draft| draft.magic = *b"tjgg"),
            "not a GGUF file: it starts with 'tjgg', expected 'GGUF'; \
             name a GGUF model, or convert this one",
        ),
        parse(
            "magic not printable",
            "the file starts with GGUF",
            Draft::with(|draft| draft.magic = [0, 10, 200, 71]),
            "not a GGUF file: it starts with '\\x00\\n\\xc8G', expected 'GGUF'; \
             name a GGUF model, or convert this one",
        ),
        parse(
            "version cut",
            WHOLE,
            start(6),
            "GGUF header at byte 4: bytes needed 4, left 2; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "version 0",
            VERSION,
            version(0),
            "GGUF version 0 at byte 4: expected 2 or 3; \
             convert the model again with a current converter",
        ),
        parse(
            "version 1",
            VERSION,
            version(1),
            "GGUF version 1 at byte 4: expected 2 or 3; \
             convert the model again with a current converter",
        ),
        parse(
            "version 4",
            VERSION,
            version(4),
            "GGUF version 4 at byte 4: expected 2 or 3; \
             convert the model again with a current converter",
        ),
        parse(
            "big-endian",
            "the file is little-endian",
            version(3_u32.swap_bytes()),
            "big-endian GGUF: not supported, convert it to little-endian (gguf-convert-endian \
             MODEL little)",
        ),
        parse(
            "tensor count cut",
            WHOLE,
            start(15),
            "GGUF header at byte 8: bytes needed 8, left 7; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "metadata count cut",
            WHOLE,
            start(20),
            "GGUF header at byte 16: bytes needed 8, left 4; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "tensor count of 2^64 - 1",
            COUNTS,
            Draft::with(|draft| draft.tensor_count = u64::MAX),
            "GGUF header at byte 8: bytes needed for 18446744073709551615 tensors at least 33 each, \
             left 840; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "tensor count one too many",
            COUNTS,
            Draft::with(|draft| draft.tensor_count += 1),
            "GGUF tensor info 4 at byte 494: length 0, expected 1 to 64 bytes; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "metadata count of 2^40",
            COUNTS,
            Draft::with(|draft| draft.entry_count = 1 << 40),
            "GGUF header at byte 16: bytes needed for 1099511627776 metadata entries at least 14 \
             each, left 840; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "metadata count one too few",
            COUNTS,
            Draft::with(|draft| draft.entry_count -= 1),
            "GGUF tensor info 'assay.shape.tile' at byte 313: 9 dimensions, expected 1 to 4; \
             the file is damaged or its converter is at fault",
        ),
    ]
}
