/*
 * What a C library does before, in and after main: output and input, allocation
 * (realloc moves large blocks with mremap), sorting, files, processes, signals,
 * threads, time. Prints the same everywhere, and exits with 42.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void sorting(void)
{
	enum { COUNT = 5000 };
	static int numbers[COUNT];
	unsigned value = 1;

	for (int i = 0; i < COUNT; i++) {
		value = value * 1103515245 + 12345;
		numbers[i] = value >> 16;
	}
	qsort(numbers, COUNT, sizeof numbers[0], compare);
	int sorted = 1;
	for (int i = 1; i < COUNT; i++)
		sorted &= numbers[i - 1] <= numbers[i];
	printf("sorted: %d, median %d\n", sorted, numbers[COUNT / 2]);
}

static void allocation(void)
{
	size_t size = 1000;
	unsigned char *block = malloc(size);
	int good = block != NULL;

	/* Grows from the heap to a mapping of its own, and on. */
	for (int step = 0; good && step < 14; step++) {
		memset(block, step + 1, size);
		unsigned char *larger = realloc(block, 2 * size);
		good = larger != NULL;
		for (size_t i = 0; good && i < size; i += 97)
			good = larger[i] == step + 1;
		block = larger;
		size *= 2;
	}
	printf("realloc to %zu: %s\n", size, good ? "contents kept" : "BAD");
	free(block);
	errno = 0;
	void *volatile absurd = malloc((size_t)-1 / 2);
	printf("absurd: %s, %s\n", absurd ? "BAD" : "NULL", strerror(errno));

	void *blocks[500];
	for (int i = 0; i < 500; i++)
		blocks[i] = calloc(i + 1, 37);
	for (int i = 0; i < 500; i += 2)
		free(blocks[i]);
	int zero = 1;
	for (int i = 1; i < 500; i += 2) {
		zero &= ((char *)blocks[i])[i] == 0;
		free(blocks[i]);
	}
	printf("calloc: %d\n", zero);
}

static void files(void)
{
	char name[64], line[64];
	struct stat status;

	snprintf(name, sizeof name, "/tmp/libc-test-%d", (int)getpid());
	FILE *file = fopen(name, "w+");
	if (!file) {
		printf("fopen: %s\n", strerror(errno));
		return;
	}
	for (int i = 0; i < 1000; i++)
		fprintf(file, "%d squared is %d\n", i, i * i);
	rewind(file);
	int lines = 0;
	while (fgets(line, sizeof line, file))
		lines++;
	fstat(fileno(file), &status);
	printf("file: %d lines, %ld bytes, last %s", lines, (long)status.st_size, line);
	fclose(file);
	unlink(name);
	printf("gone: %d\n", access(name, F_OK) == -1 && errno == ENOENT);
}

static void input(void)
{
	char *line = NULL;
	size_t room = 0;
	long lines = 0, bytes = 0, length;

	while ((length = getline(&line, &room, stdin)) > 0) {
		lines++;
		bytes += length;
	}
	free(line);
	printf("input: %ld lines, %ld bytes\n", lines, bytes);
}

static sigjmp_buf back;
static volatile sig_atomic_t caught;
static void *volatile fault_address;

static void jump_back(int number, siginfo_t *info, void *context)
{
	(void)context;
	caught = number;
	fault_address = info->si_addr;
	siglongjmp(back, 1);
}

static void signals(void)
{
	struct sigaction action = { .sa_sigaction = jump_back, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &action, NULL);
	char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!sigsetjmp(back, 1))
		page[100] = 1;
	printf("fault: signal %d, at page + %ld\n", (int)caught, (long)((char *)fault_address - page));
	mprotect(page, 4096, PROT_READ | PROT_WRITE);
	page[100] = 1;
	printf("then: %d\n", page[100]);
	munmap(page, 4096);
	signal(SIGSEGV, SIG_DFL);
}

static void processes(void)
{
	int ends[2], status, value = 1;

	fflush(stdout);
	if (pipe(ends))
		return;
	pid_t child = fork();
	if (child == 0) {
		value = 2;
		printf("child: value %d\n", value);
		fflush(stdout);
		if (write(ends[1], "message", 8) != 8)
			_exit(1);
		_exit(5);
	}
	char text[16] = "";
	if (read(ends[0], text, sizeof text) < 0)
		return;
	waitpid(child, &status, 0);
	printf("parent: value %d, %s, status %d\n", value, text, WEXITSTATUS(status));
	child = fork();
	if (child == 0)
		abort();
	waitpid(child, &status, 0);
	printf("abort: signal %d\n", WTERMSIG(status));
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static __thread long mine;
static long total;

static void *work(void *argument)
{
	for (long i = 0; i < 1000; i++) {
		mine += (long)argument;
		pthread_mutex_lock(&mutex);
		total++;
		pthread_mutex_unlock(&mutex);
	}
	return (void *)mine;
}

static void threads(void)
{
	pthread_t handles[6];
	long sum = 0;

	for (long i = 0; i < 6; i++)
		if (pthread_create(&handles[i], NULL, work, (void *)i))
			printf("pthread_create: BAD\n");
	for (int i = 0; i < 6; i++) {
		void *result;
		pthread_join(handles[i], &result);
		sum += (long)result;
	}
	printf("threads: total %ld, sum %ld, mine %ld\n", total, sum, mine);
}

static void floating_point(void)
{
	volatile double two = 2.0;

	printf("float: %.15g %.15g %g %a %s\n", sqrt(two), exp(two), 1e300 * two, two / 3, two / 0.0 > 1e308 ? "inf" : "BAD");
	printf("parsed: %g %ld %lu\n", strtod("6.25e-2", NULL), strtol("-0x7f", NULL, 16), strtoul("42", NULL, 10));
}

static void clocks(void)
{
	struct timespec before, after, pause = { 0, 20000000 };

	clock_gettime(CLOCK_MONOTONIC, &before);
	nanosleep(&pause, NULL);
	clock_gettime(CLOCK_MONOTONIC, &after);
	long elapsed = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
	/* A sane clock is past the year 2020. */
	printf("slept: %d, clock: %d\n", elapsed >= 19, time(NULL) > 1577836800);
}

static void goodbye(void)
{
	printf("goodbye\n");
}

int main(int argc, char **argv)
{
	atexit(goodbye);
	printf("%d arguments:", argc);
	for (int i = 0; i < argc; i++)
		printf(" [%s]", argv[i]);
	printf("\nenvironment:");
	for (char **variable = environ; *variable; variable++)
		printf(" [%s]", *variable);
	printf("\n");
	sorting();
	allocation();
	files();
	input();
	signals();
	processes();
	threads();
	floating_point();
	clocks();
	return 42;
}
