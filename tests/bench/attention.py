"""Which implementation of attention is fastest for training on a CPU, forward and backward, at each length? Prints JSON.

Run with `python tests/bench/attention.py [ROUNDS]`. The implementations alternate within a round.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F

from kdnas.distill.fast_training import _by_products, _in_float32
from kdnas.distill.loop import use_all_cores
from kdnas.store.host import host_line

TOKENS = 4096
HEADS, HEAD_WIDTH = 12, 48
Way = Callable[..., torch.Tensor]
WAYS: dict[str, tuple[Way, torch.dtype]] = {
    "f32 kernel": (F.scaled_dot_product_attention, torch.float32),
    "bf16 kernel": (F.scaled_dot_product_attention, torch.bfloat16),
    "bf16 through the f32 kernel": (_in_float32, torch.bfloat16),
    "bf16 products": (partial(_by_products, lambda values, fraction: values), torch.bfloat16),
}


def milliseconds(way: Way, dtype: torch.dtype, seq_len: int) -> float:
    """Milliseconds of one forward and backward pass over 4,096 tokens."""
    shape = (TOKENS // seq_len, HEADS, seq_len, HEAD_WIDTH)
    query, key, value = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.zeros(shape[0], 1, seq_len, seq_len, dtype=dtype)
    autocast: AbstractContextManager[object] = nullcontext()
    if dtype == torch.bfloat16:
        autocast = torch.autocast("cpu", dtype=dtype)
    start = time.perf_counter()
    with autocast:
        output = way(query, key, value, attn_mask=mask)
    output.backward(torch.ones_like(output))
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    use_all_cores()
    rows = []
    for seq_len in (8, 16, 32, 64, 128, 256):
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(rounds + 1):
            for name, (way, dtype) in WAYS.items():
                times[name].append(milliseconds(way, dtype, seq_len))
        rows.append({"seq_len": seq_len, **{name: round(median(values[1:]), 2) for name, values in times.items()}})
    print(json.dumps({"host": host_line(), "tokens": TOKENS, "unit": "ms, forward and backward", "rows": rows}))


if __name__ == "__main__":
    main()
