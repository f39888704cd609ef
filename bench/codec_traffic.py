#!/usr/bin/env python3
"""What a layer reads and writes, with and without fused reads, and with weights at a share of their size.

  codec_traffic.py --model model.gguf [--compressed compressed.gguf | --weights 0.7]

The paper (arXiv 2411.16003) says that weights at 70 % by SVD bring some 60 % less traffic per layer. This takes it apart. Weights are the
bytes of a middle layer's tensors in the file; activations and KV are counted operation by operation, in f32 and f16 as the engine keeps
them. Each token apart: as the formulas have it, every token reads all weights, every head its own input. Unfused: weights are read once
for all tokens of a step, every operation reads its inputs and writes its output. Fused: what this engine does; Q, K and V read
their input once, gate and up too, scores never leave the cache, sums and activations are done where the product is written.
"""
import argparse
import json
import re
import subprocess


def inspect(ctl, model):
    done = subprocess.run([ctl, "model", "inspect", "--model", model, "--tensors", "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def layer_tensors(report):
    prefix = f"blk.{report['config']['layers'] // 2}."
    return {tensor["name"][len(prefix):]: tensor for tensor in report["tensors"] if tensor["name"].startswith(prefix)}


def ranks(tensors):
    """{matrix: rank} of those that stand as two factors."""
    return {match[1]: min(tensor["shape"]) for name, tensor in tensors.items() if (match := re.match(r"(.*)\.factor_[a-z]+$", name))}


F32, F16 = 4, 2
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def activations(config, tokens, context, rank, mode):
    """Bytes read and written beside the weights, of a step of so many tokens behind `context` others."""
    d, ff, heads, kv_heads, size = (config[key] for key in ("d_model", "d_ffn", "heads", "kv_heads", "head_dim"))
    q, kv, seen = heads * size, kv_heads * size, context + tokens
    fused, per_head = mode == "fused", mode == "apart"
    row = 0
    row += 2 * d + 2 * d                                  # both norms: read x, write it normed
    inputs = 1 if fused else (heads + 2 * kv_heads if per_head else 3)
    row += inputs * d + q + 2 * kv                        # Q, K, V
    row += 0 if fused else 2 * (q + kv)                   # RoPE reads and writes Q and K again
    row += q + q + d + (d if fused else 3 * d)            # attention's q in and out; the output product; + x
    row += (1 if fused else 2) * d + (ff if fused else 2 * ff + 3 * ff)  # gate and up, silu * up
    row += ff + (2 * d if fused else d + 3 * d)           # down; + x
    row += sum(rank.values()) * (0 if fused else 2)       # between two factors; fused: it stays in the cache
    total = tokens * row * F32
    total += tokens * 2 * kv * F16                        # KV is appended
    pairs = tokens * context + tokens * (tokens + 1) / 2  # of a query and a key
    if fused:
        total += 2 * kv * F16 * seen                      # keys and values, once for all of the step's queries
    else:
        total += 2 * F16 * pairs * size * (heads if per_head else kv_heads)
        total += heads * pairs * 4 * F32                  # scores: written, softmax reads and writes, read
    return total


def traffic(config, weight_bytes, tokens, context, rank, mode):
    times = tokens if mode == "apart" else 1
    return weight_bytes * times + activations(config, tokens, context, rank, mode)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("--model", required=True)
    parser.add_argument("--compressed", help="what efedllm-ctl model compress made of it")
    parser.add_argument("--weights", type=float, default=0.7, help="without --compressed: share of the weights' bytes")
    parser.add_argument("--context", type=int, default=512, help="tokens before a single token")
    parser.add_argument("--tokens", default="1,128,512")
    parser.add_argument("--ctl", default="build/release/bin/efedllm-ctl")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    report = inspect(args.ctl, args.model)
    config, tensors = report["config"], layer_tensors(report)
    weights = sum(tensor["bytes"] for tensor in tensors.values())
    if args.compressed:
        small = layer_tensors(inspect(args.ctl, args.compressed))
        small_weights, rank = sum(tensor["bytes"] for tensor in small.values()), ranks(small)
    else:
        small_weights = weights * args.weights
        shapes = [tensors[f"{name}.weight"]["shape"] for name in MATRICES]
        rank = {name: int(args.weights * m * n / (m + n)) for name, (m, n) in zip(MATRICES, shapes)}
    rows = []
    for tokens in map(int, args.tokens.split(",")):
        context = args.context if tokens == 1 else 0
        cost = {(mode, svd): traffic(config, small_weights if svd else weights, tokens, context, rank if svd else {}, mode)
                for mode in ("apart", "unfused", "fused") for svd in (False, True)}
        rows.append({"tokens": tokens, **{f"{mode}{'_svd' if svd else ''}": cost[mode, svd] for mode, svd in cost},
                     **{f"{mode}_activations": activations(config, tokens, context, {}, mode) for mode in ("apart", "unfused", "fused")}})
    if args.json:
        print(json.dumps({"weights": weights, "weights_svd": small_weights, "rows": rows}))
        return

    def less(row, name, base):
        return f"{100 * (1 - row[name] / row[base]):.0f} %"
    print(f"A layer's weights: {weights:,} bytes; at {100 * small_weights / weights:.0f} %: {small_weights:,.0f}.\n")
    print("| tokens | each token apart, MB | unfused, MB | fused, MB | activations of unfused; fused | SVD alone (unfused) | fusing alone |"
          " both | both, from each token apart |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        shares = "; ".join(f"{100 * row[f'{mode}_activations'] / row[mode]:.0f} %" for mode in ("unfused", "fused"))
        print(f"| {row['tokens']} | {row['apart'] / 1e6:.2f} | {row['unfused'] / 1e6:.2f} | {row['fused'] / 1e6:.2f} | {shares} |"
              f" {less(row, 'unfused_svd', 'unfused')} | {less(row, 'fused', 'unfused')} | {less(row, 'fused_svd', 'unfused')} |"
              f" {less(row, 'fused_svd', 'apart')} |")


if __name__ == "__main__":
    main()
