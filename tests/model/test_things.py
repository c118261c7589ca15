"""The second network beside one written layer by layer, and what its things add to logits."""

import dataclasses
import json

import pytest
import torch
from torch.nn import functional as F

from tests.helpers.tiny_model import (
    build_tiny_model,
    build_tiny_network,
    moving_images,
    randomise,
    tiny_card,
)
from tests.helpers.tiny_teacher import write_deeplab, write_teacher
from tfcseg.errors import DataError, UsageError, WeightsError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.inference.intervals import run_intervals
from tfcseg.inference.options import checked_options
from tfcseg.labels.label_sets import VOC21, LabelSet, distinct_palette
from tfcseg.model.tfc import build_segmenter
from tfcseg.model.things import DOUBT, STAGES, WEIGHT, Things, as_logits
from tfcseg.research import publishing
from tfcseg.training.networks import with_classes
from tfcseg.training.teachers import read_layers
from tfcseg.weights.loading import load_model, save_model
from tfcseg.weights.model_card import Preprocessing

CLASSES, RIVALS = (3, 1), (4,)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(40)  # every thing wins somewhere
    found = Things(4, [1, 3], rivals=2).eval()
    randomise(found)
    found.classifier.weight.data *= 5
    return found


def build_model():
    """The tiny model with a second network, in place of any other weights."""
    card = tiny_card()
    defaults = dataclasses.replace(card.config.defaults, things_share=1.0)
    config = dataclasses.replace(card.config, things=CLASSES, doubted=CLASSES[:1], rivals=RIVALS, defaults=defaults)
    network = build_segmenter(config).eval()
    torch.manual_seed(1)
    randomise(network.things)
    network.things.classifier.weight.data *= 5  # things that win somewhere
    things = {f"things.{name}": tensor for name, tensor in network.things.state_dict().items()}
    network.load_state_dict({**build_tiny_network().state_dict(), **things})
    model = build_tiny_model()
    return dataclasses.replace(model, network=network.fold(), card=dataclasses.replace(card, config=config))


MODEL = build_model()
IMAGE = torch.zeros(1, 3, 32, 48)


