"""Write docs/kohya.md from the table of kohya's keys: `python -m tools.kohya_table`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lib_lora.config.presets import PRESETS
from lib_lora.kohya.table import NETWORK_ARGS, KeyFact, key_table

PAGE = Path(__file__).parent.parent / "docs" / "kohya.md"
HEAD = """# Settings of kohya_ss and sd-scripts

Generated from `lib_lora/kohya/` by `python -m tools.kohya_table`.

```
python -m lib_lora import-kohya settings.json            # what each key becomes; --json for scripts
python -m lib_lora train --config settings.toml …        # train with them; arguments override the file
python -m lib_lora export-kohya --config ours.json --form toml --out kohya.toml    # or --form json, --form dataset
```

The tab does the same under **Import and export**. Supported are JSON files of kohya_ss (v20 to v26), TOML files of sd-scripts
(flat or in sections), those of lora-scripts (SD-Trainer) and LoRA_Easy_Training_Scripts, and dataset files in either format.

## Import

- **Every key is accounted for**: used, not supported (it would change the result), ignored on purpose, or unknown. A key that
  is not supported but has no effect (empty, off, 0) is ignored. `train --config` refuses a file with unknown or unsupported
  keys and explains each, instead of training something else.
- **The program that wrote the file** is recognised by its keys: a file is ours if it has more keys that only we use than keys
  that only kohya uses. A single key of another program is unknown and changes nothing else. `LoRA_type` marks the form of
  kohya_ss, `network_module` marks sd-scripts.
- **Keys that the program does not pass on have no effect**, whatever their value: in the form of kohya_ss depending on the
  type of LoRA and the version (`train_on_input` only for (IA)³, and so on), options that are hidden because a switch is off
  or absent, keys of newer models if the file is for SD 1.x, 2.x or SDXL, and keys of `network_args` outside of it.
  `loraplus_*_ratio` at the top level had no effect in kohya_ss up to v25, and has none here.
- **Arguments override the file** before it is checked, under our names and kohya's; values that are overridden are not
  checked.
- **Names and paths are not taken over**, since they belong to another computer; only `train --config` uses those in the file.
- **Steps** are repeats × images ÷ batch size × epochs. The form of kohya_ss uses 1600 steps if a file has no
  `max_train_steps`; here `epoch` counts then. `max_train_epochs` overrides `max_train_steps`, as in sd-scripts.
- **Zeros mean zero.** kohya_ss drops every 0: `max_grad_norm` 0 would have clipped at 1, `prior_loss_weight` 0 would have
  been 1. `clip_skip`, `vae_batch_size` and `max_timestep` do not allow 0 and get the default; `network_alpha` 0 means the
  rank.
- **Learning rates.** `learning_rate` is used for a rate that is not given. 0 does not train a part; in the form of kohya_ss
  an empty rate is 0, and if both are 0, both use `learning_rate`. If nothing sets a rate for the text encoder, it depends on
  the model's family: 0.00005, for SDXL 0.
- **Warm-up** in percent becomes a share of all steps. The schedule `constant` has none, and kohya_ss drops it too.
- **Stop the text encoder** in percent becomes a share. kohya_ss shows it for LoRA but does not stop; here it stops.
- **Noise.** With `noise_offset_type` Original the multires options are not used, with Multires the offset options.
- **Missing keys.** In a TOML file they have the defaults of sd-scripts (rank 4, alpha 1, learning rate 2e-6, 1600 steps,
  captions in `.caption`, no buckets, full precision, file in float, no checkpointing), so that the training is the same;
  where sd-scripts uses a random seed, it is 42. In a JSON file, which kohya_ss writes completely, they have our defaults.
  `cache_latents` is on unless random crop or colour augmentation needs it off.
