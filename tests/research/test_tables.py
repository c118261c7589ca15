"""Tables of benchmarks are made of what `tfcseg bench` writes, with nothing invented where nothing was measured."""

import json

import pytest

from tfcseg.research import tables


def spread(median):
    return {"median": median, "low": median, "high": median, "samples": 3}


def speed(fps):
    return {"fps": fps, "ms_per_frame": spread(1000 / fps), "frames": 12}


@pytest.fixture
def result():
    return {
        "kind": "bench",
        "model": {"name": "random-mit_b0", "backbone": "mit_b0", "classes": 150},
        "random_weights": True,
        "input": {"name": "clip.mp4"},
        "resolution": {"source": [480, 854], "network": [480, 864]},
        "device": "cpu",
        "device_name": "Processor",
        "precision": "float32",
        "threads": 2,
        "options": {"workers": 2},
        "versions": {"torch": "2.9", "transformers": "5.1"},
        "plain": {"is_measured": True, "network": "SegFormer-B0", "weights": "the same", "precision": "float32"},
        "rounds": 5,
        "model_only": {"plain": speed(1), "image": speed(4), "tfc": speed(6)},
        "end_to_end": {"image": speed(3), "tfc": speed(5)},
        "ratios": {
            "model_only": {"image/plain": 4.0, "tfc/plain": 6.0, "tfc/image": 1.5},
            "end_to_end": {"tfc/image": 5 / 3},
        },
        "updated_fraction": 10.0,
        "memory": {"tfc": {"peak_mib": 600.4, "gpu_peak_mib": None}},
    }


def rows(text):
    return [line for line in text.splitlines() if line.startswith("| ")][1:]


def test_speeds_stand_beside_their_ratios(result):
    text = tables.speed_table([result])
    assert rows(text) == [
        "| MiT-B0, `tfc` | 6.00 | 1.50× | 6.00× | 5.00 | 1.67× |",
        "| MiT-B0, `image` | 4.00 | – | 4.00× | 3.00 | – |",
        "| MiT-B0, plain SegFormer-B0 | 1.00 | – | – | – | – |",
    ]
    assert "random weights, 150 classes, network input 864×480, 10.0 % of the points updated." in text
    machine = "Processor (cpu, 2 threads, ours 2 intervals at a time, float32)"
    assert f"{machine}, torch 2.9, transformers 5.1 in float32, clip.mp4 at 854×480" in text


def test_another_precision_stands_beside_the_name(result):
    low = {**result, "precision": "bfloat16"}
    assert rows(tables.speed_table([low]))[1].startswith("| MiT-B0 in bfloat16, `image` |")


def test_gains_say_which_inputs_chose_settings():
    street = {"image": {"miou": 50.04, "label_change": 2.0}, "tfc": {"miou": 50.96, "label_change": 1.0}}
    clip = {"image": {"label_change": 3.0}, "tfc": {"label_change": 1.5}}
    text = tables.gain_table(
        [
            {"input": {"path": "data/halls", "frames": 9}, "modes": street},
            {"input": {"path": "clip.mp4", "frames": 8}, "modes": clip},
            {"kind": "clips", "clips": [{"frames": 3}, {"frames": 4}], "results": [{"mean": clip}]},
        ]
    )
    assert rows(text) == [
        "| halls, 9 frames | 50.0 → 51.0 | 2.00 → 1.00 | yes |",
        "| clip.mp4, 8 frames | – | 3.00 → 1.50 | **no** |",
        "| 2 clips, 7 frames | – | 3.00 → 1.50 | partly |",
    ]


def test_steadied_masks_stand_beside_those_before():
    before = {"dataset": "street", "frames": 9, "vc8": 92.76, "vc16": None, "miou": 57.38, "label_change": 4.05}
    text = tables.TABLES["steadied"]([before, before | {"miou": 57.43, "vc8": 96.4, "label_change": 1.98}])
    assert text.startswith("| before → after | mIoU | VC8 | label change, % |\n")
    assert rows(text) == ["| street, 9 frames | 57.4 → 57.4 | 92.8 → 96.4 | 4.05 → 1.98 |"]


