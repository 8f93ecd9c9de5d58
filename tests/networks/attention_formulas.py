"""The papers' formulas of the attention modules, in loops over numpy arrays.

Each takes an image (C, H, W) and the module's weights by name, and gives the image that the module
makes of it.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_swish(x):
    return x * np.clip(x + 3, 0, 6) / 6


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def pointwise(strips, w, prefix):
    """A 1x1 convolution of (C, L)."""
    return w[f"{prefix}.weight"][:, :, 0, 0] @ strips + w[f"{prefix}.bias"][:, None]


def crossed(x, row, column):
    """x (C, H, W) scaled by (C, H) and (C, W)."""
    return x * row[:, :, None] * column[:, None]


def normed_alone(x, w, prefix):
    """Each channel by its own mean and variance: a group norm with a group for each."""
    y = [(c - c.mean()) / np.sqrt(c.var() + 1e-5) for c in x]
    scale, shift = w[f"{prefix}.weight"], w[f"{prefix}.bias"]
    return np.stack([c * g + b for c, g, b in zip(y, scale, shift, strict=True)])


def normed(x, w, prefix):
    scale = w[f"{prefix}.weight"] / np.sqrt(w[f"{prefix}.running_var"] + 1e-5)
    return (x - w[f"{prefix}.running_mean"]) * scale + w[f"{prefix}.bias"]


def simam_formula(x, w):
    """Yang et al. 2021, Eq. 5 and 6, with the published code's H * W - 1 for the variance."""
    y = np.empty_like(x)
    for c, channel in enumerate(x):
        mean = channel.mean()
        variance = ((channel - mean) ** 2).sum() / max(channel.size - 1, 1)
        for i, t in np.ndenumerate(channel):
            energy = 4 * (variance + 1e-4) / ((t - mean) ** 2 + 2 * variance + 2e-4)
            y[c][i] = t * sigmoid(1 / energy)
    return y


def se_formula(x, w):
    """Hu et al. 2018, Eq. 2 to 4."""
    squeezed = np.array([channel.mean() for channel in x])
    gate = sigmoid(w["fc.2.weight"] @ np.maximum(w["fc.0.weight"] @ squeezed, 0))
    return np.stack([g * channel for g, channel in zip(gate, x, strict=True)])


def gated_over_first(x, w, prefix):
    """A gate for each of the last two dimensions' positions, of the maxima and means of the first
    within 7x7, with the batch norm of the published code (Woo et al. 2018, Eq. 3)."""
    _, height, width = x.shape
    padded = np.pad(np.stack([x.max(0), x.mean(0)]), ((0, 0), (3, 3), (3, 3)))
    y = np.empty_like(x)
    for i in range(height):
        for j in range(width):
            score = (padded[:, i : i + 7, j : j + 7] * w[f"{prefix}.conv.weight"][0]).sum()
            y[:, i, j] = x[:, i, j] * sigmoid(normed(score, w, f"{prefix}.bn"))
    return y


def cbam_formula(x, w):
    """Woo et al. 2018, Eq. 1 to 3."""

    def mlp(v):
        hidden = w["channel_gate.mlp.1.weight"] @ v + w["channel_gate.mlp.1.bias"]
        return w["channel_gate.mlp.3.weight"] @ np.maximum(hidden, 0) + w["channel_gate.mlp.3.bias"]

    mean = np.array([channel.mean() for channel in x])
    peak = np.array([channel.max() for channel in x])
    x = np.stack(
        [g * channel for g, channel in zip(sigmoid(mlp(mean) + mlp(peak)), x, strict=True)]
    )
    return gated_over_first(x, w, "spatial_gate")


def eca_formula(x, w):
    """Wang et al. 2020, Eq. 7 and 9."""
    kernel = w["conv.weight"][0, 0]
    reach = len(kernel) // 2
    means = [channel.mean() for channel in x]
    y = np.empty_like(x)
    for c, channel in enumerate(x):
        near = [(c + o, kernel[o + reach]) for o in range(-reach, reach + 1)]
        y[c] = channel * sigmoid(sum(means[n] * k for n, k in near if 0 <= n < len(x)))
    return y


def srm_formula(x, w):
    """Lee et al. 2019, Eq. 1 to 4, with 1e-5 under the root."""
    style = [(c.mean(), np.sqrt(((c - c.mean()) ** 2).mean() + 1e-5)) for c in x]
    encoding = np.array([cfc @ s for cfc, s in zip(w["cfc"], style, strict=True)])
    gate = sigmoid(normed(encoding, w, "bn"))
    return np.stack([g * channel for g, channel in zip(gate, x, strict=True)])


