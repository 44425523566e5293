// Huge pages: when memory is made of them, what becomes of them, and that contents are
// right whatever does. Runs on Linux too, where transparent huge pages are there.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "checks.h"

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define PAGES (HUGE / PAGE)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static void *must(void *addr, const char *what)
{
    if (addr == MAP_FAILED) {
        perror(what);
        exit(2);
    }
    return addr;
}

// How much of the VMAs from `start` to `end` is in huge pages, in bytes.
static unsigned long huge(void *start, void *end)
{
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long low = 0, high = 0, size, sum = 0;
    if (!file) {
        perror("smaps");
        exit(2);
    }
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%lx-%lx ", &low, &high) == 2)
            continue;
        if (low < (unsigned long)end && high > (unsigned long)start && sscanf(line, "AnonHugePages: %lu", &size) == 1)
            sum += size << 10;
    }
    fclose(file);
    return sum;
}

// `size` bytes of memory aligned to 2 MiB, with nothing mapped on either side.
static unsigned char *aligned(unsigned long size)
{
    unsigned char *all = must(mmap(0, size + 3 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
    unsigned char *start = (unsigned char *)(((unsigned long)all + 2 * HUGE - 1) & ~(HUGE - 1));
    munmap(all, size + 3 * HUGE);
    return must(mmap(start, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), "mmap");
}

static void write_numbers(unsigned char *start, unsigned long pages, unsigned long round)
{
    for (unsigned long page = 0; page < pages; page++)
        *(unsigned long *)(start + page * PAGE) = page + round * 100000;
}

static int numbered(unsigned char *start, unsigned long first, unsigned long end, unsigned long round)
{
    for (unsigned long page = first; page < end; page++)
        if (*(unsigned long *)(start + page * PAGE) != page + round * 100000)
            return 0;
    return 1;
}

static int zero(unsigned char *start, unsigned long first, unsigned long end)
{
    for (unsigned long i = first * PAGE / 8; i < end * PAGE / 8; i++)
        if (((unsigned long *)start)[i])
            return 0;
    return 1;
}

static void faults(void)
{
    unsigned char *at = aligned(2 * HUGE);
    madvise(at, 2 * HUGE, MADV_HUGEPAGE);
    at[5 * PAGE] = 1;
    check(huge(at, at + 2 * HUGE) == HUGE, "a write maps 2 MiB");
    check(zero(at, 0, 5) && zero(at, 6, PAGES), "they are zeroes");
    write_numbers(at, 2 * PAGES, 1);
    check(huge(at, at + 2 * HUGE) == 2 * HUGE && numbered(at, 0, 2 * PAGES, 1), "so does the next");
    munmap(at + 10 * PAGE, 20 * PAGE);
    check(huge(at, at + 2 * HUGE) == HUGE, "munmap of a part splits");
    check(numbered(at, 0, 10, 1) && numbered(at, 30, 2 * PAGES, 1), "the rest is there");
    mprotect(at + HUGE + PAGE, PAGE, PROT_READ);
    check(huge(at, at + 2 * HUGE) == 0, "mprotect of a part splits");
    at[HUGE + 8] = 9;
    check(numbered(at, 30, 2 * PAGES, 1), "the rest can be written");
    munmap(at, 2 * HUGE);

    at = aligned(HUGE);
    madvise(at, HUGE, MADV_NOHUGEPAGE);
    at[0] = 1;
    check(huge(at, at + HUGE) == 0, "not where advised against");
    munmap(at, HUGE);

    at = aligned(HUGE);
    check(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0 && prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1, "PR_SET_THP_DISABLE");
    madvise(at, HUGE, MADV_HUGEPAGE);
    at[0] = 1;
    check(huge(at, at + HUGE) == 0, "nor by a process that does without");
    prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    munmap(at, HUGE);
}

static void moves(void)
{
    unsigned char *at = aligned(2 * HUGE), *to = aligned(2 * HUGE), *off = aligned(3 * HUGE) + PAGE;
    madvise(at, 2 * HUGE, MADV_HUGEPAGE);
    write_numbers(at, 2 * PAGES, 2);
    must(mremap(at, 2 * HUGE, 2 * HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, to), "mremap");
    check(huge(to, to + 2 * HUGE) == 2 * HUGE && numbered(to, 0, 2 * PAGES, 2), "an aligned move keeps them");
    must(mremap(to, 2 * HUGE, 2 * HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, off), "mremap");
    check(huge(off, off + 2 * HUGE) == 0 && numbered(off, 0, 2 * PAGES, 2), "another splits them");
    munmap(off - PAGE, 3 * HUGE);
}

static void forks(void)
{
    unsigned char *at = aligned(HUGE);
    madvise(at, HUGE, MADV_HUGEPAGE);
    write_numbers(at, PAGES, 3);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int ok = huge(at, at + HUGE) == HUGE && numbered(at, 0, PAGES, 3);
        at[7 * PAGE] = 99;
        ok = ok && at[7 * PAGE] == 99 && numbered(at, 0, 7, 3) && numbered(at, 8, PAGES, 3);
        _exit(ok ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    check(status == 0, "a child has them, and copies what it writes to");
    check(huge(at, at + HUGE) == HUGE && numbered(at, 0, PAGES, 3), "the parent's are its own");
    write_numbers(at, PAGES, 4);
    check(numbered(at, 0, PAGES, 4), "and can be written again");
    munmap(at, HUGE);
}

static void collapses(void)
{
    unsigned char *at = aligned(2 * HUGE);
    madvise(at, 2 * HUGE, MADV_NOHUGEPAGE);
    for (unsigned long page = 0; page < PAGES; page += 2)
        *(unsigned long *)(at + page * PAGE) = page + 500000;
    int refused = madvise(at, HUGE, MADV_COLLAPSE) == -1 && errno == EINVAL;
    check(refused, "no collapse where advised against");
    madvise(at, 2 * HUGE, MADV_HUGEPAGE);
    check(madvise(at, HUGE, MADV_COLLAPSE) == 0, "MADV_COLLAPSE");
    check(huge(at, at + 2 * HUGE) == HUGE, "makes a huge page");
    int right = 1;
    for (unsigned long page = 0; page < PAGES; page++)
        right &= *(unsigned long *)(at + page * PAGE) == (page % 2 ? 0 : page + 500000);
    check(right, "with the same contents");
    check(madvise(at, HUGE, MADV_COLLAPSE) == 0, "and again does nothing");
    madvise(at + 3 * PAGE, 5 * PAGE, MADV_DONTNEED);
    check(huge(at, at + HUGE) == 0 && zero(at, 3, 8), "MADV_DONTNEED of a part");
    check(madvise(at, HUGE, MADV_COLLAPSE) == 0 && huge(at, at + HUGE) == HUGE && zero(at, 3, 8), "collapsed again");
    unsigned char *shared = must(mmap(0, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
    munmap(shared, HUGE);
    check(madvise(shared, HUGE, MADV_COLLAPSE) == -1 && errno == ENOMEM, "nothing where nothing is mapped");
    munmap(at, 2 * HUGE);
}

struct writer {
    unsigned char *start;
    unsigned long wrong;
    int stop;
};

static void *write_on(void *argument)
{
    struct writer *w = argument;
    for (unsigned long round = 1; !__atomic_load_n(&w->stop, __ATOMIC_RELAXED); round++) {
        write_numbers(w->start, PAGES, round);
        w->wrong += !numbered(w->start, 0, PAGES, round);
    }
    return 0;
}

// A thread writes and reads while another one splits and collapses under it.
static void races(void)
{
    struct writer w = { aligned(HUGE), 0, 0 };
    pthread_t thread;
    madvise(w.start, HUGE, MADV_HUGEPAGE);
    pthread_create(&thread, 0, write_on, &w);
    for (int round = 0; round < 200; round++) {
        mprotect(w.start + (round % PAGES) * PAGE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
        mprotect(w.start, HUGE, PROT_READ | PROT_WRITE);
        madvise(w.start, HUGE, MADV_COLLAPSE);
    }
    __atomic_store_n(&w.stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, 0);
    check(w.wrong == 0, "nothing is lost in a collapse");
    munmap(w.start, HUGE);
}

int main(void)
{
    faults();
    moves();
    forks();
    collapses();
    races();
    printf(failures ? "%d checks failed\n" : "all is well\n", failures);
    return failures != 0;
}
