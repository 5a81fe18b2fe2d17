"""Train LoRAs on the model that stable-diffusion-webui already holds. Start reading at `lib_lora.train`."""

__version__ = "0.1.0"
