"""The pipeline that others build with tf.data, to compare with: `samples_per_cpu_second`, run in a process of its own.

Episodes are read in parallel, cut into windows and shuffled as encoded frames; pictures are decoded after that, in
parallel, and batched. Nothing is normalised, no text becomes tokens.
"""

import itertools
import json
import sys
import time


def pipeline(path: str, chunk: int, batch_size: int, shuffle: int):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    skip = {"steps": {"observation": {name: tfds.decode.SkipDecoding() for name in ("image", "wrist_image")}}}
    episodes = builder.as_dataset(
        split="train", decoders=skip, shuffle_files=True,
        read_config=tfds.ReadConfig(interleave_cycle_length=4, skip_prefetch=True, try_autocache=False),
    )  # fmt: skip

    def windows(episode):
        steps = episode["steps"].batch(100_000).get_single_element()
        length = tf.shape(steps["action"])[0]
        index = tf.range(length)[:, None] + tf.range(chunk)
        return tf.data.Dataset.from_tensor_slices({
            "image": steps["observation"]["image"],
            "wrist_image": steps["observation"]["wrist_image"],
            "state": steps["observation"]["state"],
            "actions": tf.gather(steps["action"], tf.minimum(index, length - 1)),
            "action_mask": index < length,
            "prompt": steps["language_instruction"],
        })  # fmt: skip

    def decode(sample):
        for name in ("image", "wrist_image"):
            sample[name] = tf.io.decode_jpeg(sample[name], channels=3, dct_method="INTEGER_FAST")
        return sample

    frames = episodes.repeat().interleave(windows, cycle_length=16, num_parallel_calls=tf.data.AUTOTUNE)
    data = frames.shuffle(shuffle).map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    return data.batch(batch_size, num_parallel_calls=1).prefetch(4).as_numpy_iterator()


def samples_per_cpu_second(path: str, chunk: int, batch_size: int, shuffle: int, batches: int) -> float:
    drawn = pipeline(path, chunk, batch_size, shuffle)
    for _ in itertools.islice(drawn, 30):  # fills the buffers
        pass
    start = time.process_time()
    for _ in itertools.islice(drawn, batches):
        pass
    return batches * batch_size / (time.process_time() - start)


if __name__ == "__main__":
    print(json.dumps(samples_per_cpu_second(sys.argv[1], *map(int, sys.argv[2:]))))