def published(state, image):
    """DeepLabv3 with MobileNetV2 as published, for a picture (1, 3, 16 n + 1, 16 m + 1): logits of all outputs."""

    def conv(x, name, *, stride=1, dilation=1, groups=1):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv2d(x, weight, bias, stride, dilation * (weight.shape[-1] // 2), dilation, groups)

    x, number = F.relu6(conv(image, "stem", stride=2)), 0
    for stage in STAGES:
        for index in range(stage.blocks):
            y = x if stage.expansion == 1 else F.relu6(conv(x, f"blocks.{number}.expand"))
            stride = stage.stride if index == 0 else 1
            y = conv(y, f"blocks.{number}.depthwise", stride=stride, dilation=stage.dilation, groups=y.shape[1])
            y = conv(F.relu6(y), f"blocks.{number}.project")
            x, number = x + y if y.shape == x.shape else y, number + 1
    picture = F.relu6(conv(F.adaptive_avg_pool2d(x, 1), "picture")).expand(-1, -1, *x.shape[2:])
    joined = torch.cat([picture, F.relu6(conv(x, "here"))], dim=1)
    return conv(F.relu6(conv(joined, "joined")), "classifier")


@pytest.mark.parametrize("has_gradient", [True, False])
def test_leads_are_those_of_the_published_network(network, has_gradient):
    """The last row and column are repeated, so that there are positions at both ends."""
    images = torch.randn(2, 3, 64, 96)
    with torch.set_grad_enabled(has_gradient):
        found = network(images)
    assert found.shape == (2, 6, 5, 7)
    padded = torch.cat([images, images[:, :, -1:]], dim=2)
    padded = torch.cat([padded, padded[..., -1:]], dim=3)
    for image, leads in zip(padded, found, strict=True):
        logits = published(network.state_dict(), image[None])[0]
        wanted = logits[3:] - logits[:3].max(dim=0).values
        wanted[1::2] *= WEIGHT
        wanted = torch.stack([wanted[row].clamp_min(least) for row, least in enumerate((0, -DOUBT, 0, -DOUBT))])
        torch.testing.assert_close(leads[2:], wanted, rtol=1e-4, atol=5e-4)
    for row in range(4):
        assert (found[:, 2 + row] > 0).any()
        assert (found[:, 2 + row] < 0).any() == (row in (1, 3))


@torch.inference_mode()
def test_rivals_lose_what_the_best_thing_gains(network):
    found = network(torch.randn(2, 3, 64, 96))
    losses, leads = found.tensor_split([2], dim=1)
    assert torch.equal(losses[:, 0], losses[:, 1])
    assert torch.equal(losses[:, 0], -leads.amax(dim=1).clamp_min(0))
    assert losses.any()
    assert not losses.all()


@torch.inference_mode()
def test_nothing_gains_where_a_rival_is_seen(network):
    other = Things(4, [1, 3], rivals=2).eval()
    other.load_state_dict(network.state_dict())
    other.classifier.bias.data[2] = 1e6
    assert (other(torch.randn(1, 3, 64, 64))[0].amax(dim=(1, 2)) == torch.tensor([0, 0, 0, -DOUBT, 0, -DOUBT])).all()


def test_what_is_background_adds_nothing_and_lowers_what_is_doubted(network):
    sure = Things(4, [2], rivals=2).eval()
    sure.load_state_dict(network.state_dict())
    sure.classifier.bias.data[0] = 1e6
    leads = sure(torch.randn(1, 3, 64, 64))
    assert (leads[:, 4] == -DOUBT).all()
    assert not leads[:, [0, 1, 2, 3, 5]].any()


def test_things_are_added_to_their_classes():
    """Positions of both maps lie at the first and the last pixel: the corners keep their values."""
    leads = torch.arange(12.0).view(1, 2, 2, 3)
    added = as_logits(leads, CLASSES, torch.Size((1, 5, 3, 5)))
    assert added.shape == (1, 5, 3, 5)
    assert not added[:, [0, 2, 4]].any()
    assert added[0, 3].tolist() == [[0, 0.5, 1, 1.5, 2], [1.5, 2, 2.5, 3, 3.5], [3, 3.5, 4, 4.5, 5]]
    assert torch.equal(added[0, 1], added[0, 3] + 6)


@torch.inference_mode()
def test_the_image_network_has_them_in_its_logits():
    image = moving_images(1)[0]
    plain = IntervalNetwork(MODEL, checked_options(MODEL, mode="image", things_share=0.0, size=128))
    logits = plain.logits([image])
    assert torch.equal(logits, MODEL.network.image(plain.to_input([image])))
    leads = MODEL.network.things(plain.to_input([image], 64))
    assert leads.any()
    for share, areas in ((1.0, 0.0), (0.5, 0.0), (1.0, 0.5)):
        options = {"things_share": share, "half_size_share": areas, "mode": "image", "size": 128}
        before = IntervalNetwork(MODEL, checked_options(MODEL, **options | {"things_share": 0.0})).logits([image])
        wanted = before + share * as_logits(leads, RIVALS + CLASSES, logits.shape)
        found = IntervalNetwork(MODEL, checked_options(MODEL, **options)).logits([image])
        torch.testing.assert_close(found, wanted)


@torch.inference_mode()
def test_logits_stay_in_float32_where_networks_are_in_half_precision(tmp_path):
    save_model(tmp_path / "things.safetensors", build_segmenter(MODEL.card.config), MODEL.card)
    model = load_model(tmp_path / "things.safetensors", device="cpu", precision="bf16")
    images = moving_images(6)
    for areas in (0.0, 0.5):
        given = {"half_size_share": areas, "things_share": 1.0, "size": 64}
        network = IntervalNetwork(model, checked_options(model, mode="image", **given))
        assert network.logits([images[0]]).dtype == torch.float32
        for sides in ("past", "both"):
            network = IntervalNetwork(model, checked_options(model, sides=sides, keyframe_interval=2, **given))
            groups = [Group([image], None) for image in images]
            assert sum(len(results) for _, results in run_intervals(network, groups)) == len(images)


@pytest.mark.parametrize("options", [{"sides": "one"}, {"sides": "past"}, {"sides": "both", "half_size_share": 0.5}])
def test_a_still_video_has_the_labels_of_the_image_network(options):
    images = [moving_images(1)[0]] * 6
    areas = {name: value for name, value in options.items() if name != "sides"}
    (wanted,) = IntervalNetwork(MODEL, checked_options(MODEL, mode="image", size=128, **areas)).run(images[:1])
    plain = checked_options(MODEL, mode="image", size=128, things_share=0.0, **areas)
    (without,) = IntervalNetwork(MODEL, plain).run(images[:1])
    assert (wanted.labels != without.labels).any()
    network = IntervalNetwork(MODEL, checked_options(MODEL, size=128, **options))
    length = network.frames_at_once
    groups = [Group(images[first : first + length], None) for first in range(0, len(images), length)]
    for _, results in run_intervals(network, groups):
        for result in results:
            assert (result.labels == wanted.labels).all()


def test_a_model_without_one_refuses_a_share():
    model = build_tiny_model()
    assert checked_options(model).things_share == 0
    with pytest.raises(UsageError, match="tiny has no second network for things"):
        checked_options(model, things_share=0.5)


def test_weights_are_saved_and_read_again(tmp_path):
    network = build_segmenter(MODEL.card.config)
    save_model(tmp_path / "things.safetensors", network, MODEL.card, dtype=torch.float32)
    read = load_model(tmp_path / "things.safetensors", device="cpu", precision="fp32", fold=False)
    config = read.card.config
    assert (config.things, config.doubted, config.rivals) == (CLASSES, CLASSES[:1], RIVALS)
    assert checked_options(read).things_share == 1
    torch.testing.assert_close(read.network.things(IMAGE), network.things(IMAGE))
    for name, tensor in network.state_dict().items():
        assert torch.equal(read.network.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"things": (2, 5)}, "things and rivals are classes 0 to 4, not 5"),
        ({"things": (5,), "doubted": (), "rivals": ()}, "things and rivals are classes 0 to 4, not 5"),
        ({"rivals": (6,)}, "things and rivals are classes 0 to 4, not 6"),
        ({"rivals": (4, 1)}, "class 1 cannot be a thing and a rival"),
        ({"doubted": (3, 2)}, "doubted things must be things, not 2"),
        ({"things": (), "doubted": ()}, "things_share and rivals need things"),
    ],
)
def test_cards_with_impossible_things_are_refused(tmp_path, change, words):
    config = dataclasses.replace(MODEL.card.config, **change)
    card = dataclasses.replace(MODEL.card, config=config)
    with pytest.raises(WeightsError, match=words):
        save_model(tmp_path / "bad.safetensors", build_segmenter(config), card)


