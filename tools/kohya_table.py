"""Write docs/kohya.md from the table of kohya's keys: `python -m tools.kohya_table`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lib_lora.config.presets import PRESETS
from lib_lora.kohya.table import NETWORK_ARGS, KeyFact, key_table

PAGE = Path(__file__).parent.parent / "docs" / "kohya.md"
HEAD = """# Settings of kohya_ss and sd-scripts

Made from `lib_lora/kohya/` by `python -m tools.kohya_table`.

```
python -m lib_lora import-kohya settings.json            # what each key becomes here; --json for programs
python -m lib_lora train --config settings.toml …        # train with them; arguments win over the file
python -m lib_lora export-kohya --config ours.json --form toml --out kohya.toml    # or --form json, --form dataset
```

In the tab the same is behind **Preset, import, export**. Read are kohya_ss' JSON files (v20 to v26), sd-scripts' TOML files (flat
or in sections), those of lora-scripts (SD-Trainer) and of LoRA_Easy_Training_Scripts, and dataset files of either kind.

## What is done with a file

- **Every key is accounted for**: used, not supported (it would change the result), ignored on purpose, or unknown. A key that
  is not supported but asks for nothing (empty, off, 0) is ignored. `train --config` refuses a file with a key that is unknown
  or not supported, with a sentence for each, rather than train something else.
- **Whose file it is**, its keys decide: it is ours if more of them are ours alone than kohya's alone. One foreign key is unknown,
  and changes nothing else. `LoRA_type` is of kohya_ss' form, `network_module` of sd-scripts.
- **What its program does not hand on asks for nothing**, whatever its value: in kohya_ss' form by type of LoRA and version
  (`train_on_input` of (IA)³ alone, and so on), what a switch hides that is off or absent, newer models' keys where the file is of
  SD 1.x, 2.x or SDXL, and keys of `network_args` outside of them. `loraplus_*_ratio` at the top level had no effect in kohya_ss
  up to v25, and has none here.
- **Arguments win over the file** before it is judged, under our names and kohya's: what the file says of them is not looked at.
- **Names and paths are not taken over**, since they are of another machine; `train --config` alone uses those in the file.
- **Steps** follow repeats × images ÷ batch size × epochs. kohya_ss' form puts 1600 steps where a file has no
  `max_train_steps`; here `epoch` counts then. `max_train_epochs` wins over `max_train_steps`, as in sd-scripts.
- **Zeros mean zero.** kohya_ss leaves every 0 out of what it runs: `max_grad_norm` 0 would have clipped at 1,
  `prior_loss_weight` 0 would have been 1. `clip_skip`, `vae_batch_size` and `max_timestep` have no 0, and take the default;
  `network_alpha` 0 means the rank.
- **Rates.** `learning_rate` stands in for a rate that is not given. 0 leaves a part untrained; in kohya_ss' form an empty
  rate is 0, and when both are 0 both go by `learning_rate`. Where nothing gives the text encoder a rate, the model's family
  decides: 0.00005, for SDXL 0.
- **Warm-up** in percent becomes a share of all steps. The schedule `constant` has none, and kohya_ss leaves it out too.
- **Stop the text encoder** in percent becomes a share. kohya_ss shows it for LoRA without doing it; here it is done.
- **Noise.** With `noise_offset_type` Original the multires options do not count, with Multires the offset options.
- **Absent keys.** In a TOML file they have sd-scripts' defaults (rank 4, alpha 1, rate 2e-6, 1600 steps, captions in
  `.caption`, no buckets, full precision, file in float, no checkpointing), so that the training is the same; where sd-scripts
  draws a random seed, it is 42. In a JSON file, which kohya_ss writes whole, they have our defaults. `cache_latents` is on
  unless random crop or colours need it off.
- **LoKr's whole matrices.** A rank from 5120 on (people write 10000) is LyCORIS' way to ask for them, and becomes `full_matrix`.
- **DoRA.** From LyCORIS 3.1.0 to before 3.2.0 it had no effect without `bypass_mode=False`; here it always has.
- **Lengths of captions** that are no multiple of 75 become the one below, which sd-scripts makes of them.
- **A dataset file** that is named is looked for beside the file, below the folders above it, and then by its name alone.
- **Numbers** outside of their bounds are refused where the run would read them, and left out and told where it would not.
- **Dataset files** give settings per folder; here all folders share theirs. A setting counts for a folder that does not say it
  too: its dataset's, that for all, an argument's, or the default. Where folders differ, `train --config` refuses the setting,
  and in the tab the first is taken and the others are told; what says nothing for any folder, as `keep_tokens` without
  shuffling, is told alone. Repeats may differ: `train --config` takes such a folder as `DIR|N`. Where folders are not taken over,
  repeats that differ are told. `class_tokens` is ignored: images without a caption file have the text of a folder's name,
  N_text, and it is told where that is another.

## What is written

TOML for `train_network.py --config_file`, JSON for kohya_ss' LoRA tab, and a dataset file. sd-scripts takes one parent of
folders named N_name; for other folders (`DIR|N` too), and for regularisation images beside a trigger word, a dataset file is
written beside the TOML. Where tags move, `keep_tokens` is one more, for the trigger word. What sd-scripts has no name
for (averaging, a text encoder that stops …) is in a section `[sd_webui_train_lora]`, which sd-scripts passes over; the trigger
word is its `caption_prefix` there. Read back, all settings are as they were. Where we decide by the device
(Mixed precision auto), sd-scripts gets its default, full precision. A rate of the text encoder that was not given is written out,
since sd-scripts would take the U-Net's: as the model in hand has it, or as SD 1.x has it, with a note, where none is known.
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
    head = "\n### Used\n\n| key | option here | meaning |\n|---|---|---|\n"
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
    text = "\n## Presets\n\n`train --preset NAME`, and the field Preset in the tab. "
    text += "Names, folders and the trigger word stay as they are.\n"
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
