"""fio in the guest: what its terse lines say."""
import re

# A job's requests in KiB; those not named here are random, of 4 KiB.
KIB = {"read": 1024, "write": 1024, "allocate": 64}


def microseconds(text):
    """{job: microseconds for each request, that is 1 / IOPS} of all terse lines (version 3);
    of their fields 7 and 48 are KiB a second that were read and written."""
    found = {}
    for line in re.findall(r"(?m)^3;fio-.*$", text):
        fields = line.split(";")
        job, rate = fields[2], float(fields[6]) + float(fields[47])
        if fields[4] == "0" and rate:
            found[job] = KIB.get(job, 4) / rate * 1e6
    return found
