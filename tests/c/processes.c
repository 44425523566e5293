/* Processes: fork, vfork, exec, exit, wait, process groups, stopping and
 * continuing, orphans. Prints one line per check; the same on Linux. Runs
 * itself again with arguments. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
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
#include <unistd.h>

static volatile int chld_count, chld_code, chld_status, chld_pid;

static void on_chld(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	chld_count++;
	chld_code = info->si_code;
	chld_status = info->si_status;
	chld_pid = info->si_pid;
}

static void show(const char *what, int status)
{
	if (WIFEXITED(status))
		printf("%s: exited %d\n", what, WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		printf("%s: killed by %d\n", what, WTERMSIG(status));
	else if (WIFSTOPPED(status))
		printf("%s: stopped by %d\n", what, WSTOPSIG(status));
	else if (WIFCONTINUED(status))
		printf("%s: continued\n", what);
}

static int child_main(int argc, char **argv)
{
	printf("exec: argc %d argv[1] %s argv[2] %s env %s\n", argc, argv[1], argc > 2 ? argv[2] : "-",
	       getenv("COLOUR") ? getenv("COLOUR") : "none");
	struct sigaction sa;
	sigset_t mask;
	sigaction(SIGUSR1, NULL, &sa);
	printf("exec: caught became default %d", sa.sa_handler == SIG_DFL);
	sigaction(SIGUSR2, NULL, &sa);
	printf(", ignored stayed %d", sa.sa_handler == SIG_IGN);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	printf(", mask stayed %d", sigismember(&mask, SIGHUP));
	printf(", fd 10 open %d, fd 11 open %d\n", fcntl(10, F_GETFD) >= 0, fcntl(11, F_GETFD) >= 0);
	return 7;
}

static volatile int shared_by_vfork;

static int clone_main(void *arg)
{
	*(volatile int *)arg += 1;
	return 5;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	if (argc > 1)
		return child_main(argc, argv);
	int status;
	pid_t pid, me = getpid();

	/* Statuses. */
	if ((pid = fork()) == 0)
		_exit(300);
	printf("waited for the child: %d\n", waitpid(pid, &status, 0) == pid);
	show("exit(300)", status);
	int sigs[] = { SIGTERM, SIGKILL, SIGABRT, SIGUSR1, SIGALRM };
	for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++) {
		if ((pid = fork()) == 0) {
			pause();
			_exit(1);
		}
		kill(pid, sigs[i]);
		wait(&status);
		show("kill", status);
	}
	printf("no children: %d\n", wait(NULL) < 0 ? errno : 0);
	printf("bad options: %d\n", waitpid(-1, NULL, 0x100) < 0 ? errno : 0);

	/* Memory is the child's own after fork. */
	int *cell = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*cell = 1;
	if (fork() == 0) {
		*cell = 2;
		_exit(*cell + (getppid() == me ? 10 : 20));
	}
	wait(&status);
	printf("child saw %d, parent sees %d\n", WEXITSTATUS(status), *cell);

	/* WNOHANG, waitid with WNOWAIT. */
	int fds[2];
	pipe(fds);
	if ((pid = fork()) == 0) {
		char c;
		read(fds[0], &c, 1);
		_exit(3);
	}
	printf("WNOHANG: %d\n", waitpid(pid, &status, WNOHANG));
	write(fds[1], "x", 1);
	siginfo_t info;
	memset(&info, 0, sizeof info);
	int r = waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
	printf("waitid: %d pid %d code %d status %d signo %d\n", r, info.si_pid == pid, info.si_code,
	       info.si_status, info.si_signo);
	printf("again: %d", waitpid(pid, &status, 0) == pid), show("", status);

	/* Stop and continue. */
	struct sigaction sa = { .sa_sigaction = on_chld, .sa_flags = SA_SIGINFO | SA_RESTART };
	sigaction(SIGCHLD, &sa, NULL);
	if ((pid = fork()) == 0)
		for (;;)
			pause();
	chld_count = 0;
	kill(pid, SIGSTOP);
	waitpid(pid, &status, WUNTRACED);
	show("stop", status);
	while (chld_count < 1) /* sent after the stop can be seen */
		usleep(1000);
	printf("SIGCHLD: %d code %d status %d\n", chld_count, chld_code, chld_status);
	kill(pid, SIGCONT);
	waitpid(pid, &status, WCONTINUED);
	show("cont", status);
	while (chld_count < 2) /* the child sends it, once it runs */
		usleep(1000);
	printf("SIGCHLD: %d code %d status %d\n", chld_count, chld_code, chld_status);
	kill(pid, SIGSTOP);
	waitpid(pid, &status, WUNTRACED);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	show("killed while stopped", status);
	printf("SIGCHLD code %d status %d pid %d\n", chld_code, chld_status, chld_pid == pid);

	/* Nobody wants to know. */
	signal(SIGCHLD, SIG_IGN);
	if (fork() == 0)
		_exit(0);
	printf("ignored: %d", wait(&status)), printf(" errno %d\n", errno);
	signal(SIGCHLD, SIG_DFL);

	/* vfork: the parent waits, memory is shared. */
	shared_by_vfork = 1;
	if ((pid = vfork()) == 0) {
		shared_by_vfork = 2;
		_exit(4);
	}
	printf("after vfork: %d\n", shared_by_vfork);
	waitpid(pid, &status, 0);
	show("vfork", status);

	/* clone with shared memory. */
	static char stack[65536] __attribute__((aligned(16)));
	static int counter;
	pid = clone(clone_main, stack + sizeof stack, CLONE_VM | SIGCHLD, &counter);
	waitpid(pid, &status, 0);
	show("clone", status);
	printf("counter %d\n", counter);
	printf("clone errors: %d %d\n",
	       syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0) < 0 ? errno : 0,
	       syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0) < 0 ? errno : 0);

	/* Process groups and sessions. */
	printf("group leader %d, session leader is one too %d\n", getpgrp() == getpgid(0),
	       getsid(0) == getsid(me));
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if ((pid = fork()) == 0) {
		setpgid(0, 0);
		if (fork() == 0) {
			write(fds[1], "y", 1);
			pause();
			_exit(0);
		}
		pause();
		_exit(0);
	}
	setpgid(pid, pid);
	char c;
	read(fds[0], &c, 1);
	printf("child leads a group: %d\n", getpgid(pid) == pid);
	printf("kill group: %d\n", kill(-pid, SIGTERM));
	waitpid(pid, &status, 0);
	show("leader", status);
	wait(&status);
	show("its child", status);
	if (fork() == 0) {
		pid_t sid = setsid();
		_exit((sid == getpid()) + 2 * (getpgrp() == sid) + 4 * (setsid() < 0 && errno == EPERM));
	}
	wait(&status);
	show("setsid", status);

	/* Orphans go to whoever adopts them. */
	pid_t middle = fork();
	if (middle == 0) {
		if (fork() == 0) {
			char d;
			read(fds[0], &d, 1);
			_exit(getppid() == me ? 21 : 22);
		}
		_exit(0);
	}
	waitpid(middle, &status, 0);
	write(fds[1], "z", 1);
	wait(&status);
	show("orphan", status);

	/* exec: arguments, environment, what is kept and what is not. */
	dup2(fds[0], 10);
	dup3(fds[0], 11, O_CLOEXEC);
	if (fork() == 0) {
		signal(SIGUSR1, (void (*)(int))on_chld);
		signal(SIGUSR2, SIG_IGN);
		sigset_t hup;
		sigemptyset(&hup);
		sigaddset(&hup, SIGHUP);
		sigprocmask(SIG_BLOCK, &hup, NULL);
		char *args[] = { "self", "one", "two", NULL }, *env[] = { "COLOUR=green", NULL };
		execve("/proc/self/exe", args, env);
		perror("execve");
		_exit(99);
	}
	wait(&status);
	show("exec", status);
	char *no_args[] = { "x", NULL };
	printf("exec of nothing: %d", execve("/does/not/exist", no_args, NULL) ? errno : 0);
	printf(", of a directory: %d", execve("/tmp", no_args, NULL) ? errno : 0);
	int fd = open("/tmp/processes-script", O_CREAT | O_WRONLY | O_TRUNC, 0755);
	write(fd, "not a program at all, really\n", 29);
	close(fd);
	printf(", of text: %d", execve("/tmp/processes-script", no_args, NULL) ? errno : 0);
	chmod("/tmp/processes-script", 0644);
	printf(", not executable: %d\n", execve("/tmp/processes-script", no_args, NULL) ? errno : 0);
	unlink("/tmp/processes-script");
	printf("bad pointers: %d %d\n", syscall(SYS_execve, 8, 0, 0) ? errno : 0,
	       syscall(SYS_execve, "/proc/self/exe", 8, 0) ? errno : 0);

	/* Limits, names. */
	struct rlimit limit = { 100, 50 };
	printf("soft above hard: %d\n", setrlimit(RLIMIT_CORE, &limit) ? errno : 0);
	printf("no such resource: %d\n", getrlimit(99, &limit) ? errno : 0);
	char name[16];
	prctl(PR_SET_NAME, "a rather long name");
	prctl(PR_GET_NAME, name);
	printf("name: %s\n", name);
	printf("tids: %d\n", gettid() == getpid());
	return 0;
}
