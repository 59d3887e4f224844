#!/usr/bin/env python3
"""Runs a GGUF model with Hugging Face transformers, for `assay parity`.

    python3 transformers_reference.py describe
    python3 transformers_reference.py run REQUEST.json OUT

    assay parity MODEL --reference "python3 transformers_reference.py"

It speaks the reference protocol, version 1. Python 3.10 or later, and: pip install numpy torch transformers

This program reads the GGUF file itself, builds a configuration and a state dict from it, and loads them into
LlamaForCausalLM (architecture `llama`) or BitNetForCausalLM (`bitnet-b1.58`, `bitnet-25`, `bitnet`), on the CPU, in
float32. What is computed is transformers' own, with two exceptions that transformers has no option for: the rotary
frequencies of a file are written into the model, and a `.scale` tensor of a dense layer multiplies its output.

Matrices in a ternary format become transformers' AutoBitLinear (without online quantisation: the weights are ternary
already), which rounds activations to int8, one scale for a token. Dense matrices become plain linear layers. All weights
are widened to float32: count four bytes a weight.

Exit codes: 0 done; 3 this program cannot do that; 1 something is wrong. The last line on standard error says what.
"""

import importlib.metadata
import json
import mmap
import os
import re
import struct
import sys
import traceback

try:
    import numpy as np
except ImportError:
    np = None  # `describe` does without; `run` refuses

PROTOCOL = 1
BITNETS = ("bitnet-b1.58", "bitnet-25", "bitnet")
ARCHITECTURES = ("llama",) + BITNETS


class Cannot(Exception):
    """This program does not do what is asked (exit code 3)."""


class Wrong(Exception):
    """The file or the request is broken (exit code 1)."""


# --- Formats: blocks of bytes (n, bytes) to values (n, elements) ----------------------------------------------------


def f16(blocks, at):
    """The f16 at byte `at` of each block, as a column of f32."""
    return blocks[:, at : at + 2].copy().view("<f2").astype(np.float32)


def fields(data, shifts, mask):
    """Bit fields of bytes: all bytes at the first shift, then all at the second, and so on."""
    return np.concatenate([(data >> shift) & mask for shift in shifts], axis=1)


def ternary(codes):
    """Codes 0, 1, 2 as -1, 0, +1."""
    if codes.max(initial=0) > 2:
        raise Wrong("a code that is no ternary value")
    return codes.astype(np.float32) - 1


def trits(data, count):
    """`count` trits of each byte: the first of all bytes, then the second of all bytes, and so on."""
    powers = np.array([1, 3, 9, 27, 81][:count], dtype=np.uint8)
    rest = (data[:, None, :] * powers[:, None]).astype(np.uint16)
    return (rest * 3 >> 8).reshape(len(data), -1)


def tq1_0(b):
    codes = np.concatenate([trits(b[:, :32], 5), trits(b[:, 32:48], 5), trits(b[:, 48:52], 4)], axis=1)
    return ternary(codes) * f16(b, 52)


def tq2_0(b):
    codes = [fields(b[:, start : start + 32], (0, 2, 4, 6), 3) for start in (0, 32)]
    return ternary(np.concatenate(codes, axis=1)) * f16(b, 64)


def q2_0(b):
    codes = (b[:, 2:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8)) & 3
    return (codes.reshape(len(b), 64).astype(np.float32) - 1) * f16(b, 0)


def q8_0(b):
    return b[:, 2:].view(np.int8).astype(np.float32) * f16(b, 0)


def q4_0(b):
    return (fields(b[:, 2:], (0, 4), 15).astype(np.float32) - 8) * f16(b, 0)


def q4_1(b):
    return fields(b[:, 4:], (0, 4), 15).astype(np.float32) * f16(b, 0) + f16(b, 2)


