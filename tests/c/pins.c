// Pages that are pinned for long, by /sys/kernel/debug/gup_test, or lent to pipes: what the program writes to
// them is seen, they stay where they are, and they are given back.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "checks.h"

#define PAGE 4096ul
#define MANY 4096ul
#define GUP_TEST "/sys/kernel/debug/gup_test"

struct request {
    uint64_t addr, size;
    uint32_t flags;
};
#define START _IOW('g', 7, struct request)
#define STOP _IO('g', 8)
#define READ _IOW('g', 9, uint64_t)
#define USE_WRITE 1
#define USE_FAST 2

static int gup;

// 0, or why not.
static int start(const volatile void *at, size_t size, unsigned flags)
{
    struct request request = {(uintptr_t)at, size, flags};
    return ioctl(gup, START, &request) ? errno : 0;
}

static int stop(void)
{
    return ioctl(gup, STOP) ? errno : 0;
}

static int read_pins(const void *to)
{
    uint64_t address = (uintptr_t)to;
    return ioctl(gup, READ, &address) ? errno : 0;
}

// The first byte of the first pinned page, of not more than two.
static int seen(void)
{
    static char bytes[2 * PAGE];
    return read_pins(bytes) ? -1 : bytes[0];
}

static char *map(size_t len, int prot, int flags, int fd)
{
    char *at = mmap(NULL, len, prot, flags, fd, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return at;
}

static char *anonymous(size_t len)
{
    return map(len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void requests(void)
{
    struct stat stat_of;
    check(!stat(GUP_TEST, &stat_of) && stat_of.st_mode == (S_IFREG | 0600), "only root may");
    char *at = anonymous(3 * PAGE), *read_only = map(PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    munmap(at + 2 * PAGE, PAGE);
    check(read_pins(at) == EINVAL && stop() == 0, "nothing is pinned at first");
    check(ioctl(gup, START, NULL) && errno == EFAULT, "a request that cannot be read");
    check(ioctl(gup, _IO('g', 10)) && errno == EINVAL, "a request that is none");
    check(start(at + 1, PAGE, 0) == EINVAL && start(at, PAGE + 1, 0) == EINVAL, "parts of pages");
    check(start(at, 0, 0) == EINVAL && start(at, -PAGE, 0) == EINVAL, "no pages, and too many");
    check(start(at, PAGE, 4) == EINVAL, "flags that are not known");
    check(start(at, 3 * PAGE, 0) == EFAULT && start((void *)-PAGE, PAGE, 0) == EFAULT, "pages that are not there");
    check(start(read_only, PAGE, USE_WRITE) == EFAULT, "pages that may not be written to");
    check(read_pins(at) == EINVAL, "what fails pins nothing");
    check(start(at, 2 * PAGE, USE_FAST) == 0 && start(at, PAGE, 0) == EINVAL, "one set at a time");
    check(read_pins(at + PAGE) == EFAULT && read_pins(NULL) == EFAULT, "no place for what is in them");
    check(stop() == 0 && read_pins(at) == EINVAL && stop() == 0, "they are dropped");
    munmap(at, 2 * PAGE);
    munmap(read_only, PAGE);
}

// Whether a write to a page, which the pin is of, is seen.
static int follows(volatile char *at, unsigned flags)
{
    if (start(at, PAGE, flags))
        return 0;
    at[0] = 'w';
    int found = seen();
    stop();
    return found == 'w';
}

static void contents_of_pins(void)
{
    char *at = anonymous(2 * PAGE);
    volatile char *first = at;
    (void)first[0];
    check(follows(at, 0), "what was zeroes");
    check(follows(at + PAGE, USE_WRITE), "what was not there");
    int fd = memfd_create("file", 0);
    check(write(fd, "f", 1) == 1 && !ftruncate(fd, PAGE), "a file");
    char *shared = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    char *private = map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    char *later = map(PAGE, PROT_READ, MAP_PRIVATE, fd), *kept = map(PAGE, PROT_READ, MAP_SHARED, fd);
    check(private[0] == 'f' && follows(private, 0) && shared[0] == 'f', "what was a file's");
    check(!start(later, PAGE, 0) && !mprotect(later, PAGE, PROT_READ | PROT_WRITE), "what is writable later");
    later[0] = 'x';
    check(seen() == 'x' && shared[0] == 'f' && !stop(), "is one's own by then");
    check(!start(kept, PAGE, 0), "what is the file's");
    shared[0] = 's';
    check(seen() == 's' && !stop(), "stays so");
    check(follows(shared, 0) && kept[0] == 'w', "and is to be written to");

    at[0] = 'a';
    int go[2];
    check(!pipe(go), "a child");
    pid_t child = fork();
    if (child == 0) {
        char byte;
        _exit(read(go[0], &byte, 1) != 1 || at[0] != 'a');
    }
    check(follows(at, 0), "what is shared with a child");
    check(start(at, PAGE, USE_WRITE) == 0, "what is pinned");
    pid_t other = fork();
    if (other == 0) {
        at[0] = 'o';
        _exit(seen() != 'w');
    }
    int status[2];
    waitpid(other, &status[1], 0);
    at[1] = 'p';
    check(status[1] == 0 && seen() == 'w' && at[0] == 'w', "is not shared with one");
    check(write(go[1], "", 1) == 1 && waitpid(child, &status[0], 0) == child && status[0] == 0, "which has its own");
    munmap(at, PAGE);
    check(seen() == 'w' && !stop(), "what is unmapped");
    close(fd);
}

static uint64_t frame_of(const void *at)
{
    return word("/proc/self/pagemap", (uintptr_t)at / PAGE) & ((1ul << 55) - 1);
}

static int in_swap(const void *at)
{
    return word("/proc/self/pagemap", (uintptr_t)at / PAGE) >> 62 & 1;
}

static void places(void)
{
    char *at = anonymous(2 * PAGE);
    memset(at, 'a', 2 * PAGE);
    uint64_t frame = frame_of(at);
    check(start(at, PAGE, 0) == 0, "one of two pages");
    int fd = open("/proc/sys/vm/compact_memory", O_WRONLY);
    check(write(fd, "1", 1) == 1, "memory is compacted");
    close(fd);
    madvise(at, 2 * PAGE, MADV_PAGEOUT);
    check(in_swap(at + PAGE), "the one goes to swap");
    check(!in_swap(at) && frame_of(at) == frame, "the other stays where it is");
    stop();
    madvise(at, 2 * PAGE, MADV_PAGEOUT);
    check(in_swap(at) && at[0] == 'a' && at[PAGE] == 'a', "until it is pinned no more");
}

// What is free, in pages, and about that much more or less than before.
static long free_pages(void)
{
    return (long)(number("/proc/meminfo", "MemFree:") / 4);
}

static int about(long pages, long expected)
{
    return pages > expected - 512 && pages < expected + 512;
}

static void memory(void)
{
    long before = free_pages();
    char *at = anonymous(MANY * PAGE);
    memset(at, 'a', MANY * PAGE);
    check(start(at, MANY * PAGE, 0) == 0, "many pages");
    munmap(at, MANY * PAGE);
    check(about(before - free_pages(), MANY), "are kept");
    close(gup);
    check(about(before - free_pages(), 0), "and given back when the file is closed");
    gup = open(GUP_TEST, O_RDWR);

    int ends[128][2];
    at = anonymous(MANY * PAGE / 2);
    memset(at, 'a', MANY * PAGE / 2);
    size_t done = 0;
    for (int i = 0; i < 128; i++) {
        struct iovec part = {at + done, 16 * PAGE};
        done += pipe(ends[i]) ? 0 : vmsplice(ends[i][1], &part, 1, 0);
    }
    check(done == MANY * PAGE / 2, "pipes are lent many pages");
    munmap(at, MANY * PAGE / 2);
    check(about(before - free_pages(), MANY / 2), "are kept");
    static char bytes[16 * PAGE];
    int equal = 0;
    for (int i = 0; i < 64; i++)
        equal += read(ends[i][0], bytes, sizeof bytes) == sizeof bytes && bytes[0] == 'a';
    check(equal == 64 && about(before - free_pages(), MANY / 4), "and given back when they have been read");
    for (int i = 0; i < 128; i++) {
        close(ends[i][0]);
        close(ends[i][1]);
    }
    check(about(before - free_pages(), 0), "or their pipes are gone");
}

int main(void)
{
    gup = open(GUP_TEST, O_RDWR);
    if (gup < 0) {
        perror(GUP_TEST);
        return 2;
    }
    requests();
    contents_of_pins();
    places();
    memory();
    return failures != 0;
}
