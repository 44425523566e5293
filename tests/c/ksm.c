// Equal pages that become one: found, shared, broken by a write, given back; what /proc and
// /sys say of that. Says so, and does nothing, where the kernel cannot.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "checks.h"

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

#define PAGE 4096ul
#define KSM "/sys/kernel/mm/ksm/"

// 0, or why it cannot be written.
static int set(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return errno;
    int error = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : errno;
    close(fd);
    return error;
}

// Until all memory has been gone through so often that what is equal has been found.
static void merge(void)
{
    set(KSM "run", "1");
    unsigned long until = number(KSM "full_scans", "") + 3;
    while (number(KSM "full_scans", "") < until)
        usleep(1000);
}

static uint64_t frame(const void *page)
{
    return word("/proc/self/pagemap", (uintptr_t)page / PAGE) & ((1ull << 55) - 1);
}

static unsigned char *map(size_t pages, const unsigned char *values)
{
    unsigned char *at =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || madvise(at, pages * PAGE, MADV_MERGEABLE) != 0) {
        perror("mmap or madvise");
        exit(2);
    }
    for (size_t page = 0; page < pages; page++)
        memset(at + page * PAGE, values[page], PAGE);
    return at;
}

static int holds(const unsigned char *at, size_t pages, const unsigned char *values)
{
    for (size_t byte = 0; byte < pages * PAGE; byte++)
        if (at[byte] != values[byte / PAGE])
            return 0;
    return 1;
}

int main(void)
{
    // A Linux that has just been started for this may not have mounted it.
    if (access(KSM, F_OK) != 0 && (mkdir("/sys", 0755) == 0 || errno == EEXIST))
        mount("sysfs", "/sys", "sysfs", 0, NULL);
    if (access(KSM "run", W_OK) != 0) {
        puts("no KSM here");
        return 0;
    }
    set(KSM "run", "2");
    set(KSM "pages_to_scan", "1000");
    set(KSM "sleep_millisecs", "1");
    check(number(KSM "run", "") == 2 && number(KSM "pages_to_scan", "") == 1000, "settings are kept");
    check(set(KSM "run", "3") == EINVAL && set(KSM "run", "x") == EINVAL, "run is 0, 1 or 2");
    check(set(KSM "max_page_sharing", "1") == EINVAL, "a page is shared by two at least");
    check(set(KSM "use_zero_pages", "?") == EINVAL, "use_zero_pages is yes or no");
    check(number(KSM "pages_shared", "") == 0 && number(KSM "pages_sharing", "") == 0, "nothing is shared");

    unsigned char values[] = {101, 102, 101, 103, 101, 102, 104, 101};
    size_t count = sizeof values;
    unsigned char *pages = map(count, values);
    merge();
    check(holds(pages, count, values), "contents are what they were");
    check(frame(pages) == frame(pages + 2 * PAGE) && frame(pages) == frame(pages + 7 * PAGE), "equal pages are one");
    check(frame(pages) != frame(pages + PAGE) && frame(pages + PAGE) == frame(pages + 5 * PAGE), "others are another");
    check(number("/proc/self/ksm_merging_pages", "") == 6, "ksm_merging_pages");
    check(number("/proc/self/ksm_stat", "ksm_merging_pages") == 6, "ksm_stat");
    check(number(KSM "pages_shared", "") == 2 && number(KSM "pages_sharing", "") == 4, "pages_shared and pages_sharing");
    check(word("/proc/kpagecount", frame(pages)) == 4, "a merged page counts its mappings");
    check(word("/proc/kpageflags", frame(pages)) >> 21 & 1, "kpageflags has KSM");
    check(!(word("/proc/kpageflags", frame(pages + 3 * PAGE)) >> 21 & 1), "but not for other pages");
    check(number("/proc/self/smaps_rollup", "KSM:") == 24, "smaps has KSM");
    check(set(KSM "max_page_sharing", "100") == EBUSY, "max_page_sharing stays while pages are shared");

    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (!holds(pages, count, values))
            _exit(1);
        memset(pages, 1, 2 * PAGE);
        _exit(pages[2 * PAGE] == 101 && pages[5 * PAGE] == 102 ? 0 : 2);
    }
    waitpid(child, &status, 0);
    check(status == 0 && holds(pages, count, values), "a child has them, and copies to write");

    pages[4 * PAGE] = 201;
    check(pages[0] == 101 && pages[4 * PAGE] == 201 && frame(pages) != frame(pages + 4 * PAGE), "a write makes a copy");
    pages[4 * PAGE] = 101;
    merge();
    check(frame(pages) == frame(pages + 4 * PAGE), "which is merged when it is equal again");

    unsigned char *moved = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    moved = mremap(pages + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved);
    check(moved != MAP_FAILED && moved[0] == 102 && moved[PAGE - 1] == 102, "a merged page moves");
    merge();
    check(frame(moved) == frame(pages + 5 * PAGE), "and is one with the others");
    moved[0] = 1;
    check(pages[5 * PAGE] == 102, "which it leaves as they are");

    check(madvise(pages + 2 * PAGE, 6 * PAGE, MADV_UNMERGEABLE) == 0, "advice against it");
    check(frame(pages + 2 * PAGE) != frame(pages) && frame(pages + 2 * PAGE) != frame(pages + 7 * PAGE), "gives pages back");
    check(pages[2 * PAGE] == 101 && pages[5 * PAGE] == 102 && pages[7 * PAGE] == 101, "with their contents");
    munmap(moved, PAGE);
    munmap(pages, count * PAGE);

    unsigned char zeroes[4] = {0, 0, 7, 0};
    set(KSM "use_zero_pages", "1");
    pages = map(4, zeroes);
    merge();
    check(number("/proc/self/ksm_stat", "ksm_zero_pages") == 3, "zeroes become the page of zeroes");
    pages[0] = 1;
    check(number("/proc/self/ksm_stat", "ksm_zero_pages") == 2 && pages[PAGE] == 0, "until they are written to");
    set(KSM "use_zero_pages", "0");
    check(set(KSM "run", "2") == 0 && number("/proc/self/ksm_merging_pages", "") == 0, "all is given back at once");
    check(number(KSM "pages_shared", "") == 0, "and nothing is shared");
    munmap(pages, 4 * PAGE);

    check(prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 0, "a process does not ask for it");
    check(prctl(PR_SET_MEMORY_MERGE, 1, 1, 0, 0) == -1 && errno == EINVAL, "arguments that mean nothing are 0");
    check(prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) == 0 && prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1, "but may");
    pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(pages, 111, 2 * PAGE);
    merge();
    check(frame(pages) == frame(pages + PAGE), "all that it maps is merged");
    check(prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) == 0 && frame(pages) != frame(pages + PAGE), "until it does no more");
    set(KSM "run", "2");
    set(KSM "run", "0");
    set(KSM "pages_to_scan", "100");
    set(KSM "sleep_millisecs", "20");
    return failures != 0;
}
