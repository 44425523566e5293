// More memory than there is: a program that writes and reads again four times the
// machine's RAM, a child that shares some of it, and what /proc shows of that.
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "checks.h"

#define PAGE 4096ul

// Compressible, and different in each page and each round.
static void write_page(unsigned char *page, uint64_t number, uint64_t round)
{
    uint64_t *words = (uint64_t *)page;
    for (unsigned i = 0; i < PAGE / 8; i++)
        words[i] = i % 8 ? 0x0123456789abcdef : number * 1000003 + round * 7919 + i;
}

static int is_page(const unsigned char *page, uint64_t number, uint64_t round)
{
    const uint64_t *words = (const uint64_t *)page;
    for (unsigned i = 0; i < PAGE / 8; i++)
        if (words[i] != (i % 8 ? 0x0123456789abcdef : number * 1000003 + round * 7919 + i))
            return 0;
    return 1;
}

struct stripe {
    unsigned char *memory;
    unsigned long pages, first, step, wrong;
};

// Goes over every step-th page again and again, against all others.
static void *stripe(void *argument)
{
    struct stripe *s = argument;
    for (uint64_t round = 2; round < 5; round++) {
        for (unsigned long page = s->first; page < s->pages; page += s->step)
            write_page(s->memory + page * PAGE, page, round);
        for (unsigned long page = s->first; page < s->pages; page += s->step)
            s->wrong += !is_page(s->memory + page * PAGE, page, round);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long total = number("/proc/meminfo", "MemTotal:") / 4;
    unsigned long times = argc > 1 ? strtoul(argv[1], NULL, 10) : 4;
    unsigned long pages = total * times;
    unsigned long wrong = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    check(number("/proc/meminfo", "SwapTotal:") > 0, "there is swap");
    unsigned long used = number("/proc/meminfo", "SwapTotal:") - number("/proc/meminfo", "SwapFree:");

    unsigned char *memory =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    for (unsigned long page = 0; page < pages; page++)
        write_page(memory + page * PAGE, page, 0);
    check(1, "written");
    for (unsigned long page = 0; page < pages; page++)
        wrong += !is_page(memory + page * PAGE, page, 0);
    check(wrong == 0, "read again");
    check(number("/proc/self/status", "VmSwap:") / 4 > pages - total, "most of it is in swap");
    check(number("/proc/self/status", "VmRSS:") / 4 < total, "the rest is resident");
    check(number("/proc/meminfo", "SwapFree:") < number("/proc/meminfo", "SwapTotal:"), "swap is in use");

    // A child has the same, and what it writes is its own.
    unsigned long some = total / 2;
    pid_t child = fork();
    if (child == 0) {
        unsigned long bad = 0;
        for (unsigned long page = 0; page < some; page++) {
            bad += !is_page(memory + page * PAGE, page, 0);
            write_page(memory + page * PAGE, page, 1);
        }
        for (unsigned long page = 0; page < some; page++)
            bad += !is_page(memory + page * PAGE, page, 1);
        _exit(bad != 0);
    }
    for (unsigned long page = 0; page < some; page++)
        wrong += !is_page(memory + page * PAGE, page, 0);
    int status = -1;
    waitpid(child, &status, 0);
    check(wrong == 0, "the parent's is as it was");
    check(status == 0, "the child's is its own");

    // Moved while most of it is in swap.
    unsigned char *moved = mremap(memory, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                                  (void *)(0x300000000000ul + 3 * PAGE));
    check(moved != MAP_FAILED, "moved");
    for (unsigned long page = 0; page < pages; page += 7)
        wrong += !is_page(moved + page * PAGE, page, 0);
    check(wrong == 0, "read where it has been moved to");

    // Paged out on demand, and seen in pagemap.
    madvise(moved, 64 * PAGE, MADV_PAGEOUT);
    uint64_t entries[64];
    int fd = open("/proc/self/pagemap", O_RDONLY);
    ssize_t len = pread(fd, entries, sizeof entries, (uintptr_t)moved / PAGE * 8);
    unsigned out = 0;
    for (unsigned i = 0; i < 64; i++)
        out += entries[i] >> 62 == 1;
    check(len == sizeof entries && out == 64, "pagemap says what is in swap");

    // Threads that take memory from each other all the time.
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct stripe stripes[THREADS];
    unsigned long more = total + total / 2;
    for (unsigned i = 0; i < THREADS; i++) {
        stripes[i] = (struct stripe){moved, more < pages ? more : pages, i, THREADS, 0};
        pthread_create(&threads[i], NULL, stripe, &stripes[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        wrong += stripes[i].wrong;
    }
    check(wrong == 0, "threads find what they wrote");

    check(number("/proc/self/smaps_rollup", "Swap:") / 4 > pages / 2, "smaps_rollup says how much is");

    // The frame that a page is in now, what it is, and how often it is mapped.
    enum { MAPPED = 1 << 11, ANON = 1 << 12, SWAP_CACHE = 1 << 13, SWAP_BACKED = 1 << 14 };
    write_page(moved, 0, 9);
    uint64_t frame = word("/proc/self/pagemap", (uintptr_t)moved / PAGE) & ((1ull << 55) - 1);
    check(word("/proc/kpagecount", frame) == 1, "mapped once");
    check((word("/proc/kpageflags", frame) & (MAPPED | ANON | SWAP_CACHE | SWAP_BACKED)) == (MAPPED | ANON | SWAP_BACKED),
          "a private page");
    int gate[2];
    char byte = 0;
    if (pipe(gate) != 0)
        return 2;
    child = fork();
    if (child == 0) {
        close(gate[1]);
        _exit((int)read(gate[0], &byte, 1));
    }
    check(word("/proc/kpagecount", frame) == 2, "twice after fork");
    close(gate[1]);
    waitpid(child, &status, 0);
    check(word("/proc/kpagecount", frame) == 1, "once again when the child has gone");

    munmap(moved, pages * PAGE);
    unsigned long left = number("/proc/meminfo", "SwapTotal:") - number("/proc/meminfo", "SwapFree:");
    check(left <= used + 64 * 4, "what was in swap has gone with the mapping");
    return failures != 0;
}
