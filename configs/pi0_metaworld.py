"""pi0 in small on MetaWorld demonstrations: the code of the published model, sizes for two CPU cores."""

from configs import base


def get_config():
    c = base.get_config()
    c.steps = 700
    c.batch_size = 32

    p = c.policy
    p.dtype = "float32"  # CPUs have no fast bfloat16
    p.remat = "none"  # memory is no concern at this size
    p.unroll = 4
    p.cameras = ("image", "wrist_image")
    p.image_size = 64
    p.prompt_length = 32  # bytes: MetaWorld's instructions are short
    p.state_dim = 4  # hand position and gripper
    p.action_dim = 4  # hand displacement and gripper
    p.chunk = 16
    p.vision.update(dict(stem="conv", patch=16, width=128, depth=1, mlp=256, heads=4))
    p.attention.update(dict(depth=4, heads=4, kv_heads=1, head_dim=32))
    p.language.update(dict(width=128, mlp=256, vocabulary=259))  # of the byte tokenizer
    p.expert.update(dict(width=128, mlp=256))
    p.num_steps = 5

    c.loss.samples_per_observation = 4  # the prefix is most of the cost

    d = c.data
    d.path = "data/metaworld_button_press/1.0.0"
    d.cameras = dict(image="image", wrist_image="wrist_image")
    d.wrist_cameras = ()

    o = c.optimizer
    o.peak = 1e-3
    o.end = 1e-5
    o.warmup = 100
    o.decay_steps = c.steps
    o.weight_decay = 1e-4

    c.validation.every = 350
    c.checkpoint.every = 350
    c.env.update(dict(name="metaworld", tasks=("button-press-topdown-v3",)))
    return c
