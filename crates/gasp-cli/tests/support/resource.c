/* Reads, or writes, registers of 4 bytes of a PCI device: resource FILE OFFSET [VALUE]. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    const int fd = open(argv[1], O_RDWR | O_SYNC);
    volatile uint32_t *const registers =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || registers == MAP_FAILED) {
        perror(argv[1]);
        return 1;
    }
    volatile uint32_t *const at = registers + strtoul(argv[2], NULL, 0) / 4;
    if (argc > 3)
        *at = (uint32_t)strtoul(argv[3], NULL, 0);
    else
        printf("%u\n", *at);
    return 0;
}
