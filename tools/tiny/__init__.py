"""How the embedded tiny checkpoint was made: pictures with captions, a VAE, a U-Net with its text encoder, one file."""
