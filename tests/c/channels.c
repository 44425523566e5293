/*
 * Pipes, socket pairs, event counters, poll, select and epoll: what is ready when, blocking
 * and not, broken pipes, wake-ups between processes and threads. Prints the
 * same everywhere, and exits with 0.
 */
#define _GNU_SOURCE

/* Wrong arguments are the point of some calls, and some results do not matter. */
#pragma GCC diagnostic ignored "-Wunused-result"
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#pragma GCC diagnostic ignored "-Wstringop-overread"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRY(call) report(#call, (long)(call))

static void report(const char *what, long result)
{
	if (result == -1)
		printf("%s: %s\n", what, strerror(errno));
	else
		printf("%s: %ld\n", what, result);
}

static volatile int signals;

static void on_signal(int number)
{
	signals += number;
}

static long milliseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void pause_for(long ms)
{
	struct timespec time = {ms / 1000, ms % 1000 * 1000000};
	nanosleep(&time, 0);
}

static char big[200000];

static void pipes(void)
{
	printf("-- pipes\n");
	int fds[2], left;
	char text[64] = {0};
	TRY(pipe2(fds, 0x12345678));
	TRY(pipe2((int *)8, 0));
	TRY(pipe(fds));
	TRY(write(fds[1], "hello", 5));
	TRY(ioctl(fds[0], FIONREAD, &left));
	TRY(left);
	TRY(read(fds[0], text, 3));
	TRY(read(fds[0], text + 3, 60));
	printf("%s\n", text);
	TRY(read(fds[0], text, 0));
	TRY(write(fds[1], text, 0));
	TRY(write(fds[0], text, 1));
	TRY(read(fds[1], text, 1));
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	TRY(read(fds[0], text, 1));
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	TRY(fcntl(fds[0], F_GETPIPE_SZ));
	TRY(write(fds[1], big, sizeof big));
	TRY(write(fds[1], big, 1));
	TRY(read(fds[0], big, 4096));
	TRY(write(fds[1], big, 4096));
	TRY(write(fds[1], big, 1));
	long total = 0, count;
	while ((count = read(fds[0], big, sizeof big)) > 0)
		total += count;
	TRY(total);
	close(fds[1]);
	TRY(read(fds[0], text, 1));
	close(fds[0]);

	/* Much more than fits, through a child. */
	pipe(fds);
	pid_t child = fork();
	if (child == 0) {
		close(fds[0]);
		for (size_t i = 0; i < sizeof big; i++)
			big[i] = i * 7;
		count = write(fds[1], big, sizeof big);
		_exit(count == sizeof big ? 0 : 1);
	}
	close(fds[1]);
	unsigned char sum = 0;
	int right = 1;
	total = 0;
	static unsigned char part[5000];
	while ((count = read(fds[0], part, sizeof part)) > 0) {
		for (long i = 0; i < count; i++) {
			right &= part[i] == (unsigned char)((total + i) * 7);
			sum += part[i];
		}
		total += count;
	}
	int status;
	waitpid(child, &status, 0);
	printf("%ld bytes, right %d, sum %d, status %d\n", total, right, sum, status);
	close(fds[0]);

	/* Nobody reads. */
	pipe(fds);
	close(fds[0]);
	signal(SIGPIPE, on_signal);
	signals = 0;
	TRY(write(fds[1], "x", 1));
	TRY(signals);
	signal(SIGPIPE, SIG_IGN);
	TRY(write(fds[1], "x", 1));
	signal(SIGPIPE, SIG_DFL);
	child = fork();
	if (child == 0) {
		write(fds[1], "x", 1);
		_exit(1);
	}
	waitpid(child, &status, 0);
	printf("killed by %d\n", WTERMSIG(status));
	close(fds[1]);

	/* A signal ends a read that waits; one with SA_RESTART does not. */
	pipe(fds);
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGALRM, &action, 0);
	signals = 0;
	alarm(1);
	TRY(read(fds[0], text, 1));
	TRY(signals);
	close(fds[0]);
	close(fds[1]);
}

