/*
 * Files and directories: every call on names, descriptors and metadata, with
 * its errors. Works in a directory of its own below /tmp. Prints the same
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
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

static char base[64];

/* Prints what a call returned: a number, or the name of the error. */
#define TRY(call) report(#call, (long)(call))
/* The same for a descriptor, which is closed: its number does not matter. */
#define TRY_FD(call) report_fd(#call, (call))

static void report(const char *what, long result)
{
	if (result == -1)
		printf("%s: %s\n", what, strerror(errno));
	else
		printf("%s: %ld\n", what, result);
}

static void report_fd(const char *what, int fd)
{
	if (fd < 0) {
		printf("%s: %s\n", what, strerror(errno));
	} else {
		printf("%s: open\n", what);
		close(fd);
	}
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		printf("put %s: %s\n", path, strerror(errno));
	close(fd);
}

static void show(const char *path)
{
	char text[256];
	int fd = open(path, O_RDONLY);
	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (len < 0) {
		printf("show %s: %s\n", path, strerror(errno));
	} else {
		text[len] = 0;
		printf("show %s: \"%s\"\n", path, text);
	}
	if (fd >= 0)
		close(fd);
}

static void kind(const char *path)
{
	struct stat st;
	if (lstat(path, &st) < 0) {
		printf("kind %s: %s\n", path, strerror(errno));
		return;
	}
	printf("kind %s: mode %o links %ld", path, st.st_mode, S_ISDIR(st.st_mode) ? 0L : (long)st.st_nlink);
	if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))
		printf(" size %ld", (long)st.st_size);
	printf("\n");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list(const char *path)
{
	char *names[64];
	int count = 0;
	DIR *dir = opendir(path);
	struct dirent *entry;
	if (!dir) {
		printf("list %s: %s\n", path, strerror(errno));
		return;
	}
	while ((entry = readdir(dir)) && count < 64) {
		if (asprintf(&names[count], "%s(%d)", entry->d_name, entry->d_type) > 0)
			count++;
	}
	closedir(dir);
	qsort(names, count, sizeof names[0], by_name);
	printf("list %s:", path);
	for (int i = 0; i < count; i++) {
		printf(" %s", names[i]);
		free(names[i]);
	}
	printf("\n");
}

static void opening(void)
{
	printf("-- opening\n");
	TRY_FD(open("none", O_RDONLY));
	TRY_FD(open("", O_RDONLY));
	TRY_FD(open("a", O_RDWR | O_CREAT | O_EXCL, 0640));
	TRY_FD(open("a", O_RDWR | O_CREAT | O_EXCL, 0640));
	TRY_FD(open("a", O_RDONLY | O_CREAT, 0));
	TRY_FD(open("a", O_RDONLY | O_DIRECTORY));
	TRY_FD(open("a/", O_RDONLY));
	TRY_FD(open("a/b", O_RDONLY));
	TRY_FD(open("a/b", O_RDONLY | O_CREAT, 0600));
	TRY_FD(open("none/b", O_RDONLY | O_CREAT, 0600));
	TRY_FD(open("slash/", O_RDONLY | O_CREAT, 0600));
	TRY_FD(open(".", O_RDONLY));
	TRY_FD(open(".", O_RDWR));
	TRY_FD(open(".", O_RDONLY | O_CREAT, 0600));
	TRY_FD(open("..", O_RDONLY | O_CREAT | O_EXCL, 0600));
	TRY_FD(open("/", O_WRONLY));
	TRY_FD(open((char *)1, O_RDONLY));
	char name[300];
	memset(name, 'n', sizeof name);
	name[255] = 0;
	TRY_FD(open(name, O_RDONLY | O_CREAT, 0600));
	TRY(unlink(name));
	name[255] = 'n';
	name[256] = 0;
	TRY_FD(open(name, O_RDONLY | O_CREAT, 0600));
	char *path = malloc(5000);
	memset(path, '/', 4999);
	path[4999] = 0;
	TRY_FD(open(path, O_RDONLY));
	path[4095] = 0;
	TRY_FD(open(path, O_RDONLY));
	free(path);
	kind("a");
	mode_t old = umask(077);
	TRY_FD(open("masked", O_RDWR | O_CREAT, 0666));
	umask(old);
	kind("masked");
	TRY_FD(open(".", O_TMPFILE | O_RDWR, 0600));
	TRY_FD(open(".", O_TMPFILE | O_RDONLY, 0600));
	TRY_FD(openat(-5, "a", O_RDONLY));
	TRY_FD(openat(AT_FDCWD, "a", O_RDONLY));
	int fd = open("a", O_RDONLY);
	TRY_FD(openat(fd, "x", O_RDONLY));
	close(fd);
	fd = open("a", O_PATH);
	char byte;
	TRY(read(fd, &byte, 1));
	TRY(fchmod(fd, 0600));
	TRY(fcntl(fd, F_GETFL));
	TRY(fcntl(fd, F_SETFL, 0));
	TRY(lseek(fd, 0, SEEK_SET));
	struct stat st;
	TRY(fstat(fd, &st));
	close(fd);
}

