"""The part `tcg`: the guest program's rows on all engines in turns, and the
boot; as text for a terminal, and as a section of the page."""
from common import Samples, Sums, geometric_mean, number, say
from rows import BOOT, BY_NAME, ROWS, USER, VECTOR

NAMES = {"native": "native", "jit": "Vireo jit", "interp": "Vireo interp", "tcg": "QEMU TCG"}


class Table:
    def __init__(self, machines, engines, names, milliseconds, repeats, patience_s,
                 best=False):
        self.machines, self.engines, self.names = machines, engines, names
        self.milliseconds, self.repeats, self.patience_s = milliseconds, repeats, patience_s
        self.samples = Samples(best=best)
        self.sums = Sums()
        self.notes = {}   # row: {engine: note}
        self.lost = {}    # (row, engine): why
        self.waited = {}  # engine: shares of the time that it waited for a processor

    def round(self, round_number):
        results = {}
        for engine in self.engines:
            say("round %d, %s" % (round_number + 1, NAMES[engine]))
            results[engine] = self.machines.rows(engine, self.names, self.patience_s, self.milliseconds,
                                                 self.repeats)
        for engine in sorted(results, key=Sums.TRUST.index):
            self.take(round_number, engine, results[engine])

    def take(self, round_number, engine, result):
        if engine != "native" and result.boots:
            self.samples.put(round_number, BOOT.name, engine, min(result.boots))
        for name, (ns, checksum, note) in result.rows.items():
            # Without FMA the C library's sine is another one.
            right = note == "no-fma" or self.sums.agrees(name, engine, checksum)
            self.samples.put(round_number, name, engine, ns if right else None)
            if note != "-":
                self.notes.setdefault(name, {})[engine] = note
        if result.waits and max(result.waits):
            self.waited.setdefault(engine, []).extend(result.waits)
        for name, why in result.lost.items():
            self.lost[name, engine] = why

    def section(self, rounds):
        return section(self, rounds)

    def waits(self):
        """A sentence about the load of the host, empty where there was none."""
        if not self.waited:
            return ""
        return "The host had other work: of its time a machine waited for a processor, and it is taken off: %s." % (
            ", ".join("%s %.0f %%" % (NAMES[engine], 100 * sum(shares) / len(shares))
                      for engine, shares in self.waited.items()))

    def wrong(self):
        """What went wrong, a line each: results that differ, rows that were lost."""
        return ["%s on %s: %s" % (name, engine, why)
                for (name, engine), why in {**self.lost, **self.sums.wrong}.items()]


def rows_of(samples):
    return [row for row in [*ROWS, BOOT] if row.name in samples.values]


def means(samples, vireo="jit"):
    """What the issue of the JIT asks for: (what, value, how it is written)."""
    rows = rows_of(samples)
    gains = {row.name: samples.ratio(row.name, "tcg", vireo) for row in rows}
    slowdowns = [samples.ratio(row.name, vireo, "native") for row in rows if USER in row.groups]
    slower = sorted((row for row in rows if gains[row.name] and gains[row.name] < 1),
                    key=lambda row: gains[row.name])
    boot = samples.ratio(BOOT.name, vireo, "tcg")
    return {
        "all": geometric_mean(gains.values()),
        "vector": geometric_mean(gains[row.name] for row in rows if VECTOR in row.groups),
        "native": geometric_mean(slowdowns),
        "boot": boot,
        "slower": [row.name for row in slower],
    }


def means_lines(samples, vireo):
    m = means(samples, vireo)
    lines = []
    if m["all"]:
        lines += ["all rows, geometric mean: %s times TCG's speed (wanted: 3)" % number(m["all"], 2),
                  "floating point and vector rows: %s times TCG's speed (wanted: 10)"
                  % number(m["vector"], 2)]
    if m["native"]:
        lines.append("user-code rows: %s times the native time (wanted: at most 1.8)"
                     % number(m["native"], 2))
    if m["boot"]:
        lines.append("boot: %s of TCG's time (wanted: at most 0.6)" % number(m["boot"], 2))
    if m["all"]:
        lines.append("rows slower than TCG: %d%s (wanted: none)" % (
            len(m["slower"]), " (%s)" % ", ".join(m["slower"]) if m["slower"] else ""))
    return lines