static void fifos(void)
{
	printf("-- named pipes\n");
	char path[64], text[16] = {0};
	snprintf(path, sizeof path, "/tmp/fifo-%d", getpid());
	TRY(mkfifo(path, 0600));
	TRY(open(path, O_WRONLY | O_NONBLOCK));
	int reader = open(path, O_RDONLY | O_NONBLOCK);
	TRY(read(reader, text, 1));
	int writer = open(path, O_WRONLY | O_NONBLOCK);
	TRY(read(reader, text, 1));
	TRY(write(writer, "abc", 3));
	TRY(read(reader, text, 16));
	close(writer);
	TRY(read(reader, text, 16));
	close(reader);
	pid_t child = fork();
	if (child == 0) {
		writer = open(path, O_WRONLY);
		write(writer, "from the child", 14);
		_exit(0);
	}
	reader = open(path, O_RDONLY);
	TRY(read(reader, text, 16));
	printf("%s\n", text);
	TRY(read(reader, text, 16));
	close(reader);
	waitpid(child, 0, 0);
	reader = open(path, O_RDONLY | O_NONBLOCK);
	writer = open(path, O_WRONLY);
	TRY(write(writer, "lost", 4));
	close(writer);
	close(reader);
	reader = open(path, O_RDONLY | O_NONBLOCK);
	TRY(read(reader, text, 16));
	writer = open(path, O_WRONLY);
	TRY(write(writer, "found", 5));
	TRY(read(reader, text, 16));
	close(writer);
	close(reader);
	TRY(unlink(path));
}

static void show_poll(struct pollfd *fds, int count, int result)
{
	printf("poll %d:", result);
	for (int i = 0; i < count; i++)
		printf(" %x", fds[i].revents);
	printf("\n");
}

static void polling(void)
{
	printf("-- poll and select\n");
	int fds[2];
	char byte;
	pipe(fds);
	struct pollfd polled[4] = {
		{fds[0], POLLIN | POLLOUT, 0}, {fds[1], POLLIN | POLLOUT, 0}, {-1, POLLIN, 7}, {63, POLLIN, 0}};
	show_poll(polled, 4, poll(polled, 4, -1));
	show_poll(polled, 1, poll(polled, 1, 0));
	long before = milliseconds();
	show_poll(polled, 1, poll(polled, 1, 60));
	long waited = milliseconds() - before;
	printf("waited: %d\n", waited >= 60 && waited < 1000);
	write(fds[1], "x", 1);
	show_poll(polled, 2, poll(polled, 2, -1));
	read(fds[0], &byte, 1);
	pid_t child = fork();
	if (child == 0) {
		pause_for(50);
		write(fds[1], "y", 1);
		_exit(0);
	}
	polled[0].events = POLLIN;
	show_poll(polled, 1, poll(polled, 1, 5000));
	waitpid(child, 0, 0);
	read(fds[0], &byte, 1);
	TRY(poll(polled, 1 << 30, 0));
	TRY(poll((struct pollfd *)8, 1, 0));

	fd_set in, out;
	struct timeval time = {0, 20000};
	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_SET(fds[0], &in);
	FD_SET(fds[1], &out);
	TRY(select(fds[1] + 1, &in, &out, 0, 0));
	printf("%d %d\n", FD_ISSET(fds[0], &in) != 0, FD_ISSET(fds[1], &out) != 0);
	FD_SET(fds[0], &in);
	TRY(select(fds[0] + 1, &in, 0, 0, &time));
	printf("left %ld %ld\n", (long)time.tv_sec, (long)time.tv_usec);
	FD_SET(fds[0], &in);
	write(fds[1], "z", 1);
	TRY(select(fds[0] + 1, &in, 0, 0, &time));
	printf("%d\n", FD_ISSET(fds[0], &in) != 0);
	/* There is always room for 64 descriptors in the table. */
	FD_SET(63, &in);
	TRY(select(64, &in, 0, 0, &time));
	FD_CLR(63, &in);
	/* What is beyond the table is not looked at. A child's is no larger than it needs. */
	FD_SET(99, &in);
	pid_t small = fork();
	if (small == 0) {
		TRY(select(100, &in, 0, 0, &time));
		TRY(FD_ISSET(99, &in));
		dup2(fds[0], 98);
		TRY(select(100, &in, 0, 0, &time));
		_exit(0);
	}
	waitpid(small, 0, 0);
	FD_CLR(99, &in);
	TRY(select(-1, 0, 0, 0, &time));
	time.tv_sec = -1;
	TRY(select(0, 0, 0, 0, &time));
	read(fds[0], &byte, 1);

	/* Only while it waits does ppoll let the signal through. */
	sigset_t blocked, none;
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGUSR1, &action, 0);
	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, 0);
	signals = 0;
	kill(getpid(), SIGUSR1);
	struct timespec timeout = {5, 0};
	TRY(signals);
	TRY(ppoll(polled, 1, &timeout, &none));
	TRY(signals);
	sigset_t after;
	sigprocmask(SIG_SETMASK, 0, &after);
	TRY(sigismember(&after, SIGUSR1));
	sigprocmask(SIG_UNBLOCK, &blocked, 0);

	close(fds[1]);
	show_poll(polled, 1, poll(polled, 1, -1));
	close(fds[0]);
	pipe(fds);
	close(fds[0]);
	polled[0] = (struct pollfd){fds[1], POLLOUT, 0};
	show_poll(polled, 1, poll(polled, 1, -1));
	close(fds[1]);
	int file = open("/proc/self/exe", O_RDONLY);
	polled[0] = (struct pollfd){file, POLLIN | POLLOUT, 0};
	show_poll(polled, 1, poll(polled, 1, -1));
	close(file);
}

