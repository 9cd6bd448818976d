"""One starting policy trained under 13, 4 and 1 templates: what docs/prompt_augmentation.md reports."""
