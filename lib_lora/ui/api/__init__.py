"""The HTTP API below `/lora-train/v1`, which the page uses too. Plain JSON; errors are `{"problems": [{"option", "text"}]}`."""
