"""How fast the range coder is, and how close to the ideal length.

On as many symbols as a picture has.

    python benchmarks/compression_coder.py
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from domains.compression.model.coder import Decoder, Encoder, Tables
from domains.compression.model.program import LOG_STEP, SMALLEST

SYMBOLS, ROUNDS = 1_000_000, 7


def main() -> None:
    rng = np.random.default_rng(0)
    tables = Tables.gaussian()
    table = rng.integers(1, 40, SYMBOLS)
    symbols = np.round(rng.normal(size=SYMBOLS) * SMALLEST * np.exp(LOG_STEP * table))
    symbols = symbols.astype(np.int32)
    encode, decode = [], []
    for _ in range(ROUNDS):
        start = time.process_time()
        encoder = Encoder(tables)
        encoder.put(symbols, table)
        stream = encoder.finish()
        encode.append(time.process_time() - start)
        start = time.process_time()
        decoded = Decoder(tables, stream).take(table)
        decode.append(time.process_time() - start)
        assert (decoded == symbols).all()
    ideal = float(tables.code_length_bits(symbols, table).sum())
    result = {
        "symbols": SYMBOLS,
        "encode_million_symbols_per_cpu_s": round(SYMBOLS / min(encode) / 1e6, 1),
        "decode_million_symbols_per_cpu_s": round(SYMBOLS / min(decode) / 1e6, 1),
        "stream_over_ideal_percent": round(100 * (8 * len(stream) / ideal - 1), 4),
    }
    print(json.dumps(result, indent=1))
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