def text(table):
    """For a terminal. Ratios: above 1, the second is faster."""
    samples, engines = table.samples, table.engines
    vireo = [engine for engine in ("jit", "interp") if engine in engines]
    ratios = [(other, engine) for engine in vireo for other in ("native", "tcg") if other in engines]
    lines = ["%-24s %-11s" % ("row", "unit") + "".join("%13s" % NAMES[e] for e in engines) +
             "".join("%15s" % heading(*r) for r in ratios)]
    for row in rows_of(samples):
        cells = ["%-24s %-11s" % (row.label, row.unit)]
        cells += ["%13s" % number(samples.value(row.name, engine)) for engine in engines]
        for ratio in ratios:
            value = samples.ratio(row.name, *order(*ratio))
            cells.append("%15s" % ("-" if value is None else "%.2f%s" % (
                value, " <" if ratio[0] == "tcg" and value < 1 else "")))
        notes = sorted(set(table.notes.get(row.name, {}).items()))
        lines.append("".join(cells) + "".join("  %s: %s" % note for note in notes))
    if table.waited:
        lines += ["", table.waits()]
    for engine in vireo:
        lines += ["", NAMES[engine] + ":"] + ["  " + line for line in means_lines(samples, engine)]
    return "\n".join(lines)


def heading(other, engine):
    """Against native: how much longer. Against TCG: how much faster."""
    return "%s/native" % engine if other == "native" else "tcg/%s" % engine


def order(other, engine):
    return (engine, "native") if other == "native" else ("tcg", engine)


def against(now, before, engines):
    """The change of each row since a run that --json kept."""
    lines = ["%-24s" % "row" + "".join("%36s" % NAMES[e] for e in engines)]
    changes = {engine: [] for engine in engines}
    for name in now.values:
        cells = ["%-24s" % (BY_NAME[name].label if name in BY_NAME else name)]
        for engine in engines:
            first, second = before.value(name, engine), now.value(name, engine)
            if first and second:
                changes[engine].append(second / first)
                cells.append("%36s" % ("%s -> %s  %+.0f %%" % (number(first), number(second),
                                                              (second / first - 1) * 100)))
            else:
                cells.append("%36s" % "-")
        lines.append("".join(cells))
    lines.append("%-24s" % "geometric mean" + "".join(
        "%36s" % ("%+.1f %%" % ((geometric_mean(changes[e]) - 1) * 100) if changes[e] else "-")
        for e in engines))
    lines.append("(time: less is better; native and TCG show the noise between the two runs)")
    return "\n".join(lines)


def section(table, rounds):
    """Markdown: the lines of the page's section."""
    samples, engines = table.samples, table.engines
    lines = ["The same static program and the same guest, one processor, %s of memory, Debian's cloud"
             % "512 MiB",
             "kernel, in turns; natively it is an ordinary program. Nanoseconds per operation, seconds for",
             "the boot; medians of %d rounds. `tcg / jit` says how many times faster than TCG the JIT is,"
             % rounds,
             "`jit / native` how many times longer than the host it takes.", "",
             "| row, per | %s | jit / native | tcg / jit | tcg / interp |" % " | ".join(
                 NAMES[e] for e in engines),
             "|---|" + "---|" * (len(engines) + 3)]
    for row in rows_of(samples):
        note = "".join(" (%s: %s)" % (NAMES[e], n) for e, n in sorted(
            table.notes.get(row.name, {}).items()))
        lines.append("| %s, %s%s | %s | %s | %s | %s |" % (
            row.label, row.unit, note,
            " | ".join(number(samples.value(row.name, engine)) for engine in engines),
            number(samples.ratio(row.name, "jit", "native"), 2),
            number(samples.ratio(row.name, "tcg", "jit"), 2),
            number(samples.ratio(row.name, "tcg", "interp"), 2)))
    if table.waited:
        lines += ["", table.waits()]
    lines += [""] + ["- JIT, " + line + "." for line in means_lines(samples, "jit")]
    lines += ["- " + line + "." for line in table.wrong()]
    return lines
