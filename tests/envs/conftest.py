import os

os.environ.setdefault("MUJOCO_GL", "egl")  # before a test module imports mujoco
