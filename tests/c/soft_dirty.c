// Which pages have been written to since that was last asked (soft-dirty): what /proc/PID/clear_refs,
// pagemap and smaps say, after all that can happen to memory. Prints what is the same on every Linux
// that can tell, and nothing else where it cannot.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "checks.h"

#define PAGE 4096ul
#define PAGES 6
#define LEN (PAGES * PAGE)

static int pagemap;

// 0, or why it cannot be written.
static int clear_refs(const char *text)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY);
    if (fd < 0)
        return errno;
    ssize_t done = write(fd, text, strlen(text));
    int error = done < 0 ? errno : 0;
    close(fd);
    return error;
}

static void forget(void)
{
    if (clear_refs("4") != 0) {
        perror("clear_refs");
        exit(2);
    }
}

// Prints which of the pages are soft-dirty: '*' that are.
static void show(const char *what, const volatile char *at)
{
    uint64_t words[PAGES];
    char text[PAGES + 1] = {0};
    if (pread(pagemap, words, sizeof words, (off_t)((uintptr_t)at / PAGE * 8)) != sizeof words) {
        perror("pagemap");
        exit(2);
    }
    for (int page = 0; page < PAGES; page++)
        text[page] = words[page] >> 55 & 1 ? '*' : '-';
    printf("%-48s %s\n", what, text);
}

