"""Where benches/wan measures: two network namespaces with paths between them, and the nodes of a link in them.

A path is made by the kernel's netem, or by the program in EMULATOR, which knows `up` and `ctl`. Its ends are 10.77.0.1 in
the near namespace and 10.77.0.2 in the far one; those of a second path are 10.78.0.1 and 10.78.0.2. Without EMULATOR a
path goes through a bridge in a third namespace, and is cut there: what is sent then is lost, and nobody is told. netem is
only needed for paths with delay or loss.
"""

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
LONGHAUL = os.environ.get("LONGHAUL", str(ROOT / "target/release/longhaul"))
EMULATOR = os.environ.get("EMULATOR")
# Namespaces begin with it; the emulator is told in the same way.
NAME = os.environ.get("WANLAB", "wan")
A, B, MIDDLE = f"{NAME}A", f"{NAME}B", f"{NAME}M"
RATE_MBIT, QUEUE_MS = 500, 100


@dataclasses.dataclass
class Path:
    """What a path is like, in both directions."""

    rtt_ms: float
    loss: float = 0
    rate_mbit: float = RATE_MBIT


def near(number=1):
    return f"10.{76 + number}.0.1"


def far(number=1):
    return f"10.{76 + number}.0.2"


def sh(command):
    subprocess.run(command, shell=True, check=True)


@contextlib.contextmanager
def lab(*paths):
    """The namespaces, and the paths between them, numbered from 1."""
    if os.geteuid() != 0:
        sys.exit("network namespaces need root")
    if not pathlib.Path(LONGHAUL).exists():
        sys.exit(f"{LONGHAUL} is missing: cargo build --release")
    # Those of somebody else are left alone: this fails when they exist.
    if EMULATOR:
        sh(f"{EMULATOR} up " + " -- ".join(
            f"--delay {path.rtt_ms / 2}ms --loss {path.loss}% --rate {path.rate_mbit}mbit --queue {QUEUE_MS}ms"
            for path in paths))
    else:
        sh(f"ip netns add {MIDDLE} && ip netns add {A} && ip netns add {B}")
    try:
        if not EMULATOR:
            for number, path in enumerate(paths, 1):
                make(number, path)
        for name in (A, B):
            sh(f"ip netns exec {name} sysctl -qw net.ipv4.tcp_rmem='4096 131072 67108864' "
               "net.ipv4.tcp_wmem='4096 65536 67108864'")
        yield
    finally:
        sh(f"{EMULATOR} down > /dev/null" if EMULATOR else f"for n in {A} {B} {MIDDLE}; do ip netns del $n; done")


def make(number, path):
    """A path of the kernel's own."""
    device, bridge = f"wan{number}", f"bridge{number}"
    hosts = ((A, near(number), 1), (B, far(number), 2))
    for name in (A, B):
        sh(f"ip -n {name} link set lo up")
    sh(f"ip -n {MIDDLE} link add {bridge} type bridge && ip -n {MIDDLE} link set {bridge} up")
    for name, address, end in hosts:
        sh(f"ip link add {device} netns {name} address 02:00:00:00:0{number}:0{end} type veth "
           f"peer name port{number}{end} netns {MIDDLE}")
        sh(f"ip -n {MIDDLE} link set port{number}{end} master {bridge} up && ip -n {name} link set {device} up && "
           f"ip -n {name} addr add {address}/24 dev {device}")
        if path.rtt_ms or path.loss:
            packets = int(path.rate_mbit * 1e6 / 8 * (QUEUE_MS + path.rtt_ms / 2) / 1000 / 1500)
            try:
                sh(f"ip netns exec {name} tc qdisc add dev {device} root netem delay {path.rtt_ms / 2}ms "
                   f"loss {path.loss}% rate {path.rate_mbit}mbit limit {packets}")
            except subprocess.CalledProcessError:
                sys.exit("this kernel makes no path with delay and loss (netem): name a program that does in EMULATOR")
    # Else the hosts would note in an outage that nobody answers, and say so to whoever sends.
    for (name, _, _), (_, address, end) in zip(hosts, reversed(hosts)):
        sh(f"ip -n {name} neigh replace {address} lladdr 02:00:00:00:0{number}:0{end} nud permanent dev {device}")


def cut(number=1):
    """From now on a path loses everything."""
    sh(f"{EMULATOR} ctl {number} down 1h > /dev/null" if EMULATOR else f"ip -n {MIDDLE} link set port{number}2 nomaster")


def mend(number=1):
    sh(f"{EMULATOR} ctl {number} down 0s > /dev/null" if EMULATOR
       else f"ip -n {MIDDLE} link set port{number}2 master bridge{number}")


class Processes:
    """What runs in the namespaces, with its logs."""

    def __init__(self, folder):
        self.folder, self.all = folder, []

    def spawn(self, name, where, *command):
        log = open(self.log(name), "wb")
        command = ["ip", "netns", "exec", where, *map(str, command)]
        self.all.append(subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        log.close()
        return self.all[-1]

    def log(self, name):
        return self.folder / f"{name}.log"

    def stop(self):
        for process in self.all:
            process.terminate()
        for process in self.all:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


def start_link(processes, addresses, extra=""):
    """Two nodes and a link between them: ports 5200 and 5202 of the near host lead to port 5201 of the far one,
    5202 as interactive. `addresses` are scheme, count and the number of the path; `extra` are options of the link and of
    the listeners."""
    folder = processes.folder
    if not (folder / "ca.crt").exists():
        for words in (["ca", "--domain", "wan"], *(["node", name, "--ca", folder] for name in ("a", "b"))):
            subprocess.run([LONGHAUL, "cert", *words, "--out", folder], check=True, capture_output=True)
    identity = '[identity]\ncertificate = "{0}.crt"\nkey = "{0}.key"\ntrust_anchors = "ca.crt"\n'
    urls = [(f"{scheme}://{far(path)}:{7443 + port}", count) for port, (scheme, count, path) in enumerate(addresses)]
    listen = "".join(f'[[listen]]\naddress = "{url}"\n{extra}' for url, _ in urls)
    links = ", ".join(f'{{ url = "{url}", count = {count} }}' for url, count in urls)
    services = [("target", "normal"), ("prompt", "interactive")]
    (folder / "b.toml").write_text(
        identity.format("b") + listen + "".join(
            f'[[service]]\nname = "{name}"\ntarget = "tcp://127.0.0.1:5201"\npriority = "{priority}"\n'
            for name, priority in services))
    (folder / "a.toml").write_text(
        identity.format("a") + f'[[link]]\npeer = "b"\naddresses = [{links}]\n{extra}'
        + "".join(f'[[forward]]\nlisten = "tcp://127.0.0.1:{port}"\npeer = "b"\nservice = "{name}"\n'
                  f'priority = "{priority}"\n' for port, (name, priority) in zip((5200, 5202), services)))
    processes.spawn("b", B, LONGHAUL, "run", "-c", "b.toml")
    time.sleep(0.5)
    processes.spawn("a", A, LONGHAUL, "run", "-c", "a.toml")
