"""Many recipes on the same data: trained, measured and laid side by side."""
