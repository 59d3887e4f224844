#!/usr/bin/env bash
# Fetches the libraries of other programs whose kernels `assay kernels check --peer` and `bench --peer` can load.
#
# Needs: npm, sha256sum, tar, and the network. Leaves behind: a tarball and its unpacked files in target/peers, or in the
# folder that ASSAY_PEERS names. Nothing is installed and nothing of them is run here.
#
#   scripts/peers.sh              fetch what is missing
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

package=@node-llama-cpp/linux-x64
version=3.22.1
sha256=0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0

peers=${ASSAY_PEERS:-target/peers}
name=node-llama-cpp-linux-x64-$version
mkdir -p "$peers"

verify() {
    if ! printf '%s  %s\n' "$sha256" "$1" | sha256sum --check --status; then
        printf 'peers: %s is not the package that is pinned (SHA-256 %s)\n' "$1" "$sha256" >&2
        exit 1
    fi
}

if [[ ! -f $peers/$name.tgz ]]; then
    command -v npm >/dev/null || {
        printf 'peers: npm is needed to fetch %s@%s\n' "$package" "$version" >&2
        exit 2
    }
    work=$(mktemp -d "$peers/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    npm pack --silent --pack-destination "$work" "$package@$version" >/dev/null
    verify "$work/$name.tgz"
    mv "$work/$name.tgz" "$peers/$name.tgz"
fi
verify "$peers/$name.tgz"

# Unpacked anew each time: what lies there is then what was verified.
rm -rf "${peers:?}/$name"
mkdir "$peers/$name"
tar -xzf "$peers/$name.tgz" -C "$peers/$name"
printf 'peers: llama.cpp in %s\n' "$peers/$name/package/bins/linux-x64"
