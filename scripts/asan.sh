#!/usr/bin/env bash
set -euo pipefail
# Runs tests under AddressSanitizer: a read or write outside an allocation ends the test with the place.
#
#   scripts/asan.sh             runs; where it cannot, it says so in one line and exits 0
#   scripts/asan.sh --require   the same, but exits 1 where it cannot run
#
# Needs cargo and Rust's sanitizer runtime for this system (it comes with the Rust of rustup; some distributions leave it
# out). `-Zsanitizer` is an unstable flag, so RUSTC_BOOTSTRAP=1 is set, for this build only. Build output goes to
# target/asan. Nothing is installed.
#
# Run: all tests of the engine (kernels against scalar, planted faults, GGUF files, golden data).

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# No toolchain may be fetched behind our back.
export RUSTUP_AUTO_INSTALL=0

skip() {
    printf 'SKIPPED asan: %s\n' "$1"
    exit "$missing"
}

missing=0
case "${1:-}" in
'') ;;
--require) missing=1 ;;
*)
    printf 'usage: scripts/asan.sh [--require]\n' >&2
    exit 2
    ;;
esac

target=$(rustc -vV | sed -n 's/^host: //p')
case $target in
x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu | x86_64-apple-darwin | aarch64-apple-darwin) ;;
*) skip "there is none for $target" ;;
esac
runtime=$(rustc --print sysroot)/lib/rustlib/$target/lib
compgen -G "$runtime/librustc*_rt.asan.*" >/dev/null || skip "this Rust has no runtime for it ($runtime)"

export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address"
export CARGO_TARGET_DIR=$PWD/target/asan
# Memory that a test process still holds at its end is no defect here.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"

cargo test -p assay-engine --target "$target" --locked --lib --tests
printf '\nasan: all tests passed, and nothing was touched that should not be\n'