def test_adaptations_have_a_row_per_setting_before_and_after():
    image, low = (
        {"vc8": 95.0, "agreement": 100.0, "corrected": None},
        {"vc8": 90.0, "agreement": 80.0, "corrected": 7.0},
    )
    result = {"measured_on": "9 frames of 1 video, not trained on", "keeps_attention": False}
    result |= {when: {"image": image, "one_side": low} for when in ("before", "with_curve", "after")}
    text = tables.TABLES["adapted"]([result])
    assert rows(text) == [
        "| every frame by itself | 95.0 | 100.0 | – |",
        *(f"| one side, {when} | 90.0 | 80.0 | 7.0 |" for when in ("before", "after")),
    ]
    assert len(rows(tables.TABLES["adapted"]([result | {"keeps_attention": True}]))) == 4
    assert "Percentages, on 9 frames of 1 video, not trained on." in text


def test_conditions_that_are_the_same_are_said_once(result):
    assert tables.speed_table([result, result]).count("Processor") == 1


def test_memory_has_a_column_per_benchmark(result):
    other = result | {"memory": {"tfc": {"peak_mib": 700.0, "gpu_peak_mib": 80.0}}}
    assert rows(tables.memory_table([result, other])) == ["| `tfc` | 600 | 700 |", "| `tfc`, on the GPU | – | 80 |"]


@pytest.fixture
def ablation(result):
    def row(name, numbers, directions, **more):
        empty = {"updated_fraction": None, "paper": {}}
        return {"name": name, "title": name, **numbers, "directions": directions, **empty, **more}

    image = {"miou": 76.12, "vc8": 92.9, "vc16": None}
    reuse = {"miou": 72.9, "vc8": 94.3, "vc16": None}
    return {
        **{key: result[key] for key in ("resolution", "device", "device_name", "precision", "threads")},
        "model": {"name": "mine"},
        "versions": {"torch": "2.9"},
        "input": {"name": "street", "frames": 50},
        "options": {"correlation": "paper", "keyframe_interval": 4, "threshold": 0.8},
        "rows": [
            row("image", image, {}, paper={"miou": 32.9, "vc8": 82.7}),
            row("reuse", reuse, {"miou": "agrees", "vc8": "differs"}, updated_fraction=0.0),
            row("tfc", reuse, {"miou": "unclear"}),
        ],
    }


def test_an_ablation_says_which_steps_went_the_papers_way(ablation):
    text = tables.ablation_table(ablation)
    assert rows(text) == [
        "| image | 76.1 | 92.9 | – | 32.9 | 82.7 | – |",
        "| reuse | 72.9 | 94.3 | 0.0 % | – | – | mIoU ✓, VC8 ✗ |",
        "| tfc | 72.9 | 94.3 | – | – | – | mIoU ~ |",
    ]
    assert "Of 3 steps 1 changed as in the paper (✓), 1 in the other direction (✗); 1 are unclear (~)" in text
    assert "50 frames of street, paper correlation, keyframe interval 4, threshold 0.8. Model `mine`" in text


def test_a_marker_names_kind_and_files(result, tmp_path):
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text(json.dumps(result), encoding="utf-8")
    text = "before\n<!-- table: memory one.json two.json -->\nold\n<!-- end -->\nafter\n"
    renewed = tables.with_tables(text, tmp_path)
    assert "| `tfc` | 600 | 600 |" in renewed
    assert "old" not in renewed
    assert renewed.startswith("before\n<!-- table: memory one.json two.json -->\n")
    assert renewed.endswith("<!-- end -->\nafter\n")
    assert tables.with_tables(renewed, tmp_path) == renewed


def still_score(miou, *, is_complete=True):
    return {"miou": miou, "is_complete": is_complete}


