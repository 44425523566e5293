/* Futexes, by the raw system call: waiting, waking, requeueing, timeouts,
 * shared memory, robust lists, and the word cleared at thread exit. Prints one
 * line per check; the same on Linux. Needs glibc: musl cannot join a thread
 * that has left in these ways. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* As in <linux/futex.h>, which not every C library's headers bring. */
enum { FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE = 3, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP,
       FUTEX_WAIT_BITSET = 9, FUTEX_WAKE_BITSET, FUTEX_PRIVATE_FLAG = 128,
       FUTEX_CLOCK_REALTIME = 256 };
enum { FUTEX_OP_ADD = 1, FUTEX_OP_XOR = 4, FUTEX_OP_OPARG_SHIFT = 8,
       FUTEX_OP_CMP_EQ = 0, FUTEX_OP_CMP_GT = 4 };
#define FUTEX_OP(op, oparg, cmp, cmparg) \
	((((op) & 0xf) << 28) | (((cmp) & 0xf) << 24) | (((oparg) & 0xfff) << 12) | ((cmparg) & 0xfff))
struct robust_list { struct robust_list *next; };
struct robust_list_head {
	struct robust_list list;
	long futex_offset;
	struct robust_list *list_op_pending;
};

static long futex(void *addr, int op, uint32_t val, void *timeout, void *addr2, uint32_t val3)
{
	long r = syscall(SYS_futex, addr, op, val, timeout, addr2, val3);
	return r < 0 ? -errno : r;
}

#define PRIVATE FUTEX_PRIVATE_FLAG

static atomic_uint words[16];
static atomic_int waiting, woken;

struct waiter {
	atomic_uint *word;
	uint32_t value, bitset;
	long result;
	pthread_t thread;
	atomic_int tid;
};

static void *wait_main(void *arg)
{
	struct waiter *w = arg;
	w->tid = syscall(SYS_gettid);
	atomic_fetch_add(&waiting, 1);
	w->result = futex(w->word, FUTEX_WAIT_BITSET | PRIVATE, w->value, NULL, NULL, w->bitset);
	atomic_fetch_add(&woken, 1);
	return NULL;
}

/* Waits until thread `tid` sleeps. */
static void until_asleep(int tid)
{
	char path[64], text[256];
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
	for (int i = 0; i < 5000; i++) {
		FILE *f = fopen(path, "r");
		char state = 0;
		if (f && fgets(text, sizeof text, f)) {
			char *end = strrchr(text, ')');
			state = end ? end[2] : 0;
		}
		if (f)
			fclose(f);
		if (state == 'S')
			return;
		usleep(1000);
	}
	printf("thread never slept\n");
}

static void start(struct waiter *w, int n, atomic_uint *word, const uint32_t *bitsets)
{
	waiting = woken = 0;
	for (int i = 0; i < n; i++) {
		w[i].word = word, w[i].value = 0, w[i].bitset = bitsets ? bitsets[i] : ~0u;
		w[i].tid = 0;
		pthread_create(&w[i].thread, NULL, wait_main, &w[i]);
		while (!w[i].tid)
			usleep(100);
		until_asleep(w[i].tid);
	}
}

static void settle(int n)
{
	while (woken < n)
		usleep(100);
}

static void finish(struct waiter *w, int n)
{
	for (int i = 0; i < n; i++)
		pthread_join(w[i].thread, NULL);
}

static void on_alarm(int sig) { (void)sig; }

