"""The command, with an error that nobody foresaw in the second of several processes."""

import os
import sys

import main_imagenet
from utils.training.run import Training


def fail_in_the_second(self, plan) -> bool:
    if os.environ["RANK"] == "1":
        raise LookupError("nobody foresaw it")
    return False


Training._save_due = fail_in_the_second
main_imagenet.__file__ = __file__  # what it launches
sys.exit(main_imagenet.main())
