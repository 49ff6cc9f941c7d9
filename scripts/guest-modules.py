#!/usr/bin/env python3
"""Lays kernel modules, and those that they need, into a directory that goes over
an initramfs: /modules/NAME.ko, and /modules/order, the names in the order in
which insmod takes them.

usage: scripts/guest-modules.py UNPACKED_PACKAGE OUT MODULE...
"""

import os
import re
import shutil
import sys

package, out, wanted = sys.argv[1], sys.argv[2], sys.argv[3:]
files = {}
for folder, _, names in os.walk(os.path.join(package, "lib", "modules")):
    for name in names:
        if name.endswith(".ko"):
            files[name[:-3].replace("-", "_")] = os.path.join(folder, name)

order = []


def add(module):
    module = module.replace("-", "_")
    if module in order:
        return
    if module not in files:
        sys.exit("guest-modules: there is no module %s" % module)
    with open(files[module], "rb") as f:
        depends = re.search(rb"\0depends=([^\0]*)\0", f.read())
    for other in depends.group(1).decode().split(",") if depends else []:
        if other:
            add(other)
    order.append(module)


for module in wanted:
    # Built in, or of another kernel: "name?" may be missing.
    if module.endswith("?") and module[:-1].replace("-", "_") not in files:
        continue
    add(module.rstrip("?"))
shutil.rmtree(out, ignore_errors=True)
os.makedirs(os.path.join(out, "modules"))
for module in order:
    shutil.copy(files[module], os.path.join(out, "modules", module + ".ko"))
with open(os.path.join(out, "modules", "order"), "w") as f:
    f.write("".join(module + "\n" for module in order))
