/* Clocks, sleeping, alarms, interval timers. Prints one line per check; the
 * same on Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int count;
static void note(int sig) { count += sig == SIGALRM ? 1 : sig == SIGVTALRM ? 100 : 10000; }

static int64_t ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	struct sigaction sa = { .sa_handler = note };
	sigaction(SIGALRM, &sa, NULL);
	sigaction(SIGVTALRM, &sa, NULL);
	sigaction(SIGPROF, &sa, NULL);

	int clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE,
			 CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID };
	for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++) {
		int64_t a = ns(clocks[i]), b = ns(clocks[i]);
		printf("clock %d goes forward: %d\n", clocks[i], b >= a && a > 0);
	}
	struct timespec t;
	printf("no such clock: %d %d\n", clock_gettime(77, &t) ? errno : 0, clock_getres(77, &t) ? errno : 0);
	printf("year is plausible: %d\n", time(NULL) > 1700000000);
	printf("bad address: %ld %d\n", syscall(SYS_clock_gettime, 1, 8), errno);

	int64_t begin = ns(CLOCK_MONOTONIC);
	struct timespec d = { 0, 50000000 }, left = { 9, 9 };
	printf("nanosleep: %d", nanosleep(&d, &left));
	int64_t took = ns(CLOCK_MONOTONIC) - begin;
	printf(", long enough %d, not too long %d\n", took >= 50000000, took < 1000000000);
	t = (struct timespec){ 0, 1000000000 };
	printf("bad nanoseconds: %d\n", nanosleep(&t, NULL) ? errno : 0);
	t = (struct timespec){ -1, 0 };
	printf("negative: %d\n", nanosleep(&t, NULL) ? errno : 0);
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += 20000000;
	if (t.tv_nsec >= 1000000000)
		t.tv_nsec -= 1000000000, t.tv_sec++;
	printf("until a moment: %d, which has come %d\n", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL),
	       ns(CLOCK_MONOTONIC) >= t.tv_sec * 1000000000LL + t.tv_nsec);
	printf("until the past: %d\n", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &(struct timespec){ 1, 0 }, NULL));

	struct itimerval timer = { { 0, 0 }, { 0, 30000 } }, old;
	setitimer(ITIMER_REAL, &timer, NULL);
	d = (struct timespec){ 10, 0 };
	printf("interrupted sleep: %d", nanosleep(&d, &left) ? errno : 0);
	printf(", handler ran %d, left %d\n", count, left.tv_sec == 9 && left.tv_nsec > 0);

	/* A signal that is not handled does not disturb. */
	signal(SIGCHLD, SIG_DFL);
	pid_t pid = fork();
	if (pid == 0) {
		usleep(10000);
		kill(getppid(), SIGCONT);
		_exit(0);
	}
	begin = ns(CLOCK_MONOTONIC);
	d = (struct timespec){ 0, 60000000 };
	printf("undisturbed: %d, long enough %d\n", nanosleep(&d, NULL), ns(CLOCK_MONOTONIC) - begin >= 60000000);
	wait(NULL);

	count = 0;
	timer = (struct itimerval){ { 0, 20000 }, { 0, 20000 } };
	setitimer(ITIMER_REAL, &timer, NULL);
	while (count < 3)
		pause();
	getitimer(ITIMER_REAL, &old);
	printf("interval %ld, value set %d\n", (long)old.it_interval.tv_usec, old.it_value.tv_usec > 0);
	timer = (struct itimerval){ { 0, 0 }, { 0, 0 } };
	setitimer(ITIMER_REAL, &timer, &old);
	printf("was %ld\n", (long)old.it_interval.tv_usec);
	printf("alarm: %u", alarm(100));
	printf(" %u", alarm(0));
	printf(" %u\n", alarm(0));
	timer.it_value.tv_usec = 1000000;
	printf("bad microseconds: %d\n", setitimer(ITIMER_REAL, &timer, NULL) ? errno : 0);
	printf("no such timer: %d\n", getitimer(3, &old) ? errno : 0);

	count = 0;
	timer = (struct itimerval){ { 0, 0 }, { 0, 20000 } };
	setitimer(ITIMER_VIRTUAL, &timer, NULL);
	setitimer(ITIMER_PROF, &timer, NULL);
	begin = ns(CLOCK_MONOTONIC);
	while (count < 10100 && ns(CLOCK_MONOTONIC) - begin < 10000000000LL)
		;
	printf("virtual and profiling: %d\n", count);

	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	printf("used some time: %d, memory %d\n", usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec +
	       usage.ru_stime.tv_usec > 10000, usage.ru_maxrss > 0);
	printf("no such usage: %d\n", getrusage(5, &usage) ? errno : 0);
	struct tms tms;
	printf("times: %d\n", times(&tms) > 0);

	/* exec'd and forked timers: a child has none. */
	alarm(50);
	pid = fork();
	if (pid == 0)
		_exit(alarm(0));
	int status;
	wait(&status);
	printf("child's alarm: %d, parent's %d\n", WEXITSTATUS(status), alarm(0) > 40);
	signal(SIGALRM, SIG_DFL);
	if (fork() == 0) {
		alarm(1);
		pause();
	}
	wait(&status);
	printf("killed by %d\n", WTERMSIG(status));
	return 0;
}
