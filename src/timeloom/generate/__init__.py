"""From a prompt to latents to frames."""
