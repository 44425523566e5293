// Which pages one fault brings, as /sys/kernel/mm/transparent_hugepage says, and huge pages that are made
// in the background. Prints what is the same on every Linux that has such settings.
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "checks.h"

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define SETTINGS "/sys/kernel/mm/transparent_hugepage/"
// Of 32 pages.
#define WINDOW (32 * PAGE)

static void set(const char *name, const char *value)
{
    char path[128];
    snprintf(path, sizeof path, SETTINGS "%s", name);
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, value, strlen(value)) < 0) {
        perror(path);
        exit(2);
    }
    close(fd);
}

static void refuse(const char *name, const char *value)
{
    char path[128];
    snprintf(path, sizeof path, SETTINGS "%s", name);
    int fd = open(path, O_WRONLY);
    printf("%s = %s: %s\n", name, value, fd < 0 || write(fd, value, strlen(value)) < 0 ? "refused" : "taken");
    close(fd);
}

static unsigned long faults(int kilobytes)
{
    char path[128];
    snprintf(path, sizeof path, SETTINGS "hugepages-%dkB/stats/anon_fault_alloc", kilobytes);
    return number(path, "");
}

// 4 MiB that begin at a multiple of 2 MiB, with others on neither side.
static char *room(int flags)
{
    char *at = mmap(NULL, 4 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        exit(2);
    at = (char *)(((uintptr_t)at + HUGE - 1) & ~(HUGE - 1));
    at = mmap(at, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0);
    if (at == MAP_FAILED)
        exit(2);
    return at;
}

// Prints which of 32 pages there are: '#' that are.
static void show(const char *what, const char *at)
{
    char text[WINDOW / PAGE + 1] = {0};
    for (unsigned long page = 0; page < WINDOW / PAGE; page++)
        text[page] = word("/proc/self/pagemap", (uintptr_t)at / PAGE + page) >> 63 ? '#' : '.';
    printf("%-40s %s\n", what, text);
}

static void touch(char *at, unsigned long page)
{
    *(volatile char *)(at + page * PAGE) = 1;
}

static void by_fault(void)
{
    char *at = room(MAP_PRIVATE);
    touch(at, 5);
    show("never", at);
    at = room(MAP_PRIVATE);
    set("hugepages-64kB/enabled", "madvise");
    touch(at, 5);
    show("not advised", at);
    madvise(at, 2 * HUGE, MADV_HUGEPAGE);
    // A huge page would be larger, but there is a page already.
    unsigned long before = faults(64);
    touch(at, 18);
    touch(at, 20);
    show("64 kB where advised", at);
    printf("%lu fault\n", faults(64) - before);
    touch(at, 7);
    show("and one where a page is", at);
    set("hugepages-16kB/enabled", "inherit");
    touch(at, 9);
    show("16 kB as for huge pages", at);
    printf("%d %d\n", at[18 * PAGE], at[19 * PAGE]);

    set("hugepages-32kB/enabled", "always");
    set("hugepages-64kB/enabled", "never");
    at = room(MAP_PRIVATE);
    touch(at, 30);
    show("32 kB everywhere", at);
    (void)*(volatile char *)(at + 16 * PAGE);
    show("a read", at);
    touch(at, 20);
    show("a write beside it", at);
    munmap(at + 26 * PAGE, 4 * PAGE);
    show("a part is gone", at);
    madvise(at, 8 * PAGE, MADV_NOHUGEPAGE);
    touch(at, 3);
    show("advised against", at);
    char *shared = room(MAP_SHARED);
    touch(shared, 3);
    show("shared", shared);
    char *narrow = room(MAP_PRIVATE);
    munmap(narrow + 6 * PAGE, HUGE);
    touch(narrow, 1);
    show("no room for 32 kB", narrow);
    pid_t child = fork();
    if (child == 0) {
        touch(at, 31);
        show("in a child", at);
        exit(at[30 * PAGE] != 1);
    }
    int status;
    waitpid(child, &status, 0);
    printf("%d %d\n", status, at[31 * PAGE]);
    set("hugepages-16kB/enabled", "never");
    set("hugepages-32kB/enabled", "never");
}

static unsigned long huge_kilobytes(const char *at)
{
    char start[32];
    snprintf(start, sizeof start, "%lx-", (unsigned long)at);
    const char *vma = strstr(contents("/proc/self/smaps"), start);
    return vma ? strtoul(strstr(vma, "AnonHugePages:") + 14, NULL, 10) : 0;
}

// Whether there are so many within a minute.
static int becomes_huge(const char *at, unsigned long kilobytes)
{
    for (int i = 0; i < 600; i++) {
        if (huge_kilobytes(at) == kilobytes)
            return 1;
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    return 0;
}

static void in_the_background(void)
{
    char *at = room(MAP_PRIVATE);
    for (unsigned long page = 0; page < 9; page++)
        at[page * 7 * PAGE] = (char)(page + 1);
    touch(at + HUGE, 3);
    set("khugepaged/max_ptes_none", "505");
    set("khugepaged/scan_sleep_millisecs", "10");
    madvise(at, 2 * HUGE, MADV_HUGEPAGE);
    check(becomes_huge(at, 2048), "what has pages enough becomes huge");
    int right = 1;
    for (unsigned long page = 0; page < 512; page++)
        right &= at[page * PAGE] == (page % 7 == 0 && page / 7 < 9 ? (char)(page / 7 + 1) : 0);
    check(right, "and is what it was");
    set("khugepaged/max_ptes_none", "511");
    check(becomes_huge(at, 4096), "and so does the rest");
    check(at[HUGE + 3 * PAGE] == 1 && at[HUGE] == 0, "and is what it was");
    set("khugepaged/scan_sleep_millisecs", "10000");
}

int main(void)
{
    set("enabled", "madvise");
    set("defrag", "madvise");
    refuse("hugepages-64kB/enabled", "sometimes");
    refuse("khugepaged/max_ptes_none", "512");
    refuse("khugepaged/max_ptes_shared", "-1");
    refuse("khugepaged/defrag", "2");
    refuse("hpage_pmd_size", "1");
    // Nothing becomes huge meanwhile.
    set("khugepaged/max_ptes_none", "0");
    by_fault();
    in_the_background();
    return failures != 0;
}
