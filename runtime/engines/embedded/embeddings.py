"""Deterministic embeddings: a hashed bag of words and word parts, so that texts with words in common are near.

No model is behind them; they are good enough to test retrieval with, and equal everywhere.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

DIMENSIONS = 256
"""When the request does not say."""

_WORD = re.compile(r"\w+")


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A unit vector: words count fully, their inner trigrams a third. An empty text points along the first axis."""
    vector = [0.0] * dimensions
    for feature, count in _features(text).items():
        value = int.from_bytes(blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        weight = (1.0 if feature[0] == "w" else 1 / 3) * math.sqrt(count)
        vector[value % dimensions] += weight if value >> 63 else -weight
    norm = math.sqrt(sum(value * value for value in vector))
    if norm == 0:
        return [1.0, *vector[1:]]
    return [value / norm for value in vector]


def _features(text: str) -> Counter[str]:
    words = _WORD.findall(text.lower())
    features = Counter(f"w{word}" for word in words)
    features.update(f"t{padded[at : at + 3]}" for word in words if (padded := f"^{word}$") for at in range(len(padded) - 2))
    return features


def as_base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats in base64: what `encoding_format: base64` asks for."""
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()
