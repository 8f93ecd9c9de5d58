"""Commands beside main_imagenet.py; `command.py` is what an installed package calls `simam`."""
