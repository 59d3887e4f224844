//! What can go wrong, as one enum: what was wrong, where, what was expected, what was found.

use std::path::Path;

/// Longest stretch of a file's text that a message shows, in characters.
const SHOWN_CHARS: usize = 80;

/// A name or value from a file as messages show it: control characters escaped (a message is one line) and cut when long.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error of the engine. Messages are one line: what, where, expected, got, and what to do when there is
/// something to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read, mapped or written.
    #[error("{path}: {problem}; {advice}")]
    File {
        /// The path as the caller gave it.
        path: String,
        /// What the operating system said, or what was wrong with the kind of file.
        problem: String,
        /// What the user can do about it.
        advice: &'static str,
    },
    /// A tensor or matrix has the wrong shape or size.
    #[error("{name}: {problem}: expected {expected}, got {got}")]
    Shape {
        /// Tensor or matrix.
        name: String,
        /// What does not fit.
        problem: String,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
    },
    /// Encoded weights hold an invalid code, NaN or infinity.
    #[error("tensor '{tensor}': {problem}")]
    Weights {
        /// The tensor's name.
        tensor: String,
        /// What was found, where, and what it means.
        problem: String,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error(
        "tensor '{tensor}' is missing: architecture '{architecture}' needs it; check that the file is complete"
    )]
    MissingTensor {
        /// The tensor's name.
        tensor: String,
        /// The file's architecture.
        architecture: String,
    },
    /// The file's metadata describe a model that cannot be run.
    #[error("metadata '{key}': {problem}: expected {expected}, got {got}")]
    Metadata {
        /// The metadata key.
        key: String,
        /// What is wrong.
        problem: &'static str,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A token id, a step count or a prompt that the model cannot take.
    #[error("{what}: expected {expected}, got {got}")]
    Input {
        /// Which input.
        what: &'static str,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A value appeared at run time that the contract forbids (NaN, infinity, f16 overflow).
    #[error(
        "layer {layer}, {operation}: {problem} at position {position}, element {element}; the run stops, since no later result would mean anything"
    )]
    Arithmetic {
        /// Layer, or the number of layers for what follows the last one.
        layer: usize,
        /// The operation whose input it is.
        operation: &'static str,
        /// What was found.
        problem: &'static str,
        /// Position in the sequence, from 0.
        position: usize,
        /// Element of the row.
        element: usize,
    },
    /// The processor does not round to nearest or flushes subnormals.
    #[error(
        "the float environment breaks exact arithmetic on {thread}: {problem} ({register} = {value:#x}); another library in this process has changed it"
    )]
    FloatEnvironment {
        /// Which thread.
        thread: String,
        /// What is set wrongly.
        problem: &'static str,
        /// Register name.
        register: &'static str,
        /// Its value.
        value: u64,
    },
    /// An instruction set was asked for that this processor or build lacks.
    #[error("instruction set '{wanted}' is not available here: this processor offers {available}")]
    Isa {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// The tokenizer is missing, unknown or inconsistent.
    #[error("tokenizer: {problem}; {advice}")]
    Tokenizer {
        /// What is wrong.
        problem: String,
        /// What the user can do about it.
        advice: &'static str,
    },
    /// A saved KV state is damaged, or of another model or prompt.
    #[error("saved state: {problem}; {advice}")]
    State {
        /// What is wrong.
        problem: String,
        /// What the user can do about it.
        advice: &'static str,
    },
    /// A shared library is no plug-in, or not one that can be used here.
    #[error("{path}: {problem}; {advice}")]
    Plugin {
        /// The path as the caller gave it.
        path: String,
        /// What is wrong with it.
        problem: String,
        /// What the user can do about it.
        advice: &'static str,
    },
    /// A thread pool could not be made.
    #[error("cannot run with {threads} threads: {problem}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the operating system said.
        problem: String,
    },
    /// GGUF: the first four bytes are not `GGUF`.
    #[error(
        "not a GGUF file: it starts with '{found}', expected 'GGUF'; name a GGUF model, or convert this one"
    )]
    GgufMagic {
        /// The first four bytes, escaped.
        found: String,
    },
    /// GGUF: a version other than 2 and 3.
    #[error(
        "GGUF version {found} at byte 4: expected 2 or 3; convert the model again with a current converter"
    )]
    GgufVersion {
        /// The version in the file.
        found: u32,
    },
    /// GGUF: the version is in the other byte order.
    #[error("big-endian GGUF: not supported, convert it to little-endian (gguf-convert-endian MODEL little)")]
    GgufBigEndian,
    /// GGUF: one file of several.
    #[error(
        "split file {number} of {count}: merge it first (llama-gguf-split --merge FIRST-FILE MERGED-FILE)"
    )]
    GgufSplit {
        /// Which file it is, from 1.
        number: u64,
        /// How many there are.
        count: u64,
    },
    /// GGUF: the file ends inside something.
    #[error(
        "GGUF {place} at byte {offset}: bytes needed {needed}, left {left}; \
         the file is cut short or damaged, fetch or convert it again"
    )]
    GgufTruncated {
        /// Section, and the index, key or tensor.
        place: String,
        /// Where the missing thing starts, from the start of the file.
        offset: u64,
        /// Bytes it takes.
        needed: u64,
        /// Bytes there are.
        left: u64,
    },
    /// GGUF: a count of things that the rest of the file has no room for.
    #[error(
        "GGUF {place} at byte {offset}: bytes needed for {count} {what} at least {each} each, left {left}; \
         the file is cut short or damaged, fetch or convert it again"
    )]
    GgufCount {
        /// Section, and the index or key.
        place: String,
        /// Where the count is, from the start of the file.
        offset: u64,
        /// What is counted.
        what: &'static str,
        /// The count in the file.
        count: u64,
        /// Fewest bytes that one of them takes.
        each: u64,
        /// Bytes there are.
        left: u64,
    },
    /// GGUF: a key, name or string that is not UTF-8.
    #[error("GGUF {place}: not UTF-8 at byte {offset}; the file is damaged or its converter is at fault")]
    GgufUtf8 {
        /// Section, and the index or key.
        place: String,
        /// The first byte that is wrong, from the start of the file.
        offset: u64,
    },
    /// GGUF: a metadata key or tensor name that is empty or too long.
    #[error(
        "GGUF {place} at byte {offset}: length {length}, expected 1 to {max} bytes; \
         the file is damaged or its converter is at fault"
    )]
    GgufNameLength {
        /// Section and index.
        place: String,
        /// Where the length is, from the start of the file.
        offset: u64,
        /// The length in the file.
        length: u64,
        /// The longest that is allowed.
        max: u64,
    },
    /// GGUF: a metadata value of a type that the format does not have.
    #[error(
        "GGUF {place} at byte {offset}: value type {found}, expected 0 to 12; \
         the file is damaged or its converter is at fault"
    )]
    GgufValueType {
        /// Section and key.
        place: String,
        /// Where the type is, from the start of the file.
        offset: u64,
        /// The type in the file.
        found: u32,
    },
    /// GGUF: a truth value that is neither 0 nor 1.
    #[error(
        "GGUF {place} at byte {offset}: bool {found}, expected 0 or 1; \
         the file is damaged or its converter is at fault"
    )]
    GgufBool {
        /// Section and key.
        place: String,
        /// Where it is, from the start of the file.
        offset: u64,
        /// The byte in the file.
        found: u8,
    },
    /// GGUF: arrays in arrays, too deep.
    #[error(
        "GGUF {place} at byte {offset}: arrays nested more than {max} deep; the file is damaged or hostile"
    )]
    GgufDepth {
        /// Section and key.
        place: String,
        /// Where the array starts that is too deep, from the start of the file.
        offset: u64,
        /// The deepest that is allowed.
        max: u32,
    },
    /// GGUF: a metadata key or tensor name that is there twice.
    #[error(
        "GGUF {what} '{name}' is there twice, as number {first} and {second} from 0; \
         the file is damaged or its converter is at fault"
    )]
    GgufDuplicate {
        /// `metadata key` or `tensor name`.
        what: &'static str,
        /// The key or name.
        name: String,
        /// Its first position in the list.
        first: usize,
        /// Its second position in the list.
        second: usize,
    },
    /// GGUF: an alignment that tensor data cannot have.
    #[error(
        "GGUF metadata value 'general.alignment' is {found}: expected a u32 that is a power of two \
         from 8 to 2097152; convert the model again"
    )]
    GgufAlignment {
        /// Type and value in the file.
        found: String,
    },
    /// GGUF: a tensor without dimensions or with too many.
    #[error(
        "GGUF tensor info '{tensor}' at byte {offset}: {found} dimensions, expected 1 to 4; \
         the file is damaged or its converter is at fault"
    )]
    GgufDims {
        /// The tensor.
        tensor: String,
        /// Where the number is, from the start of the file.
        offset: u64,
        /// The number in the file.
        found: u32,
    },
    /// GGUF: a tensor with no elements.
    #[error(
        "GGUF tensor info '{tensor}' at byte {offset}: dimension {dim} is 0, expected at least 1; \
         the file is damaged or its converter is at fault"
    )]
    GgufZeroDim {
        /// The tensor.
        tensor: String,
        /// Where the dimension is, from the start of the file.
        offset: u64,
        /// Which dimension, from 0, the contiguous one.
        dim: usize,
    },
    /// GGUF: a tensor whose number of elements does not fit 64 bits.
    #[error(
        "GGUF tensor info '{tensor}': {dims} elements are more than 64 bits can count; \
         the file is damaged or hostile"
    )]
    GgufElements {
        /// The tensor.
        tensor: String,
        /// The dimensions, contiguous one first.
        dims: String,
    },
    /// GGUF: a tensor whose size in bytes does not fit this machine's addresses.
    #[error(
        "GGUF tensor info '{tensor}': {dims} elements of type {kind} take more bytes than this machine can \
         address; the file is damaged or hostile"
    )]
    GgufSize {
        /// The tensor.
        tensor: String,
        /// The dimensions, contiguous one first.
        dims: String,
        /// The type's name.
        kind: &'static str,
    },
    /// GGUF: a row that is not a whole number of blocks.
    #[error(
        "GGUF tensor info '{tensor}': rows of {cols} elements, but type {kind} needs a multiple of {block}; \
         convert this tensor to another type"
    )]
    GgufRow {
        /// The tensor.
        tensor: String,
        /// Elements in a row.
        cols: u64,
        /// The type's name.
        kind: &'static str,
        /// Elements in one of its blocks.
        block: u64,
    },
    /// GGUF: a tensor type id that nothing is known about.
    #[error(
        "GGUF tensor info '{tensor}' at byte {offset}: type {id} is not known here; \
         convert the model to I2_S or TQ2_0"
    )]
    GgufTypeUnknown {
        /// The tensor.
        tensor: String,
        /// Where the type is, from the start of the file.
        offset: u64,
        /// The type in the file.
        id: u32,
    },
    /// GGUF: a tensor type that is known by name only.
    #[error(
        "GGUF tensor info '{tensor}' at byte {offset}: type {id} ({kind}) is not supported here; {advice}"
    )]
    GgufTypeUnsupported {
        /// The tensor.
        tensor: String,
        /// Where the type is, from the start of the file.
        offset: u64,
        /// The type in the file.
        id: u32,
        /// The type's name.
        kind: &'static str,
        /// What the user can do about it.
        advice: &'static str,
    },
    /// GGUF: a tensor that does not start on the alignment.
    #[error(
        "GGUF tensor info '{tensor}': data offset {offset} is not a multiple of the alignment {alignment}; \
         the file is damaged or its converter is at fault"
    )]
    GgufMisaligned {
        /// The tensor.
        tensor: String,
        /// Its offset from the start of the tensor data.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// GGUF: two tensors that share bytes.
    #[error(
        "GGUF tensor data '{second}' starts at data offset {offset}, but {first} ends at {end}: they overlap; \
         the file is damaged or its converter is at fault"
    )]
    GgufOverlap {
        /// The tensor that starts first, quoted.
        first: String,
        /// Where it ends, from the start of the tensor data.
        end: u64,
        /// The tensor that starts too early.
        second: String,
        /// Where it starts, from the start of the tensor data.
        offset: u64,
    },
    /// GGUF: a tensor of a type that was published with two block sizes has the room of the other one.
    #[error(
        "GGUF tensor data '{tensor}': {room} bytes of Q2_0 are blocks of 128 weights in 34 bytes, but this type has 64 \
         in 18 (group-128-file-under-group-64-id); quantise the original model again with a current llama.cpp"
    )]
    GgufGroups {
        /// The tensor.
        tensor: String,
        /// Bytes that it has.
        room: u64,
    },
    /// GGUF: bytes between tensors that belong to none of them: a size is not what type and shape say.
    #[error(
        "GGUF tensor data '{tensor}' starts at data offset {offset}, expected {expected}, right after {after}: \
         a type or shape is wrong, or bytes are hidden; convert the model again"
    )]
    GgufGap {
        /// The tensor that starts too late.
        tensor: String,
        /// Where it starts, from the start of the tensor data.
        offset: u64,
        /// Where it must start.
        expected: u64,
        /// The tensor before it, quoted, or the start of the data.
        after: String,
    },
    /// GGUF: bytes after the last tensor and its padding.
    #[error(
        "GGUF tensor data end at byte {offset}, bytes after that {extra}: \
         a type or shape is wrong, or bytes are hidden; convert the model again"
    )]
    GgufTrailing {
        /// Where the last tensor's padding ends, from the start of the file.
        offset: u64,
        /// Bytes after it.
        extra: u64,
    },
    /// GGUF: a metadata key that must be there.
    #[error(
        "GGUF metadata key '{key}' is missing, expected a value of type {expected}; convert the model again"
    )]
    GgufMissing {
        /// The key.
        key: String,
        /// The type its value must have.
        expected: &'static str,
    },
    /// GGUF: a metadata value of another type than asked for.
    #[error("GGUF metadata value '{key}' has type {got}, expected {expected}; convert the model again")]
    GgufWrongType {
        /// The key.
        key: String,
        /// The type it must have.
        expected: &'static str,
        /// The type it has.
        got: String,
    },
    /// GGUF: a tensor to be written whose data do not have the size of its type and shape.
    #[error("GGUF tensor '{tensor}': {got} bytes of data, expected {expected} for its type and shape")]
    GgufTensorBytes {
        /// The tensor.
        tensor: String,
        /// Bytes by type and shape.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// GGUF: the output failed while a file was written.
    #[error("writing GGUF: {problem}; check the space and permissions where it is written")]
    GgufOutput {
        /// What the operating system said.
        problem: String,
    },
}

impl Error {
    /// Wraps an I/O error on `path`, with advice by kind.
    pub fn file(path: &Path, error: &std::io::Error) -> Error {
        use std::io::ErrorKind;
        let advice = match error.kind() {
            ErrorKind::NotFound => "check the path",
            ErrorKind::PermissionDenied => "make it accessible for this user, or choose another place",
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "name a directory",
            ErrorKind::IsADirectory => "name a file, not a directory",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some disk space and run again",
            ErrorKind::ReadOnlyFilesystem => "choose a place that can be written",
            _ => "check that the file is a readable regular file",
        };
        Error::File { path: path.display().to_string(), problem: error.to_string(), advice }
    }

    /// The same shape error, about `tensor`.
    #[must_use]
    pub fn in_tensor(self, tensor: &str) -> Error {
        match self {
            Error::Shape { name, problem, expected, got } => {
                let problem = format!("{name}: {problem}");
                Error::Shape { name: format!("tensor '{tensor}'"), problem, expected, got }
            }
            other => other,
        }
    }
}
