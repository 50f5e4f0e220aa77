"""Forms of data sets that octo's list names, and that nobody has published."""

from pizero_jax.data.embodiments.gripper import closing, opening
from pizero_jax.data.embodiments.layout import gripper, hand, position, rotation
from pizero_jax.data.embodiments.sources import OCTO_CONFIGS, OCTO_TRANSFORMS, RDT_FREQUENCIES
from pizero_jax.data.embodiments.specification import Specification

RH20T = Specification(
    names=("rh20t",),
    robot="Flexiv and other arms",
    hz=10,
    cameras={
        "base": "observation/image_front",
        "secondary": "observation/image_side_right",
        "wrist": "observation/image_wrist",
    },
    state=(
        position("observation/tcp_base"),
        rotation("observation/tcp_base", 3, "euler_xyz"),
        gripper("observation/gripper_width", 0, unit="recorded"),
    ),
    actions=(
        position("action/tcp_base", delta=True),
        rotation("action/tcp_base", 3, "euler_xyz", delta=True),
        gripper("action/gripper", 0, opening),
    ),
    fields={
        "observation/tcp_base": None,
        "observation/gripper_width": (),
        "action/tcp_base": None,
        "action/gripper": (),
    },
    unverified=(
        "this form of the data set is not public: names follow octo, widths what octo joins them to",
        "actions are taken to be changes of position and Euler angles, and the gripper to open with 1",
    ),
    sources={"fields": OCTO_TRANSFORMS, "cameras": OCTO_CONFIGS, "conventions": OCTO_TRANSFORMS, "hz": RDT_FREQUENCIES},
)

MUJOCO_MANIP = Specification(
    names=("mujoco_manip",),
    robot="an arm, simulated",
    hz=None,
    cameras={"base": "observation/image"},
    state=(),
    actions=(*hand("action")[:2], gripper("action", 6, closing, scale=1 / 255)),
    fields={"action": None},
    quirks=("the recorded gripper closes with 255",),
    unverified=("this data set is not public: its fields follow octo, which names a state without its layout",),
    sources={"fields": OCTO_TRANSFORMS, "cameras": OCTO_CONFIGS, "conventions": OCTO_TRANSFORMS},
)

ENTRIES = (RH20T, MUJOCO_MANIP)