@pytest.mark.parametrize(
    "change", [{"doubted": ()}, {"things": (4, 1), "doubted": (), "rivals": (3,)}, {"things": (4, 3, 1), "rivals": ()}]
)
def test_models_with_other_things_are_not_averaged(tmp_path, change):
    """Their tensors have the same shapes."""
    for name, config in (("a", MODEL.card.config), ("b", dataclasses.replace(MODEL.card.config, **change))):
        card = dataclasses.replace(MODEL.card, name=name, config=config)
        save_model(tmp_path / name, build_segmenter(config), card)
    with pytest.raises(WeightsError, match="b has another network than a, or another second one"):
        publishing.average_files(tmp_path / "out", [f"{tmp_path / name}=1" for name in "ab"])


def test_training_starts_without_it():
    network = build_segmenter(MODEL.card.config)
    origin = dataclasses.replace(MODEL.card, trained_on="photos; things: voc; then clips")
    trained, card = with_classes(network, origin, MODEL.labels)
    assert card.trained_on == "photos; then clips"
    assert trained.things is None
    config = card.config
    assert (config.things, config.doubted, config.rivals, config.defaults.things_share) == ((), (), (), 0.0)
    assert torch.equal(trained.decode_head.classifier.weight, network.decode_head.classifier.weight)


# ------------------------------------------------------------------------------------------------- a published file


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_deeplab(tmp_path_factory.mktemp("teacher") / "voc.tflite")


