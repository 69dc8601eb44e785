"""What benches/wan does to a link while it carries something: outages, a cut path, a transfer beside small requests."""

import contextlib
import json
import pathlib
import statistics
import sys
import tempfile
import time

from lab import A, B, ROOT, Path, Processes, cut, lab, mend, start_link

ENDS = ROOT / "benches/ends.py"

# Channels of a link, for each path.
LINKS = {
    "tcp": [("tcp", 4)],
    "quic": [("quic", 1)],
    "mixed": [("quic", 1), ("tcp", 4)],
}

# What comes is looked at this long before and after a cut, in seconds.
BEFORE, AFTER = 4, 6


class Failure(Exception):
    """Bytes were wrong, or a connection was lost."""


# ---- What is measured -----------------------------------------------------------------------------------------------


def outage(options):
    """Takes the path away and gives it back, during a transfer and during a conversation with a line a second."""
    kinds = {"transfer": transfer_in_outage, "talk": talk_in_outage}
    return each(options, {"secs": options.secs, "link": options.link, "load": options.load}, lambda case: (
        [Path(options.rtt, options.loss)], lambda link: kinds[case["load"]](link, float(case["secs"]), options)))


def transfer_in_outage(link, seconds, options):
    link.start("transfer", BEFORE + seconds + AFTER, "--mbit", options.mbit)
    time.sleep(BEFORE)
    mended_at = link.outage(seconds)
    ends = link.transferred(seconds)
    result = {}
    for name, end in zip(("down", "up"), ends):
        gaps = [gap for gap in end["gaps"] if gap[1] > mended_at]
        if not gaps or gaps[0][0] > mended_at:
            raise Failure(f"{name}: the path was not silent")
        result |= {f"{name}_resumed_ms": ms(gaps[0][1] - mended_at), f"{name}_later_gap_ms": longest(gaps[1:]),
                   f"{name}_mbit_before": rate(end, mended_at - seconds - 2, mended_at - seconds),
                   f"{name}_mbit_after": rate(end, mended_at + 2, mended_at + AFTER - 1)}
    return result


def talk_in_outage(link, seconds, options):
    link.start("talk", BEFORE + seconds + AFTER)
    time.sleep(BEFORE)
    mended_at = link.outage(seconds)
    answers = link.talked(seconds)
    pending = [answered_at for sent_at, answered_at in answers if sent_at < mended_at < answered_at]
    if not pending:
        raise Failure("no line waited for the path")
    return {"resumed_ms": ms(pending[0] - mended_at), "usual_ms": ms(median_time(answers))}


def cut_path(options):
    """Takes one of two paths away in the middle of a transfer."""
    paths = [Path(float(rtt), options.loss, float(rate)) for rtt, rate in zip(options.rtt, options.rate)]

    def measure(link, number):
        link.start("transfer", BEFORE + AFTER, "--mbit", options.mbit, *(["--one-way"] if options.one_way else []))
        time.sleep(BEFORE)
        cut_at = time.monotonic()
        cut(int(number))
        result = {}
        ends = link.transferred(AFTER)
        for name, end in [("up", ends[1])] if options.one_way else [("down", ends[0]), ("up", ends[1])]:
            result |= {f"{name}_stall_ms": longest([gap for gap in end["gaps"] if cut_at < gap[1] < cut_at + AFTER - 1]),
                       f"{name}_mbit_before": rate(end, cut_at - 2, cut_at),
                       f"{name}_mbit_after": rate(end, cut_at + 1, cut_at + AFTER - 1)}
        return result

    return each(options, {"link": options.link, "cut": options.path}, lambda case: (
        paths, lambda link: measure(link, case["cut"])))


def beside(options):
    """Small requests, one after the other, beside a transfer on the same link."""

    def measure(link, rtt):
        # What begins with the transfer is over when the requests are.
        link.start("transfer", BEFORE + options.secs + 1, "--one-way", name="bulk")
        time.sleep(BEFORE)
        link.start("talk", options.secs, "--interval", 0.02, "--size", 200, port=5202 if options.interactive else 5200)
        taken = sorted(answered_at - sent_at for sent_at, answered_at in link.talked(options.secs))
        end = link.transferred(options.secs, "bulk")[1]
        if not taken:
            raise Failure(f"no request was answered in {options.secs:g} s")
        percentile = lambda share: taken[int(share * (len(taken) - 1))]
        result = {"requests": len(taken), "round_trips": round(percentile(0.5) * 1000 / rtt, 2)}
        result |= {f"p{share}_ms": ms(percentile(share / 100)) for share in (50, 90, 99)}
        return result | {"bulk_mbit": rate(end, link.began_at, link.began_at + options.secs)}

    return each(options, {"rtt": options.rtt, "loss": options.loss, "link": options.link}, lambda case: (
        [Path(float(case["rtt"]), float(case["loss"]))], lambda link: measure(link, float(case["rtt"]))))


