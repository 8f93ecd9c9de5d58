"""Commands beside main_imagenet.py, a file each; what several share lies in the sub-folders."""
