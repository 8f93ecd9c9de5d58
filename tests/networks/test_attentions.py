"""Every attention module against its paper's formulas, written again in loops over numpy arrays."""

import numpy as np
import pytest
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


@pytest.mark.parametrize("shape", [(2, 128, 7, 5), (1, 48, 3, 1)], ids=str)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_equals_its_formula(name, shape):
    module = randomized(create_attention(name, shape[1]).double().eval())
    x = torch.randn(shape, dtype=torch.float64) * 2 + 0.5
    expected = np.stack([FORMULAS[name](image, weights(module)) for image in x.numpy()])
    torch.testing.assert_close(module(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_gradient_is_that_of_the_output(name):
    module = randomized(create_attention(name, 16).double())
    x = torch.randn(2, 16, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, x)


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


@pytest.mark.parametrize("module", [SE, CBAM, GC])
@pytest.mark.parametrize("reduction", [0, 2.5])
def test_reduction_must_be_a_whole_number(module, reduction):
    with pytest.raises(ValueError, match="reduction must be a whole number of at least 1"):
        module(64, reduction)


@pytest.mark.parametrize("size", [4, -3, 2.5])
def test_eca_kernel_size_must_be_odd(size):
    with pytest.raises(ValueError, match="kernel_size must be an odd number, not"):
        ECA(64, size)


@pytest.mark.parametrize(
    ("name", "param", "weights"),
    [
        ("se", 8, 2 * 64 * 8),
        ("se", 100, 2 * 64),  # no bottleneck vanishes
        ("cbam", 8, 2 * 64 * 8 + 8 + 64 + 98 + 2),
        ("gc", 8, 2 * 64 * 8 + 8 + 64 + 16 + 65),
        ("eca", 9, 9),
    ],
)
def test_attention_param_sets_the_modules_size(name, param, weights):
    assert sum(p.numel() for p in create_attention(name, 64, param).parameters()) == weights


def test_new_gates_start_as_their_authors_start_them():
    x = torch.randn(4, 16, 5, 5)
    assert torch.equal(GC(16)(x), x)
    assert torch.equal(SRM(16)(x), x / 2)


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
