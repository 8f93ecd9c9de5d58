"""Every attention module against its paper's formulas, written again in loops over numpy arrays."""

import numpy as np
import pytest
import thop
import timm
import torch
from torch import nn

from networks import ATTENTIONS, create_attention, create_model
from networks.attentions import CBAM, ECA, GC, SE, SRM
from networks.attentions.eca import adaptive_kernel_size


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def normed(x, w, prefix):
    scale = w[f"{prefix}.weight"] / np.sqrt(w[f"{prefix}.running_var"] + 1e-5)
    return (x - w[f"{prefix}.running_mean"]) * scale + w[f"{prefix}.bias"]


def simam_formula(x, w):
    """Yang et al. 2021, Eq. 5 and 6, with the published code's H * W - 1 for the variance."""
    y = np.empty_like(x)
    for c, channel in enumerate(x):
        mean = channel.mean()
        variance = ((channel - mean) ** 2).sum() / (channel.size - 1)
        for i, t in np.ndenumerate(channel):
            energy = 4 * (variance + 1e-4) / ((t - mean) ** 2 + 2 * variance + 2e-4)
            y[c][i] = t * sigmoid(1 / energy)
    return y


def se_formula(x, w):
    """Hu et al. 2018, Eq. 2 to 4."""
    squeezed = np.array([channel.mean() for channel in x])
    gate = sigmoid(w["fc.2.weight"] @ np.maximum(w["fc.0.weight"] @ squeezed, 0))
    return np.stack([g * channel for g, channel in zip(gate, x, strict=True)])


def cbam_formula(x, w):
    """Woo et al. 2018, Eq. 1 to 3, with the batch norm of the published code."""

    def mlp(v):
        hidden = w["channel_gate.mlp.1.weight"] @ v + w["channel_gate.mlp.1.bias"]
        return w["channel_gate.mlp.3.weight"] @ np.maximum(hidden, 0) + w["channel_gate.mlp.3.bias"]

    mean = np.array([channel.mean() for channel in x])
    peak = np.array([channel.max() for channel in x])
    x = np.stack(
        [g * channel for g, channel in zip(sigmoid(mlp(mean) + mlp(peak)), x, strict=True)]
    )
    _, height, width = x.shape
    padded = np.pad(np.stack([x.max(0), x.mean(0)]), ((0, 0), (3, 3), (3, 3)))
    y = np.empty_like(x)
    for i in range(height):
        for j in range(width):
            score = (padded[:, i : i + 7, j : j + 7] * w["spatial_gate.conv.weight"][0]).sum()
            y[:, i, j] = x[:, i, j] * sigmoid(normed(score, w, "spatial_gate.bn"))
    return y


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


FORMULAS = {
    "none": lambda x, w: x,
    "simam": simam_formula,
    "se": se_formula,
    "cbam": cbam_formula,
    "eca": eca_formula,
    "srm": srm_formula,
    "gc": gc_formula,
}


def randomized(module: nn.Module) -> nn.Module:
    for name, value in module.state_dict().items():
        value.copy_(
            torch.rand(value.shape) + 0.5 if "running_var" in name else torch.randn(value.shape)
        )
    return module


def test_every_module_has_a_formula_here():
    assert FORMULAS.keys() == ATTENTIONS.keys()