@pytest.mark.parametrize("name", ["coco/test", "v1.0/[a]"])
def test_stills_have_a_block_per_vocabulary(name):
    network = {"sha256": "0", "input": "as it is"}
    result = {
        "sets": [
            {
                "name": name,
                "stills": 60,
                "classes": {"ade31": ["sky", "road"], "scenes": ["sky", "road", "dog"]},
            },
        ],
        "networks": [
            {
                "network": {"name": "mosaic", "role": "teacher", "label_set": "ade31", **network},
                "scores": {name: {"ade31": still_score(40.0), "scenes": still_score(9.0, is_complete=False)}},
                "mean": {"ade31": 40.0, "scenes": None},
                "to_best_teacher": {},
            },
            {
                "network": {"name": "mine", "role": "student", "label_set": "scenes", **network},
                "scores": {name: {"ade31": still_score(38.0), "scenes": still_score(36.0)}},
                "mean": {"ade31": 38.0, "scenes": 36.0},
                "to_best_teacher": {"ade31": 95.0},
            },
        ],
    }
    text = tables.still_table(result)
    assert f"| mIoU, classes of `ade31` | {name} (2) | mean | of the best teacher |" in text
    assert "| `mosaic`, a teacher | 40.0 | 40.0 | – |" in text
    assert "| `mine` | 38.0 | 38.0 | 95 % |" in text
    scenes = text[text.index("classes of `scenes`") :]
    assert "mosaic" not in scenes  # it cannot predict a dog
    assert "| `mine` | 36.0 | 36.0 |\n" in scenes  # without the column of the teachers
    assert f"Stills: 60 of {name}." in text


def clips_result(interval=3):
    numbers = {"image": {"flow_consistency": 98.0, "vc8": None}, "tfc": {"flow_consistency": 99.0, "vc8": None}}
    return {
        "modes": ["image", "tfc"],
        "teachers": ["mosaic"],
        "first_s": 8.0,
        "max_frames": 120,
        "optical_flow": "dis",
        "clips": [{"name": "dog", "frames": 50}],
        "results": [
            {
                "name": "mine",
                "options": {"image": {"keyframe_interval": 1}, "tfc": {"keyframe_interval": interval}},
                "clips": {"dog": numbers},
                "mean": numbers,
            }
        ],
    }


def test_clips_go_from_one_mode_to_the_other():
    text = tables.clip_table(clips_result())
    assert "| `mine`, `image` → `tfc` | frames | flow consistency |\n" in text  # nothing else was measured
    assert rows(text)[0] == "| dog | 50 | 98.00 → 99.00 |"
    assert rows(text)[1:] == ["| **mean** |  | 98.00 → 99.00 |"]
    assert "The first 8 s of each clip, at most 120 frames" in text
    assert "VC by labels of `mosaic`, averaged over time." in text


def test_means_over_clips_stand_below_each_other():
    text = tables.clip_means_table([clips_result(4), clips_result(8)])
    assert "| mode | keyframe every | flow consistency |\n" in text  # nothing else was measured
    assert rows(text) == [
        *("| `image` | 1 | 98.00 |", "| `tfc` | 4 | 99.00 |"),
        *("| `image` | 1 | 98.00 |", "| `tfc` | 8 | 99.00 |"),
    ]
    assert "Means over dog. The first 8 s" in text
    assert "VC by labels of `mosaic`, averaged over time." in text


def test_costs_follow_from_speeds_and_prices(result):
    prices = {"hours": 1000, "frame_rate": 25, "currency": "USD", "core_hour": 0.05, "gpu_hour": 2.0, "source": "mine"}
    gpu = result | {"device": "cuda", "device_name": "GPU", "end_to_end": {"tfc": speed(100)}}
    text = tables.TABLES["cost"]([prices, result, gpu])
    image, tfc, on_gpu = rows(text)
    # 1,000 hours at 25 frames per second and 3 per second measured, on two cores: 1000 · 25 / 3 · 2.
    assert "16,667 core hours | USD 833 |" in image
    assert "10,000 core hours | USD 500 |" in tfc
    assert "250 GPU hours | USD 500 |" in on_gpu
    assert "USD 0.05 per core and hour and USD 2 per GPU and hour (mine)." in text
    assert "per GPU" not in tables.TABLES["cost"]([prices, result])
