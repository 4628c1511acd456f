"""The CIFAR ResNets have the parameters and the cost that are published."""

import pytest
import timm
import torch

import motivation.models
from motivation.method.records import Role
from motivation.training.flops import average_flops, forward_flops, readable

PARAMETERS = {
    20: (269_722, 272_474), 32: (464_154, 466_906), 44: (658_586, 661_338), 56: (853_018, 855_770),
}  # fmt: skip
"""With option-A and option-B shortcuts, 10 classes."""


@pytest.mark.parametrize("depth", PARAMETERS)
def test_parameter_counts(depth):
    for shortcut, expected in zip("AB", PARAMETERS[depth]):
        model = timm.create_model(f"resnet{depth}_cifar", shortcut=shortcut)
        assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("run", "share", "published"),
    [((20, 32), 0.1684, "92.47M"), ((20, 32), 0.0401, "85.12M"), ((32, 44), 0.16646, "149.67M")],
)
def test_average_flops_of_the_papers_runs(run, share, published):
    """Table 8, CIFAR-10 and CIFAR-100, from the share of motivated updates that it implies."""
    models = (timm.create_model(f"resnet{depth}_cifar") for depth in run)
    flops = {role: forward_flops(model, (3, 32, 32)) for role, model in zip(Role, models)}
    assert readable(average_flops({Role.BASE: 1 - share, Role.MOTIVATED: share}, flops)) == published


def test_names_are_timms():
    assert timm.is_model("resnet110_cifar")
    model = timm.create_model(
        "resnet20_cifar", num_classes=7, in_chans=1, drop_rate=0.1, drop_path_rate=0.2, bn_eps=1e-3
    )
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert model.forward_head(model.forward_features(torch.zeros(2, 1, 32, 32)), pre_logits=True).shape == (2, 64)
    assert model.bn1.eps == 1e-3
    assert timm.data.resolve_data_config({}, model=model)["input_size"] == (3, 32, 32)
    model.reset_classifier(3)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def test_initialisation_is_he_without_zero_init_of_the_last_batchnorm():
    torch.manual_seed(0)
    model = timm.create_model("resnet20_cifar")
    assert model.layer3[2].conv2.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert torch.equal(model.layer3[2].bn2.weight, torch.ones(64))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_takes_them():
    model = timm.create_model("resnet8_cifar", scriptable=True).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(torch.jit.script(model)(images), model(images), atol=1e-6)


@pytest.mark.parametrize(("arguments", "message"), [({"depth": 21}, "6 n"), ({"shortcut": "C"}, "'A' or 'B'")])
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        motivation.models.CifarResNet(**arguments)


def test_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    model = timm.create_model("resnet8_cifar").double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).square().mean().backward()
        gradients.append(model.conv1.weight.grad.clone())
    assert torch.allclose(*gradients)
