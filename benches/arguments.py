"""What the arguments of benches/wan and benches/compare may be, and what is said of those that may not."""

import argparse
import math
import pathlib


def number(text, least=0.0, most=math.inf):
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not least <= value < most:
        range = f"{least:g} or more" + ("" if most == math.inf else f", and less than {most:g}")
        raise argparse.ArgumentTypeError(f"{text} is not allowed: {range}")
    return value


def milliseconds(text):
    """A round trip by which others are divided."""
    return number(text, least=1)


def percent(text):
    return number(text, most=100)


def megabits(text):
    """What a line carries in a second."""
    return number(text, least=0.01)


def seconds(text):
    return number(text, least=1)


def count(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of one or more")
    return int(text)


def several(check, of=None):
    """Values with commas between them, each as it was written, and so many of them."""

    def parse(text):
        values = text.split(",")
        for value in values:
            check(value)
        if of not in (None, len(values)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {of} values with commas between them")
        return values

    return parse


def one_of(*known):
    def check(word):
        if word not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return word

    return check


def congestion(text):
    """The name of a congestion control that a program may ask for."""
    allowed = pathlib.Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    if text not in allowed:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed here: net.ipv4.tcp_allowed_congestion_control has "
                                         + ", ".join(allowed))
    return text
