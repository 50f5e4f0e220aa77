"""Addresses of what the entries were read from. Snapshots: an address names the commit where there is one."""

_OCTO = "https://github.com/octo-models/octo/blob/241fb3514b7c40957a86d869fecb7c7fc353f540/octo/data"
_OPENVLA = (
    "https://github.com/openvla/openvla/blob/c8f03f48af692657d3060c19588038c7220e9af9/prismatic/vla/datasets/rlds"
)
_OFT = "https://github.com/moojink/openvla-oft/blob/213c5ff8d6e9673885d7e4dd6f2ce73b5d8a45db"
_RDT = "https://github.com/thu-ml/RoboticsDiffusionTransformer/blob/deb71d82278780d83253a28d9b904085559be400"

OCTO_CONFIGS = f"{_OCTO}/oxe/oxe_dataset_configs.py"
OCTO_TRANSFORMS = f"{_OCTO}/oxe/oxe_standardization_transforms.py"
OCTO_GRIPPERS = f"{_OCTO}/utils/data_utils.py"
OCTO_MIXTURES = f"{_OCTO}/oxe/oxe_dataset_mixes.py"
OPENVLA_TRANSFORMS = f"{_OPENVLA}/oxe/transforms.py"
OPENVLA_MIXTURES = f"{_OPENVLA}/oxe/mixtures.py"
OPENVLA_DROID = f"{_OPENVLA}/oxe/utils/droid_utils.py"
OFT_CONFIGS = f"{_OFT}/prismatic/vla/datasets/rlds/oxe/configs.py"
OFT_TRANSFORMS = f"{_OFT}/prismatic/vla/datasets/rlds/oxe/transforms.py"
OFT_LIBERO = f"{_OFT}/experiments/robot/libero/regenerate_libero_dataset.py"
OFT_ALOHA = f"{_OFT}/ALOHA.md"
RDT_FREQUENCIES = f"{_RDT}/configs/dataset_control_freq.json"
OPENX2LEROBOT = (  # frequencies of sets that RDT does not list
    "https://github.com/typoverflow/any4lerobot/blob/263e05b2be03ac9a93637e0a148822cfaec82e01"
    "/openx2lerobot/oxe_utils/configs.py"
)
TFDS_LANGUAGE_TABLE = (
    "https://github.com/tensorflow/datasets/blob/dfca9b79180dcefe82e4a178153fc7b5b7bde9e8"
    "/tensorflow_datasets/robotics/language_table/language_table.py"
)
FURNITURE_BENCH = (
    "https://github.com/youngwoon/furniture_bench_rlds_dataset_builder/blob/6f22dabe9c2290ceb6a8510c11528f9f58984fb2"
    "/furniture_bench/furniture_bench_dataset_builder.py"
)
PLAYING_WITH_FOOD = (
    "https://github.com/firephinx/rlds_dataset_builder/blob/b1b873a52b097cf296b0b037a22f66bf56507f24"
    "/cmu_playing_with_food/cmu_playing_with_food_dataset_builder.py"
)
DOBBE = (
    "https://github.com/SudeepDasari/dobbe_rlds_dataset_builder/blob/62198af72674898cf252ec52c90128d5f2464fd7"
    "/dobbe/dobbe_dataset_builder.py"
)
GNM = (
    "https://github.com/kylestach/gnm_rlds_dataset_builder/blob/3dbabdda601c0738dfd02dd43460875615313cab"
    "/gnm/gnm_dataset_builder.py"
)
BRIDGE = (
    "https://github.com/USC-Lira/dlimp/blob/3d469d1e715a6d2e39b0dafd6cfc6b9a1840ef95"
    "/rlds_converters/bridge_dataset/bridge_dataset_dataset_builder.py"
)
DROID_FEATURES = "https://huggingface.co/datasets/lerobot-raw/droid_100_raw/blob/main/features.json"
DROID_SCALE = (
    "https://github.com/droid-dataset/droid/blob/ba46d4af805bce44e6a40cff10ed094ee5090ab8"
    "/droid/robot_ik/robot_ik_solver.py"
)
LIBERO_FEATURES = (
    "https://github.com/Panda-Shawn/rlds_dataset_builder/blob/ecf3e692d657bf9666fbf9680a9ac8548d61ae58"
    "/LIBERO_Spatial/LIBERO_Spatial_dataset_builder.py"
)
ROBOSUITE_OSC = (
    "https://github.com/ARISE-Initiative/robosuite/blob/2ff7a2961860b3536087550d07990a9119b2223d"
    "/robosuite/controllers/config/osc_pose.json"
)


def catalogue(name: str) -> str:
    """The page of a TFDS data set: its fields, shapes, types and what is said of them."""
    return f"https://www.tensorflow.org/datasets/catalog/{name}"


def rdt(name: str) -> str:
    """A second reading of many sets, by people who say where they looked at the numbers."""
    return f"{_RDT}/data/preprocess_scripts/{name}.py"


def documented(name: str, **others: str) -> dict[str, str]:
    """The usual sources of a set of Open X-Embodiment, with `others` in place of them or besides."""
    return {
        "fields": catalogue(name),
        "cameras": OCTO_CONFIGS,
        "conventions": OCTO_TRANSFORMS,
        "hz": RDT_FREQUENCIES,
    } | others