static void *add_later(void *fd)
{
	pause_for(30);
	eventfd_write(*(int *)fd, 5);
	return 0;
}

static void counters(void)
{
	printf("-- event counters\n");
	eventfd_t value = 0;
	char byte;
	int fd = eventfd(3, EFD_NONBLOCK);
	TRY(eventfd_read(fd, &value));
	TRY(value);
	TRY(eventfd_read(fd, &value));
	TRY(eventfd_write(fd, 2));
	TRY(eventfd_write(fd, 3));
	TRY(read(fd, &byte, 1));
	TRY(eventfd_read(fd, &value));
	TRY(value);
	TRY(eventfd_write(fd, -1));
	TRY(eventfd_write(fd, -2));
	TRY(eventfd_write(fd, 1));
	struct pollfd polled = {fd, POLLIN | POLLOUT, 0};
	show_poll(&polled, 1, poll(&polled, 1, 0));
	close(fd);
	fd = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
	TRY(eventfd_read(fd, &value));
	TRY(value);
	TRY(eventfd_read(fd, &value));
	TRY(eventfd_read(fd, &value));
	close(fd);
	TRY(eventfd(0, 0x10000));
	fd = eventfd(0, 0);
	pthread_t thread;
	pthread_create(&thread, 0, add_later, &fd);
	TRY(eventfd_read(fd, &value));
	TRY(value);
	pthread_join(thread, 0);
	close(fd);
}

static void show_epoll(int epoll, int timeout)
{
	struct epoll_event events[4];
	int count = epoll_wait(epoll, events, 4, timeout);
	printf("epoll %d:", count);
	for (int i = 0; i < count; i++)
		printf(" %x/%llx", events[i].events, (unsigned long long)events[i].data.u64);
	printf("\n");
}

static void epolls(void)
{
	printf("-- epoll\n");
	int fds[2];
	char byte;
	pipe(fds);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {EPOLLIN, {.u64 = 0x123456789abcdef0}};
	TRY(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event));
	TRY(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event));
	TRY(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[1], &event));
	TRY(epoll_ctl(epoll, EPOLL_CTL_ADD, 63, &event));
	TRY(epoll_ctl(epoll, 77, fds[0], &event));
	TRY(epoll_ctl(epoll, EPOLL_CTL_ADD, epoll, &event));
	TRY(epoll_ctl(fds[0], EPOLL_CTL_ADD, fds[1], &event));
	int file = open("/proc/self/exe", O_RDONLY);
	TRY(epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event));
	close(file);
	TRY(epoll_wait(epoll, &event, 0, 0));
	show_epoll(epoll, 0);
	show_epoll(epoll, 20);
	write(fds[1], "ab", 2);
	show_epoll(epoll, -1);
	show_epoll(epoll, -1);
	event.events = EPOLLIN | EPOLLET;
	event.data.u64 = 2;
	TRY(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event));
	show_epoll(epoll, 0);
	show_epoll(epoll, 0);
	write(fds[1], "c", 1);
	show_epoll(epoll, 0);
	show_epoll(epoll, 0);
	event.events = EPOLLIN | EPOLLONESHOT;
	event.data.u64 = 3;
	TRY(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event));
	show_epoll(epoll, 0);
	show_epoll(epoll, 0);
	TRY(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event));
	show_epoll(epoll, 0);
	event.events = EPOLLOUT;
	event.data.u64 = 4;
	TRY(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[1], &event));
	show_epoll(epoll, 0);
	TRY(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[1], 0));
	event.events = EPOLLIN;
	epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event);
	for (int i = 0; i < 3; i++)
		read(fds[0], &byte, 1);
	pid_t child = fork();
	if (child == 0) {
		pause_for(30);
		write(fds[1], "d", 1);
		_exit(0);
	}
	show_epoll(epoll, 5000);
	waitpid(child, 0, 0);
	close(fds[1]);
	show_epoll(epoll, 0);
	read(fds[0], &byte, 1);
	show_epoll(epoll, 0);
	close(fds[0]);
	show_epoll(epoll, 0);
	close(epoll);
}

