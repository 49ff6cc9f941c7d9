/*
 * The last program of the benchmark's Linux boot: ends the machine at once, by
 * Bochs' shutdown port 0x8900 or by Vireo's debug-exit port 0xF4.
 */
#include <sys/io.h>

int main(void)
{
    const char *word = "Shutdown";

    if (iopl(3))
        return 1;
    while (*word)
        outb(*word++, 0x8900);
    outb(0, 0xf4);
    return 2;
}
