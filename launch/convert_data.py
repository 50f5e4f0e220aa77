"""Converts the data set that a config names, from RLDS or LeRobot to either.

    python -m launch.convert_data --config=CONFIG --output=FOLDER --to=lerobot [--fps=10] [--novideo] [--robot=NAME]
    python -m launch.convert_data --config=CONFIG --output=FOLDER/1.0.0 --to=rlds

The splits of the config become "train" and "val", and the cameras get the names that the policy has for them. Numbers
stay as they are, bit for bit; so do pictures, unless they become a video or come from one.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

import launch
from pizero_jax.config import TrainConfig, build
from pizero_jax.data.convert import convert
from pizero_jax.errors import InputError

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/pi0_metaworld.py.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the new data set; it must not hold anything.")
TO = flags.DEFINE_enum("to", None, ["lerobot", "rlds"], "Format of the new data set.")
FPS = flags.DEFINE_float("fps", None, "Steps per second, which RLDS does not record.", lower_bound=0)
VIDEO = flags.DEFINE_bool("video", True, "LeRobot: pictures as H.264; --novideo embeds them as they are.")
ROBOT = flags.DEFINE_string("robot", None, "LeRobot: name of the robot, for the metadata.")


def main() -> None:
    config = build(TrainConfig, CONFIG.value).data
    if not OUTPUT.value or not TO.value:
        raise InputError("--output=FOLDER and --to=lerobot or --to=rlds are needed")
    options = {"fps": FPS.value, "video": VIDEO.value, "robot": ROBOT.value}
    print(convert(config, Path(OUTPUT.value), TO.value, **options))


if __name__ == "__main__":
    launch.run(main)
