"""What Python is asked to do in the guest: objects, dictionaries, text, numbers
small and long, sorting, and a regular expression."""
import json
import re


class Body:
    def __init__(self, x, speed, mass):
        self.x, self.speed, self.mass = x, speed, mass

    def pull(self, other, step):
        distance = other.x - self.x
        self.speed += other.mass * distance / (abs(distance) ** 3 + 0.1) * step


def bodies(steps):
    system = [Body(float(i * i % 11), 0.1 * i, 1.0 + i) for i in range(8)]
    for _ in range(steps):
        for body in system:
            for other in system:
                if other is not body:
                    body.pull(other, 0.001)
        for body in system:
            body.x += body.speed * 0.001
    return [body.x for body in system]


def words(count):
    table = {}
    state = 12345
    for _ in range(count):
        state = (state * 1103515245 + 12345) & 0x7fffffff
        word = "w%d" % (state % 997)
        table[word] = table.get(word, 0) + 1
    return sorted(table.items(), key=lambda item: (-item[1], item[0]))


def primes(limit):
    sieve = bytearray([1]) * limit
    for i in range(2, int(limit ** 0.5) + 1):
        if sieve[i]:
            sieve[i * i::i] = bytes(len(range(i * i, limit, i)))
    return sum(i for i in range(2, limit) if sieve[i])


print(bodies(700))
counted = words(120000)
text = json.dumps(counted)
print(counted[:5], json.loads(text)[-1], len(re.findall(r'"w(\d)\1', text)))
print(primes(300000), 3 ** 20000 % (10 ** 40 + 7))
