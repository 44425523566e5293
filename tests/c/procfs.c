/*
 * /proc: the exact form of maps, limits and statm, the fields of stat and
 * status that programs rely on, links, and settings. Prints the same
 * everywhere, and exits with 0.
 */
#define _GNU_SOURCE

/* Wrong arguments are the point of some calls, and some results do not matter. */
#pragma GCC diagnostic ignored "-Wunused-result"
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#pragma GCC diagnostic ignored "-Wstringop-overread"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BASE ((char *)0x200000000)
#define PAGE 4096L

static char text[1 << 20];

static const char *slurp(const char *path)
{
	int fd = open(path, O_RDONLY);
	long len = 0, count;
	text[0] = 0;
	if (fd < 0) {
		printf("slurp: %s\n", strerror(errno));
		return text;
	}
	while ((count = read(fd, text + len, sizeof text - 1 - len)) > 0)
		len += count;
	text[len] = 0;
	close(fd);
	return text;
}

/* Prints the lines of maps that lie where this program maps on purpose. */
static void show_maps(void)
{
	for (const char *line = slurp("/proc/self/maps"); *line; line = strchr(line, '\n') + 1) {
		unsigned long start = strtoul(line, 0, 16);
		if (start >= (unsigned long)BASE && start < (unsigned long)BASE + (1 << 30))
			printf("|%.*s|\n", (int)(strchr(line, '\n') - line), line);
	}
}

/* As show_maps, without what is different for every file system. */
static void show_file_maps(void)
{
	for (const char *line = slurp("/proc/self/maps"); *line; line = strchr(line, '\n') + 1) {
		unsigned long start = strtoul(line, 0, 16);
		if (start < (unsigned long)BASE || start >= (unsigned long)BASE + (1 << 30))
			continue;
		int length = strchr(line, '\n') - line;
		const char *path = memchr(line, '/', length);
		printf("|%.34s| ", line);
		if (path)
			printf("column %d: %.*s\n", (int)(path - line), (int)(line + length - path), path);
		else
			printf("%.*s\n", length - 34, line + 34);
	}
}

