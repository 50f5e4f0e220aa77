"""ACT (arXiv 2304.13705) for ALOHA's simulated tasks: 51,623,182 parameters. It reads no instruction."""

from ml_collections import ConfigDict

from configs import base


def get_config():
    c = base.get_config()
    c.steps = 100_000
    c.batch_size = 8
    c.policy = ConfigDict(
        dict(
            name="act",
            dtype="bfloat16",
            cameras=("base_0_rgb",),
            image_size=224,  # published 480 x 640
            state_dim=14,
            action_dim=14,
            chunk=100,
            resnet=dict(widths=(64, 128, 256, 512), depth=2),  # ResNet-18, one for all cameras
            width=512,
            mlp=3200,
            heads=8,
            encoder_depth=4,
            decoder_depth=1,  # the released code has seven layers, and reads the first one's output
            posterior_depth=4,
            latent=32,  # of z, which is zero when acting
            dropout=0.1,
            kl_weight=10.0,  # of the divergence of z beside the absolute error
        )
    )
    c.data.cameras = ConfigDict(dict(base_0_rgb="top"))
    # 480 x 640, as its data; without temporal ensembling the whole chunk is executed.
    c.env.update(dict(name="aloha", tasks=("transfer_cube",), image_size=640, max_steps=400, execute=100))
    o = c.optimizer
    # Published 1e-5, beside a ResNet that has learnt from ImageNet; ours starts fresh.
    o.peak, o.end, o.warmup = 1e-4, 1e-4, 500
    o.b2, o.weight_decay, o.clip = 0.999, 1e-4, 10.0
    return c
