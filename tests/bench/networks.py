"""The part `networks`: TCP both ways and requests of 64 bytes between a guest and a
program on the host, through user networking and, for root, a tap interface; Vireo
and QEMU's TCG with the same kernel, card and network, in turns."""
import os
import re
import socket
import statistics
import subprocess
import time

from common import GUESTS, HERE, ROOT, WORK, fail, make_initramfs, newer, number, tool

OURS, THEIRS = "Vireo", "TCG"
CARDS = {"virtio": "virtio-net-pci", "e1000": "e1000"}
MODES = {"send": ("MB/s sent", 1e6), "receive": ("MB/s received", 1e6),
         "rr": ("requests of 64 bytes a second", 1)}
SECONDS = 3
PATIENCE_S = 120
TAP, HOST, GUEST = "vbench0", "192.168.138.1", "192.168.138.2"
KERNEL = os.path.join(GUESTS, "vmlinuz-amd64")
SCRIPT = """#!/bin/sh
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
ip link set lo up
ip link set eth0 up
ip addr add $ADDRESS/24 dev eth0
sleep 1
for mode in %s; do /netbench $PEER $PORT $mode %d; done
poweroff -f
""" % (" ".join(MODES), SECONDS)


def has_tap():
    """A tap interface of our own; needs root."""
    if os.geteuid() or subprocess.run(["ip", "tuntap", "add", "dev", TAP, "mode", "tap"],
                                      capture_output=True, check=False).returncode:
        return False
    for words in (["addr", "add", HOST + "/24", "dev", TAP], ["link", "set", TAP, "up"]):
        subprocess.run(["ip", *words], check=True)
    return True


class Contest:
    def __init__(self, vireo):
        source, program = os.path.join(HERE, "net", "netbench.c"), os.path.join(WORK, "netbench")
        subprocess.run([os.path.join(ROOT, "scripts", "guest-kernels.sh"), "amd64", "busybox"],
                       check=True)
        if not newer(program, [source]):
            tool("gcc", "-O2", "-static", "-o", program, source)
        layer = os.path.join(WORK, "net-layer")
        tool(os.path.join(ROOT, "scripts", "guest-modules.py"),
             os.path.join(GUESTS, "unpacked", "linux-image-amd64"), layer, "e1000", "virtio_pci",
             "virtio_net")
        tool("cp", program, os.path.join(layer, "netbench"))
        with open(os.path.join(layer, "autorun"), "w", encoding="ascii") as out:
            out.write(SCRIPT)
        os.chmod(os.path.join(layer, "autorun"), 0o755)
        self.vireo = vireo
        self.initrd = make_initramfs("net.cpio.gz", layer)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.server = subprocess.Popen([program, "serve", str(self.port)])
        self.networks = ["user"] + (["tap"] if has_tap() else [])
        self.results = {}
        self.problems = []

    def command(self, who, network, card):
        user = network == "user"
        append = "console=ttyS0 quiet ADDRESS=%s PEER=%s PORT=%d" % (
            "10.0.2.15" if user else GUEST, "10.0.2.2" if user else HOST, self.port)
        common = ["--kernel", KERNEL, "--initrd", self.initrd, "--append", append]
        if who == OURS:
            return [self.vireo, "run", "--memory", "256M", "--no-reboot", "--net", "%s,model=%s" % (
                "user" if user else "tap,name=" + TAP, card), *common]
        back = "user,id=n" if user else "tap,id=n,ifname=%s,script=no,downscript=no" % TAP
        return ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", "256M",
                "-display", "none", "-nodefaults", "-no-user-config", "-monitor", "none", "-serial",
                "stdio", "-no-reboot", "-netdev", back, "-device", CARDS[card] + ",netdev=n",
                *[word.replace("--", "-", 1) if word.startswith("--") else word for word in common]]

    def measure(self, who, network, card):
        words = self.command(who, network, card)
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                                  timeout=PATIENCE_S)
            said = done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as late:
            said = (late.stdout or b"").decode(errors="replace")
        found = dict((mode, float(units) / float(seconds)) for mode, units, seconds in
                     re.findall(r"(?m)^(send|receive|rr) (\d+) ([\d.]+)", said))
        for mode in MODES:
            if mode in found:
                self.results.setdefault((network, card, mode, who), []).append(found[mode])
            else:
                self.problems.append("networks: no %s by %s on %s with %s"
                                     % (mode, card, network, who))

    def round(self, round_number):
        for network in self.networks:
            for card in CARDS:
                for who in (OURS, THEIRS)[::-1 if round_number % 2 else 1]:
                    self.measure(who, network, card)

    def wrong(self):
        self.server.kill()
        self.server.wait()
        if "tap" in self.networks:
            time.sleep(0.1)
            subprocess.run(["ip", "link", "del", TAP], capture_output=True, check=False)
        return self.problems

    def section(self, rounds):
        if not self.results:
            fail("networks: nothing was measured")
        lines = ["Between a guest with one processor and a program on the host, medians of %d rounds"
                 % rounds, "of %d seconds each." % SECONDS, "",
                 "| network | card | | Vireo | QEMU TCG | times |", "|---|---|---|---|---|---|"]
        for network in self.networks:
            for card in CARDS:
                for mode, (label, scale) in MODES.items():
                    both = [statistics.median(self.results.get((network, card, mode, who), [0]))
                            / scale for who in (OURS, THEIRS)]
                    lines.append("| %s | %s | %s | %s | %s | %s |" % (
                        network, card, label, number(both[0]), number(both[1]),
                        number(both[0] / both[1], 2) if both[1] else "-"))
        return lines
