"""The part `smp`: what a second processor is worth. In a guest of two, a row
runs in one process and then in two at the same time, one on each processor."""
import math

from common import Samples, number, say
from rows import BY_NAME
from table import NAMES

WANTED = ["sort", "bytecode", "matmul"]
PATIENCE_S = 200


class Copies:
    def __init__(self, machines, engines, names):
        self.machines, self.engines, self.names = machines, engines, names
        self.samples = Samples()  # the ratios, of rows "smp-NAME"
        self.lost = {}

    def round(self, round_number):
        for engine in self.engines:
            say("round %d, two processors, %s" % (round_number + 1, NAMES[engine]))
            result = self.machines.copies(engine, self.names, PATIENCE_S)
            for name in self.names:
                one, two = result.copies.get(name, (math.nan, None))
                if two is None:
                    self.lost[name, engine] = result.lost.get(name, "did not come to it")
                    continue
                self.samples.put(round_number, "smp-" + name, engine, two / one)

    def wrong(self):
        return ["%s on two processors, %s: lost: %s" % (name, engine, why)
                for (name, engine), why in self.lost.items()]

    def section(self, rounds):
        lines = ["Two copies of a row at the same time, one on each of two processors, and the time they take",
                 "against that of one copy (wanted: at most 1.1); medians of %d rounds. What the host itself"
                 % rounds,
                 "has to offer is the native column: its load and threads that share a core show there.", "",
                 "| row | %s |" % " | ".join(NAMES[e] for e in self.engines),
                 "|---|" + "---|" * len(self.engines)]
        for name in self.names:
            lines.append("| %s | %s |" % (BY_NAME[name].label, " | ".join(
                number(self.samples.value("smp-" + name, e), 2) for e in self.engines)))
        return lines + [""] + ["- " + line + "." for line in self.wrong()]