def q6_k(b):
    halves = []
    for half in (0, 1):
        low = fields(b[:, 64 * half : 64 * half + 64], (0, 4), 15)
        high = fields(b[:, 128 + 32 * half : 160 + 32 * half], (0, 2, 4, 6), 3)
        halves.append(low | high << 4)
    quants = np.concatenate(halves, axis=1).astype(np.float32) - 32
    scales = b[:, 192:208].copy().view(np.int8).astype(np.float32) * f16(b, 208)
    return np.repeat(scales, 16, axis=1) * quants


def f32(b):
    return b.copy().view("<f4")


def half(b):
    return f16(b, 0)


def bf16(b):
    return (b.copy().view("<u2").astype(np.uint32) << 16).view(np.float32)


def i2_s(b):
    return ternary(fields(b, (6, 4, 2, 0), 3))


# GGUF type: name, elements of a block, bytes of a block, ternary or dense, decoder
FORMATS = {
    0: ("F32", 1, 4, False, f32),
    1: ("F16", 1, 2, False, half),
    2: ("Q4_0", 32, 18, False, q4_0),
    3: ("Q4_1", 32, 20, False, q4_1),
    8: ("Q8_0", 32, 34, False, q8_0),
    14: ("Q6_K", 256, 210, False, q6_k),
    30: ("BF16", 1, 2, False, bf16),
    34: ("TQ1_0", 256, 54, True, tq1_0),
    35: ("TQ2_0", 256, 66, True, tq2_0),
    36: ("I2_S", 128, 32, True, i2_s),
    42: ("Q2_0", 64, 18, True, q2_0),
}
I2_S_TAIL = 32  # its scale, f32, and padding

# --- GGUF -----------------------------------------------------------------------------------------------------------

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