static void reading(void)
{
	printf("-- reading and writing\n");
	char text[64] = {0};
	int fd = open("rw", O_RDWR | O_CREAT | O_TRUNC, 0644);
	TRY(write(fd, "hello, world", 12));
	TRY(lseek(fd, 0, SEEK_CUR));
	TRY(lseek(fd, -5, SEEK_END));
	TRY(read(fd, text, sizeof text));
	printf("\"%s\"\n", text);
	TRY(read(fd, text, sizeof text));
	TRY(lseek(fd, -1, SEEK_SET));
	TRY(lseek(fd, 0, 9));
	TRY(lseek(fd, 100, SEEK_SET));
	TRY(write(fd, "!", 1));
	TRY(lseek(fd, 0, SEEK_END));
	TRY(pread(fd, text, 13, 0));
	TRY(pread(fd, text, 4, 98));
	printf("%d %d %d\n", text[0], text[1], text[2]);
	TRY(pread(fd, text, 4, -1));
	TRY(pwrite(fd, "HELLO", 5, 0));
	TRY(lseek(fd, 0, SEEK_CUR));
	TRY(lseek(fd, 5, SEEK_DATA));
	TRY(lseek(fd, 200, SEEK_DATA));
	TRY(lseek(fd, 0, SEEK_HOLE) > 0);
	TRY(ftruncate(fd, 5));
	TRY(ftruncate(fd, -1));
	TRY(ftruncate(fd, 8));
	lseek(fd, 0, SEEK_SET);
	memset(text, 'x', sizeof text);
	TRY(read(fd, text, sizeof text));
	printf("%.5s %d %d %d %c\n", text, text[5], text[6], text[7], text[8]);
	TRY(write(fd, (char *)8, 5));
	TRY(read(fd, (char *)8, 0));
	TRY(read(fd, (void *)-4096, 1));
	lseek(fd, 0, SEEK_SET);
	TRY(read(fd, (char *)8, 5));
	struct iovec parts[3] = {{text, 2}, {text + 32, 0}, {text + 16, 20}};
	lseek(fd, 0, SEEK_SET);
	TRY(readv(fd, parts, 3));
	printf("%.2s %.3s\n", text, text + 16);
	TRY(writev(fd, parts, 2));
	TRY(preadv(fd, parts, 3, 1));
	TRY(pwritev(fd, parts, 1, 1));
	TRY(readv(fd, parts, -1));
	TRY(readv(fd, parts, 1025));
	parts[0].iov_len = -1;
	TRY(readv(fd, parts, 1));
	TRY(readv(fd, parts, 0));
	close(fd);
	TRY(write(fd, "x", 1));

	/* A write that meets an unmapped page stops there. */
	char *pages = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(pages, 'p', 8192);
	munmap(pages + 4096, 4096);
	fd = open("rw", O_RDWR | O_TRUNC);
	TRY(write(fd, pages + 4000, 200));
	TRY(lseek(fd, 0, SEEK_END));
	TRY(write(fd, pages + 4096, 10));
	lseek(fd, 0, SEEK_SET);
	TRY(read(fd, pages + 4090, 50));
	close(fd);

	fd = open("rw", O_WRONLY | O_APPEND | O_TRUNC);
	TRY(write(fd, "one", 3));
	TRY(lseek(fd, 0, SEEK_SET));
	TRY(write(fd, "two", 3));
	TRY(pwrite(fd, "three", 5, 0));
	TRY(read(fd, text, 1));
	close(fd);
	show("rw");
	fd = open("rw", O_RDONLY);
	TRY(write(fd, "x", 1));
	TRY(ftruncate(fd, 0));
	close(fd);
	TRY(truncate("rw", 3));
	show("rw");
	TRY(truncate(".", 3));
	TRY(truncate("none", 3));
	TRY(truncate("rw", -3));

	put("source", "0123456789");
	int from = open("source", O_RDONLY), to = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0600);
	off_t at = 2;
	TRY(sendfile(to, from, &at, 5));
	TRY(at);
	TRY(lseek(from, 0, SEEK_CUR));
	TRY(sendfile(to, from, 0, 100));
	TRY(lseek(from, 0, SEEK_CUR));
	TRY(sendfile(from, to, 0, 1));
	TRY(copy_file_range(from, &(off_t){0}, to, 0, 3, 0));
	TRY(copy_file_range(from, 0, to, 0, 3, 7));
	close(from);
	close(to);
	show("copy");

	fd = open("space", O_RDWR | O_CREAT, 0600);
	TRY(fallocate(fd, 0, 0, 10000));
	TRY(lseek(fd, 0, SEEK_END));
	TRY(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20000));
	TRY(lseek(fd, 0, SEEK_END));
	pwrite(fd, "abcdef", 6, 0);
	TRY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 2));
	pread(fd, text, 6, 0);
	printf("%c%c %d%d %c%c\n", text[0], text[1], text[2], text[3], text[4], text[5]);
	TRY(fallocate(fd, 0, -1, 1));
	TRY(fallocate(fd, 0, 0, 0));
	TRY(fallocate(fd, 0x4000, 0, 1));
	close(fd);
	int fds[2];
	pipe(fds);
	to = open("copy", O_RDWR);
	TRY(sendfile(to, fds[0], 0, 1));
	TRY(sendfile(to, fds[0], &(off_t){0}, 1));
	close(to);
	TRY(fallocate(fds[1], 0, 0, 1));
	TRY(lseek(fds[0], 0, SEEK_SET));
	TRY(pread(fds[0], text, 1, 0));
	TRY(ftruncate(fds[1], 0));
	close(fds[0]);
	close(fds[1]);
}

