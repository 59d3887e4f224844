//! The table.

use crate::read::Reader::{Others, Program, Scripts, Tests};
use crate::read::{Flag, Foreign, Kind, Number, Path, Row, Secret, Variable, Words};
use std::collections::BTreeMap;
use std::env;

/// Defines the constants and the list of all, so that neither can miss one.
macro_rules! variables {
    ($($constant:ident = $name:literal, $kind:ident, [$($reader:ident),+], recorded: $recorded:literal, $what:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $what)]
            pub const $constant: $kind = Variable::new(Row {
                name: $name,
                kind: Kind::$kind,
                what: $what,
                readers: &[$($reader),+],
                recorded: $recorded,
            });
        )+

        /// Every variable, in the order of the page.
        pub const ALL: &[Row] = &[$($constant.row()),+];
    };
}

variables! {
    SEED = "ASSAY_SEED", Number, [Program], recorded: true,
        "The seed of every command that has `--seed`, where that is not given.";
    STRICT = "ASSAY_STRICT", Flag, [Program], recorded: true,
        "As if `--strict` were given to every command that has it.";
    DETERMINISTIC = "ASSAY_DETERMINISTIC", Flag, [Program], recorded: true,
        "Receipts without times: `created` is `SOURCE_DATE_EPOCH` or 1970-01-01T00:00:00Z, no measurements and no peak memory, so that two runs give the same bytes.";
    SOURCE_DATE_EPOCH = "SOURCE_DATE_EPOCH", Number, [Program], recorded: false,
        "Seconds since 1970: the time that receipts say with `ASSAY_DETERMINISTIC`.";
    SKIP_SLOW = "ASSAY_SKIP_SLOW", Flag, [Program, Tests], recorded: true,
        "Tests that take ten seconds and more are left out, and `assay check` leaves out live parity and the self-test; each says so.";
    SIGNING_KEY = "ASSAY_SIGNING_KEY", Secret, [Program], recorded: false,
        "The private key of `assay receipt sign`; never recorded, never printed.";
    PEERS = "ASSAY_PEERS", Path, [Program, Tests], recorded: false,
        "Where llama.cpp's libraries are, in the place of `target/peers`.";
    MODELS = "ASSAY_MODELS", Path, [Tests, Scripts], recorded: false,
        "Where `scripts/smollm2.sh` puts the model that a test runs, in the place of `target/models`.";
    VOCABS = "ASSAY_VOCABS", Path, [Tests, Scripts], recorded: false,
        "Where `scripts/vocabs.sh` puts the vocabularies that tests are held to, in the place of `target/vocabs`.";
    ARM64_TOOLCHAIN = "ASSAY_ARM64_TOOLCHAIN", Path, [Scripts], recorded: false,
        "Where `scripts/neon.sh` has its compiler and emulator, in the place of `target/neon/toolchain`; only that script reads it.";
    PROGRAM = "ASSAY", Path, [Scripts], recorded: false,
        "The program that `examples/references/script.py` starts, in the place of `assay`; only that script reads it.";
    UPDATE = "ASSAY_UPDATE", Flag, [Tests], recorded: false,
        "Tests of generated files write them anew.";
    REQUIRE_PEERS = "ASSAY_REQUIRE_PEERS", Flag, [Tests], recorded: false,
        "Tests fail, not skip, where llama.cpp is not there.";
    REQUIRE_MODELS = "ASSAY_REQUIRE_MODELS", Flag, [Tests], recorded: false,
        "Tests fail, not skip, where the model is not there.";
    REQUIRE_VOCABS = "ASSAY_REQUIRE_VOCABS", Flag, [Tests], recorded: false,
        "Tests fail, not skip, where the vocabularies are not there.";
    REQUIRE_ISA = "REQUIRE_ISA", Words, [Tests], recorded: true,
        "Tests fail, not skip, where the processor lacks one of these instruction sets.";
    CUDA_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES", Foreign, [Others], recorded: true,
        "CUDA shows these devices only.";
    GLIBC_TUNABLES = "GLIBC_TUNABLES", Foreign, [Others], recorded: true,
        "The C library chooses its functions by it.";
    OMP_NUM_THREADS = "OMP_NUM_THREADS", Foreign, [Others], recorded: true,
        "Threads of libraries that use OpenMP.";
    RAYON_NUM_THREADS = "RAYON_NUM_THREADS", Foreign, [Others], recorded: true,
        "Threads of Rayon, where a program does not say how many.";
}

/// The variables that a receipt records, and that are set, as they stand: an empty `CUDA_VISIBLE_DEVICES` hides every
/// device.
pub fn recorded() -> BTreeMap<String, String> {
    let recorded = ALL.iter().filter(|row| row.recorded);
    recorded.filter_map(|row| Some((row.name.to_owned(), env::var(row.name).ok()?))).collect()
}
