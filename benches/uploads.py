"""The uploads that benches/wan measures, by iperf3 through whatever carries it, and what two paths carry together."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from lab import A, B, Path, Processes, lab, start_link

# Seconds after which what is to carry an upload is up.
BRING_UP = 2.5

# Channels of a link for each of two paths.
TWO_PATH_LINKS = {"tcp": ("tcp", 2), "quic": ("quic", 1)}


def need_iperf3():
    if not shutil.which("iperf3"):
        sys.exit("iperf3 is missing")


def iperf3(processes, seconds, address, port, *options):
    """One upload to the server behind the far host's port 5201: what arrived, in Mbit/s."""
    processes.spawn("iperf3-server", B, "iperf3", "-s", "-p", 5201)
    time.sleep(BRING_UP)
    client = ["ip", "netns", "exec", A, "iperf3", "-J", "-t", str(seconds), "-c", address, "-p", str(port), *options]
    result = json.loads(subprocess.run(client, capture_output=True, timeout=seconds + 60).stdout)
    if "error" in result:
        raise RuntimeError(result["error"])
    processes.intervals = result["intervals"]
    return result["end"]["sum_received"]["bits_per_second"] / 1e6


def two_paths(options):
    """An upload over a link with channels on two paths, beside the same link with those of one only."""
    need_iperf3()
    paths = [Path(float(rtt), options.loss, float(rate)) for rtt, rate in zip(options.rtt, options.rate)]
    for _ in range(options.turns):
        for link in options.link:
            case = {"measured": "two-paths", "rtt_ms": options.rtt, "rate_mbit": options.rate,
                    "loss_percent": options.loss, "link": link}
            print(json.dumps(case | both_and_alone(paths, *TWO_PATH_LINKS[link], options.secs)), flush=True)


def both_and_alone(paths, scheme, count, seconds):
    try:
        alone = [upload(paths, [(scheme, count, number)], seconds) for number in (1, 2)]
        both = upload(paths, [(scheme, count, number) for number in (1, 2)], seconds)
        return {"alone_mbit": [round(mbit, 1) for mbit in alone], "both_mbit": round(both, 1),
                "of_the_sum": round(both / sum(alone), 3), "of_the_better": round(both / max(alone), 3)}
    except Exception as error:
        return {"error": str(error)[-300:]}


def upload(paths, addresses, seconds):
    with tempfile.TemporaryDirectory(prefix="longhaul-wan-") as folder, lab(*paths):
        processes = Processes(pathlib.Path(folder))
        try:
            start_link(processes, addresses)
            return iperf3(processes, seconds, "127.0.0.1", 5200)
        finally:
            processes.stop()
