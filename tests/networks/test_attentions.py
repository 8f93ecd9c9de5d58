"""Every attention module against its paper's formulas, written again in loops over numpy arrays."""

import copy
from functools import cache

import numpy as np
import pytest
import timm
import torch
from torch import nn

from networks import ATTENTIONS, create_attention, create_model
from networks.attentions import CBAM, ECA, ELA, GC, SE, SRM, CoordinateAttention, ShuffleAttention
from networks.attentions.eca import adaptive_kernel_size


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


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


def randomized(module: nn.Module) -> nn.Module:
    for name, value in module.state_dict().items():
        value.copy_(
            torch.rand(value.shape) + 0.5 if "running_var" in name else torch.randn(value.shape)
        )
    return module


# the default would make halves of one channel here
SETTINGS = {"shuffle": 8}


@pytest.mark.parametrize("shape", [(2, 128, 7, 5), (1, 48, 3, 1)], ids=str)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_equals_its_formula(name, shape):
    module = randomized(create_attention(name, shape[1], SETTINGS.get(name)).double().eval())
    x = torch.randn(shape, dtype=torch.float64) * 2 + 0.5
    expected = np.stack([FORMULAS[name](image, weights(module)) for image in x.numpy()])
    torch.testing.assert_close(module(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_gradient_is_that_of_the_output(name):
    module = randomized(create_attention(name, 16).double())
    x = torch.randn(2, 16, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, x, fast_mode=True)  # along one random direction


def near(found, exact):
    """Apart by a small share of the largest value."""
    return (found.double() - exact).abs().max() <= 1e-4 * exact.abs().max()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (5, 3), (200, 336)], ids=str)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_takes_maps_of_any_size(name, size):
    """A batch of one too, in evaluation."""
    module = randomized(create_attention(name, 16)).eval()
    x = torch.randn(1, 16, *size)
    exact = copy.deepcopy(module).double()(x.double())
    assert near(module(x), exact)
    assert near(module(x.to(memory_format=torch.channels_last)), exact)


# those that norm over a batch: SRM one value per channel, CBAM and triplet attention one per
# position, of which a 1x1 map has one
NORM_ALONE = {(5, 3): {"srm"}, (1, 1): {"srm", "cbam", "triplet"}}


@pytest.mark.parametrize("size", NORM_ALONE, ids=str)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_trains_on_one_image_where_batch_norm_can(name, size):
    module, x = create_attention(name, 16), torch.randn(1, 16, *size)
    if name in NORM_ALONE[size]:
        with pytest.raises(ValueError, match="^Expected more than 1 value per channel.*$"):
            module(x)
    else:
        assert module(x).isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_keeps_dtype_and_takes_channels_last(name, dtype, tolerance):
    module = randomized(create_attention(name, 32)).eval()
    x = torch.randn(4, 32, 6, 5).to(dtype)
    reference = module(x.float())
    y = module.to(dtype)(x.to(memory_format=torch.channels_last))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), reference, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_constant_and_one_pixel_maps_have_finite_gradients(name):
    for shape in ((2, 16, 1, 1), (2, 16, 4, 4)):
        module = create_attention(name, 16)
        x = torch.ones(shape, requires_grad=True)
        module(x).sum().backward()
        gradients = [x.grad, *(p.grad for p in module.parameters())]
        assert all(g.isfinite().all() for g in gradients)


# The paper's totals in millions. ECA's are beside them: the paper prints 88 for ResNet-50, but its
# rule, which does give the figures of the other two, makes 5, 5, 5 and 7 of 256 to 2048 channels
# in 3, 4, 6 and 3 blocks: 86.
MILLIONS = {
    ("se", "resnet18"): 11.7766,
    ("se", "resnet50"): 28.0720,
    ("se", "mobilenet_v2"): 3.5333,
    ("cbam", "resnet18"): 11.7794,
    ("cbam", "resnet50"): 28.0896,
    ("cbam", "mobilenet_v2"): 3.5366,
}
ECAS = {"resnet18": 36, "resnet50": 86, "mobilenet_v2": 59}


@cache
def num_parameters(arch: str, name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(arch, name).parameters())


@pytest.mark.parametrize(("name", "arch"), MILLIONS)
def test_parameters_are_the_papers(name, arch):
    assert round(num_parameters(arch, name) / 1e6, 4) == MILLIONS[name, arch]


def extra_parameters(arch: str, name: str) -> int:
    return num_parameters(arch, name) - num_parameters(arch, "none")


@pytest.mark.parametrize("arch", ECAS)
def test_extra_parameters_of_eca_are_the_papers(arch):
    assert extra_parameters(arch, "eca") == ECAS[arch]


# over the widths of the blocks' ends: 64 to 512, 256 to 2048, 16 to 320
EXTRA = {
    "coordinate": (74_736, 1_917_832, 41_438),
    "triplet": (2_400, 4_800, 5_100),
    "multiscale": (109_760, 3_151_232, 36_332),
    "ela": (111_360, 876_032, 87_232),
    "shuffle": (96, 708, 108),
    "sws": (0, 0, 0),
    "pfaam": (0, 0, 0),
}


@pytest.mark.parametrize("name", EXTRA)
def test_extra_parameters_follow_from_the_papers(name):
    archs = ("resnet18", "resnet50", "mobilenet_v2")
    assert tuple(extra_parameters(arch, name) for arch in archs) == EXTRA[name]