static void directories(void)
{
	printf("-- directories\n");
	char text[PATH_MAX];
	TRY(mkdir("d", 0755));
	TRY(mkdir("d", 0755));
	TRY(mkdir("d/", 0755));
	TRY(mkdir("a", 0755));
	TRY(mkdir("none/d", 0755));
	TRY(mkdir("a/d", 0755));
	TRY(mkdir("d/sub/", 01777));
	TRY(mkdir(".", 0755));
	TRY(mkdir("/", 0755));
	TRY(mkdir("", 0755));
	kind("d");
	put("d/file", "x");
	list("d");
	list("d/sub");
	list("a");
	TRY(rmdir("d"));
	TRY(rmdir("a"));
	TRY(rmdir("none"));
	TRY(rmdir("d/sub/."));
	TRY(rmdir("d/sub/.."));
	TRY(rmdir("/"));
	TRY(unlink("d"));
	TRY(unlink("d/"));
	TRY(unlink("."));
	TRY(unlink("a/"));
	TRY(unlinkat(AT_FDCWD, "d/sub", 7));
	TRY(unlinkat(AT_FDCWD, "d/sub", AT_REMOVEDIR));
	TRY(chdir("d"));
	printf("%s\n", getcwd(text, sizeof text) + strlen(base));
	TRY(syscall(SYS_getcwd, text, 3));
	TRY(syscall(SYS_getcwd, text, PATH_MAX) - (long)strlen(base));
	TRY(chdir("file"));
	TRY(chdir(".."));
	TRY(chdir("none"));
	int fd = open("d", O_RDONLY | O_DIRECTORY);
	TRY(fchdir(fd));
	TRY_FD(openat(fd, "file", O_RDONLY));
	TRY(faccessat(fd, "file", R_OK, 0));
	char small[8];
	TRY(syscall(SYS_getdents64, fd, small, sizeof small));
	TRY(read(fd, text, 1));
	TRY(unlink("file"));
	TRY(chdir(".."));
	TRY(rmdir("d"));
	struct stat st;
	fstat(fd, &st);
	TRY(st.st_nlink);
	TRY_FD(openat(fd, "new", O_RDWR | O_CREAT, 0600));
	TRY(fchdir(fd));
	TRY(syscall(SYS_getcwd, text, PATH_MAX));
	TRY(syscall(SYS_getdents64, fd, text, sizeof text));
	TRY(chdir(base));
	close(fd);
	fd = open("a", O_RDONLY);
	TRY(fchdir(fd));
	TRY(syscall(SYS_getdents64, fd, text, sizeof text));
	close(fd);

	/* A listing goes on where it was while entries come and go. */
	enum { COUNT = 300 };
	int seen[COUNT] = {0}, total = 0, once = 1;
	mkdir("many", 0700);
	for (int i = 0; i < COUNT; i++) {
		snprintf(text, sizeof text, "many/entry%d", i);
		put(text, "");
	}
	DIR *dir = opendir("many");
	struct dirent *entry;
	while ((entry = readdir(dir))) {
		int number;
		if (sscanf(entry->d_name, "entry%d", &number) != 1)
			continue;
		seen[number]++;
		total++;
		snprintf(text, sizeof text, "many/entry%d", number);
		unlink(text);
	}
	closedir(dir);
	for (int i = 0; i < COUNT; i++)
		once &= seen[i] == 1;
	printf("%d entries, each once: %d\n", total, once);
	TRY(rmdir("many"));
}