def gc_formula(x, w):
    """Cao et al. 2019, Eq. 5."""
    _, height, width = x.shape
    positions = [x[:, i, j] for i in range(height) for j in range(width)]
    scores = np.exp([w["mask.weight"][0, :, 0] @ p + w["mask.bias"][0] for p in positions])
    context = sum(s * p for s, p in zip(scores / scores.sum(), positions, strict=True))
    hidden = w["transform.0.weight"] @ context + w["transform.0.bias"]
    hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5)
    hidden = np.maximum(hidden * w["transform.1.weight"] + w["transform.1.bias"], 0)
    return x + (w["transform.3.weight"] @ hidden + w["transform.3.bias"])[:, None, None]


def coordinate_formula(x, w):
    """Hou et al. 2021, Eq. 4 to 9, with the hard swish of the published code."""
    height = x.shape[1]
    y = pointwise(np.concatenate([x.mean(2), x.mean(1)], 1), w, "squeeze.0")
    y = hard_swish(normed(y.T, w, "squeeze.1").T)
    row, column = pointwise(y[:, :height], w, "row"), pointwise(y[:, height:], w, "column")
    return crossed(x, sigmoid(row), sigmoid(column))


def triplet_formula(x, w):
    """Misra et al. 2021, Eq. 1 to 6."""
    by_height = gated_over_first(x.transpose(1, 0, 2), w, "over_height").transpose(1, 0, 2)
    by_width = gated_over_first(x.transpose(2, 1, 0), w, "over_width").transpose(2, 1, 0)
    return (gated_over_first(x, w, "over_channels") + by_height + by_width) / 3


def multiscale_formula(x, w):
    """Ouyang et al. 2023, Fig. 3 b, each group of channels by itself."""
    done = []
    _, height, width = x.shape
    for group in np.split(x, len(x) // len(w["norm.weight"])):
        strips = np.concatenate([group.mean(2), group.mean(1)], 1)
        gates = sigmoid(pointwise(strips, w, "strips"))
        wide = normed_alone(crossed(group, gates[:, :height], gates[:, height:]), w, "norm")
        padded, local = np.pad(group, ((0, 0), (1, 1), (1, 1))), np.empty_like(group)
        for i in range(height):
            for j in range(width):
                near = padded[:, i : i + 3, j : j + 3]
                local[:, i, j] = np.tensordot(w["local.weight"], near, 3) + w["local.bias"]
        score = np.tensordot(softmax(wide.mean((1, 2))), local, 1)
        score += np.tensordot(softmax(local.mean((1, 2))), wide, 1)
        done.append(group * sigmoid(score))
    return np.concatenate(done)


def ela_formula(x, w):
    """Xu and Wan 2024, Eq. 4 to 6, with the groups of its ELA-S and ELA-L."""
    kernels = w["conv.weight"]
    reach = kernels.shape[2] // 2

    def gate(strip):
        padded, y = np.pad(strip, ((0, 0), (reach, reach))), np.empty_like(strip)
        for c, i in np.ndindex(strip.shape):
            first = c // 8 * 8
            y[c, i] = (kernels[c] * padded[first : first + 8, i : i + 2 * reach + 1]).sum()
        groups = y.reshape(16, -1)
        deviation = np.sqrt(groups.var(1, keepdims=True) + 1e-5)
        y = ((groups - groups.mean(1, keepdims=True)) / deviation).reshape(y.shape)
        return sigmoid(y * w["norm.weight"][:, None] + w["norm.bias"][:, None])

    return crossed(x, gate(x.mean(2)), gate(x.mean(1)))


def shuffle_formula(x, w):
    """Zhang and Yang 2021, Eq. 1 to 5."""
    done = []
    for n, half in enumerate(np.split(x, len(x) // len(w["norm.weight"]))):
        if n % 2:
            kind, y = "spatial", normed_alone(half, w, "norm")
        else:
            kind, y = "channel", half.mean((1, 2), keepdims=True)
        done.append(half * sigmoid(w[f"{kind}.weight"] * y + w[f"{kind}.bias"]))
    first, second = np.split(np.concatenate(done), 2)
    return np.stack([first, second], 1).reshape(x.shape)


def sws_formula(x, w):
    """SimAM of each quarter, the last the larger where they are not equal."""
    y = np.empty_like(x)
    middle = [size // 2 for size in x.shape[1:]]
    for rows in (slice(middle[0]), slice(middle[0], None)):
        for columns in (slice(middle[1]), slice(middle[1], None)):
            if x[:, rows, columns].size:
                y[:, rows, columns] = simam_formula(x[:, rows, columns], w)
    return y


def pfaam_formula(x, w):
    """Koerber 2022, Eq. 1 to 3."""
    return x * sigmoid(np.multiply.outer(x.mean((1, 2)), x.mean(0)))


FORMULAS = {
    "none": lambda x, w: x,
    "simam": simam_formula,
    "se": se_formula,
    "cbam": cbam_formula,
    "eca": eca_formula,
    "srm": srm_formula,
    "gc": gc_formula,
    "coordinate": coordinate_formula,
    "triplet": triplet_formula,
    "multiscale": multiscale_formula,
    "ela": ela_formula,
    "shuffle": shuffle_formula,
    "sws": sws_formula,
    "pfaam": pfaam_formula,
}
