#!/usr/bin/env bash
set -euo pipefail
# Lints the engine for 64-bit ARM, builds its tests and runs them, on an x86-64 machine under qemu: once on a processor
# without the dot product instructions (kernels scalar, neon), once on one that has them (scalar, neon, neondot). Then the
# claims of committed receipts, made on x86-64, are run again on both.
#
#   scripts/neon.sh             runs; where the tools are missing it says so in one line and exits 0
#   scripts/neon.sh --require   the same, but exits 1 where the tools are missing
#   scripts/neon.sh --setup     only fetches the tools: about 200 MB, 1.1 GB unpacked
#
# Needs cargo, and for --setup a Debian x86-64 with apt-get and its security archive (rustc-web follows the Rust
# releases there). Nothing is installed and nothing needs root: packages are unpacked into a folder, which is
# ASSAY_ARM64_TOOLCHAIN or else target/neon/toolchain. Build output goes to target/neon/build.
# On an ARM machine the tests run as they are, without any of this.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# No toolchain may be fetched behind our back.
export RUSTUP_AUTO_INSTALL=0

tools=${ASSAY_ARM64_TOOLCHAIN:-$PWD/target/neon/toolchain}
target=aarch64-unknown-linux-gnu
tests=(-p assay-engine --lib --test kernels --test kernel_faults --test golden --locked)

setup() {
    local work apt
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/{lists,archives}/partial "$work/unpacked/bin"
    # What is installed already does not count, save libraries: all tools lie in one folder then.
    awk -v RS= -v ORS='\n\n' \
        '!/^Package: ((rust|cargo|libstd-rust)[^\n]*-web|qemu-user|[^\n]*(aarch64|arm64|-cross-base))/' \
        /var/lib/dpkg/status >"$work/status"
    apt=(apt-get -qq -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status"
        -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" -o APT::Sandbox::User=
        -o APT::Architectures::=amd64 -o APT::Architectures::=arm64)
    "${apt[@]}" update
    "${apt[@]}" install --yes --download-only --no-install-recommends \
        rustc-web rust-web-clippy libstd-rust-web-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
    (cd "$work/archives" && "${apt[@]}" download libstd-rust-web-dev:arm64)
    for package in "$work"/archives/*.deb; do
        dpkg -x "$package" "$work/unpacked"
    done
    # Each tool finds its libraries by its own place, so that the folder may move.
    wrap rustc 'rustc'
    wrap clippy-driver 'clippy-driver'
    # shellcheck disable=SC2016 # for the wrapper to expand
    wrap linker 'aarch64-linux-gnu-gcc --sysroot="$root"'
    wrap ar 'aarch64-linux-gnu-ar'
    rm -rf "$tools"
    mkdir -p "$(dirname "$tools")"
    mv "$work/unpacked" "$tools"
    printf 'neon: tools are in %s\n' "$tools"
}

# A script $1 in the folder of tools that runs $2 of usr/bin.
wrap() {
    cat >"$work/unpacked/bin/$1" <<EOF
#!/bin/sh
root=\$(cd "\$(dirname "\$0")/.." && pwd)
LD_LIBRARY_PATH="\$root/usr/lib/x86_64-linux-gnu" exec "\$root"/usr/bin/$2 "\$@"
EOF
    chmod +x "$work/unpacked/bin/$1"
}

# What clippy on x86-64 cannot see. Warnings are errors: see the flags below.
lint() {
    printf '\nneon: clippy for %s\n' "$target"
    RUSTC_WORKSPACE_WRAPPER=$tools/bin/clippy-driver cargo check --target "$target" -p assay-engine --lib --locked
}

# The tests on processor $1, which has the instruction sets $2.
run_on() {
    printf '\nneon: %s, which has %s\n' "$1" "$2"
    QEMU_CPU=$1 REQUIRE_ISA=$2 cargo test --target "$target" "${tests[@]}"
}

# Committed receipts of model runs: their models are part of the program.
receipts=(receipts/examples/positive/model-run/*.json receipts/examples/positive/parity/*.json)

# Runs the claims of receipts again on processor $1, with each of the instruction sets $2.
replay_on() {
    local isa receipt
    for isa in $2; do
        for receipt in "${receipts[@]}"; do
            printf '\nneon: replay on %s, %s\n' "$1" "$isa"
            QEMU_CPU=$1 "${assay[@]}" receipt replay "$receipt" --isa "$isa" --threads 1
        done
    done
}

missing=0
for argument; do
    case $argument in
    --setup)
        setup
        exit
        ;;
    --require) missing=1 ;;
    *)
        printf 'neon: unknown argument %s: see the first lines of this script\n' "$argument" >&2
        exit 2
        ;;
    esac
done

if [[ $(uname -m) == aarch64 ]]; then
    REQUIRE_ISA=neon cargo test "${tests[@]}"
    assay=(cargo run -p assay-harness --no-default-features --locked --)
    replay_on 'this processor' neon
    exit
fi

if [[ ! -x $tools/bin/rustc || ! -x $tools/bin/ar ]]; then
    printf 'SKIPPED neon: no ARM compiler and emulator in %s (scripts/neon.sh --setup)\n' "$tools"
    exit "$missing"
fi

emulator=$tools/usr/bin/qemu-aarch64-static
[[ -x $emulator ]] || emulator=$tools/usr/bin/qemu-aarch64
export RUSTC=$tools/bin/rustc
export CARGO_TARGET_DIR=$PWD/target/neon/build
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$tools/bin/linker
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator -L $tools/usr/aarch64-linux-gnu"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS='-D warnings'
# One dependency of the program has a few lines of assembly, which the C compiler takes.
export CC_aarch64_unknown_linux_gnu=$tools/bin/linker
export AR_aarch64_unknown_linux_gnu=$tools/bin/ar

lint
run_on cortex-a53 'neon'
run_on max 'neon neondot'
cargo build --target "$target" -p assay-harness --no-default-features --locked
assay=("$emulator" -L "$tools/usr/aarch64-linux-gnu" "$CARGO_TARGET_DIR/$target/debug/assay")
replay_on cortex-a53 'neon'
replay_on max 'neon neondot'
printf '\nneon: all tests passed and all claims were reproduced on both processors\n'
