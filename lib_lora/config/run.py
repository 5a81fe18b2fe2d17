"""Options of a run's length, and of the files that it writes."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora.config.declaration import ReadIf, option
from lib_lora.config.names import name_problem
from lib_lora.config.prompts import names_a_file


def is_no_name(text: str) -> bool:
    """Whether `text` is a folder, since it cannot be the name of a LoRA."""
    return name_problem(text) is not None


@dataclass(frozen=True)
class RunConfig:
    """The length of a run, and the files that it writes."""

    name: str = option(
        "",
        label="Name",
        kohya="output_name",
        row=(2, 1),
        placeholder="my_cat",
        set_by="person",
        not_inherited="The name of another LoRA; enter yours in Name (name).",
        metadata="ss_output_name",
        affects="files",
        help="Name of the LoRA: its file is NAME.safetensors, and prompts use <lora:NAME:1>.",
    )
    epochs: int = option(
        10,
        label="Epochs",
        kohya="max_train_epochs",
        between=(1, 100000),
        row=(3, 1),
        affects="length",
        read_if=ReadIf(lambda run: run.steps == 0, ""),
        help="Number of passes over all images with their repeats. Not used if Steps is set.",
    )
    steps: int = option(
        0,
        label="Steps",
        kohya="max_train_steps",
        between=(0, 10000000),
        row=(3, 3),
        affects="length",
        help="Exact number of optimizer steps; 0 uses Epochs.",
    )
    seed: int = option(
        42,
        label="Seed",
        between=(0, 2**32 - 1),
        row=(8, 1),
        metadata="ss_seed",
        help="The same seed, images and settings give the same LoRA.",
    )
    overwrite: bool = option(
        False,
        label="Overwrite",
        kohya=None,
        row=(8, 2),
        set_by="person",
        affects="files",
        help="Replaces a LoRA of this name. The old file is kept as a backup until the new one is finished.",
    )
    generate_while_training: bool = option(
        True,
        label="Generate while training",
        kohya=None,
        affects="speed",
        help="Image generation and everything else that needs the model can use it between two steps. Off: it waits until "
        "training ends.",
    )
    preview_steps: int = option(
        20,
        label="Preview steps",
        kohya=None,
        between=(0, 150),
        slider=1,
        affects="pictures",
        help="Sampling steps of the card's preview image; 0 makes none.",
    )
    out: str = option(
        "",
        label="Output folder",
        kohya="output_dir",
        in_form=False,
        is_path="folder",
        not_inherited="A folder of another computer; LoRAs go to the webui's LoRA folder.",
        affects="files",
        help="Folder for the LoRA. In the webui it is always the webui's LoRA folder.",
    )
    checkpoint: str = option(
        "",
        label="Checkpoint",
        kohya="pretrained_model_name_or_path",
        in_form=False,
        is_path="file",
        not_inherited="The model is the checkpoint that the webui has loaded.",
        affects="files",
        help="Checkpoint file to train on. In the webui it is always the loaded checkpoint.",
    )
    save_every_n_epochs: int = option(
        0,
        label="Save every … epochs",
        between=(0, 100000),
        affects="files",
        read_if=ReadIf(lambda run: run.save_n_epoch_ratio == 0, "{save_n_epoch_ratio} decides how often"),
        help="Also saves NAME-000001 and so on, every this many epochs; 0 saves only at the end.",
    )
    save_every_n_steps: int = option(
        0,
        label="Save every … steps",
        between=(0, 10000000),
        affects="files",
        help="Also saves NAME-step00000500 and so on, every this many steps; 0 is off.",
    )
    save_n_epoch_ratio: int = option(
        0,
        label="Saves in between",
        between=(0, 1000),
        in_kohya_form=False,
        affects="files",
        help="Saves at least this many files, evenly spread over the epochs; 0 is off.",
    )
    save_last_n_epochs: int = option(
        0,
        label="Keep last … epochs",
        between=(0, 100000),
        affects="files",
        read_if=ReadIf(lambda run: run.saves_epochs, "nothing is saved by epochs (save_every_n_epochs)"),
        help="Removes files of Save every … epochs that are older than this many epochs; 0 keeps all.",
    )
    save_last_n_steps: int = option(
        0,
        label="Keep last … steps",
        between=(0, 10000000),
        affects="files",
        read_if=ReadIf(lambda run: run.save_every_n_steps > 0, "nothing is saved by steps (save_every_n_steps)"),
        help="Removes files of Save every … steps that are older than this many steps; 0 keeps all.",
    )
    sample_every_n_steps: int = option(
        0,
        label="Sample every … steps",
        between=(0, 10000000),
        affects="pictures",
        help="Generates samples every this many steps; 0 is off.",
    )
    sample_every_n_epochs: int = option(
        0,
        label="Sample every … epochs",
        between=(0, 100000),
        affects="pictures",
        help="Generates samples every this many epochs, in addition to those by steps; 0 is off.",
    )
    sample_at_first: bool = option(
        False,
        label="Sample before the first step",
        in_kohya_form=False,
        affects="pictures",
        help="Generates samples once before training, for comparison.",
    )
    sample_prompts: str = option(
        "",
        label="Sample prompts",
        lines=4,
        is_path=names_a_file,
        set_by="file",
        not_inherited="A file of another computer; enter the prompts in Sample prompts (sample_prompts).",
        affects="pictures",
        read_if=ReadIf(
            lambda run: run.draws_samples,
            "no samples are generated (sample_every_n_steps, sample_every_n_epochs, sample_at_first)",
        ),
        help="One prompt per line, or a .txt, .toml or .json file. A prompt may end with --n negative prompt --w width --h "
        "height --d seed --l CFG scale --s steps. Empty: the trigger word.",
    )
    save_state: bool = option(
        False,
        label="Save the state",
        affects="files",
        help="Saves the training state, from which a run can be resumed, with every saved file and at the end.",
    )
    save_state_on_train_end: bool = option(
        False,
        label="Save the state at the end",
        affects="files",
        help="Saves the training state when the run ends, so that it can be resumed.",
    )
    save_last_n_epochs_state: int = option(
        0,
        label="Keep states of … epochs",
        between=(0, 100000),
        affects="files",
        read_if=ReadIf(
            lambda run: run.save_state and run.saves_epochs, "no state is saved by epochs (save_state, save_every_n_epochs)"
        ),
        help="Removes states that are older than this many epochs; 0 uses Keep last … epochs.",
    )
    save_last_n_steps_state: int = option(
        0,
        label="Keep states of … steps",
        between=(0, 10000000),
        affects="files",
        read_if=ReadIf(
            lambda run: run.save_state and run.save_every_n_steps > 0,
            "no state is saved by steps (save_state, save_every_n_steps)",
        ),
        help="Removes states that are older than this many steps; 0 uses Keep last … steps.",
    )
    resume: str = option(
        "",
        label="Resume from",
        placeholder="my_cat",
        is_path=is_no_name,
        set_by="person",
        not_inherited="A folder of another computer; choose yours in Resume from (resume).",
        affects="files",
        help="Folder of a saved state, or the name of a LoRA for its newest state. The result is the same as without the break.",
    )
    no_metadata: bool = option(
        False,
        label="Minimal metadata",
        in_kohya_form=False,
        affects="files",
        help="Saves the file without information about images and settings.",
    )
    training_comment: str = option(
        "",
        label="Comment",
        set_by="file",
        affects="files",
        help="A comment in the file's metadata.",
    )
    metadata_title: str = option(
        "",
        label="Title",
        set_by="person",
        not_inherited="The title of another LoRA; enter yours in Title (metadata_title).",
        affects="files",
        help="Title in the file's metadata. Empty: the name.",
    )
    metadata_author: str = option(
        "",
        label="Author",
        set_by="file",
        metadata="modelspec.author",
        affects="files",
        help="Author in the file's metadata.",
    )
    metadata_description: str = option(
        "",
        label="Description",
        set_by="file",
        metadata="modelspec.description",
        affects="files",
        help="Description in the file's metadata.",
    )
    metadata_license: str = option(
        "",
        label="Licence",
        set_by="file",
        metadata="modelspec.license",
        affects="files",
        help="Licence in the file's metadata.",
    )
    metadata_tags: str = option(
        "",
        label="Tags",
        set_by="file",
        metadata="modelspec.tags",
        affects="files",
        help="Tags in the file's metadata, separated by commas.",
    )
    metadata_usage_hint: str = option(
        "",
        label="Usage hint",
        set_by="file",
        in_kohya_form=False,
        metadata="modelspec.usage_hint",
        affects="files",
        help="Usage hint in the file's metadata.",
    )

    @property
    def saves_epochs(self) -> bool:
        """Whether files are saved by epochs."""
        return bool(self.save_every_n_epochs or self.save_n_epoch_ratio)

    @property
    def draws_samples(self) -> bool:
        """Whether samples may be drawn, judged from the options alone."""
        by_steps = self.sample_every_n_steps and (not self.steps or self.sample_every_n_steps <= self.steps)
        by_epochs = self.sample_every_n_epochs and (self.steps or self.sample_every_n_epochs <= self.epochs)
        return bool(self.sample_at_first or by_steps or by_epochs)
