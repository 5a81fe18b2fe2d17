"""What is minimised: noise, target, loss and its weights, as pure functions of tensors."""
