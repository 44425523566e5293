// What only several CPUs can do wrong, or do at all: threads that run at the same
// time, TLBs that must not remember, signals and the end for who runs elsewhere.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("line %d: %s, errno %d\n", __LINE__, #condition, errno);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static int cpus;

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    CHECK(sched_setaffinity(0, sizeof(set), &set) == 0);
    CHECK(sched_getcpu() == cpu);
}

static void unpin(void) {
    cpu_set_t set;
    memset(&set, 0xff, sizeof(set));
    CHECK(sched_setaffinity(0, sizeof(set), &set) == 0);
}

static void affinity(void) {
    cpu_set_t set;
    CHECK(sched_getaffinity(0, sizeof(set), &set) == 0);
    CHECK(CPU_COUNT(&set) == cpus);
    for (int round = 0; round < 100; round++) {
        pin(round % cpus);
        sched_yield();
        CHECK(sched_getcpu() == round % cpus);
    }
    unpin();
}

// A thread that another one moves while it runs, and which never asks the kernel
// for anything but where it is.
static atomic_int mover_cpu = -1;
static atomic_int mover_tid, mover_stop;

static void *moved(void *argument) {
    (void)argument;
    mover_tid = gettid();
    while (!mover_stop) {
        mover_cpu = sched_getcpu();
    }
    return NULL;
}

static void move_another(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, moved, NULL) == 0);
    while (mover_cpu < 0) {
    }
    for (int round = 0; round < 20; round++) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(round % cpus, &set);
        CHECK(sched_setaffinity(mover_tid, sizeof(set), &set) == 0);
        while (mover_cpu != round % cpus) {
            sched_yield();
        }
    }
    mover_stop = 1;
    CHECK(pthread_join(thread, NULL) == 0);
}

// Two threads take turns without the kernel's help. On one CPU each turn would
// take a switch.
#define TURNS 51000
static atomic_int turn;
static atomic_long switches;

static void *take_turns(void *argument) {
    int me = (int)(long)argument;
    pin(me);
    for (int i = 0; i < TURNS; i++) {
        while (turn % 2 != me) {
        }
        turn++;
    }
    struct rusage usage;
    CHECK(getrusage(RUSAGE_THREAD, &usage) == 0);
    switches += usage.ru_nvcsw + usage.ru_nivcsw;
    return NULL;
}

static void at_the_same_time(void) {
    pthread_t threads[2];
    for (long i = 0; i < 2; i++) {
        CHECK(pthread_create(&threads[i], NULL, take_turns, (void *)i) == 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(turn == 2 * TURNS);
    CHECK(switches < TURNS / 10);
}

// One thread writes to a page all the time; another one takes it away, and looks
// through a second mapping whether anything is still written.
static int *page_at, *alias;
static atomic_int faulted, go_on, writer_stop;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    if (info->si_addr != page_at) {
        _exit(3);
    }
    faulted = 1;
    while (!go_on) {
    }
    go_on = 0;
}

static void *write_always(void *argument) {
    (void)argument;
    while (!writer_stop) {
        (*(volatile int *)page_at)++;
    }
    return NULL;
}

static void stale_translations(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    int file = open("/tmp/smp", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && ftruncate(file, 4096) == 0);
    page_at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    alias = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    int *elsewhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page_at != MAP_FAILED && alias != MAP_FAILED && elsewhere != MAP_FAILED);
    pthread_t writer;
    CHECK(pthread_create(&writer, NULL, write_always, NULL) == 0);
    for (int round = 0; round < 300; round++) {
        int before = *(volatile int *)alias;
        while (*(volatile int *)alias == before) {
        }
        switch (round % 3) {
        case 0:
            CHECK(mprotect(page_at, 4096, round & 1 ? PROT_READ : PROT_NONE) == 0);
            break;
        case 1:
            CHECK(munmap(page_at, 4096) == 0);
            break;
        default:
            CHECK(mremap(page_at, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) == elsewhere);
        }
        int then = *(volatile int *)alias;
        while (!faulted) {
            CHECK(*(volatile int *)alias == then);
        }
        CHECK(*(volatile int *)alias == then);
        void *again = mmap(page_at, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
        CHECK(again == page_at);
        faulted = 0;
        go_on = 1;
    }
    writer_stop = 1;
    CHECK(pthread_join(writer, NULL) == 0);
    CHECK(signal(SIGSEGV, SIG_DFL) != SIG_ERR);
}

// Threads that never enter the kernel, in a process to which things happen.
static atomic_long *counters;

static _Noreturn void *spin(void *argument) {
    for (;;) {
        counters[(long)argument]++;
    }
}

static void wait_for_all_to_count(int threads) {
    for (int i = 0; i < threads; i++) {
        long before = counters[i];
        while (counters[i] == before) {
        }
    }
}

static pid_t spinners(void (*then)(void)) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (long i = 0; i < 3; i++) {
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, spin, (void *)i) == 0);
        }
        wait_for_all_to_count(3);
        then();
    }
    return child;
}

