"""Dataset files: a setting that folders do not share is refused, whether others have another value or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_lora.config.toml_reader import parse_toml
from lib_lora.kohya.datasets import DEFAULTS, READ_WITH, _Settings, of_folders, overruled
from lib_lora.kohya.files import source_of
from lib_lora.kohya.importing import Imported, import_file, import_source
from tests.test_kohya_import import verdict, why

OF_A_DATASET = {"resolution", "batch_size", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale",
                "network_multiplier", "validation_split", "validation_seed", "prior_loss_weight"}  # fmt: skip
OTHER = {
    "caption_separator": ";", "keep_tokens_separator": "|||", "secondary_separator": ";;;", "caption_prefix": "a photo,", "caption_suffix": ", red",
    "caption_extension": ".txt", "resolution": 768, "resize_interpolation": "lanczos", "validation_seed": 3, "face_crop_aug_range": [1.0, 2.0],
    "validation_split": 0.5, "prior_loss_weight": 0.5, "network_multiplier": 0.5, "caption_dropout_rate": 0.5, "caption_tag_dropout_rate": 0.5,
    "min_bucket_reso": 128, "max_bucket_reso": 2048, "bucket_reso_steps": 32, "token_warmup_step": 5, "batch_size": 2, "num_repeats": 3,
}  # fmt: skip


def other(name: str) -> Any:
    if name in OTHER:
        return OTHER[name]
    return not DEFAULTS[name] if isinstance(DEFAULTS[name], bool) else DEFAULTS[name] + 1


def read(settings: dict[str, Any], *, keep_names: bool = True) -> Imported:
    return import_source(source_of(settings, toml=True), keep_names=keep_names)


def datasets(first: dict[str, Any], second: dict[str, Any], **shared: Any) -> dict[str, Any]:
    """Two folders, in one dataset or in two."""
    common = {"resolution": 512, **shared}
    if {*first, *second} & OF_A_DATASET:
        return {"datasets": [{**common, **own, "subsets": [{"image_dir": name}]} for own, name in ((first, "a"), (second, "b"))]}
    return {"datasets": [{**common, "subsets": [{"image_dir": "a", **first}, {"image_dir": "b", **second}]}]}


@pytest.mark.parametrize("name", sorted(DEFAULTS))
@pytest.mark.parametrize("place", ["first", "second"])
def test_a_setting_that_one_folder_alone_has_is_refused(name: str, place: str) -> None:
    own = {name: other(name)}
    settings = datasets(own, {}) if place == "first" else datasets({}, own)
    found = read(settings)
    if name == "num_repeats":  # which stands behind its folder
        assert found.problems() == [] and "|" in "".join(found.flat["data"]) and read(settings, keep_names=False).problems()
        return
    assert len(found.problems()) == 1 and f".{name} = " in found.problems()[0]
    both = read(datasets(own, own))
    assert [problem for problem in both.problems() if "share" in problem] == []
    if DEFAULTS[name] is not None:
        said = {name: DEFAULTS[name]}
        assert read(datasets(said, {}) if place == "first" else datasets({}, said)).problems() == []


@pytest.mark.parametrize("name", sorted(set(DEFAULTS) - {"num_repeats", "prior_loss_weight", "resolution"}))
def test_what_is_said_for_all_counts_where_a_folder_says_nothing(name: str) -> None:
    """Its own, its dataset's, the one for all, the argument's, the default: in this order (sd-scripts `generate_params_by_fallbacks`)."""
    argument = {"batch_size": "train_batch_size"}.get(name, name)
    own, general = {name: other(name)}, {"general": {name: other(name)}}
    assert [text for text in read({**general, **datasets(own, {})}).problems() if "share" in text] == []
    assert [text for text in read({argument: other(name), **datasets(own, {})}).problems() if "share" in text] == []
    against = read({**general, **datasets({name: DEFAULTS[name]}, {})}) if DEFAULTS[name] is not None else None
    assert against is None or any("share" in text and f"general.{name}" in text for text in against.problems())


@pytest.mark.parametrize("name", sorted(READ_WITH))
def test_what_says_nothing_in_any_folder_is_told_and_not_refused(name: str) -> None:
    off = {deciding: DEFAULTS[deciding] for deciding in READ_WITH[name]}
    found = read({"network_dim": 4, **datasets({}, {name: other(name)}, **off)})
    key = f"datasets[1].{name}" if name in OF_A_DATASET else f"datasets[0].subsets[1].{name}"
    assert found.problems() == [] and verdict(found, key) == "ignored" and "has no effect" in why(found, key)
    on = {READ_WITH[name][0]: other(READ_WITH[name][0])}
    assert any(
        "share" in text for text in read({"network_dim": 4, **datasets({}, {name: other(name)}, **{**off, **on})}).problems()
    )


def test_values_that_are_spelled_otherwise_are_the_same() -> None:
    assert read(datasets({"resolution": 512}, {"resolution": [512, 512]})).problems() == []
    assert read(datasets({"token_warmup_step": 0}, {"token_warmup_step": 0.0})).problems() == []
    assert read(datasets({"caption_prefix": ""}, {"caption_prefix": None})).problems() == []


def test_regularisation_images_share_the_settings_too() -> None:
    reg = {"is_reg": True, "num_repeats": 2}
    assert read(datasets({"num_repeats": 5}, reg)).problems() == []
    found = read(datasets({"flip_aug": True}, reg))
    assert found.problems() == [f"datasets[0].subsets[0].flip_aug = True: {why(found, 'datasets[0].subsets[0].flip_aug')}"]
    assert "False, the value of the others" in found.problems()[0]
    assert read(datasets({"flip_aug": True}, {**reg, "flip_aug": True})).problems() == []


def test_a_folder_that_is_named_again() -> None:
    """sd-scripts passes over it in the same dataset, and shows its images once more in another."""
    twice = [{"image_dir": "a"}, {"image_dir": "a", "flip_aug": True}]
    found = read({"datasets": [{"resolution": 512, "subsets": twice}]})
    assert found.problems() == [] and found.flat["data"] == ("a",) and "flip_aug" not in found.flat
    assert verdict(found, "datasets[0].subsets[1].flip_aug") == "ignored"
    (problem,) = read({"datasets": [{"resolution": 512, "subsets": twice[:1]}] * 2}).problems()
    assert "Another dataset contains this folder too" in problem


def test_masks_of_several_folders_have_one_folder() -> None:
    both = {"conditioning_data_dir": "m"}
    assert read({"masked_loss": True, **datasets(both, both)}).problems() == []
    assert len(read({"masked_loss": True, **datasets(both, {"conditioning_data_dir": "n"})}).problems()) == 2
    assert read(datasets(both, {"conditioning_data_dir": "n"}), keep_names=False).problems() == []


def test_a_dataset_without_folders_says_nothing() -> None:
    settings = {
        "datasets": [{"resolution": 512, "subsets": [{"image_dir": "a"}]}, {"resolution": 768, "batch_size": 4, "subsets": []}]
    }
    assert read(settings).flat["resolution"] == 512


def test_a_setting_of_one_folder_is_refused_from_files_of_both_kinds(tmp_path: Path) -> None:
    text = Path("tests/data/cases/ds-one-folder-setting/dataset.toml").read_text()
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "a.json").write_text(json.dumps(parse_toml(text)))
    (tmp_path / "run.toml").write_text('network_dim = 4\ndataset_config = "a.json"\n')
    for name, key in (("a.toml", ""), ("a.json", ""), ("run.toml", "dataset_config.")):
        found = import_file(tmp_path / name, keep_names=True)
        assert [problem.partition(" = ")[0] for problem in found.problems()] == [f"{key}datasets[0].subsets[1].flip_aug"]
        assert not found.config().data.flip_aug


def test_the_time_of_many_folders_grows_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up, at = [0], _Settings.at

    def counted(self: _Settings, name: str, leaf: tuple[int, ...]) -> Any:
        looked_up[0] += 1
        return at(self, name, leaf)

    monkeypatch.setattr(_Settings, "at", counted)
    counts = []
    for number in (200, 800):
        looked_up[0] = 0
        subsets = [{"image_dir": f"{i}", "keep_tokens": i % 2, "num_repeats": i + 1} for i in range(number)]
        entries = source_of({"datasets": [{"subsets": subsets}]}, toml=True).entries
        assert len(overruled(entries)) >= number // 2 and len(of_folders(entries)) == number
        counts.append(looked_up[0])
    assert counts[1] <= 4.2 * counts[0]


def test_a_folder_whose_name_has_thousands_of_digits_has_no_number() -> None:
    found = read({"datasets": [{"subsets": [{"image_dir": "9" * 5000 + "_cat", "class_tokens": "cat"}]}]})
    assert "gives nothing" in why(found, "datasets[0].subsets[0].class_tokens")
