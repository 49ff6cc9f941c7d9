#!/usr/bin/env python3
"""Networks.

usage: test_net.py linux CPUS MODEL    Linux on a user network: DHCP, a file over HTTP,
                                       one the other way, forwarded ports; MODEL: virtio
                                       or e1000
       test_net.py loopback            traffic within the guest never reaches the card
       test_net.py restrict            nothing gets out, forwarded ports work
       test_net.py tap MODEL           Linux on a tap interface; needs root, else skipped
       test_net.py debian BUS MODEL    Debian's disk: HTTP, apt-get update, ssh, UDP
       test_net.py options             wrong input, deterministic machines
"""

import hashlib
import http.server
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

from harness import (ENGINE, Failure, GUESTS, Machine, ROOT, VIREO, fetch, guest, initramfs,
                     no_complaints)

SKIPPED = 77
FILE_BYTES = 24 << 20
MODULES = ["e1000", "virtio_pci", "virtio_net"]

# What the guest does first: modules, an address.
START = r"""#!/bin/sh
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
cat > /bound <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev eth0
ip route add default via $router
END
cat > /shout <<'END'
#!/bin/sh
read word
echo "$word" | tr a-z A-Z
END
chmod +x /bound /shout
ip link set lo up
ip link set eth0 up
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """An HTTP server on the host's loopback, of files in memory and of a folder."""

    def __init__(self, files, folder=None, address="127.0.0.1"):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=folder)

            def do_GET(self):
                name = self.path.lstrip("/")
                if name not in files:
                    super().do_GET()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(files[name])))
                self.end_headers()
                self.wfile.write(files[name])

            def log_message(self, *arguments):
                pass

        class Listener(http.server.ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        self.server = Listener((address, 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def sink():
    """A port that takes all that one client sends, its thread, and then a list of
    (bytes, SHA-256)."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    result = []

    def take():
        client, _ = listener.accept()
        digest, count = hashlib.sha256(), 0
        while data := client.recv(1 << 16):
            digest.update(data)
            count += len(data)
        result.append((count, digest.hexdigest()))
        client.close()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return listener.getsockname()[1], thread, result


def counters(machine):
    """(sent, received) of the first card, as --stats says."""
    match = re.search(rb"network card nic0: (\d+) packets .*? sent, (\d+) ", machine.errors)
    if not match:
        raise Failure("--stats says nothing of the card")
    return int(match.group(1)), int(match.group(2))


def run(options, talk):
    machine = Machine(options)
    try:
        talk(machine)
    except Failure as failure:
        machine.report(failure)
        sys.exit(1)
    finally:
        machine.kill()
    return machine


def layer():
    fetch("amd64", "busybox")
    out = os.path.join(GUESTS, "layers", "net")
    if not os.path.exists(os.path.join(out, "modules", "order")):
        subprocess.run([os.path.join(ROOT, "scripts", "guest-modules.py"),
                        guest("unpacked/linux-image-amd64"), out, *MODULES], check=True)
    mine = os.path.join(GUESTS, "net-start.%d" % os.getpid())
    with open(mine, "w", encoding="ascii") as f:
        f.write(START)
    os.rename(mine, os.path.join(out, "start"))
    return out


def linux_options(cpus, net):
    return [("kernel", guest("vmlinuz-amd64")),
            ("initrd", initramfs(name="net-initramfs.cpio.gz", layers=[layer()])),
            ("append", "console=ttyS0 quiet"), ("memory", "256M"), ("cpus", str(cpus)),
            ("net", net), ("stats", None), ("no-reboot", None)]


def checked(machine, command, expected=None, seconds=120):
    said, status = machine.command_output(command, seconds)
    if status or (expected is not None and expected not in said):
        raise Failure("%s: status %d, %s" % (command, status, said))
    return said


def starts(machine, dhcp=True):
    machine.expect(r"vireo:~# ", 120)
    checked(machine, "sh /start")
    if dhcp:
        checked(machine, "udhcpc -i eth0 -s /bound -n -q -t 8 -T 2 2>&1", "10.0.2.15")


def ends(machine):
    machine.send("poweroff -f\n")
    machine.exits(0)
    no_complaints(machine)


def forwarded(port, word, seconds=30):
    """What a forwarded port answers, once somebody listens behind it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
                s.sendall(word + b"\n")
                answer = s.recv(4096)
                if answer:
                    return answer
        except OSError:
            pass
        time.sleep(0.2)
    raise Failure("port %d is not answered" % port)


def answers(port, seconds=30):
    """A forwarded UDP port, behind which somebody shouts back, soon."""
    end = time.monotonic() + seconds
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        while time.monotonic() < end:
            s.sendto(b"datagram", ("127.0.0.1", port))
            try:
                if s.recv(99) == b"DATAGRAM":
                    return
            except OSError:
                pass
    raise Failure("UDP port %d is not answered" % port)


def shouts(machine, port):
    """busybox' nc has one client; what listens again is for a first one that came
    too early."""
    machine.send("while :; do nc -l -p 7 -e /shout; done &\n")
    answer = forwarded(port, b"shout")
    if answer != b"SHOUT\n":
        raise Failure("the forwarded port says %r" % answer)


def linux(cpus, model):
    data = random.Random(4).randbytes(FILE_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    server = Server({"file": data})
    try:
        server6 = Server({"file": data}, address="::1")
    except OSError:
        server6 = None  # the host has no IPv6
    to, thread, got = sink()
    tcp = free_port()

    def talk(machine):
        starts(machine)
        checked(machine, "wget -qO /tmp/file http://10.0.2.2:%d/file && sha256sum /tmp/file"
                % server.port, digest)
        # Several at once.
        checked(machine, "for i in 1 2 3 4; do wget -qO - http://10.0.2.2:%d/file | "
                "sha256sum > /tmp/sum$i & done; wait; cat /tmp/sum* | sort | uniq -c"
                % server.port, "4 " + digest)
        if server6:
            checked(machine, "for n in $(seq 20); do ip -6 addr show dev eth0 | grep fec0: | "
                    "grep -qv tentative && break; sleep 1; done; "
                    "wget -qO - http://[fec0::2]:%d/file | sha256sum" % server6.port, digest)
        checked(machine, "nc 10.0.2.2 %d < /tmp/file" % to)
        thread.join(60)
        if got != [(FILE_BYTES, digest)]:
            raise Failure("what came is not what was sent: %r" % got)
        shouts(machine, tcp)
        ends(machine)

    machine = run(linux_options(cpus, "user,model=%s,forward=tcp:%d:7" % (model, tcp)), talk)
    if min(counters(machine)) < 100:
        print("few packets: %r" % (counters(machine),))
        sys.exit(1)


def loopback():
    """What IPv6 says when a card comes up is a handful, and not always as much."""
    sent = []
    for pings in (0, 200):
        def talk(machine, pings=pings):
            starts(machine, dhcp=False)
            if pings:
                checked(machine, "ping -c %d -i 0.01 127.0.0.1" % pings,
                        "%d packets received" % pings)
            ends(machine)
        sent.append(counters(run(linux_options(1, "user,model=virtio"), talk))[0])
    if sent[1] > sent[0] + 50:
        print("with 200 pings to 127.0.0.1 %d packets were sent, without %d" % (sent[1], sent[0]))
        sys.exit(1)


def restrict():
    server = Server({"file": b"let out"})
    tcp = free_port()

    def talk(machine):
        starts(machine)
        said, _ = machine.command_output("echo GET /file | nc -w 3 10.0.2.2 %d" % server.port, 30)
        if "let out" in said:
            raise Failure("restrict lets out")
        shouts(machine, tcp)
        ends(machine)

    run(linux_options(1, "user,restrict,forward=tcp:127.0.0.1:%d:7" % tcp), talk)


def net_ticks(machine):
    """The time that the network's thread has taken, in the kernel's ticks."""
    tasks = "/proc/%d/task" % machine.process.pid
    for task in os.listdir(tasks):
        with open(os.path.join(tasks, task, "stat"), encoding="ascii") as f:
            name, words = f.read().split("(", 1)[1].rsplit(")", 1)
        if name == "net":
            return int(words.split()[11]) + int(words.split()[12])
    raise Failure("there is no thread for the network")


def loses(machine, interface):
    """An interface that is deleted is told once, and costs nothing."""
    subprocess.run(["ip", "link", "del", interface], check=True)
    machine.rest(1)
    before = net_ticks(machine)
    machine.rest(2)
    if net_ticks(machine) > before + 10:
        raise Failure("the network's thread does not rest without its interface")
    checked(machine, "ping -c 1 -W 1 127.0.0.1", "1 packets received")
    if machine.errors.count(b"is gone") != 1:
        raise Failure("it is not said that the interface is gone")


def tap(model):
    name = "vtap%d" % (os.getpid() % 100000)
    # Tests run side by side, each with a network of its own.
    network = "10.213.%d" % (os.getpid() % 250)
    host, guest = network + ".1", network + ".2"
    if os.geteuid() or subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"],
                                      capture_output=True, check=False).returncode:
        print("skipped: a tap interface needs root and /dev/net/tun")
        sys.exit(SKIPPED)
    try:
        for words in (["addr", "add", host + "/24", "dev", name],
                      ["link", "set", name, "up"]):
            subprocess.run(["ip", *words], check=True)
        data = random.Random(5).randbytes(FILE_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        listener = socket.socket()
        listener.bind((host, 0))
        listener.listen(2)
        got = []

        def serve():
            """The first client is given the file, the second gives it back."""
            client, _ = listener.accept()
            client.sendall(data)
            client.close()
            client, _ = listener.accept()
            back = hashlib.sha256()
            while part := client.recv(1 << 16):
                back.update(part)
            got.append(back.hexdigest())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]

        def talk(machine):
            starts(machine, dhcp=False)
            checked(machine, "ip addr add %s/24 dev eth0; sleep 1" % guest)
            checked(machine, "ping -c 3 -s 3000 " + host, "3 packets received")
            checked(machine, "nc %s %d < /dev/null > /tmp/file; sha256sum /tmp/file"
                    % (host, port), digest)
            checked(machine, "nc %s %d < /tmp/file" % (host, port))
            thread.join(60)
            if got != [digest]:
                raise Failure("what came back is not what was sent")
            loses(machine, name)
            ends(machine)

        run(linux_options(1, "tap,name=%s,model=%s" % (name, model)), talk)
    finally:
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)


def archive(folder):
    """A package archive of one small package, unsigned."""
    package = os.path.join(folder, "package")
    control = ("Package: vireo-was-here\nVersion: 1\nArchitecture: all\n"
               "Maintainer: nobody <nobody@localhost>\n")
    os.makedirs(os.path.join(package, "DEBIAN"))
    with open(os.path.join(package, "DEBIAN", "control"), "w", encoding="ascii") as f:
        f.write(control + "Description: a test\n")
    subprocess.run(["dpkg-deb", "-b", "--root-owner-group", package,
                    os.path.join(folder, "here.deb")], check=True, capture_output=True)
    with open(os.path.join(folder, "here.deb"), "rb") as f:
        deb = f.read()
    with open(os.path.join(folder, "Packages"), "w", encoding="ascii") as f:
        f.write("%sFilename: ./here.deb\nSize: %d\nSHA256: %s\nDescription: a test\n"
                % (control, len(deb), hashlib.sha256(deb).hexdigest()))


def debian(bus, model):
    image = os.environ.get("DEBIAN_IMAGE")
    if not image:
        image = guest("debian.img")
        subprocess.run([os.path.join(ROOT, "scripts", "guest-debian.sh")], check=True)
    data = random.Random(6).randbytes(FILE_BYTES)
    port, udp = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        key = os.path.join(folder, "key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        with open(key + ".pub", encoding="ascii") as f:
            public = f.read().strip()
        os.mkdir(os.path.join(folder, "archive"))
        archive(os.path.join(folder, "archive"))
        server = Server({"file": data}, os.path.join(folder, "archive"))

        def ssh(command, expected):
            result = subprocess.run(
                ["ssh", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o",
                 "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=30",
                 "root@127.0.0.1", command], capture_output=True, timeout=240, check=False)
            if result.returncode or expected not in result.stdout.decode():
                raise Failure("ssh %s: status %d, %s %s" % (command, result.returncode,
                                                            result.stdout.decode(),
                                                            result.stderr.decode()))

        def talk(machine):
            machine.expect("login: ", 240)
            machine.send("root\n")
            machine.expect("assword: ", 60)
            machine.send("vireo\n")
            machine.expect("# ", 120)
            checked(machine, "for i in $(seq 60); do ip -4 addr | grep -q 10.0.2.15 && break; "
                    "sleep 1; done; ip -4 addr", "10.0.2.15")
            checked(machine, "mkdir -p .ssh; echo '%s' > .ssh/authorized_keys" % public)
            ssh("uname -r", "amd64")
            ssh("exec 3<>/dev/tcp/10.0.2.2/%d; printf 'GET /file HTTP/1.0\\r\\n\\r\\n' >&3; "
                "cat <&3 | tail -c %d | sha256sum" % (server.port, FILE_BYTES),
                hashlib.sha256(data).hexdigest())
            ssh("echo 'deb [trusted=yes] http://10.0.2.2:%d ./' > /etc/apt/sources.list; "
                "rm -rf /etc/apt/sources.list.d/*; apt-get update 2>&1 && "
                "apt-get install -y vireo-was-here 2>&1 && dpkg -s vireo-was-here"
                % server.port, "install ok installed")
            ssh("perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 9, "
                "Proto => q(udp)); while (1) { $s->recv($b, 99); $s->send(uc $b); }' "
                "> /dev/null 2>&1 < /dev/null &", "")
            answers(udp)
            machine.send("poweroff\n")
            machine.exits(0, 120)
            no_complaints(machine)

        run([("disk", "%s,snapshot,bus=%s" % (image, bus)), ("memory", "512M"),
             ("no-reboot", None), ("net", "user,model=%s,forward=tcp:%d:22,forward=udp:%d:9"
                                     % (model, port, udp))], talk)


def options():
    def fails(words, *said):
        result = subprocess.run([VIREO, "run", "--engine", ENGINE, "--firmware", "bios", "--serial",
                                 "none", *words], stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=60, check=False)
        text = result.stderr.decode()
        if result.returncode != 1 or text.count("\n") != 1 or \
                not all(word in text for word in said):
            print("%s: status %d, %s" % (" ".join(words), result.returncode, text))
            sys.exit(1)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        fails(["--net", "user,forward=tcp:%d:22" % taken.getsockname()[1]], "cannot listen")
    fails(["--net", "tap,name=no/such"], "no/such")
    fails(["--net", "user", "--deterministic"], "repeatable")
    fails(["--net", "user,rom=/no/such"], "/no/such")
    fails(["--net", "user", "--net", "none"], "none")


if __name__ == "__main__":
    what, rest = sys.argv[1], sys.argv[2:]
    {"linux": linux, "loopback": loopback, "restrict": restrict, "tap": tap,
     "debian": debian, "options": options}[what](*rest)
    print("passed")
