"""The rows of the table: names and order as in tests/bench/guest, what they are called,
their units, and the means that they belong to."""
import collections

Row = collections.namedtuple("Row", "name label unit groups")

USER = "user"
VECTOR = "vector"

ROWS = [
    Row("crc", "table CRC", "byte", {USER}),
    Row("sort", "quicksort", "element", {USER}),
    Row("lz", "LZ compression", "byte", {USER}),
    Row("hash", "hashing words", "word", {USER}),
    Row("gzip", "gzip of code", "byte", {USER}),
    Row("fib", "recursive fib", "call", {USER}),
    Row("icall", "indirect call", "call", {USER}),
    Row("bytecode", "interpreter loop", "bytecode", {USER}),
    Row("matmul", "double matrix product", "flop", {USER, VECTOR}),
    Row("matmul-avx2", "the same, AVX2", "flop", {USER, VECTOR}),
    Row("sin", "libm sin", "call", {USER, VECTOR}),
    Row("x87", "x87 arithmetic", "flop", {USER, VECTOR}),
    Row("sha256", "SHA-256", "byte", {USER}),
    Row("sha256-ni", "SHA-256, SHA-NI", "byte", {USER, VECTOR}),
    Row("memcpy", "memcpy 1 MiB", "byte", {USER}),
    Row("chase-2m", "pointer chase 2 MiB", "step", {USER}),
    Row("chase-64m", "pointer chase 64 MiB", "step", {USER}),
    Row("pagefault", "page fault", "fault", set()),
    Row("getppid", "getppid", "call", set()),
    Row("fork", "fork, wait", "process", set()),
    Row("exec", "fork, exec, wait", "process", set()),
    Row("pipe", "pipe ping-pong", "round trip", set()),
]
BOOT = Row("boot", "boot to init", "s", set())
BY_NAME = {row.name: row for row in [*ROWS, BOOT]}
