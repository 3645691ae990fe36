"""ChatGLM-6B once more, from its description, in plain numpy (float64): one row, head by head, no cache, no library's model.

It shares no line with zhtune: what both say is what the description says.
"""

import math

import numpy as np


def reference_logits(weights, ids, layers, heads, scale, sop, mask_tokens, epsilon=1e-5, half_angles=False, positions=None):
    """Logits (sequence, vocabulary) of one row without padding.

    Args:
        weights: name -> array, published names.
        ids: a row that holds <sop>.
        mask_tokens: ids of [gMASK] and [MASK], the first that is there counts.
        half_angles: multiply positions and frequencies in float16.
    """
    weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    context = ids.index(sop)
    mask_token = next(token for token in mask_tokens if token in ids)
    if positions is None:
        positions = [(i, 0) if i < context else (ids.index(mask_token), i - context + 1) for i in range(len(ids))]
    sees = [[j for j in range(len(ids)) if j < context or j <= i] for i in range(len(ids))]
    hidden = [weights["transformer.word_embeddings.weight"][i] for i in ids]
    for layer in range(layers):
        at = f"transformer.layers.{layer}."
        normed = [norm(h, weights, at + "input_layernorm", epsilon) for h in hidden]
        attended = attention(normed, weights, at + "attention.", heads, positions, sees, half_angles)
        hidden = [scale * n + a for n, a in zip(normed, attended)]
        normed = [norm(h, weights, at + "post_attention_layernorm", epsilon) for h in hidden]
        inner = [gelu(linear(n, weights, at + "mlp.dense_h_to_4h")) for n in normed]
        hidden = [scale * n + linear(i, weights, at + "mlp.dense_4h_to_h") for n, i in zip(normed, inner)]
    final = [norm(h, weights, "transformer.final_layernorm", epsilon) for h in hidden]
    return np.array([weights["transformer.word_embeddings.weight"] @ h for h in final])


def attention(rows, weights, at, heads, positions, sees, half_angles):
    """One attention layer; in the joint matrix the rows of q, k and v of head 0 come first, then those of head 1 …"""
    size = len(rows[0]) // heads
    joint = [linear(row, weights, at + "query_key_value") for row in rows]
    out = [[] for _ in rows]
    for head in range(heads):
        part = [row[head * 3 * size:(head + 1) * 3 * size] for row in joint]
        query = [rotate(p[:size], at_, half_angles) for p, at_ in zip(part, positions)]
        key = [rotate(p[size:2 * size], at_, half_angles) for p, at_ in zip(part, positions)]
        for i in range(len(rows)):
            scores = np.array([query[i] @ key[j] / math.sqrt(size) for j in sees[i]])
            share = np.exp(scores - scores.max())
            share /= share.sum()
            out[i].append(sum(s * part[j][2 * size:] for s, j in zip(share, sees[i])))
    return [linear(np.concatenate(row), weights, at + "dense") for row in out]


def rotate(vector, position, half_angles):
    """The first half of a head turns by the position, the second by the block; entry i with entry i + a quarter of the head."""
    half, turned = len(vector) // 2, np.zeros(len(vector))
    for side in (0, 1):
        for i in range(half // 2):
            frequency = np.float16(np.float32(1) / np.float32(10000) ** np.float32(2 * i / half))
            angle = float(np.float16(position[side]) * frequency) if half_angles else position[side] * float(frequency)
            a, b = vector[side * half + i], vector[side * half + i + half // 2]
            turned[side * half + i] = a * math.cos(angle) - b * math.sin(angle)
            turned[side * half + i + half // 2] = b * math.cos(angle) + a * math.sin(angle)
    return turned


def linear(row, weights, name):
    return weights[name + ".weight"] @ row + weights[name + ".bias"]


def norm(row, weights, name, epsilon):
    return (row - row.mean()) / math.sqrt(row.var() + epsilon) * weights[name + ".weight"] + weights[name + ".bias"]


def gelu(row):
    return 0.5 * row * (1 + np.tanh(math.sqrt(2 / math.pi) * (row + 0.044715 * row**3)))
