#!/usr/bin/env python3
"""A reference in a few lines: it says what another program computes (here `assay run`) in the protocol of docs/reference-protocol.md."""
import json, os, subprocess, sys
import numpy as np

request, out = json.load(open(sys.argv[2])), sys.argv[3]
sequences = []
for s in request["sequences"]:
    raw, name, tokens = f"{out}/raw", f"{s['id']}.npy", ",".join(map(str, s["tokens"]))
    told = subprocess.check_output(
        [os.environ.get("ASSAY", "assay"), "run", request["model"], "--activation", request["activation"], "--tokens", tokens,
         "--steps", str(s["steps"]), "--ignore-eos", "--logits", raw, "--json"])
    np.save(f"{out}/{name}", np.fromfile(raw, "<f4").reshape(len(s["tokens"]) + s["steps"], -1))
    sequences.append({"id": s["id"], "generated": json.loads(told)["token_ids"], "logits": name})
who = {"name": "script", "version": "1"}
json.dump({"protocol": 1, "reference": who, "feeding": "batch", "sequences": sequences}, open(f"{out}/result.json", "w"))