def write_model(path, names=("sky", "dog", "person", "table", "car")):
    card = tiny_card()
    labels = LabelSet("few", names, distinct_palette(5))
    card = dataclasses.replace(card, labels=labels, preprocessing=Preprocessing(64, (127.5,) * 3, (127.5,) * 3))
    save_model(path, build_tiny_network(), card)
    return path


def test_a_model_gets_the_classes_that_it_has(teacher, tmp_path):
    """People and cars, which it draws better itself, are rivals."""
    card = publishing.add_things(write_model(tmp_path / "a.safetensors"), teacher, tmp_path / "b")
    assert json.loads(card.to_metadata()["config"])["things"] == [3, 1]  # in VOC's order
    assert card.config.doubted == (1,)  # ADE20K's teachers know tables, but no dogs
    assert card.config.rivals == (4, 2)
    model = load_model(tmp_path / "b", device="cpu", precision="fp32", fold=False)
    assert model.card.config.defaults.things_share == 1
    assert model.card.trained_on.endswith("; things: voc")
    layers = read_layers(teacher)
    classifier = layers["logits/semantic"]
    rows = [0, *(VOC21.index(name) for name in ("car", "person", "diningtable", "dog"))]
    torch.testing.assert_close(model.network.things.classifier.weight, classifier.weight[rows].half().float())
    deepest = layers["MobilenetV2/expanded_conv_16/depthwise"].weight
    torch.testing.assert_close(model.network.things.blocks[16].depthwise.weight, deepest.half().float())


def test_a_model_gets_the_network_of_another_one(teacher, tmp_path):
    """Whose classes have other numbers, and of which it has fewer."""
    publishing.add_things(write_model(tmp_path / "a.safetensors"), teacher, tmp_path / "b")
    other = write_model(tmp_path / "c.safetensors", ("dog", "sky", "person", "wall", "grass"))
    card = publishing.add_things(other, tmp_path / "b", tmp_path / "d")
    config = card.config
    assert (config.things, config.doubted, config.rivals, config.defaults.things_share) == ((0,), (0,), (2,), 1.0)
    given, found = (
        load_model(tmp_path / name, device="cpu", precision="fp32", fold=False).network.things for name in "bd"
    )
    assert torch.equal(found.classifier.bias, given.classifier.bias[[0, 2, 4]])
    assert torch.equal(found.blocks[16].depthwise.weight, given.blocks[16].depthwise.weight)


def test_a_second_network_is_replaced(teacher, tmp_path):
    publishing.add_things(write_model(tmp_path / "a.safetensors"), teacher, tmp_path / "b")
    card = publishing.add_things(tmp_path / "b", teacher, tmp_path / "c")
    assert card.trained_on.count("things: ") == 1
    first, second = (load_model(tmp_path / name, device="cpu", precision="fp32", fold=False) for name in "bc")
    assert second.card.config == first.card.config
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], tensor), name


def test_a_model_without_a_second_network_gives_none(tmp_path):
    model = write_model(tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="tiny has no second network; give tfc-mosaic"):
        publishing.add_things(model, model, tmp_path / "b")


@pytest.mark.parametrize(
    ("preprocessing", "words"),
    [
        (Preprocessing(64, (100.0,) * 3, (127.5,) * 3), r"the second network needs about 127\.5"),
        (Preprocessing(64, (127.5,) * 3, (127.5,) * 3), "has no class that is a thing of "),
    ],
)
def test_models_that_it_does_not_suit_are_refused(teacher, tmp_path, preprocessing, words):
    card = dataclasses.replace(tiny_card(), preprocessing=preprocessing)
    save_model(tmp_path / "a", build_tiny_network(), card)
    with pytest.raises(WeightsError, match=words):
        publishing.add_things(tmp_path / "a", teacher, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_another_file_is_refused(tmp_path):
    other = write_teacher(tmp_path / "other.tflite", classes=21)
    with pytest.raises(DataError, match=r"is not an 8-bit weight"):
        publishing.add_things(write_model(tmp_path / "a"), other, tmp_path / "b")