static void maps(void)
{
	printf("-- maps\n");
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	mmap(BASE, 4 * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
	mmap(BASE + 4 * PAGE, PAGE, PROT_NONE, flags, -1, 0);
	mmap(BASE + 8 * PAGE, PAGE, PROT_READ | PROT_EXEC, flags, -1, 0);
	show_maps();
	mprotect(BASE + PAGE, PAGE, PROT_READ);
	show_maps();
	mprotect(BASE + PAGE, PAGE, PROT_READ | PROT_WRITE);
	munmap(BASE + 8 * PAGE, PAGE);
	show_maps();
	munmap(BASE, 5 * PAGE);

	char path[64];
	snprintf(path, sizeof path, "/tmp/proc test\n%d", 1);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ftruncate(fd, 8 * PAGE);
	mmap(BASE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 3 * PAGE);
	mmap(BASE + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	show_file_maps();
	rename(path, "/tmp/renamed");
	show_file_maps();
	unlink("/tmp/renamed");
	show_file_maps();
	close(fd);
	munmap(BASE, 2 * PAGE);
	fd = memfd_create("some name", 0);
	ftruncate(fd, PAGE);
	mmap(BASE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
	mmap(BASE + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	show_file_maps();
	munmap(BASE, 2 * PAGE);
	close(fd);
	slurp("/proc/self/maps");
	printf("heap %d stack %d\n", strstr(text, "[heap]\n") != 0, strstr(text, "[stack]\n") != 0);

	/* Thousands of lines, read in pieces. */
	enum { COUNT = 3000 };
	for (int i = 0; i < COUNT; i++)
		mmap(BASE + 2 * i * PAGE, PAGE, i % 2 ? PROT_READ : PROT_NONE, flags, -1, 0);
	int count = 0;
	for (const char *line = slurp("/proc/self/maps"); *line; line = strchr(line, '\n') + 1) {
		char *expected = BASE + 2 * count * PAGE;
		unsigned long start = strtoul(line, 0, 16);
		if (start == (unsigned long)expected && line[23] == (count % 2 ? 'r' : '-'))
			count++;
	}
	printf("%d lines\n", count);
	munmap(BASE, 2 * COUNT * PAGE);
}

static void show_lines(const char *path, const char *const *names)
{
	slurp(path);
	for (; *names; names++) {
		const char *line = strstr(text, *names);
		if (line)
			printf("%.*s\n", (int)(strchr(line, '\n') - line), line);
		else
			printf("no %s\n", *names);
	}
}

static long status_kib(const char *name)
{
	const char *line = strstr(slurp("/proc/self/status"), name);
	return line ? atol(line + strlen(name)) : -1;
}

static void *sleeper(void *pipe)
{
	char byte;
	read(*(int *)pipe, &byte, 1);
	return 0;
}

static void status(void)
{
	printf("-- status\n");
	prctl(PR_SET_NAME, "a name");
	static const char *const names[] = {
		"Name:", "Umask:", "State:", "TracerPid:", "VmPin:", "VmSwap:", "HugetlbPages:",
		"CoreDumping:", "Threads:", "SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:", 0};
	umask(027);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, 0);
	kill(getpid(), SIGUSR2);
	signal(SIGHUP, SIG_IGN);
	show_lines("/proc/self/status", names);
	char line[64];
	snprintf(line, sizeof line, "Pid:\t%d\n", getpid());
	printf("pid %d\n", strstr(text, line) != 0);
	snprintf(line, sizeof line, "PPid:\t%d\n", getppid());
	printf("parent %d\n", strstr(text, line) != 0);
	/* Their values are up to who runs this. */
	static const char *const inherited[] = {"Uid:\t", "Gid:\t", "CapInh:\t", "NoNewPrivs:\t", "Seccomp:\t"};
	for (unsigned i = 0; i < sizeof inherited / sizeof inherited[0]; i++)
		printf("%s %d\n", inherited[i], strstr(text, inherited[i]) != 0);

	long size = status_kib("VmSize:"), data = status_kib("VmData:"), rss = status_kib("RssAnon:");
	mmap(BASE, 256 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	printf("size +%ld data +%ld\n", status_kib("VmSize:") - size, status_kib("VmData:") - data);
	memset(BASE, 1, 100 * PAGE);
	long more = status_kib("RssAnon:") - rss;
	printf("resident: %d\n", more >= 400 && more <= 440);
	long locked = status_kib("VmLck:");
	mlock(BASE, 10 * PAGE);
	printf("locked +%ld\n", status_kib("VmLck:") - locked);
	munmap(BASE, 256 * PAGE);
	printf("size +%ld data +%ld locked +%ld\n", status_kib("VmSize:") - size,
	       status_kib("VmData:") - data, status_kib("VmLck:") - locked);

	long pages[7], kib = status_kib("VmSize:");
	sscanf(slurp("/proc/self/statm"), "%ld %ld %ld %ld %ld %ld %ld", &pages[0], &pages[1],
	       &pages[2], &pages[3], &pages[4], &pages[5], &pages[6]);
	printf("statm: size %d, lib %ld, dirty %ld\n", pages[0] * 4 == kib, pages[4], pages[6]);

	char name[32], state;
	int pid, parent, group, session;
	long fields[50];
	char *at = strrchr(slurp("/proc/self/stat"), ')') + 2;
	sscanf(text, "%d (%31[^)])", &pid, name);
	int used;
	sscanf(at, "%c %d %d %d%n", &state, &parent, &group, &session, &used);
	printf("stat: %s %c %d %d %d %d\n", name, state, pid == getpid(), parent == getppid(),
	       group == getpgrp(), session == getsid(0));
	int count = 0;
	for (at += used; *at == ' ' && count < 50; count++)
		fields[count] = strtol(at, &at, 10);
	/* fields[0] is field 7 of proc(5). */
	printf("%d fields, terminal group %ld, threads %ld, size %d\n", count, fields[1], fields[13],
	       fields[16] / 1024 == kib);

	int fds[2];
	pthread_t thread;
	pipe(fds);
	pthread_create(&thread, 0, sleeper, &fds[0]);
	static const char *const threads[] = {"Threads:", 0};
	show_lines("/proc/self/status", threads);
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	int tasks = 0;
	while ((entry = readdir(dir)))
		tasks += entry->d_name[0] != '.';
	closedir(dir);
	printf("%d tasks\n", tasks);
	write(fds[1], "", 1);
	pthread_join(thread, 0);
	close(fds[0]);
	close(fds[1]);
}

static void limits(void)
{
	printf("-- limits\n");
	static const int resources[] = {RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE,
		RLIMIT_RSS, RLIMIT_NOFILE, RLIMIT_AS};
	for (unsigned i = 0; i < sizeof resources / sizeof resources[0]; i++) {
		/* Below any hard limit that there may be; that of core files is often 0. */
		struct rlimit limit = {1000000000 + i, 2000000000};
		if (resources[i] == RLIMIT_NOFILE)
			limit = (struct rlimit){100, 200};
		if (resources[i] == RLIMIT_CORE)
			limit = (struct rlimit){0, 0};
		setrlimit(resources[i], &limit);
	}
	static const char *const names[] = {"Limit ", "Max cpu", "Max file size", "Max data", "Max stack",
		"Max core", "Max resident", "Max open", "Max address", "Max file locks",
		"Max realtime timeout", 0};
	slurp("/proc/self/limits");
	for (int i = 0; names[i]; i++) {
		const char *line = strstr(text, names[i]);
		if (line && resources[0] == RLIMIT_CPU) {
			int length = strchr(line, '\n') - line;
			if (strncmp(line, "Max", 3) || !strncmp(line, "Max open", 8))
				printf("|%.*s|\n", length, line);
			else
				printf("|%.47s| %.*s|\n", line, length - 68, line + 68);
		}
	}
}

static void links(void)
{
	printf("-- links\n");
	char path[64], target[256], name[256];
	long len = readlink("/proc/self", target, sizeof target);
	target[len] = 0;
	printf("self %d\n", atoi(target) == getpid());
	len = readlink("/proc/thread-self", target, sizeof target);
	target[len] = 0;
	snprintf(name, sizeof name, "%d/task/%d", getpid(), getpid());
	printf("thread-self %d\n", !strcmp(target, name));
	chdir("/proc/self");
	len = readlink("cwd", target, sizeof target);
	target[len] = 0;
	snprintf(name, sizeof name, "/proc/%d", getpid());
	printf("cwd %d\n", !strcmp(target, name));
	chdir("/tmp");
	len = readlink("/proc/self/cwd", target, sizeof target);
	target[len] = 0;
	printf("cwd %s\n", target);
	struct stat one, other;
	stat("/proc/self/exe", &one);
	printf("exe %o\n", one.st_mode & S_IFMT);
	int fd = open("/tmp", O_RDONLY | O_DIRECTORY), pipes[2];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	len = readlink(path, target, sizeof target);
	target[len] = 0;
	printf("fd %s\n", target);
	stat(path, &one);
	stat("/tmp", &other);
	printf("same %d\n", one.st_ino == other.st_ino && one.st_dev == other.st_dev);
	lstat(path, &one);
	printf("%o\n", one.st_mode);
	snprintf(path, sizeof path, "/proc/self/fd/%d/..", fd);
	stat(path, &one);
	stat("/", &other);
	printf("parent %d\n", one.st_ino == other.st_ino);
	close(fd);
	pipe(pipes);
	snprintf(path, sizeof path, "/proc/self/fd/%d", pipes[0]);
	len = readlink(path, target, sizeof target);
	target[len] = 0;
	stat(path, &one);
	snprintf(name, sizeof name, "pipe:[%ld]", (long)one.st_ino);
	printf("pipe %d %o\n", !strcmp(name, target), one.st_mode);
	close(pipes[0]);
	printf("%ld\n", (long)readlink(path, target, sizeof target));
	close(pipes[1]);
	fd = open("/tmp/proc-link", O_RDWR | O_CREAT | O_TRUNC, 0600);
	unlink("/tmp/proc-link");
	write(fd, "not lost", 8);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	len = readlink(path, target, sizeof target);
	target[len] = 0;
	printf("%s: %s\n", target, slurp(path));
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	slurp(path);
	printf("%.30s\n", text);
	close(fd);
}

static void others(void)
{
	printf("-- others\n");
	printf("comm %s", slurp("/proc/self/comm"));
	int fd = open("/proc/self/comm", O_WRONLY);
	printf("%ld\n", (long)write(fd, "another name that is long", 25));
	close(fd);
	printf("comm %s", slurp("/proc/self/comm"));
	long len = slurp("/proc/self/cmdline") - text + strlen(text);
	printf("arguments %d\n", len > 0 && strstr(text, "proc") != 0);
	fd = open("/proc/self/maps", O_WRONLY);
	printf("open for writing: %d\n", fd >= 0);
	close(fd);
	printf("read-only setting: %d", open("/proc/sys/kernel/ostype", O_WRONLY));
	printf(" %s\n", strerror(errno));
	printf("create: %d", open("/proc/new", O_RDWR | O_CREAT, 0600));
	printf(" %s\n", strerror(errno));
	printf("mkdir: %d", mkdir("/proc/new", 0700));
	printf(" %s\n", strerror(errno));
	printf("unlink: %d", unlink("/proc/version"));
	printf(" %s\n", strerror(errno));
	printf("rmdir: %d", rmdir("/proc"));
	printf(" %s\n", strerror(errno));
	slurp("/proc/2000000000/maps");
	slurp("/proc/self/nothing");
	slurp("/proc/self/fd/1000");
	printf("max_map_count %s", slurp("/proc/sys/vm/max_map_count"));
	printf("overcommit_ratio %s", slurp("/proc/sys/vm/overcommit_ratio"));
	printf("meminfo: %d %d\n", !strncmp(slurp("/proc/meminfo"), "MemTotal:       ", 16),
	       strstr(text, " kB\nMemFree:        ") != 0);

	/* Reading a process's memory. */
	static char secret[] = "in memory";
	char copy[16] = {0};
	fd = open("/proc/self/mem", O_RDWR);
	printf("%ld ", (long)pread(fd, copy, sizeof secret, (off_t)secret));
	printf("%s\n", copy);
	printf("%ld ", (long)pwrite(fd, "by", 2, (off_t)secret));
	printf("%s\n", secret);
	printf("%ld", (long)pread(fd, copy, 4, 0));
	printf(" %s\n", strerror(errno));
	close(fd);

	/* A child that has ended has no memory any more. */
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	char path[64];
	siginfo_t info;
	waitid(P_PID, child, &info, WEXITED | WNOWAIT);
	snprintf(path, sizeof path, "/proc/%d/maps", child);
	printf("zombie: \"%s\"\n", slurp(path));
	snprintf(path, sizeof path, "/proc/%d/status", child);
	static const char *const names[] = {"Name:", "State:", 0};
	show_lines(path, names);
	printf("size: %d\n", strstr(text, "VmSize") != 0);
	waitpid(child, 0, 0);
	slurp(path);
}

int main(void)
{
	setvbuf(stdout, 0, _IOLBF, 0);
	maps();
	status();
	limits();
	links();
	others();
	return 0;
}
