// Memory that is put into a pipe as it is (vmsplice): what is read then, after all that the program has done to
// it meanwhile; how much goes, what fails, who waits. Prints what is the same on Linux.
#define _GNU_SOURCE

// Wrong arguments are the point of some calls.
#pragma GCC diagnostic ignored "-Wunused-result"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "checks.h"

#define PAGE 4096ul
#define RING (16 * PAGE)
#define TRY(call) report(#call, (long)(call))

static int ends[2];
static volatile int alarms, broken;

static void report(const char *what, long result)
{
    if (result == -1)
        printf("%s: %s\n", what, strerror(errno));
    else
        printf("%s: %ld\n", what, result);
}

static void new_pipe(void)
{
    if (ends[0] > 0) {
        close(ends[0]);
        close(ends[1]);
    }
    if (pipe(ends)) {
        perror("pipe");
        exit(2);
    }
}

static long splice_to(int fd, const volatile void *at, size_t len, unsigned flags)
{
    struct iovec part = {(void *)at, len};
    return vmsplice(fd, &part, 1, flags);
}

static long lend(const volatile void *at, size_t len)
{
    return splice_to(ends[1], at, len, 0);
}

static char *map(size_t len, int flags, int fd)
{
    char *at = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return at;
}

static char *anonymous(size_t len)
{
    return map(len, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static char *filled(size_t len, char with)
{
    return memset(anonymous(len), with, len);
}

// Prints what the pipe has, as runs of equal bytes.
static void show(const char *what)
{
    static char bytes[2 * RING];
    int there = 0;
    ioctl(ends[0], FIONREAD, &there);
    long len = there ? read(ends[0], bytes, sizeof bytes) : 0;
    printf("%s: %d there, %ld read:", what, there, len);
    for (long at = 0, next; at < len; at = next) {
        for (next = at; next < len && bytes[next] == bytes[at]; next++)
            ;
        printf(" %ld*%d", next - at, bytes[at]);
    }
    printf("\n");
}

static void contents_of_pipe(void)
{
    new_pipe();
    char *at = filled(4 * PAGE, 'a');
    TRY(lend(at, 4 * PAGE));
    memset(at + PAGE, 'b', 10);
    show("written to meanwhile");
    memset(at, 'c', 4 * PAGE);
    TRY(lend(at, 2 * PAGE));
    munmap(at, PAGE);
    madvise(at + PAGE, PAGE, MADV_DONTNEED);
    at[PAGE] = 'd';
    show("unmapped and dropped meanwhile");

    TRY(write(ends[1], "wwwww", 5));
    TRY(lend(at + 2 * PAGE + 100, 200));
    TRY(lend(at + 3 * PAGE, PAGE));
    TRY(write(ends[1], "wwwww", 5));
    show("between other bytes");

    struct iovec parts[] = {{at + PAGE, 1}, {at + 2 * PAGE, PAGE}, {NULL, 0}, {at + 3 * PAGE, PAGE}};
    TRY(vmsplice(ends[1], parts, 4, SPLICE_F_MOVE | SPLICE_F_MORE));
    show("in parts");
    TRY(splice_to(ends[1], at + 2 * PAGE, PAGE, SPLICE_F_GIFT));
    TRY(splice_to(ends[1], at + 2 * PAGE + 1, 5, SPLICE_F_GIFT));
    show("given away");

    char *unread = anonymous(PAGE);
    TRY(lend(unread, PAGE));
    unread[0] = 'z';
    show("never written to before");
}

static void files(void)
{
    new_pipe();
    int fd = memfd_create("file", 0);
    ftruncate(fd, PAGE);
    char *shared = map(PAGE, MAP_SHARED, fd), *private = map(PAGE, MAP_PRIVATE, fd);
    memset(shared, 'f', PAGE);
    TRY(lend(private, PAGE));
    TRY(lend(shared, PAGE));
    private[0] = 'p';
    show("a file's page, and the program's own since then");
    TRY(lend(private, PAGE));
    TRY(lend(shared, PAGE));
    private[1] = 'q';
    shared[1] = 's';
    ftruncate(fd, 0);
    show("written to, and cut off");
    close(fd);
}

// Waits until another process says so.
static void await(int fd)
{
    char byte;
    while (read(fd, &byte, 1) != 1)
        ;
}

static void forks(void)
{
    new_pipe();
    int go[2];
    pipe(go);
    char *at = filled(2 * PAGE, 'a');
    TRY(lend(at, PAGE));
    pid_t child = fork();
    if (child == 0) {
        await(go[0]);
        memset(at, 'b', 2 * PAGE);
        _exit(0);
    }
    TRY(lend(at + PAGE, PAGE));
    munmap(at, 2 * PAGE);
    write(go[1], "", 1);
    waitpid(child, NULL, 0);
    show("a child writes to its own");

    at = filled(PAGE, 'c');
    child = fork();
    if (child == 0) {
        long done = lend(at, PAGE);
        munmap(at, PAGE);
        _exit(done != PAGE);
    }
    int status;
    waitpid(child, &status, 0);
    at[0] = 'd';
    printf("child: %d\n", status);
    show("a child lent its own, and is gone");
    printf("%c\n", at[0]);
}

// What is left of a page when its room is needed.
static void around(void)
{
    static char bytes[PAGE];
    new_pipe();
    char *at = anonymous(RING);
    for (int page = 0; page < 16; page++)
        memset(at + page * PAGE, 'a' + page, PAGE);
    TRY(lend(at, RING));
    for (int part = 0; part < 3; part++)
        TRY(read(ends[0], bytes, 1000));
    munmap(at, PAGE);
    TRY(read(ends[0], bytes, 96));
    TRY(read(ends[0], bytes, 1000));
    TRY(write(ends[1], at + PAGE, PAGE));
    memset(at + PAGE, 'x', 3 * PAGE);
    show("once around");
    int equal = 0;
    for (int round = 0; round < 40; round++) {
        const char *page = at + (1 + round % 15) * PAGE;
        if (lend(page, PAGE) == PAGE && read(ends[0], bytes, PAGE) == PAGE)
            equal += !memcmp(bytes, page, PAGE);
    }
    printf("often around: %d\n", equal);
}

static void limits(void)
{
    new_pipe();
    char *at = filled(20 * PAGE, 'a');
    TRY(lend(at, 20 * PAGE));
    struct pollfd writer = {.fd = ends[1], .events = POLLOUT}, reader = {.fd = ends[0], .events = POLLIN};
    TRY(poll(&writer, 1, 0));
    TRY(poll(&reader, 1, 0));
    TRY(splice_to(ends[1], at, PAGE, SPLICE_F_NONBLOCK));
    TRY(splice_to(ends[1], NULL, PAGE, SPLICE_F_NONBLOCK));
    alarm(1);
    TRY(lend(at, PAGE));
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    alarm(1);
    TRY(lend(at, PAGE));
    printf("alarms: %d\n", alarms);
    fcntl(ends[1], F_SETFL, 0);

    pid_t child = fork();
    if (child == 0) {
        char bytes[PAGE];
        usleep(100000);
        _exit(read(ends[0], bytes, PAGE) != PAGE);
    }
    memset(at, 'b', PAGE);
    TRY(lend(at, 2 * PAGE));
    waitpid(child, NULL, 0);
    show("after who waited");

    TRY(poll(&reader, 1, 0));
    close(ends[0]);
    TRY(lend(at, PAGE));
    TRY(lend(at, 0));
    TRY(lend(NULL, PAGE));
    printf("broken: %d\n", broken);
    ends[0] = dup(ends[1]);
}

static void failures_of_calls(void)
{
    new_pipe();
    char *at = filled(3 * PAGE, 'a');
    munmap(at + PAGE, PAGE);
    struct iovec part = {at, PAGE}, huge = {at, -1ul}, none = {NULL, 0};
    int null = open("/dev/null", O_RDWR), path = open("/proc", O_PATH);
    TRY(vmsplice(ends[1], &part, 1, 16));
    TRY(vmsplice(-1, &part, 1, 16));
    TRY(vmsplice(-1, &part, 1, 0));
    TRY(vmsplice(path, &part, 1, 0));
    TRY(vmsplice(null, &part, 1, 0));
    TRY(vmsplice(null, &none, 1, 0));
    TRY(vmsplice(null, NULL, 1, 0));
    TRY(vmsplice(ends[1], NULL, 1, 0));
    TRY(vmsplice(ends[1], NULL, 0, 0));
    TRY(vmsplice(ends[1], &part, 1025, 0));
    TRY(vmsplice(ends[1], &huge, 1, 0));
    TRY(lend((void *)(1ul << 63), 1));
    TRY(lend(at + PAGE, PAGE));
    TRY(lend(at, 3 * PAGE));
    TRY(lend(at + 10, 2 * PAGE));
    struct iovec parts[] = {{at, 10}, {at + 2 * PAGE, PAGE}, {at + PAGE, 1}, {at, PAGE}};
    TRY(vmsplice(ends[1], parts, 4, 0));
    show("up to what is not there");
    mprotect(at, PAGE, PROT_NONE);
    TRY(lend(at, PAGE));
    mprotect(at, PAGE, PROT_READ);
    TRY(lend(at, PAGE));
    show("what may be read");
    int fd = memfd_create("empty", 0);
    TRY(lend(map(PAGE, MAP_SHARED, fd), PAGE));
    close(null);
    close(path);
    close(fd);
}

// The other end does as readv.
static void reading(void)
{
    new_pipe();
    char *at = filled(3 * PAGE, '-'), *lent = filled(2 * PAGE, 'l');
    TRY(splice_to(ends[0], at, PAGE, SPLICE_F_NONBLOCK));
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    alarm(1);
    TRY(splice_to(ends[0], at, PAGE, 0));
    printf("alarms: %d\n", alarms);
    TRY(splice_to(ends[0], at, 0, 0));
    TRY(lend(lent, 2 * PAGE));
    struct iovec parts[] = {{at, 5}, {at + PAGE, PAGE}};
    TRY(vmsplice(ends[0], parts, 2, 0));
    printf("%.6s %.6s\n", at, at + 2 * PAGE - 3);
    TRY(splice_to(ends[0], NULL, PAGE, 0));
    mprotect(at + PAGE, PAGE, PROT_READ);
    TRY(splice_to(ends[0], at + 100, 2 * PAGE, 0));
    show("the rest");
    close(ends[1]);
    TRY(splice_to(ends[0], at, PAGE, 0));
    ends[1] = dup(ends[0]);

    TRY(mkfifo("/tmp/lending", 0600));
    int both = open("/tmp/lending", O_RDWR | O_NONBLOCK);
    TRY(splice_to(both, lent, PAGE, 0));
    char bytes[10];
    TRY(read(both, bytes, sizeof bytes));
    close(both);
    both = open("/tmp/lending", O_RDWR | O_NONBLOCK);
    TRY(read(both, bytes, sizeof bytes));
    close(both);
    unlink("/tmp/lending");
}

static void on_signal(int number)
{
    if (number == SIGALRM)
        alarms++;
    else
        broken++;
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGPIPE, &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir("/tmp", 0777);
    contents_of_pipe();
    files();
    forks();
    around();
    limits();
    failures_of_calls();
    reading();
    return 0;
}
