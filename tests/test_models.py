"""The CIFAR ResNets have the parameters and the cost that are published."""

import pytest
import timm
import torch
from support.program import assert_equal, load

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
    model = timm.create_model("resnet20_cifar", zero_init_last=True)
    assert torch.equal(model.layer3[2].bn2.weight, torch.zeros(64))


@pytest.mark.parametrize("shortcut", "AB")
@pytest.mark.parametrize("kind", ["list", "dict", "hook", "fx", "getter"])
def test_features_only_gives_the_stem_and_the_three_stages(kind, shortcut):
    images = torch.zeros(2, 3, 32, 32)
    shapes = [(2, 16, 32, 32), (2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]
    for chosen in ((0, 1, 2, 3), (1, -1)):
        model = timm.create_model(
            "resnet8_cifar", shortcut=shortcut, features_only=True, feature_cls=kind, out_indices=chosen
        )
        features = model(images)
        features = list(features.values()) if isinstance(features, dict) else features
        assert [feature.shape for feature in features] == [shapes[index] for index in chosen]
        assert model.feature_info.channels() == [shapes[index][1] for index in chosen]
        assert model.feature_info.reduction() == [32 // shapes[index][2] for index in chosen]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_intermediates_are_the_features_on_the_way(checkpointing):
    model = timm.create_model("resnet14_cifar").eval()
    model.set_grad_checkpointing(checkpointing)
    images = torch.randn(2, 3, 32, 32)
    final, features = model.forward_intermediates(images)
    assert [feature.shape[1] for feature in features] == [16, 16, 32, 64]
    assert torch.equal(final, model.forward_features(images))
    assert torch.equal(features[2], model.layer2(features[1]))
    for indices, expected in ((1, features[3:]), ([-2], features[2:3]), ([0, 3], [features[0], features[3]])):
        found = model.forward_intermediates(images, indices, stop_early=True, intermediates_only=True)
        assert_equal(found, expected)


@pytest.mark.parametrize(("indices", "head", "shape"), [
    ([0], True, (2, 16, 32, 32)), ([1], False, (2, 16, 32, 32)), ([-2], True, (2, 32, 16, 16)),
    (1, True, (2, 64, 8, 8)), (1, False, (2, 10)),
])  # fmt: skip
def test_pruned_models_end_after_the_last_feature_that_is_kept(indices, head, shape):
    model = timm.create_model("resnet8_cifar")
    model.prune_intermediate_layers(indices, prune_head=head)
    assert model(torch.zeros(2, 3, 32, 32)).shape == shape
    assert model.num_features == (shape[1] if len(shape) == 4 else 64)


@pytest.mark.parametrize("pool", ["avg", "catavgmax", ""])
def test_the_head_can_be_replaced_and_removed(pool):
    model, images = timm.create_model("resnet8_cifar", num_classes=0, global_pool=pool), torch.zeros(2, 3, 32, 32)
    width = model.head_hidden_size
    assert model(images).shape == ((2, width) if pool else (2, width, 8, 8))
    model.reset_classifier(5, "avg")
    assert model(images).shape == (2, 5)
    model.reset_classifier(0, "")
    assert model(images).shape == (2, 64, 8, 8)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_takes_them():
    model = timm.create_model("resnet8_cifar", scriptable=True).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(torch.jit.script(model)(images), model(images), atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_torchscript_run_trains_the_same_weights(train):
    plain, scripted = train(name="plain"), train("--torchscript", name="scripted")
    for name, weight in load(plain / "last.pth.tar")["state_dict"].items():
        assert torch.allclose(weight, load(scripted / "last.pth.tar")["state_dict"][name], rtol=1e-3, atol=1e-4), name


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
