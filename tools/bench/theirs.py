"""One run of kohya sd-scripts in its own process and interpreter: prints when it and each step began.

    SD_SCRIPTS_PYTHON -m accelerate.commands.launch … theirs.py SD_SCRIPTS_DIR CHECKPOINT PICTURES OUT OPTIONS_JSON

Nothing of sd-scripts is changed or copied: one of its functions is wrapped to note the time.
"""

import json
import os
import sys
import time


def main() -> None:
    """Train as the options say; the last line is a JSON object."""
    started = time.time()
    sd_scripts, checkpoint, pictures, out = map(os.path.abspath, sys.argv[1:5])
    options = json.loads(sys.argv[5])
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.chdir(sd_scripts)
    sys.path.insert(0, sd_scripts)
    import torch
    import train_network
    from library import train_util

    begun = []
    process_batch = train_network.NetworkTrainer.process_batch

    def noted(self, *args, **kwargs):
        begun.append(time.time())
        return process_batch(self, *args, **kwargs)

    train_network.NetworkTrainer.process_batch = noted
    arguments = [f"--pretrained_model_name_or_path={checkpoint}", f"--train_data_dir={pictures}", f"--output_dir={out}",
                 "--output_name=bench", "--network_module=networks.lora", "--caption_extension=.txt", "--cache_latents", "--sdpa",
                 "--max_data_loader_n_workers=0", "--no_half_vae", "--optimizer_type=AdamW", "--save_model_as=safetensors",
                 *(f"--{key}={value}" for key, value in options.items())]  # fmt: skip
    parser = train_network.setup_parser()
    args = parser.parse_args(arguments)
    train_util.verify_command_line_training_args(args)
    args = train_util.read_config_from_file(args, parser)
    train_network.NetworkTrainer().train(args)
    print(json.dumps({"started": started, "begun": begun, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