class Gguf:
    """Metadata and tensors of a GGUF file, mapped; `tensors` is name: (shape as rows x columns, type, offset)."""

    def __init__(self, path):
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < 24 or file.read(4) != b"GGUF":
                raise Wrong(f"{path} is no GGUF file")
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.at = 4
        version = self.scalar("<I")
        if version not in (2, 3):
            raise Cannot(f"GGUF version {version}, or big-endian; this program reads 2 and 3")
        tensors, keys = self.scalar("<Q"), self.scalar("<Q")
        self.metadata = {}
        for _ in range(keys):
            key = self.string()
            self.metadata[key] = self.value(self.scalar("<I"))
        infos = [self.tensor_info() for _ in range(tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        start = -(-self.at // alignment) * alignment
        self.tensors = {name: (shape, kind, start + offset) for name, shape, kind, offset in infos}

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Wrong("the file is truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def scalar(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def string(self):
        return self.take(self.scalar("<Q")).decode("utf-8", "replace")

    def value(self, kind, depth=0):
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == 8:
            return self.string()
        if kind == 9 and depth < 4:
            inner, count = self.scalar("<I"), self.scalar("<Q")
            return [self.value(inner, depth + 1) for _ in range(count)]
        raise Wrong(f"metadata of type {kind}")

    def tensor_info(self):
        name = self.string()
        dimensions = [self.scalar("<Q") for _ in range(self.scalar("<I"))]
        return name, tuple(reversed(dimensions)), self.scalar("<I"), self.scalar("<Q")

    def tensor(self, name):
        """A tensor's values as f32, and the factor they still have to be multiplied with."""
        shape, kind, start = self.tensors[name]
        if kind not in FORMATS:
            raise Cannot(f"{name} has the GGUF type {kind}, which this program does not read")
        form, elements, size, _, decode = FORMATS[kind]
        count = int(np.prod(shape, dtype=object))
        if not shape or shape[-1] % elements:
            raise Wrong(f"{name}: rows are no whole blocks of {form}")
        length = count // elements * size
        if start + length + (I2_S_TAIL if form == "I2_S" else 0) > len(self.data):
            raise Wrong(f"{name}: the file is truncated")
        blocks = np.frombuffer(self.data, np.uint8, length, start).reshape(-1, size)
        factor = struct.unpack_from("<f", self.data, start + length)[0] if form == "I2_S" else 1.0
        try:
            values = decode(blocks).reshape(shape)
        except Wrong as error:
            raise Wrong(f"{name}: {error}") from None
        if not np.isfinite(values).all() or not np.isfinite(factor):
            raise Wrong(f"{name} holds NaN or infinity")
        return values, factor

    def is_ternary(self, name):
        return FORMATS.get(self.tensors[name][1], (0, 0, 0, False))[3]


# --- From GGUF to transformers --------------------------------------------------------------------------------------

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
SUB_NORMS = {"attn_sub_norm": "self_attn.attn_sub_norm", "ffn_sub_norm": "mlp.ffn_sub_norm"}


class Settings:
    """What the metadata say of the model's shape; refuses what the two model classes do not have."""

    def __init__(self, gguf):
        self.arch = gguf.metadata.get("general.architecture")
        if self.arch not in ARCHITECTURES:
            raise Cannot(f"architecture {self.arch}; this program has {', '.join(ARCHITECTURES)}")
        get = lambda key, default=None: gguf.metadata.get(f"{self.arch}.{key}", default)
        self.layers, self.hidden = self.number(get, "block_count"), self.number(get, "embedding_length")
        self.feed_forward = self.number(get, "feed_forward_length")
        self.context = self.number(get, "context_length")
        self.heads = self.number(get, "attention.head_count")
        self.kv_heads = self.number(get, "attention.head_count_kv", self.heads)
        self.head_dim = self.number(get, "attention.key_length", self.hidden // self.heads)
        self.epsilon = float(get("attention.layer_norm_rms_epsilon", -1))
        if self.epsilon < 0:
            raise Wrong(f"no {self.arch}.attention.layer_norm_rms_epsilon")
        self.rope_base = float(get("rope.freq_base", 10000.0))
        self.rope_factor = self.linear_scaling(get)
        if get("attention.value_length", self.head_dim) != self.head_dim:
            raise Cannot("values of another length than keys")
        if get("rope.dimension_count", self.head_dim) != self.head_dim:
            raise Cannot("a rotation of a part of each head")
        if self.arch != "llama" and self.heads * self.head_dim != self.hidden:
            raise Cannot("BitNetForCausalLM has attention as wide as the embedding only")
        for key in ("expert_count", "attention.sliding_window", "attention.scale", "logit_scale",
                    "attn_logit_softcapping", "final_logit_softcapping"):
            if get(key):
                raise Cannot(f"{self.arch}.{key}")

    def number(self, get, key, default=None):
        value = get(key, default)
        if isinstance(value, list):
            raise Cannot(f"{self.arch}.{key} differs from layer to layer")
        if not isinstance(value, int) or value < 1:
            raise Wrong(f"no {self.arch}.{key}, or no positive integer")
        return value

    def linear_scaling(self, get):
        kind = get("rope.scaling.type", "none" if get("rope.scaling.factor") is None else "linear")
        if kind not in ("none", "linear"):
            raise Cannot(f"rotary scaling {kind}")
        factor = get("rope.scaling.factor") or get("rope.scale_linear") or 1.0
        return float(factor) if kind == "linear" else 1.0

    def names(self):
        """GGUF names without `.weight`, and the modules that they belong to."""
        parts = LAYER if self.arch == "llama" else LAYER | SUB_NORMS
        named = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
        for layer in range(self.layers):
            named |= {f"blk.{layer}.{ours}": f"model.layers.{layer}.{theirs}" for ours, theirs in parts.items()}
        return named

    def permuted_heads(self, name):
        """Heads of a projection whose rows GGUF has in another order than transformers; 0 for all others."""
        if self.arch != "llama":
            return 0
        return {"attn_q": self.heads, "attn_k": self.kv_heads}.get(name.split(".")[-1], 0)


def interleaved_to_halves(weight, heads):
    """Rows of q or k: GGUF rotates neighbours in a llama, transformers the halves of a head."""
    rows, columns = weight.shape
    split = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows, columns)


def halves_to_interleaved(row, heads):
    """The way back, for one row of activations."""
    return row.reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def check_names(gguf, settings):
    """Every tensor is one that the model has, and none that it needs is missing."""
    named = settings.names()
    known = {f"{name}.weight" for name in named} | {"rope_freqs.weight"}
    known |= {f"{name}.scale" for name in named if not name.endswith(("norm", "embd"))}
    if settings.arch == "llama":
        known |= {"output.weight", "output.scale"}
    unknown = sorted(set(gguf.tensors) - known)
    missing = sorted({f"{name}.weight" for name in named} - set(gguf.tensors))
    if unknown:
        raise Cannot(f"a tensor that this program does not know: {unknown[0]} ({len(unknown)} in all)")
    if missing:
        raise Wrong(f"a tensor is missing: {missing[0]} ({len(missing)} in all)")


def empty_model(settings, vocab, activation):
    """The model class of the architecture, with nothing in it yet."""
    import torch
    from transformers import BitNetConfig, BitNetForCausalLM, LlamaConfig, LlamaForCausalLM

    make = {"llama": (LlamaConfig, LlamaForCausalLM)}.get(settings.arch, (BitNetConfig, BitNetForCausalLM))
    config = make[0](
        vocab_size=vocab, hidden_size=settings.hidden, intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers, num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads, head_dim=settings.head_dim, hidden_act=activation,
        max_position_embeddings=settings.context, rms_norm_eps=settings.epsilon, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=None, attn_implementation="eager",
    )
    with torch.device("meta"):
        return make[1](config)


def set_rotation(model, settings, gguf):
    """Puts the file's rotary frequencies into the model."""
    import torch

    exponents = torch.arange(0, settings.head_dim, 2, dtype=torch.float32) / settings.head_dim
    frequencies = 1.0 / settings.rope_base**exponents / settings.rope_factor
    if "rope_freqs.weight" in gguf.tensors:
        divisors, _ = gguf.tensor("rope_freqs.weight")
        if divisors.size != len(frequencies):
            raise Wrong("rope_freqs.weight has another length than half a head")
        frequencies = frequencies / torch.from_numpy(divisors.reshape(-1))
    rotary = type(model.model.rotary_emb)(model.config)
    rotary.inv_freq.copy_(frequencies)
    model.model.rotary_emb = rotary


def scale_output(module, factor):
    module.register_forward_hook(lambda _module, _inputs, output: output * factor)


def load(gguf, settings, activation):
    """The model with the file's weights, and notes on how it was made."""
    import torch
    from transformers.integrations.bitnet import AutoBitLinear

    shape = gguf.tensors["token_embd.weight"][0]
    if len(shape) != 2:
        raise Wrong("token_embd.weight is no matrix")
    model, state, formats = empty_model(settings, shape[0], activation), {}, {True: set(), False: set()}
    named = settings.names() | ({"output": "lm_head"} if "output.weight" in gguf.tensors else {})
    for name, module in named.items():
        values, factor = gguf.tensor(f"{name}.weight")
        if (heads := settings.permuted_heads(name)) and values.shape == (heads * settings.head_dim, settings.hidden):
            values = interleaved_to_halves(values, heads)
        state[f"{module}.weight"] = torch.from_numpy(values)
        if name.endswith(("norm", "embd")):
            continue
        if f"{name}.scale" in gguf.tensors:
            factor *= gguf.tensor(f"{name}.scale")[0].item()
        is_ternary = gguf.is_ternary(f"{name}.weight")
        formats[is_ternary].add(FORMATS[gguf.tensors[f"{name}.weight"][1]][0])
        if is_ternary:
            linear = model.get_submodule(module)
            with torch.device("meta"):
                bit = AutoBitLinear(linear.in_features, linear.out_features, bias=False, online_quant=False)
            model.set_submodule(module, bit)
            state[f"{module}.weight_scale"] = torch.tensor([factor], dtype=torch.float32)
        elif factor != 1.0:
            scale_output(model.get_submodule(module), factor)
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    set_rotation(model, settings, gguf)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise Wrong("a tensor does not fit the metadata: " + str(error).strip().splitlines()[-1].strip()) from None
    return model.eval(), notes_on(model, formats, "output" in named)


def notes_on(model, formats, has_head):
    notes = [f"{type(model).__name__} with the gate {model.config.hidden_act}; weights widened to float32, keys and values "
             "kept in float32"]
    if formats[True]:
        notes.append(f"ternary matrices ({', '.join(sorted(formats[True]))}): AutoBitLinear of transformers, activations "
                     "rounded to int8 with one scale for a token, products in float32")
    if formats[False]:
        notes.append(f"dense matrices ({', '.join(sorted(formats[False]))}): plain linear layers, activations not rounded")
    return notes if has_head else notes + ["the embedding is the head; its activations are not rounded"]


# --- Running --------------------------------------------------------------------------------------------------------


def tensor_places(settings):
    """Names of the protocol: the module, whether its input or its output is meant, and heads to be put back in order."""
    rename = {"attn_q": "q", "attn_k": "k", "attn_v": "v"}
    places = {"embedding": ("model.embed_tokens", "output", 0), "output_norm": ("model.norm", "output", 0)}
    for name, module in settings.names().items():
        if name.startswith("blk."):
            block, part = name.rsplit(".", 1)
            places[f"{block}.{rename.get(part, part)}"] = (module, "output", settings.permuted_heads(name))
    for layer in range(settings.layers):
        block, module = f"blk.{layer}", f"model.layers.{layer}"
        norms = settings.arch != "llama"
        places[f"{block}.attention"] = (f"{module}.self_attn.{'attn_sub_norm' if norms else 'o_proj'}", "input", 0)
        places[f"{block}.ffn_gated"] = (f"{module}.mlp.{'ffn_sub_norm' if norms else 'down_proj'}", "input", 0)
        places[f"{block}.attn_residual"] = (f"{module}.post_attention_layernorm", "input", 0)
        places[f"{block}.layer_output"] = (module, "output", 0)
    return places


def record(model, places, wanted, rows):
    """Hooks that append each wanted tensor to its list in `rows`, and the handles to remove them."""

    def hook_for(name, side, heads):
        def hook(_module, inputs, output):
            value = inputs[0] if side == "input" else output
            row = (value[0] if isinstance(value, tuple) else value).reshape(-1).numpy().copy()
            rows[name].append(halves_to_interleaved(row, heads) if heads else row)

        return hook

    handles = []
    for name in sorted(set(wanted) & set(places)):
        module, side, heads = places[name]
        rows[name] = []
        handles.append(model.get_submodule(module).register_forward_hook(hook_for(name, side, heads)))
    return handles


def run_sequence(model, places, sequence):
    """Feeds the tokens and the generated ones, one at a time; gives generated tokens, logits and tensors."""
    import torch
    from transformers import DynamicCache

    tokens, steps, rows, logits = list(sequence["tokens"]), sequence["steps"], {}, []
    handles, cache, prompt = record(model, places, sequence["tensors"], rows), DynamicCache(), len(sequence["tokens"])
    try:
        while len(logits) < prompt + steps:
            if len(logits) == len(tokens):
                tokens.append(int(np.argmax(logits[-1])))
            ids = torch.tensor([[tokens[len(logits)]]])
            out = model(input_ids=ids, past_key_values=cache, use_cache=True)
            logits.append(out.logits.reshape(-1).numpy().copy())
    finally:
        for handle in handles:
            handle.remove()
    return tokens[prompt:], np.stack(logits), {name: np.stack(found) for name, found in rows.items()}


def check_request(request):
    if not isinstance(request, dict) or request.get("protocol") != PROTOCOL:
        raise Cannot(f"another protocol version than {PROTOCOL}")
    if request.get("activation") not in ("relu2", "silu"):
        raise Cannot(f"activation {request.get('activation')}; this program has relu2 and silu")
    for sequence in request["sequences"]:
        if not re.fullmatch("[A-Za-z0-9-]+", sequence["id"]) or not sequence["tokens"] or sequence["steps"] < 0:
            raise Wrong(f"sequence {sequence['id']!r}: a strange id, no tokens, or steps below zero")


def import_or_refuse():
    # Nothing is fetched from a network, and no compiled graph replaces the operations as transformers wrote them.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        import torch
        import transformers
    except ImportError as error:
        raise Cannot(f"{error.name} is missing: pip install torch transformers") from None
    try:
        from transformers import BitNetForCausalLM, LlamaForCausalLM  # noqa: F401
        from transformers.integrations.bitnet import AutoBitLinear  # noqa: F401
    except ImportError as error:
        raise Cannot(f"transformers is too old ({error}): pip install --upgrade transformers") from None
    return torch, transformers


def run(request_path, out):
    if np is None:
        raise Cannot("numpy is missing: pip install numpy torch transformers")
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    check_request(request)
    gguf = Gguf(request["model"])
    settings = Settings(gguf)
    check_names(gguf, settings)
    vocab = gguf.tensors["token_embd.weight"][0][0]
    for sequence in request["sequences"]:
        if not all(0 <= token < vocab for token in sequence["tokens"]):
            raise Wrong(f"sequence {sequence['id']}: a token outside the vocabulary")
    torch, transformers = import_or_refuse()
    torch.set_num_threads(request["threads"])
    torch.use_deterministic_algorithms(True)
    with torch.no_grad():
        model, notes = load(gguf, settings, request["activation"])
        places, sequences = tensor_places(settings), []
        for sequence in request["sequences"]:
            generated, logits, tensors = run_sequence(model, places, sequence)
            files = {name: save(out, f"{sequence['id']}.{name}.npy", rows) for name, rows in tensors.items()}
            logits_file = save(out, f"{sequence['id']}.logits.npy", logits)
            sequences.append(
                {"id": sequence["id"], "generated": generated, "logits": logits_file, "tensors": files})
    identity = {"name": "transformers", "version": transformers.__version__,
                "build": f"torch {torch.__version__}, CPU, float32"}
    finish(out, {"protocol": PROTOCOL, "reference": identity, "feeding": "one-token-at-a-time", "notes": notes,
                 "sequences": sequences})


def save(out, name, rows):
    np.save(os.path.join(out, name), np.ascontiguousarray(rows, dtype="<f4"))
    return name


def finish(out, result):
    """Writes result.json under another name first: it is there only when all is there."""
    partial = os.path.join(out, "result.json.partial")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    os.replace(partial, os.path.join(out, "result.json"))


def describe():
    def version(package):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    parts = [*LAYER, *SUB_NORMS, "attention", "attn_residual", "ffn_gated", "layer_output", "embedding", "output_norm"]
    rename = {"attn_q": "q", "attn_k": "k", "attn_v": "v"}
    identity = {"name": "transformers", "version": version("transformers"),
                "build": f"torch {version('torch')}, CPU, float32"}
    print(json.dumps({"protocol": PROTOCOL, "reference": identity, "architectures": list(ARCHITECTURES),
                      "tensors": [rename.get(part, part) for part in parts]}))


def main(arguments):
    try:
        if arguments == ["describe"]:
            describe()
        elif len(arguments) == 3 and arguments[0] == "run":
            run(arguments[1], arguments[2])
        else:
            print("usage: transformers_reference.py describe | run REQUEST.json OUT", file=sys.stderr)
            return 2
    except Cannot as error:
        print(error, file=sys.stderr)
        return 3
    except Wrong as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
