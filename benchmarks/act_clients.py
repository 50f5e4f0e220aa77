"""Clients of `benchmarks.act`, in a process of their own and without JAX, each asking again when it is answered.

python -m benchmarks.act_clients ADDRESS CLIENTS SECONDS < observation.msgpack
"""

import json
import sys
import threading
import time

from pizero_jax.serve import msgpack_arrays
from pizero_jax.serve.client import Client


def main(address: str, clients: int, seconds: float) -> None:
    observation = msgpack_arrays.unpack(sys.stdin.buffer.read())
    start, found = threading.Barrier(clients), []

    def ask():
        with Client(address, timeout=120) as client:
            client.infer(observation)
            start.wait()
            begin, times = time.perf_counter(), []
            while (now := time.perf_counter()) < begin + seconds or len(times) < 5:
                client.infer(observation)
                times.append(1e3 * (time.perf_counter() - now))
            found.append((times, len(times) / (time.perf_counter() - begin)))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"ms": [t for times, _ in found for t in times], "per_second": sum(rate for _, rate in found)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