static void sockets(void)
{
	printf("-- socket pairs\n");
	int fds[2];
	char text[16] = {0};
	TRY(socketpair(AF_INET, SOCK_STREAM, 0, fds));
	TRY(socketpair(AF_UNIX, 77, 0, fds));
	TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)8));
	TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	TRY(write(fds[0], "to", 2));
	TRY(write(fds[0], "gether", 6));
	TRY(read(fds[1], text, 16));
	printf("%s\n", text);
	TRY(send(fds[1], "back", 4, 0));
	TRY(recv(fds[0], text, 16, MSG_DONTWAIT));
	TRY(recv(fds[0], text, 16, MSG_DONTWAIT));
	struct pollfd polled[2] = {{fds[0], POLLIN | POLLOUT | POLLRDHUP, 0}, {fds[1], POLLIN | POLLOUT | POLLRDHUP, 0}};
	show_poll(polled, 2, poll(polled, 2, 0));
	TRY(shutdown(fds[0], SHUT_WR));
	show_poll(polled, 2, poll(polled, 2, 0));
	TRY(read(fds[1], text, 16));
	TRY(send(fds[0], "x", 1, MSG_NOSIGNAL));
	TRY(write(fds[1], "still", 5));
	TRY(read(fds[0], text, 16));
	TRY(shutdown(fds[0], 9));
	close(fds[1]);
	show_poll(polled, 1, poll(polled, 1, 0));
	TRY(read(fds[0], text, 16));
	TRY(lseek(fds[0], 0, SEEK_SET));
	close(fds[0]);
	TRY(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds));
	TRY(write(fds[0], "one", 3));
	TRY(write(fds[0], "two and more", 12));
	TRY(write(fds[0], "three", 5));
	TRY(read(fds[1], text, 16));
	TRY(read(fds[1], text, 3));
	TRY(read(fds[1], text, 16));
	pid_t child = fork();
	if (child == 0) {
		close(fds[0]);
		int number;
		while (read(fds[1], &number, sizeof number) == sizeof number) {
			number *= 2;
			write(fds[1], &number, sizeof number);
		}
		_exit(0);
	}
	close(fds[1]);
	int sum = 0;
	for (int number = 0; number < 100; number++) {
		int doubled;
		write(fds[0], &number, sizeof number);
		read(fds[0], &doubled, sizeof doubled);
		sum += doubled;
	}
	TRY(sum);
	close(fds[0]);
	waitpid(child, 0, 0);
	pipe(fds);
	TRY(send(fds[1], "x", 1, 0));
	close(fds[0]);
	close(fds[1]);
}

/* Buffers whose end is not mapped. */
static void faults(void)
{
	printf("-- faults\n");
	char *end = (char *)mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 8192;
	munmap(end, 4096);
	int fds[2];
	pipe2(fds, O_NONBLOCK);
	write(fds[1], big, 4096);
	write(fds[1], big, 4096);
	TRY(read(fds[0], end - 50, 8192));
	TRY(read(fds[0], end - 4100, 8192));
	TRY(read(fds[0], end, 100));
	TRY(read(fds[0], big, sizeof big));
	TRY(write(fds[1], end, 100));
	TRY(write(fds[1], end - 50, 100));
	TRY(write(fds[1], end - 5000, 8192));
	TRY(read(fds[0], big, sizeof big));
	struct iovec parts[2] = {{big, 10}, {end, 10}};
	TRY(writev(fds[1], parts, 2));
	TRY(read(fds[0], big, sizeof big));
	close(fds[0]);
	close(fds[1]);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds);
	write(fds[1], big, 100);
	TRY(read(fds[0], end - 50, 100));
	TRY(read(fds[0], big, 100));
	TRY(write(fds[1], end - 50, 100));
	TRY(read(fds[0], big, 100));
	close(fds[0]);
	close(fds[1]);
	/* A message that cannot be delivered is lost. */
	socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds);
	write(fds[1], big, 100);
	TRY(read(fds[0], end - 50, 100));
	TRY(read(fds[0], big, 100));
	TRY(write(fds[1], end - 50, 100));
	TRY(read(fds[0], big, 100));
	close(fds[0]);
	close(fds[1]);
	munmap(end - 8192, 8192);
}

int main(void)
{
	/* Whatever descriptors were inherited. */
	syscall(SYS_close_range, 3, ~0U, 0);
	setvbuf(stdout, 0, _IOLBF, 0);
	pipes();
	fifos();
	polling();
	counters();
	epolls();
	sockets();
	faults();
	return 0;
}
