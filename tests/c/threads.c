/* Threads through the C library: many at once, conditions, thread-local
 * storage, signals to threads, leaving main first, exec and exit with others
 * running. Prints one line per check; the same on Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int turn, total;
static __thread int local = 42;
static atomic_int handled_by, ready;

static void *add(void *arg)
{
	for (int i = 0; i < 2000; i++) {
		pthread_mutex_lock(&mutex);
		total += (long)arg;
		local++;
		pthread_mutex_unlock(&mutex);
	}
	return (void *)(long)local;
}

static void *ping_pong(void *arg)
{
	int me = (long)arg;
	for (int i = 0; i < 1000; i++) {
		pthread_mutex_lock(&mutex);
		while (turn != me)
			pthread_cond_wait(&cond, &mutex);
		turn = !me;
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

static void *spin(void *arg)
{
	atomic_int *stop = arg;
	long n = 0;
	while (!*stop)
		n++;
	return (void *)n;
}

static void on_signal(int sig) { (void)sig; handled_by = syscall(SYS_gettid); }

static void *wait_signal(void *arg)
{
	*(atomic_int *)arg = syscall(SYS_gettid);
	while (!handled_by)
		usleep(1000);
	return NULL;
}

static void *forever(void *arg)
{
	(void)arg;
	ready++;
	for (;;)
		pause();
	return NULL;
}

static void *busy(void *arg)
{
	(void)arg;
	ready++;
	for (;;)
		;
	return NULL;
}

#ifdef __GLIBC__
static void *late(void *main_thread)
{
	pthread_join(*(pthread_t *)main_thread, NULL);
	printf("main is gone\n");
	exit(6);
}
#endif

static void *exec_main(void *path)
{
	char *args[] = { path, "again", NULL };
	execv("/proc/self/exe", args);
	return NULL;
}

static void show(const char *what)
{
	int status;
	wait(&status);
	if (WIFEXITED(status))
		printf("%s: exited %d\n", what, WEXITSTATUS(status));
	else
		printf("%s: killed by %d\n", what, WTERMSIG(status));
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	if (argc > 1) {
		printf("exec by a thread: pid is tid %d\n", getpid() == syscall(SYS_gettid));
		return 8;
	}
	pthread_t threads[32];
	for (long i = 0; i < 32; i++)
		pthread_create(&threads[i], NULL, add, (void *)(i + 1));
	long locals = 0;
	for (int i = 0; i < 32; i++) {
		void *result;
		pthread_join(threads[i], &result);
		locals += (long)result;
	}
	printf("total %d, locals %ld, main's %d\n", total, locals, local);

	pthread_create(&threads[0], NULL, ping_pong, (void *)0);
	pthread_create(&threads[1], NULL, ping_pong, (void *)1);
	pthread_join(threads[0], NULL), pthread_join(threads[1], NULL);
	printf("ping pong done\n");

	/* Threads that never yield share the CPU. */
	atomic_int stop = 0;
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, spin, &stop);
	usleep(300000);
	stop = 1;
	for (int i = 0; i < 3; i++) {
		void *n;
		pthread_join(threads[i], &n);
		printf("spun: %d\n", (long)n > 1000);
	}

	struct sigaction sa = { .sa_handler = on_signal };
	sigaction(SIGUSR1, &sa, NULL);
	atomic_int tid = 0;
	pthread_create(&threads[0], NULL, wait_signal, &tid);
	while (!tid)
		usleep(100);
	pthread_kill(threads[0], SIGUSR1);
	pthread_join(threads[0], NULL);
	printf("handled by the thread it was for: %d\n", handled_by == tid);
	handled_by = tid = 0;
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	pthread_create(&threads[0], NULL, wait_signal, &tid);
	while (!tid)
		usleep(100);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);
	kill(getpid(), SIGUSR1);
	pthread_join(threads[0], NULL);
	printf("handled by the one that does not block it: %d\n", handled_by == tid);
	long r = syscall(SYS_tgkill, getpid(), 999999, 0);
	printf("no such thread: %ld %d\n", r, errno);

	pthread_create(&threads[0], NULL, forever, NULL);
	while (!ready)
		usleep(100);
	pthread_cancel(threads[0]);
	void *result;
	pthread_join(threads[0], &result);
	printf("cancelled: %d\n", result == PTHREAD_CANCELED);

	if (fork() == 0) {
		ready = 0;
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, i & 1 ? forever : busy, NULL);
		while (ready < 4)
			usleep(100);
		exit(5);
	}
	show("exit with threads");
	if (fork() == 0) {
		ready = 0;
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, i & 1 ? forever : busy, NULL);
		while (ready < 4)
			usleep(100);
		kill(getpid(), SIGTERM);
		for (;;)
			pause();
	}
	show("kill with threads");
	/* Not with musl 1.2.3: there the kernel clears no word of musl's when
	 * a forked child's main thread leaves, so that who joins it waits
	 * forever, on Linux too. */
#ifdef __GLIBC__
	if (fork() == 0) {
		static pthread_t self;
		self = pthread_self();
		pthread_create(&threads[0], NULL, late, &self);
		pthread_exit(NULL);
	}
	show("main first");
#endif
	if (fork() == 0) {
		ready = 0;
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, i & 1 ? forever : busy, NULL);
		while (ready < 4)
			usleep(100);
		pthread_create(&threads[4], NULL, exec_main, argv[0]);
		for (;;)
			pause();
	}
	show("exec");
	cpu_set_t set;
	CPU_ZERO(&set);
	int affinity = sched_getaffinity(0, sizeof set, &set);
	printf("affinity: %d, this CPU is in it %d\n", affinity,
	       CPU_ISSET(sched_getcpu(), &set) != 0);
	return 0;
}
