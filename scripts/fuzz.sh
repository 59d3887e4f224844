#!/usr/bin/env bash
set -euo pipefail
# Fuzzes the readers of receipts and ledgers under AddressSanitizer, from the examples on.
#
#   scripts/fuzz.sh              each target for 600 seconds; where cargo-fuzz is missing it says so in one line and exits 0
#   scripts/fuzz.sh SECONDS      each target for as long
#
# Needs cargo-fuzz (cargo install cargo-fuzz) and a C++ compiler. Works with a stable compiler. What is found lies in
# harness/fuzz/artifacts.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUSTUP_AUTO_INSTALL=0
# Sanitizers are flags that a stable compiler takes only so.
export RUSTC_BOOTSTRAP=1

seconds=${1:-600}
if ! cargo fuzz --version >/dev/null 2>&1; then
    printf 'SKIPPED fuzz: cargo-fuzz is not installed (cargo install cargo-fuzz)\n'
    exit
fi

corpus=harness/fuzz/corpus
mkdir -p "$corpus/receipt" "$corpus/ledger"
find receipts/examples receipts/compat -name '*.json' ! -name index.json | while read -r file; do
    cp "$file" "$corpus/receipt/$(sha256sum "$file" | cut -c1-16)"
done
find receipts/examples -name '*.jsonl' | while read -r file; do
    cp "$file" "$corpus/ledger/$(sha256sum "$file" | cut -c1-16)"
done

for target in receipt ledger; do
    cargo fuzz run --fuzz-dir harness/fuzz "$target" -- \
        -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=4096 -print_final_stats=1
done