- **Whole matrices of LoKr.** LyCORIS uses them for a rank of 5120 or more (10000 is common); this becomes `full_matrix`.
- **DoRA.** From LyCORIS 3.1.0 up to 3.2.0 it had no effect without `bypass_mode=False`; here it always has.
- **Caption lengths** that are not a multiple of 75 become the multiple below, as in sd-scripts.
- **A dataset file** is searched next to the settings file, below its parent folders, and then by its name alone.
- **Numbers** outside of their bounds are refused if the run would use them; otherwise they are left out with a note.
- **Dataset files** have settings per folder; here all folders share them. A folder without its own setting has that of its
  dataset, the general one, an argument's, or the default. If folders differ, `train --config` refuses the setting, and the
  tab uses the first one with a note; a setting that has no effect in any folder, such as `keep_tokens` without shuffling,
  only gets a note. Repeats may differ: `train --config` uses such a folder as `DIR|N`; if folders are not taken over,
  different repeats get a note. `class_tokens` is ignored: the caption of images without a caption file is the text in the
  folder's name, N_text, with a note if the two differ.

## Export

TOML for `train_network.py --config_file`, JSON for the LoRA tab of kohya_ss, and a dataset file. sd-scripts needs one parent
of folders named N_name; for other folders (also `DIR|N`), and for regularisation images with a trigger word, a dataset file
is written next to the TOML file. If tags are shuffled or dropped, `keep_tokens` is one higher, for the trigger word. Options
that sd-scripts does not have (EMA, stopping the text encoder …) are in a section `[sd_webui_train_lora]`, which sd-scripts
ignores; the trigger word is its `caption_prefix`. Importing the file again gives the same settings. Options that we decide
from the device (Mixed precision auto) get the default of sd-scripts, full precision. If no learning rate of the text encoder
was given, it is written out, since sd-scripts would use the U-Net's: that of the loaded model, or with a note that of SD 1.x
if the model is not known.
"""


def page() -> str:
    """The whole document."""
    table = key_table()
    text = HEAD
    for title, inside in (("Keys", False), ("Keys inside network_args", True)):
        facts = [fact for key, fact in table.items() if key.startswith(NETWORK_ARGS) == inside]
        text += f"\n## {title}\n" + _used(facts) + _grouped(facts, "ignored", "Ignored on purpose")
        text += _grouped(facts, "not_supported", "Not supported")
    return text + _presets()


def _used(facts: Iterable[KeyFact]) -> str:
    rows = sorted((fact for fact in facts if fact.verdict == "used"), key=lambda fact: fact.key)
    head = "\n### Used\n\n| key | option | description |\n|---|---|---|\n"
    return head + "".join(f"| `{_bare(fact)}` | {_options(fact)} | {_cell(fact.why)} |\n" for fact in rows)


def _grouped(facts: Iterable[KeyFact], verdict: str, title: str) -> str:
    """Keys with the same reason share a row."""
    reasons: dict[str, list[str]] = {}
    for fact in facts:
        if fact.verdict == verdict:
            reasons.setdefault(fact.why, []).append(_bare(fact))
    if not reasons:
        return ""
    rows = "".join(f"| {', '.join(f'`{key}`' for key in sorted(keys))} | {_cell(why)} |\n" for why, keys in reasons.items())
    return f"\n### {title}\n\n| keys | why |\n|---|---|\n{rows}"


def _presets() -> str:
    text = "\n## Presets\n\n`train --preset NAME`, and *Preset* in the tab. "
    text += "Names, folders and the trigger word are not changed.\n"
    for name, preset in PRESETS.items():
        rows = "".join(f"| `{choice.name}` | {choice.value} | {_cell(choice.why)} |\n" for choice in preset.choices)
        text += f"\n### {preset.title} (`{name}`)\n\n{preset.text}\n\n| option | value | why |\n|---|---|---|\n{rows}"
    return text


def _options(fact: KeyFact) -> str:
    return ", ".join(f"`{name}`" for name in fact.options)


def _bare(fact: KeyFact) -> str:
    return fact.key.removeprefix(NETWORK_ARGS)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