static void leave(void) {
    exit(7);
}

static void execute(void) {
    execl("/proc/self/exe", "smp", "executed", NULL);
    exit(8);
}

static void stay(void) {
    for (;;) {
        pause();
    }
}

static int status_of(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void spinning_threads_end(void) {
    for (int round = 0; round < 10; round++) {
        int status = status_of(spinners(leave));
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
        status = status_of(spinners(execute));
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
        for (int i = 0; i < 3; i++) {
            counters[i] = 0;
        }
        pid_t child = spinners(stay);
        wait_for_all_to_count(3);
        CHECK(kill(child, SIGSTOP) == 0);
        CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
        long stopped_at[3];
        for (int i = 0; i < 3; i++) {
            stopped_at[i] = counters[i];
        }
        usleep(5000);
        for (int i = 0; i < 3; i++) {
            CHECK(counters[i] == stopped_at[i]);
        }
        CHECK(kill(child, SIGCONT) == 0);
        wait_for_all_to_count(3);
        CHECK(kill(child, SIGKILL) == 0);
        status = status_of(child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
}

// A signal for a thread that runs elsewhere.
static atomic_int handled;

static void on_signal(int signal) {
    (void)signal;
    handled++;
}

static void *spin_until_handled(void *argument) {
    atomic_int *end = argument;
    while (!*end) {
    }
    return NULL;
}

static void signals_elsewhere(void) {
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    atomic_int end = 0;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, spin_until_handled, &end) == 0);
    for (int round = 0; round < 1000; round++) {
        CHECK(pthread_kill(thread, SIGUSR1) == 0);
        while (handled != round + 1) {
        }
    }
    end = 1;
    CHECK(pthread_join(thread, NULL) == 0);
}

// A child's end and the signal for it come in order.
static void children(void) {
    sigset_t set, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    for (int round = 0; round < 200; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            _exit(round);
        }
        CHECK(WEXITSTATUS(status_of(child)) == round);
        CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGCHLD));
        int signal;
        CHECK(sigwait(&set, &signal) == 0 && signal == SIGCHLD);
    }
    CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
}

// A call that a signal from elsewhere interrupts ends with nothing but `EINTR`.
static void interrupted_calls(void) {
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
    for (int round = 0; round < 1000; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            _exit(0);
        }
        int status;
        pid_t found;
        do {
            found = waitpid(-1, &status, 0);
        } while (found == -1 && errno == EINTR);
        CHECK(found == child && status == 0);
    }
    CHECK(signal(SIGCHLD, SIG_DFL) != SIG_ERR);
}

static void run(const char *name, void (*test)(void)) {
    test();
    printf("%s: ok\n", name);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "executed") == 0) {
        return 42;
    }
    cpus = sysconf(_SC_NPROCESSORS_ONLN);
    printf("%d CPUs\n", cpus);
    CHECK(cpus >= 2);
    counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counters != MAP_FAILED);
    run("affinity", affinity);
    run("moving another thread", move_another);
    run("at the same time", at_the_same_time);
    run("stale translations", stale_translations);
    run("spinning threads end", spinning_threads_end);
    run("signals elsewhere", signals_elsewhere);
    run("children", children);
    run("interrupted calls", interrupted_calls);
    return 0;
}