static char *map(int prot, int flags)
{
    char *at = mmap(NULL, LEN, prot, flags, -1, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return at;
}

static char *anonymous(void)
{
    return map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
}

// Written to, and then forgotten.
static char *forgotten(void)
{
    char *at = anonymous();
    memset(at, 1, LEN);
    forget();
    return at;
}

// Whether the mapping at an address has a flag in smaps.
static int has_flag(const void *at, const char *flag)
{
    char start[32];
    snprintf(start, sizeof start, "%lx-", (unsigned long)at);
    const char *found = strstr(contents("/proc/self/smaps"), start);
    const char *flags = found ? strstr(found, "VmFlags:") : NULL;
    const char *end = flags ? strchr(flags, '\n') : NULL;
    const char *match = flags ? strstr(flags, flag) : NULL;
    return match && match < end;
}

static void writes(void)
{
    volatile char *at = anonymous();
    at[0] = 1;
    (void)at[PAGE];
    show("new, written and read here and there", at);
    printf("sd in smaps: %d\n", has_flag((void *)at, " sd"));
    forget();
    show("forgotten", at);
    printf("sd in smaps: %d\n", has_flag((void *)at, " sd"));
    (void)at[2 * PAGE];
    (void)at[0];
    show("read", at);
    at[0] = at[PAGE] = at[4 * PAGE] = 2;
    show("written: what was, what was read, what was not", at);
    forget();
    at[PAGE] = 3;
    show("and again", at);
    madvise((void *)at, LEN, MADV_DONTNEED);
    show("dropped", at);
    munmap((void *)at, LEN);
}

static void protection(void)
{
    volatile char *at = forgotten();
    at[0] = 2;
    mprotect((void *)at, LEN, PROT_READ);
    mprotect((void *)at, LEN, PROT_READ | PROT_WRITE);
    show("protected and not any more", at);
    mprotect((void *)at, LEN, PROT_NONE);
    forget();
    mprotect((void *)at, LEN, PROT_READ | PROT_WRITE);
    show("forgotten while nobody had access", at);
    at[3 * PAGE] = 2;
    show("written", at);
    munmap((void *)at, LEN);
}

static void mappings(void)
{
    char *at = forgotten();
    munmap(at + PAGE, PAGE);
    if (mmap(at + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        exit(2);
    show("a page mapped anew, of another kind", at);
    mprotect(at + PAGE, PAGE, PROT_READ | PROT_WRITE);
    mprotect(at, LEN, PROT_READ);
    show("of the same kind", at);
    munmap(at, LEN);

    char *room = map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
    munmap(room, LEN);
    at = mmap(room, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    at[0] = 1;
    forget();
    if (mremap(at, 2 * PAGE, 4 * PAGE, 0) != at)
        exit(2);
    show("grown by mremap", at);
    at[3 * PAGE] = 1;
    show("and written there", at);
    if (mmap(at + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        exit(2);
    show("grown by mmap", at);
    munmap(at, LEN);

    char *heap = sbrk(0);
    sbrk((intptr_t)(PAGES * PAGE));
    forget();
    sbrk((intptr_t)PAGE);
    char *page = (char *)(((uintptr_t)heap + PAGE) & ~(PAGE - 1));
    show("the heap, grown", page);
}

static void moves(void)
{
    for (int misaligned = 0; misaligned < 2; misaligned++) {
        char *at = anonymous();
        at[0] = at[3 * PAGE] = 1;
        forget();
        char *room = map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
        munmap(room, LEN);
        char *to = mremap(at, LEN - (size_t)misaligned * PAGE, LEN - (size_t)misaligned * PAGE,
                          MREMAP_MAYMOVE | MREMAP_FIXED, room);
        if (to != room)
            exit(2);
        show("moved", to);
        to[PAGE] = 1;
        show("and written to", to);
        munmap(to, LEN);
        munmap(at, LEN);
    }
}

static void children(void)
{
    volatile char *at = forgotten();
    at[0] = 2;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        pagemap = open("/proc/self/pagemap", O_RDONLY);
        show("in a child", at);
        at[PAGE] = 3;
        forget();
        at[2 * PAGE] = 3;
        show("that forgets and writes", at);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    show("in the parent", at);
    at[5 * PAGE] = 3;
    show("that writes", at);
    munmap((void *)at, LEN);
}

static void shared(void)
{
    volatile char *at = map(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    at[0] = 1;
    (void)at[PAGE];
    forget();
    (void)at[2 * PAGE];
    show("shared memory, forgotten and read", at);
    at[0] = at[PAGE] = at[2 * PAGE] = at[3 * PAGE] = 2;
    show("and written", at);
    munmap((void *)at, LEN);
}

static void outside(void)
{
    char *at = forgotten();
    int mem = open("/proc/self/mem", O_RDWR);
    char byte = 7;
    if (pread(mem, &byte, 1, (off_t)(uintptr_t)at) != 1 ||
        pwrite(mem, &byte, 1, (off_t)(uintptr_t)(at + 2 * PAGE)) != 1)
        exit(2);
    close(mem);
    int fds[2];
    if (pipe(fds) != 0 || write(fds[1], "x", 1) != 1 || read(fds[0], at + 4 * PAGE, 1) != 1)
        exit(2);
    show("written by /proc/self/mem, and by read", at);
    munmap(at, LEN);
}

static void values(void)
{
    static const char *const texts[] = {"1", "2", "3", "4", "5", " 4\n", "+4", "04", "0", "6", "-1",
                                        "", "x", "4x", "4 4", "99999999999"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int fd = open("/proc/self/clear_refs", O_WRONLY);
        ssize_t done = write(fd, texts[i], strlen(texts[i]));
        printf("clear_refs \"%s\": %s\n", *texts[i] == ' ' ? "4 between blanks" : texts[i],
               done < 0 ? strerror(errno) : "done");
        close(fd);
    }
    int fd = open("/proc/self/clear_refs", O_RDONLY);
    char byte;
    printf("read: %s\n", read(fd, &byte, 1) < 0 ? strerror(errno) : "something");
    close(fd);
}

static unsigned long kilobytes(const void *at, const char *label)
{
    char start[32];
    snprintf(start, sizeof start, "%lx-", (unsigned long)at);
    const char *found = strstr(contents("/proc/self/smaps"), start);
    found = found ? strstr(found, label) : NULL;
    return found ? strtoul(found + strlen(label), NULL, 10) : 0;
}

static void uses(void)
{
    char *own = anonymous(), *common = map(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    static const char *const texts[] = {"1", "2", "3"};
    for (int i = 0; i < 3; i++) {
        madvise(own, LEN, MADV_DONTNEED);
        madvise(common, LEN, MADV_DONTNEED);
        memset(own, 1, LEN);
        memset(common, 1, LEN);
        clear_refs(texts[i]);
        printf("referenced after %s: private %lu kB, shared %lu kB\n", texts[i], kilobytes(own, "Referenced:"),
               kilobytes(common, "Referenced:"));
    }
    munmap(own, LEN);
    munmap(common, LEN);
}

static void peak(void)
{
    size_t len = 16 << 20;
    char *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(at, 1, len);
    munmap(at, len);
    unsigned long before = number("/proc/self/status", "VmHWM:");
    clear_refs("5");
    unsigned long after = number("/proc/self/status", "VmHWM:");
    printf("the peak is less by 16 MiB: %d\n", before - after >= 15 << 10 && before > after);
}

int main(void)
{
    pagemap = open("/proc/self/pagemap", O_RDONLY);
    values();
    uses();
    peak();
    char *new = anonymous();
    if (!has_flag(new, " sd")) {
        fprintf(stderr, "this kernel does not track writes\n");
        return 0;
    }
    writes();
    protection();
    mappings();
    moves();
    children();
    shared();
    outside();
    return failures != 0;
}