# ---- How ------------------------------------------------------------------------------------------------------------


def each(options, choices, plan):
    """Measures each combination, in turns, and prints a line each: 1 if something went wrong."""
    cases = [{}]
    for name, values in choices.items():
        cases = [case | {name: value} for case in cases for value in values]
    status = 0
    for _ in range(options.turns):
        for case in cases:
            paths, measure = plan(case)
            line = {"measured": options.command, **case}
            with logs(options) as folder, lab(*paths):
                link = Link(folder, LINKS[case["link"]], len(paths))
                try:
                    line |= measure(link)
                except (Failure, TimeoutError) as error:
                    line, status = line | {"error": str(error)}, 1
                finally:
                    link.processes.stop()
            print(json.dumps(line), flush=True)
    return status


@contextlib.contextmanager
def logs(options):
    """The folder for what the programs say; a given one stays."""
    if options.logs:
        pathlib.Path(options.logs).mkdir(parents=True, exist_ok=True)
        yield pathlib.Path(options.logs).resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="longhaul-wan-") as folder:
            yield pathlib.Path(folder)


class Link:
    """A link over all paths, the server behind it, and the clients in front of it."""

    def __init__(self, folder, channels, path_count):
        self.processes = Processes(folder)
        self.clients = {}
        self.processes.spawn("server", B, sys.executable, ENDS, "serve", 5201)
        addresses = [(scheme, count, number + 1) for number in range(path_count) for scheme, count in channels]
        start_link(self.processes, addresses)

    def start(self, kind, seconds, *options, name="client", port=5200):
        """Begins a transfer or a talk; returns when its first byte came."""
        self.clients[name] = self.processes.spawn(
            name, A, sys.executable, ENDS, kind, port, seconds, *options)
        end = time.monotonic() + 20
        while "begin" not in self.processes.log(name).read_text():
            if time.monotonic() > end or self.clients[name].poll() is not None:
                raise Failure(f"nothing came: {self.processes.log(name).read_text()[-300:]}")
            time.sleep(0.01)
        self.began_at = time.monotonic()

    def outage(self, seconds):
        """No path for so long: when it came back."""
        cut()
        time.sleep(seconds)
        mended_at = time.monotonic()
        mend()
        return mended_at

    def talked(self, seconds):
        """When each line was sent, and answered."""
        return self._outcome("client", seconds)["answers"]

    def transferred(self, seconds, name="client"):
        """What both ends say of their transfer, the client first, which agree on each byte."""
        client = self._outcome(name, seconds)
        log = self.processes.log("server")
        if not wait(lambda: log.read_text().endswith("}\n"), 5):
            raise Failure("the server's end is not over")
        server = checked(log)
        for one, other in ((client, server), (server, client)):
            if one["sent"] != other["received"] or one["sent_sha256"] != other["received_sha256"]:
                raise Failure(f"{one['sent']} bytes were sent, {other['received']} came, or other ones")
        return client, server

    def _outcome(self, name, seconds):
        # All that the client waits for comes soon, if at all.
        if not wait(lambda: self.clients[name].poll() is not None, BEFORE + seconds + AFTER + 60):
            raise Failure("the client does not end")
        return checked(self.processes.log(name))


def checked(log):
    """The outcome in the last line of a log."""
    lines = log.read_text().splitlines()
    try:
        outcome = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise Failure(f"no outcome: {lines[-3:]}") from None
    if outcome["error"]:
        raise Failure(f"connection lost: {outcome['error']}")
    return outcome


def wait(is_done, seconds):
    end = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def ms(seconds):
    return round(seconds * 1000)


def longest(gaps):
    """In ms; those that are not noted count as none."""
    return ms(max((end - begin for begin, end in gaps), default=0))


def median_time(answers):
    return statistics.median(answered_at - sent_at for sent_at, answered_at in answers)


def rate(end, begin, until, bucket=0.5):
    """What came in that time, in Mbit/s."""
    first, last = int(begin / bucket) + 1, int(until / bucket)
    count = sum(end["buckets"].get(str(number), 0) for number in range(first, last))
    return round(count * 8 / 1e6 / max((last - first) * bucket, bucket), 1)
