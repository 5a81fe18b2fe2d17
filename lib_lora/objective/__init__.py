"""The training objective: extra noise, the loss and its weights, as pure functions of tensors."""