def test_parameters_of_modules_without_printed_figures():
    """SRM: a mean's and a deviation's weight and a norm. GC: 2 C^2 / r + C, biases and a norm."""
    srm, gc = 0, 0
    for c, blocks in {256: 3, 512: 4, 1024: 6, 2048: 3}.items():
        r = c // 16
        srm += blocks * (2 * c + 2 * c)
        gc += blocks * ((c + 1) + (c * r + r) + 2 * r + (r * c + c))
    assert extra_parameters("resnet50", "srm") == srm
    assert extra_parameters("resnet50", "gc") == gc


@pytest.mark.parametrize(
    ("channels", "size"),
    [(16, 3), (96, 3), (128, 5), (512, 5), (2048, 7)],
)
def test_eca_kernel_size_grows_with_the_channels(channels, size):
    assert adaptive_kernel_size(channels) == size
    assert ECA(channels).conv.weight.numel() == size


@pytest.mark.parametrize("module", [SE, CBAM, GC, CoordinateAttention])
@pytest.mark.parametrize("reduction", [0, 2.5])
def test_reduction_must_be_a_whole_number(module, reduction):
    with pytest.raises(ValueError, match="reduction must be a whole number of at least 1"):
        module(64, reduction)


@pytest.mark.parametrize("size", [4, -3, 2.5])
@pytest.mark.parametrize("module", [ECA, ELA])
def test_kernel_size_must_be_odd(module, size):
    with pytest.raises(ValueError, match="kernel_size must be an odd number, not"):
        module(64, size)


@pytest.mark.parametrize(
    ("name", "channels", "param", "message"),
    [
        ("multiscale", 12, None, "the factor must divide 12 channels; 8 does not"),
        ("multiscale", 16, 2.5, "the factor must be a whole number of at least 1, not 2.5"),
        ("shuffle", 320, 48, "48 groups of 320 channels have halves of 3, which 320 is no"),
        ("shuffle", 64, 0, "the groups must be a whole number of at least 1, not 0"),
        ("ela", 12, None, "ELA takes a multiple of 8 channels, not 12"),
    ],
)
def test_channels_that_make_no_groups_are_refused(name, channels, param, message):
    with pytest.raises(ValueError, match=message):
        create_attention(name, channels, param)


@pytest.mark.parametrize(
    ("name", "param", "weights"),
    [
        ("se", 8, 2 * 64 * 8),
        ("se", 100, 2 * 64),  # no bottleneck vanishes
        ("cbam", 8, 2 * 64 * 8 + 8 + 64 + 98 + 2),
        ("gc", 8, 2 * 64 * 8 + 8 + 64 + 16 + 65),
        ("eca", 9, 9),
        ("coordinate", 4, (64 * 16 + 16) + 32 + 2 * (16 * 64 + 64)),
        ("coordinate", 32, (64 * 8 + 8) + 16 + 2 * (8 * 64 + 64)),  # eight channels are left
        ("multiscale", 4, (16 * 16 + 16) + (9 * 16 * 16 + 16) + 32),
        ("ela", 5, 64 * 8 * 5 + 128),
        ("shuffle", 8, 6 * 4),
        ("shuffle", 64, 6),  # no half vanishes
    ],
)
def test_attention_param_sets_the_modules_size(name, param, weights):
    assert sum(p.numel() for p in create_attention(name, 64, param).parameters()) == weights


def test_new_gates_start_as_their_authors_start_them():
    x = torch.randn(4, 16, 5, 5)
    assert torch.equal(GC(16)(x), x)
    assert torch.equal(SRM(16)(x), x / 2)
    half = x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(ShuffleAttention(16)(x), half * torch.sigmoid(torch.ones(())))


@pytest.mark.parametrize("name", ["cbam", "triplet"])
def test_norms_of_spatial_gates_follow_as_slowly_as_their_authors(name):
    module = create_attention(name, 16).train()
    module(torch.zeros(2, 16, 3, 3))
    variances = [value for key, value in module.named_buffers() if key.endswith("running_var")]
    assert all(torch.equal(each, torch.full((1,), 0.99)) for each in variances)


@pytest.mark.parametrize("name", ["simam", "se"])
def test_timm_takes_the_module_as_attn_layer(name):
    module = ATTENTIONS[name].module
    net = timm.create_model("resnet18", block_args={"attn_layer": module}).eval()
    plain = timm.create_model("resnet18").eval()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if ".se." not in k})
    blocks = dict(net.named_modules())
    for path, layer in plain.named_modules():
        if path.startswith("layer") and path.endswith("bn2"):
            attention = blocks[path.replace("bn2", "se")]
            assert isinstance(attention, module)
            # timm's place for it, behind the last norm
            layer.register_forward_hook(
                lambda _m, _i, output, attention=attention: attention(output)
            )
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(net(x), plain(x))


@pytest.mark.parametrize("name", sorted(set(ATTENTIONS) - {"none"}))
def test_takes_device_and_dtype_as_torch_layers_do(name):
    place = {"device": "meta", "dtype": torch.float64}
    module, x = ATTENTIONS[name].module(32, **place), torch.empty(2, 32, 4, 4, **place)
    assert all(p.is_meta and p.dtype == torch.float64 for p in module.parameters())
    assert module(x).shape == x.shape