static void links(void)
{
	printf("-- links\n");
	char text[64];
	put("t", "target");
	TRY(symlink("t", "s"));
	TRY(symlink("t", "s"));
	TRY(symlink("", "s2"));
	TRY(symlink("none", "dangling"));
	TRY(symlink("loop2", "loop1"));
	TRY(symlink("loop1", "loop2"));
	kind("s");
	show("s");
	show("dangling");
	show("loop1");
	memset(text, 0, sizeof text);
	TRY(readlink("s", text, sizeof text));
	printf("%s\n", text);
	TRY(readlink("dangling", text, 2));
	TRY(readlink("t", text, sizeof text));
	TRY(readlink("s", text, 0));
	TRY_FD(open("s", O_RDONLY | O_NOFOLLOW));
	TRY_FD(open("s", O_PATH | O_NOFOLLOW));
	TRY_FD(open("dangling", O_RDWR | O_CREAT | O_EXCL, 0600));
	TRY_FD(open("dangling", O_RDWR | O_CREAT, 0600));
	kind("none");
	mkdir("dir", 0755);
	put("dir/inside", "deep");
	TRY(symlink("dir", "sd"));
	show("sd/inside");
	show("sd/../t");
	show("./sd/./inside");
	TRY(symlink("../dir/inside", "dir/back"));
	show("dir/back");
	char absolute[128];
	snprintf(absolute, sizeof absolute, "%s/dir", base);
	TRY(symlink(absolute, "abs"));
	show("abs/inside");
	TRY(rmdir("sd"));
	TRY(unlink("sd"));
	kind("dir/inside");

	TRY(link("t", "hard"));
	TRY(link("t", "hard"));
	TRY(link("none2", "hard2"));
	TRY(link("dir", "hard2"));
	TRY(link("s", "hardlink"));
	kind("hardlink");
	TRY(linkat(AT_FDCWD, "s", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
	kind("followed");
	kind("t");
	put("hard", "changed");
	show("t");
	TRY(unlink("t"));
	show("hard");
	kind("hard");
	int fd = open("hard", O_RDWR);
	unlink("hard");
	unlink("followed");
	struct stat st;
	fstat(fd, &st);
	TRY(st.st_nlink);
	TRY(write(fd, "still", 5));
	close(fd);
	fd = open(".", O_TMPFILE | O_RDWR, 0600);
	write(fd, "unnamed", 7);
	snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
	TRY(linkat(AT_FDCWD, text, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	close(fd);
	show("named");
}

static void renaming(void)
{
	printf("-- renaming\n");
	put("r1", "first");
	put("r2", "second");
	TRY(rename("r1", "r3"));
	kind("r1");
	TRY(rename("r3", "r2"));
	show("r2");
	TRY(rename("none3", "r4"));
	TRY(rename("r2", "r2"));
	mkdir("rd", 0755);
	mkdir("rd/x", 0755);
	mkdir("re", 0755);
	TRY(rename("r2", "rd"));
	TRY(rename("rd", "r2"));
	TRY(rename("re", "rd"));
	TRY(rename("rd", "rd/x/y"));
	TRY(rename("rd/x", "re"));
	TRY(rename("re", "rd/x"));
	list("rd");
	TRY(rename("rd", "rd/x"));
	TRY(rename("rd/x", "rd"));
	TRY(rename(".", "z"));
	TRY(rename("rd/.", "z"));
	TRY(rename("rd", "z/"));
	TRY(rename("r2", "y/"));
	kind("z");
	put("e1", "one");
	mkdir("e2", 0755);
	put("e2/in", "two");
	TRY(syscall(SYS_renameat2, AT_FDCWD, "e1", AT_FDCWD, "e2", RENAME_NOREPLACE));
	TRY(syscall(SYS_renameat2, AT_FDCWD, "e1", AT_FDCWD, "e2", RENAME_EXCHANGE));
	show("e2");
	show("e1/in");
	TRY(syscall(SYS_renameat2, AT_FDCWD, "e1", AT_FDCWD, "none", RENAME_EXCHANGE));
	TRY(syscall(SYS_renameat2, AT_FDCWD, "e1", AT_FDCWD, "e2", RENAME_EXCHANGE | RENAME_NOREPLACE));
	TRY(syscall(SYS_renameat2, AT_FDCWD, "e1", AT_FDCWD, "e2", 0x80));
	put("h1", "h");
	link("h1", "h2");
	TRY(rename("h1", "h2"));
	kind("h1");
	kind("h2");
}

static void metadata(void)
{
	printf("-- metadata\n");
	struct stat st;
	put("m", "12345");
	TRY(chmod("m", 0751));
	kind("m");
	TRY(chmod("none4", 0751));
	TRY(access("m", F_OK));
	TRY(access("m", R_OK | W_OK | X_OK));
	TRY(access("m", 8));
	TRY(chmod("m", 0600));
	TRY(access("m", X_OK));
	TRY(access(".", X_OK));
	TRY(access("none4", F_OK));
	TRY(faccessat(AT_FDCWD, "m", R_OK, AT_EACCESS));
	struct timespec times[2] = {{1000000000, 123456789}, {1200000000, 987654321}};
	TRY(utimensat(AT_FDCWD, "m", times, 0));
	stat("m", &st);
	printf("%ld.%ld %ld.%ld\n", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec,
	       st.st_mtim.tv_nsec);
	times[0].tv_nsec = UTIME_OMIT;
	times[1].tv_sec = 7;
	TRY(utimensat(AT_FDCWD, "m", times, 0));
	stat("m", &st);
	printf("%ld.%ld %ld.%ld\n", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec,
	       st.st_mtim.tv_nsec);
	times[1].tv_nsec = 1000000000;
	TRY(utimensat(AT_FDCWD, "m", times, 0));
	TRY(utimes("m", (struct timeval[]){{5, 6}, {7, 8}}));
	stat("m", &st);
	printf("%ld.%ld %ld.%ld\n", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec,
	       st.st_mtim.tv_nsec);
	time_t before = time(0);
	TRY(utimensat(AT_FDCWD, "m", 0, 0));
	stat("m", &st);
	// Linux takes a file's time from a finer clock than time(), which may still be in the second before.
	printf("now: %d\n", st.st_mtim.tv_sec >= before - 1 && st.st_mtim.tv_sec <= time(0) + 1);
	TRY(syscall(SYS_stat, "m", 1));
	TRY(fstatat(AT_FDCWD, "", &st, 0));
	TRY(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
	TRY(S_ISDIR(st.st_mode));
	TRY(fstatat(AT_FDCWD, "m", &st, 0x8000000));
#ifdef STATX_BASIC_STATS
	struct statx sx;
	TRY(statx(AT_FDCWD, "m", 0, STATX_BASIC_STATS, &sx));
	printf("%o %lld %d\n", sx.stx_mode, (long long)sx.stx_size, (sx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
	TRY(statx(AT_FDCWD, "m", 0, 0x80000000, &sx));
#endif
	struct statfs fs;
	TRY(statfs("m", &fs));
	TRY(statfs("none4", &fs));
	TRY(chown("m", 0, 0));
	TRY(chown("m", -1, -1));
	TRY(mkfifo("fifo", 0640));
	kind("fifo");
	TRY(mknod("node", S_IFREG | 0604, 0));
	kind("node");
	stat("/dev/null", &st);
	printf("%d %lx\n", S_ISCHR(st.st_mode), (long)st.st_rdev);
	stat("/dev/urandom", &st);
	printf("%d %lx\n", S_ISCHR(st.st_mode), (long)st.st_rdev);
}

static void descriptors(void)
{
	printf("-- descriptors\n");
	close(20);
	close(21);
	put("f", "0123456789");
	int fd = open("f", O_RDWR | O_APPEND | O_NONBLOCK);
	TRY(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_CREAT));
	TRY(fcntl(fd, F_SETFL, O_RDONLY));
	TRY(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
	TRY(fcntl(fd, F_GETFD));
	TRY(fcntl(fd, F_SETFD, FD_CLOEXEC));
	TRY(fcntl(fd, F_GETFD));
	TRY(dup2(fd, 20));
	TRY(fcntl(20, F_GETFD));
	TRY(lseek(20, 3, SEEK_SET));
	TRY(lseek(fd, 0, SEEK_CUR));
	TRY(dup2(20, 20));
	TRY(dup2(99, 20));
	TRY(dup2(20, -1));
	TRY(dup2(20, 1 << 20));
	TRY(dup3(20, 20, 0));
	TRY(dup3(20, 21, O_CLOEXEC));
	TRY(dup3(20, 21, 1));
	TRY(fcntl(21, F_GETFD));
	TRY(fcntl(20, F_DUPFD, 40));
	TRY(fcntl(20, F_DUPFD_CLOEXEC, 40));
	TRY(fcntl(41, F_GETFD));
	TRY(fcntl(20, F_DUPFD, -1));
	TRY(fcntl(20, F_DUPFD, 1 << 28));
	TRY(fcntl(20, 12345));
	TRY(fcntl(99, F_GETFD));
	TRY(close(41));
	TRY(close(41));
	TRY(close(-1));
	TRY(syscall(SYS_close_range, 38, 45, 0));
	TRY(fcntl(40, F_GETFD));
	TRY(syscall(SYS_close_range, 45, 38, 0));
	TRY(syscall(SYS_close_range, 20, 20, 4));
	TRY(fcntl(20, F_GETFD));
	TRY(ioctl(fd, FIONREAD, &(int){0}));
	TRY(ioctl(fd, 0x5401, 0));
	TRY(isatty(fd));
	TRY(fsync(fd));
	TRY(fdatasync(fd));
	TRY(flock(fd, LOCK_EX));
	int other = open("f", O_RDONLY);
	TRY(flock(other, LOCK_EX | LOCK_NB));
	TRY(flock(other, LOCK_SH | LOCK_NB));
	TRY(flock(fd, LOCK_SH));
	TRY(flock(other, LOCK_SH | LOCK_NB));
	TRY(flock(fd, LOCK_UN));
	TRY(flock(other, LOCK_EX | LOCK_NB));
	TRY(flock(other, 77));
	close(other);
	TRY(flock(fd, LOCK_EX | LOCK_NB));
	struct flock lock = {.l_type = F_WRLCK};
	TRY(fcntl(fd, F_SETLK, &lock));

	/* Descriptors are copied by fork, but the position is shared. */
	lseek(fd, 0, SEEK_SET);
	pid_t child = fork();
	if (child == 0) {
		char text[4];
		read(fd, text, 4);
		close(20);
		_exit(0);
	}
	waitpid(child, 0, 0);
	TRY(lseek(fd, 0, SEEK_CUR));
	TRY(lseek(20, 0, SEEK_CUR));
	close(fd);
	close(20);
	close(21);
}

static void memfds(void)
{
	printf("-- memfd\n");
	char text[128] = {0}, path[64];
	int fd = memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	TRY(write(fd, "contents", 8));
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	readlink(path, text, sizeof text);
	printf("%s\n", text);
	TRY(fcntl(fd, F_GETFD));
	TRY(fcntl(fd, F_GET_SEALS));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	TRY(ftruncate(fd, 4));
	TRY(ftruncate(fd, 20));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
	TRY(ftruncate(fd, 30));
	TRY(pwrite(fd, "x", 1, 20));
	TRY(pwrite(fd, "x", 1, 19));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	TRY(pwrite(fd, "x", 1, 0));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
	TRY(fcntl(fd, F_GET_SEALS));
	TRY(fcntl(fd, F_ADD_SEALS, 0x4000));
	close(fd);
	fd = memfd_create("", 0);
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	TRY(fcntl(fd, F_GET_SEALS));
	struct stat st;
	fstat(fd, &st);
	printf("%o\n", st.st_mode);
	close(fd);
	TRY_FD(memfd_create("x", 0x8000));
	memset(text, 'm', sizeof text);
	char longer[260];
	memset(longer, 'm', sizeof longer);
	longer[249] = 0;
	TRY_FD(memfd_create(longer, 0));
	longer[249] = 'm';
	longer[250] = 0;
	TRY_FD(memfd_create(longer, 0));
}

static void devices(void)
{
	printf("-- devices\n");
	char text[16] = "xxxxxxxxxxxxxxx";
	int fd = open("/dev/null", O_RDWR);
	TRY(write(fd, text, 10));
	TRY(write(fd, (char *)8, 10));
	TRY(read(fd, text, 10));
	TRY(lseek(fd, 5, SEEK_SET));
	close(fd);
	fd = open("/dev/zero", O_RDWR);
	TRY(read(fd, text, 5));
	printf("%d%d%d%c\n", text[0], text[2], text[4], text[5]);
	TRY(write(fd, text, 10));
	char *map = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	printf("%d\n", map != MAP_FAILED && map[100] == 0);
	close(fd);
	fd = open("/dev/full", O_RDWR);
	TRY(write(fd, text, 1));
	TRY(read(fd, text, 1));
	close(fd);
	fd = open("/dev/urandom", O_RDONLY);
	TRY(read(fd, text, 16));
	close(fd);
	TRY(mmap(0, 4096, PROT_READ, MAP_PRIVATE, open("/dev/null", O_RDWR), 0) == MAP_FAILED);
}

static void mapping(void)
{
	printf("-- mapping files\n");
	put("map", "mapped text");
	int fd = open("map", O_RDWR);
	char *private = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	printf("%s\n", private);
	pwrite(fd, "MAPPED", 6, 0);
	printf("%s\n", private);
	private[0] = '#';
	pwrite(fd, "again!", 6, 0);
	printf("%.6s\n", private);
	char *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared != MAP_FAILED) {
		memcpy(shared, "shared", 6);
		show("map");
	}
	close(fd);
	fd = open("map", O_RDONLY);
	TRY(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? errno : 0);
	TRY(mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 123) == MAP_FAILED ? errno : 0);
	close(fd);
	fd = open("map", O_WRONLY);
	TRY(mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? errno : 0);
	close(fd);
	TRY(mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? errno : 0);
}

static int clean(const char *path)
{
	struct dirent *entry;
	DIR *dir = opendir(path);
	if (!dir)
		return unlink(path);
	while ((entry = readdir(dir))) {
		char name[PATH_MAX];
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
		struct stat st;
		if (lstat(name, &st) == 0 && S_ISDIR(st.st_mode))
			clean(name);
		else
			unlink(name);
	}
	closedir(dir);
	return rmdir(path);
}

int main(void)
{
	snprintf(base, sizeof base, "/tmp/files-%d", getpid());
	umask(022);
	if (mkdir(base, 0700) < 0 || chdir(base) < 0) {
		perror(base);
		return 1;
	}
	opening();
	reading();
	directories();
	links();
	renaming();
	metadata();
	descriptors();
	memfds();
	devices();
	mapping();
	chdir("/");
	TRY(clean(base));
	return 0;
}