@pytest.mark.parametrize("shape", [(2, 64, 7, 5), (1, 48, 3, 1), (3, 16, 9, 9)], ids=str)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_equals_its_formula(name, shape):
    torch.manual_seed(0)
    module = randomized(create_attention(name, shape[1]).double().eval())
    x = torch.randn(shape, dtype=torch.float64) * 2 + 0.5
    expected = np.stack([FORMULAS[name](image, weights(module)) for image in x.numpy()])
    torch.testing.assert_close(module(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_gradient_is_that_of_the_output(name):
    torch.manual_seed(0)
    module = randomized(create_attention(name, 16).double())
    x = torch.randn(2, 16, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_keeps_shape_and_dtype_and_takes_any_layout(name, dtype, layout):
    torch.manual_seed(0)
    module = randomized(create_attention(name, 32)).eval()
    x = torch.randn(4, 32, 6, 5).to(dtype)
    reference = module(x.float())
    y = module.to(dtype)(x.to(memory_format=layout))
    assert y.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(y.float(), reference, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_constant_and_one_pixel_maps_have_finite_gradients(name):
    for shape in ((2, 16, 1, 1), (2, 16, 4, 4)):
        module = create_attention(name, 16)
        x = torch.ones(shape, requires_grad=True)
        module(x).sum().backward()
        gradients = [x.grad, *(p.grad for p in module.parameters())]
        assert all(g.isfinite().all() for g in gradients)


# The paper's Table 3 and the exact totals beside it: extra parameters as printed there, and
# in which unit. ECA in ResNet-50 is the exception: the paper prints 88, but its rule, which does
# give the figures of the other two, makes 5, 5, 5 and 7 of 256 to 2048 channels in 3, 4, 6 and 3
# blocks: 86. SRM: see the test of thop's count.
EXTRA_PARAMETERS = [
    ("none", "resnet18", 0, 1),
    ("none", "resnet50", 0, 1),
    ("none", "mobilenet_v2", 0, 1),
    ("simam", "resnet18", 0, 1),
    ("simam", "resnet50", 0, 1),
    ("simam", "mobilenet_v2", 0, 1),
    ("se", "resnet18", 87_000, 1_000),
    ("se", "resnet50", 2_515_000, 1_000),
    ("cbam", "resnet18", 90_000, 1_000),
    ("cbam", "resnet50", 2_533_000, 1_000),
    ("eca", "resnet18", 36, 1),
    ("eca", "resnet50", 86, 1),
    ("eca", "mobilenet_v2", 59, 1),
]
TOTAL_PARAMETERS = {
    ("none", "resnet18"): 11_689_512,
    ("none", "resnet50"): 25_557_032,
    ("none", "mobilenet_v2"): 3_504_872,
    ("se", "resnet18"): 11_776_600,
    ("se", "resnet50"): 28_072_000,
    ("se", "mobilenet_v2"): 3_533_300,
    ("cbam", "resnet18"): 11_779_400,
    ("cbam", "resnet50"): 28_089_600,
    ("cbam", "mobilenet_v2"): 3_536_600,
}
# channels behind the last norm of each block, and how many blocks have them
WIDTHS = {
    "resnet18": {64: 2, 128: 2, 256: 2, 512: 2},
    "resnet50": {256: 3, 512: 4, 1024: 6, 2048: 3},
    "mobilenet_v2": {16: 1, 24: 2, 32: 3, 64: 4, 96: 3, 160: 3, 320: 1},
}


def extra_parameters(name: str, arch: str) -> int:
    return num_parameters(name, arch) - TOTAL_PARAMETERS["none", arch]


def num_parameters(name: str, arch: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(arch, name).parameters())


@pytest.mark.parametrize(("name", "arch", "printed", "unit"), EXTRA_PARAMETERS)
def test_extra_parameters_are_the_papers(name, arch, printed, unit):
    assert round(extra_parameters(name, arch) / unit) * unit == printed


@pytest.mark.parametrize(("name", "arch"), TOTAL_PARAMETERS)
def test_parameters_are_the_papers(name, arch):
    unit = 1 if name == "none" else 100
    assert round(num_parameters(name, arch) / unit) * unit == TOTAL_PARAMETERS[name, arch]


@pytest.mark.parametrize("arch", WIDTHS)
def test_parameters_of_modules_without_printed_figures(arch):
    """SRM: a mean's and a deviation's weight and a norm. GC: 2 C^2 / r + C, biases and a norm."""
    srm, gc = 0, 0
    for c, blocks in WIDTHS[arch].items():
        r = c // 16
        srm += blocks * (2 * c + 2 * c)
        gc += blocks * ((c + 1) + (c * r + r) + 2 * r + (r * c + c))
    assert extra_parameters("srm", arch) == srm
    assert extra_parameters("gc", arch) == gc


@pytest.mark.parametrize(("arch", "printed"), [("resnet18", 4_000), ("resnet50", 30_000)])
def test_thop_sees_the_papers_half_of_srm(arch, printed):
    """thop counts parameters in layers alone, so it misses the weights that SRM holds itself.

    Of the four a channel it reports two, the paper's 0.004 and 0.030 M. (The paper's ResNet-101
    row, 44.68 M, has all four.)
    """
    _, counted = thop.profile(
        create_model(arch, "srm"), (torch.zeros(2, 3, 32, 32),), verbose=False
    )
    assert round((counted - TOTAL_PARAMETERS["none", arch]) / 1_000) * 1_000 == printed


@pytest.mark.parametrize(
    ("channels", "size"),
    [(16, 3), (24, 3), (64, 3), (96, 3), (128, 5), (160, 5), (512, 5), (2048, 7)],
)
def test_eca_kernel_size_grows_with_the_channels(channels, size):
    assert adaptive_kernel_size(channels) == size
    assert ECA(channels).conv.weight.numel() == size


@pytest.mark.parametrize("module", [SE, CBAM, GC])
@pytest.mark.parametrize("reduction", [0, -4, 2.5])
def test_reduction_must_be_a_whole_number(module, reduction):
    with pytest.raises(ValueError, match="reduction must be a whole number of at least 1"):
        module(64, reduction)


@pytest.mark.parametrize("size", [0, 4, -3, 2.5])
def test_eca_kernel_size_must_be_odd(size):
    with pytest.raises(ValueError, match="kernel_size must be an odd number, not"):
        ECA(64, size)


@pytest.mark.parametrize(
    ("name", "param", "weights"),
    [("se", 8, 2 * 64 * 8), ("cbam", 8, 2 * 64 * 8 + 8 + 64 + 98 + 2), ("eca", 9, 9)],
)
def test_attention_param_sets_the_modules_size(name, param, weights):
    assert sum(p.numel() for p in create_attention(name, 64, param).parameters()) == weights


def test_no_bottleneck_vanishes():
    assert SE(8, reduction=16).fc[0].out_features == 1


def test_new_gates_start_as_their_authors_start_them():
    x = torch.randn(4, 16, 5, 5)
    assert torch.equal(GC(16)(x), x)
    assert torch.equal(SRM(16)(x), x / 2)


@pytest.mark.parametrize("name", ["simam", "se"])
def test_timm_takes_the_module_as_attn_layer(name):
    module = ATTENTIONS[name].module
    torch.manual_seed(0)
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
    module = ATTENTIONS[name].module(32, device="meta", dtype=torch.float64)
    assert all(p.is_meta and p.dtype == torch.float64 for p in module.parameters())
    assert module(torch.empty(2, 32, 4, 4, device="meta", dtype=torch.float64)).shape == (
        2,
        32,
        4,
        4,
    )
