"""The command, with a disk that takes some seconds more for each save."""

import sys
import time

import main_imagenet
from utils.training import run as training

save_at_once = training.save_atomically


def save_slowly(*arguments) -> None:
    time.sleep(2)
    save_at_once(*arguments)


training.save_atomically = save_slowly
sys.exit(main_imagenet.main())
