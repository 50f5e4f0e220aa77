"""Every key of a training run, with its default and its reason. Run configs change what differs."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # everything random follows from it
    c.steps = 30_000  # optimiser steps
    c.batch_size = 32  # rows of a step, over the whole mesh
    c.accumulation = 1  # micro-batches that a step goes through them in: the same result, the memory of one of them

    # The published pi0: PaliGemma (SigLIP So400m/14 at 224 px, Gemma 2B) and a 300M action expert
    # (arXiv 2410.24164, appendix B; heads as in openpi, the paper's 18 is the depth).
    c.policy = ConfigDict()
    c.policy.name = "pi0"  # the row of pizero_jax.policies.POLICIES
    c.policy.dtype = "bfloat16"  # of activations; parameters stay float32
    # What the backward pass computes again instead of keeping it: "none"; "full", whole layers, a third more compute;
    # "dots", all but the results of products with weights; "attention", all but queries, keys, values and its output.
    c.policy.remat = "full"
    c.policy.unroll = 1  # layers per iteration of the loop over them: more is faster on CPUs and compiles longer
    c.policy.cameras = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")  # their order in the sequence
    c.policy.image_size = 224  # pixels, square
    c.policy.prompt_length = 48  # text tokens
    c.policy.state_dim = 32  # states are zero-padded to this
    c.policy.action_dim = 32  # actions likewise
    c.policy.chunk = 50  # actions predicted at once
    c.policy.vision = ConfigDict(
        dict(stem="patch", patch=14, width=1152, depth=27, mlp=4304, heads=16)
    )  # stem "conv" halves the picture log2(patch) times: it learns faster from little data
    c.policy.attention = ConfigDict(dict(depth=18, heads=8, kv_heads=1, head_dim=256))  # shared by both experts
    c.policy.language = ConfigDict(dict(width=2048, mlp=16_384, vocabulary=257_152))
    c.policy.expert = ConfigDict(dict(width=1024, mlp=4096))
    c.policy.solver = "euler"  # "midpoint", "heun" and "rk4" call the expert 2, 2 and 4 times a step; "ddim", "ddpm"
    c.policy.num_steps = 10  # steps when acting, unless the caller says otherwise
    c.policy.lora = ConfigDict()
    c.policy.lora.rules = ()  # dict(modules=pattern, rank=16, alpha=16.0), ...: adapters; the first that fits holds
    c.policy.lora.openpi = False  # True as openpi trains them: both factors random, unscaled in the MLP, heads summed

    c.loss = ConfigDict()
    c.loss.samples_per_observation = 1  # (noise, time) draws per prefix; the prefix is most of the cost
    c.loss.openpi_padding = False  # True counts padded steps and dimensions, as openpi does
    c.loss.flow_weight = 1.0  # of the flow beside the action tokens, where a policy learns both
    # From actions to noise: "straight" as pi0; "trigonometric"; DDPM's "ddpm_linear" (1,000 steps) and "ddpm_cosine"
    # (100 steps), and their continuous forms "vp_linear" and "vp_cosine".
    c.loss.path = "straight"
    c.loss.prediction = "u"  # what the expert says: velocity, "eps" (noise), "x0" (actions) or "v"
    c.loss.time = "shifted_beta"  # where on the path it learns; "uniform", "logit_normal"
    c.loss.max_delay = 0  # real-time chunking: actions at most that are executed already when a chunk is asked for

    c.init = ConfigDict()
    c.init.weights = ""  # workdir or checkpoint to start from; what is missing keeps its fresh value

    c.freeze = ConfigDict()
    c.freeze.params = ()  # patterns of whole parameter paths that stay as they are, but for adapters beside them
    c.freeze.dtype = "float32"  # what they are kept in; "bfloat16" halves their memory

    c.data = ConfigDict()
    c.data.path = ""  # folder of a data set: the one with dataset_info.json (RLDS) or meta/info.json (LeRobot)
    c.data.train_split = "train"
    c.data.val_split = "val"
    c.data.embodiment = ""  # entry of pizero_jax/data/embodiments that says what the fields mean, or empty: as recorded
    c.data.cameras = ConfigDict(  # camera of the policy -> field of the observation, or role of the embodiment
        dict(base_0_rgb="image", left_wrist_0_rgb="wrist_image")
    )
    c.data.wrist_cameras = ("left_wrist_0_rgb", "right_wrist_0_rgb")  # neither cropped nor rotated, as in openpi
    c.data.state = "state"  # field of the observation; this and the next two are not read with an embodiment
    c.data.action = "action"  # field of the step
    c.data.changes = ()  # as `delta`: which dimensions of an action are changes over one step; those add up over time
    c.data.instruction = "language_instruction"  # field of the step
    c.data.other_instructions = ()  # fields that word it otherwise: training draws one of all that are not empty
    c.data.hz = 0.0  # steps per second that the data set has; 0: what its embodiment or its metadata say
    c.data.delta = ()  # (6, -1): six action dimensions relative to the state's, one absolute, as all after the last
    c.data.sets = ConfigDict()  # a mixture: name -> dict(weight=1.0, path=..., ...), what differs from the keys above
    c.data.mixture = ""  # or one by name, such as "oxe_magic_soup": its data sets lie in `path`/<name>/<version>
    c.data.weighting = "given"  # weights are shares of the rows; "size": times the frames; "power": times frames^0.43
    c.data.chunk_hz = 0.0  # actions per second of a chunk, whatever the data set's own rate; 0: as recorded
    c.data.history = 1  # moments that an observation has, at the rate of the chunk
    c.data.unlabelled = "keep"  # episodes without an instruction; "skip" leaves them out
    c.data.on_corrupt = "raise"  # "skip" leaves out damaged records, and masks rows whose pictures cannot be read
    c.data.cache_gb = 4.0  # of encoded pictures in memory, each process; frames are shuffled within four fifths of it
    c.data.index_dir = "~/.cache/pizero_jax"  # keeps what a first look at all records found; empty: nowhere
    c.data.normalization = "zscore"  # or "quantile": 1% and 99% to -1 and 1 (pi0.5, pi0-FAST)
    c.data.tokenizer = "bytes"  # or the path of a SentencePiece model, PaliGemma's for the published weights
    c.data.prompt = "pi0"  # the words around the instruction; "pi05" and "pi0_fast" also write the state into it
    c.data.openpi_state_bins = False  # True writes states below -1 as "-1", as openpi does, instead of as 0
    c.data.action_tokens = ConfigDict()  # actions as text, for policies that learn it
    c.data.action_tokens.kind = "none"  # or "fast" (arXiv 2501.09747), or "bins": 256 per number (RT-2)
    c.data.action_tokens.path = ""  # folder of a trained FAST tokenizer; empty trains one on the data set
    c.data.action_tokens.vocabulary = 1_024  # of the FAST tokenizer trained here
    c.data.action_tokens.scale = 10.0  # of its coefficients before they are rounded
    c.data.action_tokens.skip = 128  # ids at the end of the vocabulary that stay free (PaliGemma's segmentation tokens)
    c.data.blind = False  # True zeroes pictures: the control that tells whether a task needs eyes
    c.data.augmentation = ConfigDict(  # openpi's strengths
        dict(crop=0.95, rotation=5.0, brightness=0.3, contrast=0.4, saturation=0.5)
    )
    c.data.dropout = ConfigDict(dict(cameras=0.0, state=0.0, prompt=0.0))  # shares of the rows that go without
    c.data.threads = 2  # that decode and augment
    c.data.prefetch = 8  # batches made ahead

    c.optimizer = ConfigDict()  # AdamW, numbers of openpi's fine-tuning
    c.optimizer.peak = 2.5e-5
    c.optimizer.end = 2.5e-6
    c.optimizer.warmup = 1_000  # steps, from peak / (warmup + 1)
    c.optimizer.decay_steps = 30_000  # warm-up included; afterwards the rate stays at `end`
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.95
    c.optimizer.eps = 1e-8
    c.optimizer.weight_decay = 1e-10  # on matrices only, not on biases, norms and embeddings of position
    c.optimizer.clip = 1.0  # global gradient norm
    c.optimizer.rates = ()  # dict(params=pattern, scale=0.1), ...: of whole parameter paths; the first that fits holds
    c.optimizer.ema = 0.99  # decay of the averaged weights, which act and are evaluated; 0 keeps none
    c.optimizer.ema_dtype = "float32"  # what they are kept in; "bfloat16" halves their memory, rounded at random

    c.nonfinite = ConfigDict()  # a step whose loss or gradient is not a number changes nothing and is counted
    c.nonfinite.limit = 10  # such steps in a row that end the run

    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # devices along each axis; -1 takes the rest

    c.distributed = ConfigDict()  # runs of several processes
    c.distributed.start_timeout = 600  # seconds that they wait for each other, compiling included
    c.distributed.heartbeat = 30  # seconds without a sign of life after which one counts as dead, and all end
    c.compile_cache = "~/.cache/pizero_jax/compiled"  # compiled programs: a restart takes seconds; empty: nowhere

    c.validation = ConfigDict()
    c.validation.every = 1_000  # steps
    c.validation.batches = 8  # of held-out windows, with the same noise and times every time
    c.validation.time_bins = 5  # the loss by flow time

    c.checkpoint = ConfigDict()
    c.checkpoint.every = 1_000  # steps, and at the end
    c.checkpoint.keep = 2  # newest ones
    c.checkpoint.keep_every = 0  # steps: those at its multiples stay for good, beside the newest; 0: none
    c.checkpoint.best = ""  # metric, such as "val/loss", whose best checkpoint stays, too; empty: none
    c.checkpoint.best_mode = "min"  # lower is better; "max" for a success rate

    c.log = ConfigDict(dict(every=50))  # steps
    c.profile = ConfigDict()
    c.profile.steps = ()  # (10, 15) traces steps 11 to 15 into <workdir>/profile, for TensorBoard's profiler or XProf
    c.wandb = ConfigDict()
    c.wandb.mode = "auto"  # online if logged in and W&B answers, else offline; or "online", "offline", "disabled"
    c.wandb.project = "pizero_jax"
    c.wandb.group = ""  # runs that belong together, such as the seeds of one config
    c.wandb.tags = ()

    c.env = ConfigDict()  # where `launch.evaluate` runs the checkpoint
    c.env.name = ""  # "metaworld", "aloha", "pusht", "reach_toy", or empty for real data without a simulator
    c.env.tasks = ()
    c.env.image_size = 64  # pixels that the simulator renders, in width
    c.env.max_steps = 150  # of an episode
    c.env.execute = 8  # actions of each chunk that are executed before the next look
    return c