static void *robust_main(void *arg)
{
	static struct robust_list_head head;
	static struct { struct robust_list list; atomic_uint word; } lock;
	head.list.next = &lock.list;
	head.futex_offset = (char *)&lock.word - (char *)&lock.list;
	head.list_op_pending = NULL;
	lock.list.next = &head.list;
	lock.word = syscall(SYS_gettid);
	printf("set_robust_list: %ld", syscall(SYS_set_robust_list, &head, sizeof head));
	printf(" wrong size %d\n", syscall(SYS_set_robust_list, &head, 8) < 0 ? errno : 0);
	*(atomic_uint **)arg = &lock.word;
	syscall(SYS_exit, 0);
	return NULL;
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	struct timespec soon = { 0, 20000000 }, bad = { 0, 1000000000 }, past = { 1, 0 };
	words[0] = 5;
	printf("wrong value %ld\n", futex(&words[0], FUTEX_WAIT, 4, NULL, NULL, 0));
	printf("timeout %ld\n", futex(&words[0], FUTEX_WAIT | PRIVATE, 5, &soon, NULL, 0));
	printf("bad timeout %ld\n", futex(&words[0], FUTEX_WAIT, 5, &bad, NULL, 0));
	printf("past %ld\n", futex(&words[0], FUTEX_WAIT_BITSET | PRIVATE, 5, &past, NULL, ~0u));
	printf("past, real time %ld\n", futex(&words[0], FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 5, &past, NULL, ~0u));
	printf("no bits %ld\n", futex(&words[0], FUTEX_WAIT_BITSET, 5, NULL, NULL, 0));
	printf("misaligned %ld\n", futex((char *)words + 1, FUTEX_WAIT, 5, NULL, NULL, 0));
	printf("unmapped %ld\n", futex((void *)4096, FUTEX_WAIT | PRIVATE, 5, NULL, NULL, 0));
	printf("kernel %ld\n", futex((void *)0xffffffff80000000, FUTEX_WAIT | PRIVATE, 5, NULL, NULL, 0));
	printf("nobody to wake %ld\n", futex(&words[0], FUTEX_WAKE, 1, NULL, NULL, 0));
	printf("no such operation %ld\n", futex(&words[0], 77, 1, NULL, NULL, 0));

	struct sigaction sa = { .sa_handler = on_alarm };
	sigaction(SIGALRM, &sa, NULL);
	struct itimerval timer = { { 0, 0 }, { 0, 20000 } };
	setitimer(ITIMER_REAL, &timer, NULL);
	printf("interrupted %ld\n", futex(&words[0], FUTEX_WAIT | PRIVATE, 5, NULL, NULL, 0));

	struct waiter w[4];
	start(w, 4, &words[1], NULL);
	printf("wake 2: %ld", futex(&words[1], FUTEX_WAKE | PRIVATE, 2, NULL, NULL, 0));
	settle(2);
	printf(", woken %d", woken);
	printf(", wake all: %ld\n", futex(&words[1], FUTEX_WAKE | PRIVATE, INT32_MAX, NULL, NULL, 0));
	finish(w, 4);
	for (int i = 0; i < 4; i++)
		printf("%ld ", w[i].result);
	printf("\n");

	uint32_t bits[] = { 1, 2, 4, 8 };
	start(w, 4, &words[2], bits);
	printf("wake bits 2|8: %ld", futex(&words[2], FUTEX_WAKE_BITSET | PRIVATE, 10, NULL, NULL, 10));
	settle(2);
	printf(", woken %d", woken);
	printf(", the rest: %ld\n", futex(&words[2], FUTEX_WAKE | PRIVATE, 10, NULL, NULL, 0));
	finish(w, 4);

	start(w, 4, &words[3], NULL);
	printf("requeue: %ld", futex(&words[3], FUTEX_REQUEUE | PRIVATE, 1, (void *)2, &words[4], 0));
	settle(1);
	printf(", left at the first: %ld", futex(&words[3], FUTEX_WAKE | PRIVATE, 10, NULL, NULL, 0));
	printf(", at the second: %ld\n", futex(&words[4], FUTEX_WAKE | PRIVATE, 10, NULL, NULL, 0));
	finish(w, 4);

	start(w, 4, &words[5], NULL);
	printf("cmp_requeue, wrong value: %ld", futex(&words[5], FUTEX_CMP_REQUEUE | PRIVATE, 1, (void *)2, &words[6], 9));
	printf(", right: %ld", futex(&words[5], FUTEX_CMP_REQUEUE | PRIVATE, 1, (void *)10, &words[6], 0));
	settle(1);
	printf(", left at the first: %ld", futex(&words[5], FUTEX_WAKE | PRIVATE, 10, NULL, NULL, 0));
	printf(", at the second: %ld\n", futex(&words[6], FUTEX_WAKE | PRIVATE, 10, NULL, NULL, 0));
	finish(w, 4);

	start(w, 1, &words[7], NULL);
	start(w + 1, 1, &words[8], NULL);
	printf("wake_op: %ld", futex(&words[7], FUTEX_WAKE_OP | PRIVATE, 1, (void *)1, &words[8],
				    FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 0)));
	finish(w, 2);
	printf(", word %u", words[8]);
	printf(", no match: %ld", futex(&words[7], FUTEX_WAKE_OP | PRIVATE, 1, (void *)1, &words[8],
				     FUTEX_OP(FUTEX_OP_XOR | FUTEX_OP_OPARG_SHIFT, 4, FUTEX_OP_CMP_GT, 5)));
	printf(", word %u\n", words[8]);

	/* Two processes, one object. */
	atomic_uint *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared != MAP_FAILED) {
		pid_t pid = fork();
		if (pid == 0) {
			struct timespec long_time = { 5, 0 };
			_exit(-futex(shared, FUTEX_WAIT, 0, &long_time, NULL, 0) & 0xff);
		}
		long n;
		while ((n = futex(shared, FUTEX_WAKE, 1, NULL, NULL, 0)) == 0)
			usleep(1000);
		int status;
		waitpid(pid, &status, 0);
		printf("across processes: %ld, child returned %d\n", n, WEXITSTATUS(status));
	}

	/* A thread that exits with a lock. */
	atomic_uint *lock = NULL;
	pthread_t thread;
	pthread_create(&thread, NULL, robust_main, &lock);
	pthread_join(thread, NULL); /* the word cleared at exit ends this */
	printf("owner died: %x\n", *lock & 0xc0000000);
	return 0;
}
