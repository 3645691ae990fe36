"""ChatGLM2, ChatGLM3 and GLM-4 from their description, in plain numpy (float64): published names, one row, head by head."""

import math

import numpy as np


def reference_logits(weights, config, ids, base=10000.0, divisor=1.0):
    """Logits (sequence, vocabulary) of one row.

    Args:
        weights: name -> array, published names.
        config: the published config.json.
        base: of the rotary angles.
        divisor: of the positions.
    """
    weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    hidden = [weights["transformer.embedding.word_embeddings.weight"][i] for i in ids]
    eps = config["layernorm_epsilon"]
    for layer in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{layer}."
        normed = [h / math.sqrt((h * h).mean() + eps) * weights[at + "input_layernorm.weight"] for h in hidden]
        hidden = [h + a for h, a in zip(hidden, attention(normed, weights, at + "self_attention.", config, base, divisor))]
        normed = [h / math.sqrt((h * h).mean() + eps) * weights[at + "post_attention_layernorm.weight"] for h in hidden]
        for i, row in enumerate(normed):
            both = weights[at + "mlp.dense_h_to_4h.weight"] @ row
            gate, up = both[:len(both) // 2], both[len(both) // 2:]
            hidden[i] = hidden[i] + weights[at + "mlp.dense_4h_to_h.weight"] @ (gate / (1 + np.exp(-gate)) * up)
    final = [h / math.sqrt((h * h).mean() + eps) * weights["transformer.encoder.final_layernorm.weight"] for h in hidden]
    return np.array([weights["transformer.output_layer.weight"] @ h for h in final])


def attention(rows, weights, at, config, base, divisor):
    """The joint matrix: all query heads, then the key groups, then the value groups."""
    heads, groups, size = config["num_attention_heads"], config["multi_query_group_num"], config["kv_channels"]
    joint = [weights[at + "query_key_value.weight"] @ row + weights[at + "query_key_value.bias"] for row in rows]
    out = [[] for _ in rows]
    for head in range(heads):
        group = head // (heads // groups)
        query = [rotate(j[head * size:(head + 1) * size], i / divisor, base) for i, j in enumerate(joint)]
        key = [rotate(j[(heads + group) * size:(heads + group + 1) * size], i / divisor, base) for i, j in enumerate(joint)]
        value = [j[(heads + groups + group) * size:(heads + groups + group + 1) * size] for j in joint]
        for i in range(len(rows)):
            scores = np.array([query[i] @ key[j] / math.sqrt(size) for j in range(i + 1)])
            share = np.exp(scores - scores.max())
            share /= share.sum()
            out[i].append(sum(s * v for s, v in zip(share, value)))
    return [weights[at + "dense.weight"] @ np.concatenate(row) for row in out]


def rotate(vector, position, base):
    """Neighbours (0, 1), (2, 3) … of the first half of a head turn, the second half stays."""
    half, turned = len(vector) // 2, vector.copy()
    for i in range(0, half, 2):
        angle = position / base ** (i / half)
        turned[i] = vector[i] * math.cos(angle) - vector[i + 1] * math.sin(angle)
        turned[i + 1] = vector[i + 1] * math.cos(angle) + vector[i] * math.sin(angle)
    return turned
