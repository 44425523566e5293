// Pages that are moved to other frames: /proc/sys/vm/compact_memory makes large blocks of
// memory that is in pieces, and does so all the time while threads and processes write,
// fork, map, unmap, move and relocate. What they have is checked, and what is free in the end.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "checks.h"

#define PAGE 4096ul
#define COMPACT "/proc/sys/vm/compact_memory"
#define MREMAP_RELOCATE_ANON 8

// Free pages in blocks of at least `order`, as /proc/buddyinfo says.
static unsigned long in_blocks(unsigned order, unsigned *orders)
{
    const char *at = contents("/proc/buddyinfo");
    unsigned long pages = 0;
    int start = 0;
    *orders = 0;
    if (sscanf(at, "Node 0, zone %*s%n", &start), start == 0)
        return 0;
    at += start;
    for (unsigned i = 0;; i++) {
        char *end;
        unsigned long count = strtoul(at, &end, 10);
        if (end == at)
            return pages;
        at = end;
        *orders = i + 1;
        if (i >= order)
            pages += count << i;
    }
}

static int compact(const char *value)
{
    int fd = open(COMPACT, O_WRONLY);
    ssize_t done = fd < 0 ? -1 : write(fd, value, strlen(value));
    int error = done < 0 ? errno : 0;
    close(fd);
    return error;
}

static unsigned char *map(unsigned long pages)
{
    unsigned char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return memory;
}

static void fill(unsigned char *memory, unsigned long pages, uint64_t seed)
{
    for (unsigned long page = 0; page < pages; page++) {
        uint64_t *words = (uint64_t *)(memory + page * PAGE);
        words[0] = words[511] = seed * 1000003 + page;
    }
}

static unsigned long wrong(const unsigned char *memory, unsigned long pages, uint64_t seed)
{
    unsigned long count = 0;
    for (unsigned long page = 0; page < pages; page++) {
        const uint64_t *words = (const uint64_t *)(memory + page * PAGE);
        count += words[0] != seed * 1000003 + page || words[511] != words[0];
    }
    return count;
}

static void in_pieces(void)
{
    enum { PAGES = 6144 };
    unsigned char *memory = map(PAGES);
    fill(memory, PAGES, 1);
    for (unsigned long page = 1; page < PAGES; page += 2)
        madvise(memory + page * PAGE, PAGE, MADV_DONTNEED);
    unsigned orders;
    unsigned long before = in_blocks(9, &orders), moved = number("/proc/vmstat", "pgmigrate_success ");
    check(orders == 11, "buddyinfo has a count for each order");
    check(compact("1") == 0, "compact_memory is written to");
    unsigned long after = in_blocks(9, &orders);
    moved = number("/proc/vmstat", "pgmigrate_success ") - moved;
    check(moved >= PAGES / 8, "pages have been moved");
    check(after >= before + PAGES / 8, "there are more large blocks");
    unsigned long bad = 0;
    for (unsigned long page = 0; page < PAGES; page++) {
        const uint64_t *words = (const uint64_t *)(memory + page * PAGE);
        bad += words[0] != (page % 2 ? 0 : 1000003 + page) || words[511] != words[0];
    }
    check(bad == 0, "all is as it was written");
    munmap(memory, PAGES * PAGE);
}

static atomic_int done;
static atomic_ulong bad, compactions;

static void *compactor(void *unused)
{
    while (!done) {
        compactions += compact("1") == 0;
        usleep(2000);
    }
    return unused;
}

// Writes and reads again.
static void *writer(void *unused)
{
    enum { PAGES = 200 };
    unsigned char *memory = map(PAGES);
    for (uint64_t round = 0; !done; round++) {
        fill(memory, PAGES, round);
        bad += wrong(memory, PAGES, round);
    }
    munmap(memory, PAGES * PAGE);
    return unused;
}

// Moves, and relocates, and protects.
static void *mover(void *unused)
{
    enum { PAGES = 100 };
    // Where nothing else is mapped meanwhile.
    unsigned char *memory = (void *)0x300000000000ul, *other = memory + 1000 * PAGE;
    if (mremap(map(PAGES), PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, memory) != memory)
        exit(2);
    fill(memory, PAGES, 7);
    for (unsigned round = 0; !done; round++) {
        int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (round % 2 ? MREMAP_RELOCATE_ANON : 0);
        unsigned char *moved = mremap(memory, PAGES * PAGE, PAGES * PAGE, flags, other);
        if (moved == MAP_FAILED && errno == EINVAL)
            moved = mremap(memory, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other);
        if (moved != other) {
            bad++;
            break;
        }
        other = memory;
        memory = moved;
        if (mprotect(memory, PAGES / 2 * PAGE, PROT_READ) != 0)
            bad++;
        bad += wrong(memory, PAGES, 7);
        if (mprotect(memory, PAGES / 2 * PAGE, PROT_READ | PROT_WRITE) != 0)
            bad++;
        fill(memory, PAGES, 7);
    }
    munmap(memory, PAGES * PAGE);
    return unused;
}

// Maps and unmaps.
static void *mapper(void *unused)
{
    for (uint64_t round = 0; !done; round++) {
        unsigned long pages = 1 + round * 37 % 150;
        unsigned char *memory = map(pages);
        fill(memory, pages, round);
        madvise(memory, pages / 2 * PAGE, MADV_DONTNEED);
        bad += pages > 1 && *memory != 0;
        fill(memory, pages / 2, round);
        bad += wrong(memory, pages, round);
        munmap(memory, pages * PAGE);
    }
    return unused;
}

// Shares its memory with children, which write to it as it does.
static void forker(unsigned rounds)
{
    enum { PAGES = 300 };
    unsigned char *memory = map(PAGES);
    for (uint64_t round = 0; round < rounds; round++) {
        fill(memory, PAGES, round);
        pid_t child = fork();
        if (child == 0) {
            unsigned long found = wrong(memory, PAGES, round);
            fill(memory, PAGES, round + 1000);
            _exit(found + wrong(memory, PAGES, round + 1000) != 0);
        }
        bad += wrong(memory, PAGES, round);
        fill(memory, PAGES / 2, round);
        int status = -1;
        waitpid(child, &status, 0);
        bad += status != 0;
        bad += wrong(memory, PAGES, round);
    }
    munmap(memory, PAGES * PAGE);
}

static unsigned long in_use(void)
{
    return number("/proc/meminfo", "AnonPages:") / 4;
}

static void all_at_once(unsigned rounds)
{
    void *(*const work[])(void *) = {compactor, writer, mover, mapper};
    enum { THREADS = sizeof work / sizeof *work };
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work[i], NULL) != 0)
            exit(2);
    forker(rounds);
    done = 1;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    done = 0;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 200;
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct stat status;
    check(stat(COMPACT, &status) == 0 && status.st_mode == (S_IFREG | 0200), "compact_memory can only be written to");
    check(open(COMPACT, O_RDONLY) < 0 && errno == EACCES, "nobody reads it");
    check(compact("0") == EINVAL && compact("2") == EINVAL && compact("x") == EINVAL, "what is written is 1");
    in_pieces();
    // What the C library keeps for its threads is there from now on.
    all_at_once(1);
    unsigned long before = in_use(), moved = number("/proc/vmstat", "pgmigrate_success ");
    all_at_once(rounds);
    unsigned long after = in_use();
    check(bad == 0, "what was written was read by all");
    check(compactions > 2, "memory was compacted meanwhile");
    check(number("/proc/vmstat", "pgmigrate_success ") - moved > 100, "pages were moved meanwhile");
    check(after <= before + 32, "no page is lost");
    return failures != 0;
}
