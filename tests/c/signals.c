/* Signals: faults with their siginfo, masks, queues, alternate stacks,
 * restarting calls, and what a handler finds and may change in its context.
 * Prints one line per check; the same on Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile siginfo_t seen;
static volatile int count, order[16], on_alt;
static volatile uint64_t seen_trap, seen_err;

static void jump(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	memcpy((void *)&seen, info, sizeof seen);
	seen_trap = uc->uc_mcontext.gregs[REG_TRAPNO];
	seen_err = uc->uc_mcontext.gregs[REG_ERR];
	siglongjmp(back, sig);
}

static void note(int sig) { order[count++ & 15] = sig; }

/* Where what a read waits for is to be written the third time, if at all. */
static volatile int ends_read;
static void note_and_end_read(int sig)
{
	note(sig);
	if (count == 3 && ends_read >= 0)
		write(ends_read, "x", 1);
}

static void note_info(int sig, siginfo_t *info, void *context)
{
	(void)context;
	order[count++ & 15] = sig;
	memcpy((void *)&seen, info, sizeof seen);
}

static void set(int sig, void *handler, int flags)
{
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_sigaction = handler;
	sa.sa_flags = flags;
	if (sigaction(sig, &sa, NULL))
		perror("sigaction");
}

static void fault(const char *what, void (*cause)(void *), void *arg)
{
	int sig = sigsetjmp(back, 1);
	if (!sig) {
		cause(arg);
		printf("%s: no signal\n", what);
		return;
	}
	printf("%s: signal %d code %d errno %d addr ok %d trap %d err %d\n", what, sig, seen.si_code,
	       seen.si_errno, seen.si_addr == arg, (int)seen_trap, (int)seen_err);
}

static void do_read(void *p) { (void)*(volatile char *)p; }
static void do_write(void *p) { *(volatile char *)p = 1; }
static void do_call(void *p) { ((void (*)(void))p)(); }
static void do_divide(void *p) { (void)p; __asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx" ::: "eax", "ecx", "edx"); }
static void do_x87(void *p)
{
	uint16_t control = 0x37b; /* division by zero is not masked */
	__asm__ volatile("fldcw %0; fld1; fldz; fdivrp; fwait; fstp %%st(0)" ::"m"(control));
	(void)p;
}
static void do_step(void *p)
{
	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf; nop; nop" ::: "memory", "cc");
	(void)p;
}
static void do_ud2(void *p) { (void)p; __asm__ volatile("ud2"); }
static void do_int3(void *p) { (void)p; __asm__ volatile("int3"); }
static void do_hlt(void *p) { (void)p; __asm__ volatile("hlt"); }

static void alt_handler(int sig, siginfo_t *info, void *context)
{
	char local;
	stack_t now;
	(void)info;
	sigaltstack(NULL, &now);
	on_alt = now.ss_flags == SS_ONSTACK && &local > (char *)now.ss_sp &&
		 &local < (char *)now.ss_sp + now.ss_size;
	stack_t other = { .ss_sp = now.ss_sp, .ss_size = now.ss_size };
	printf("change in use: %d\n", sigaltstack(&other, NULL) ? errno : 0);
	(void)context;
	siglongjmp(back, sig);
}

__attribute__((noinline)) static int overflow(int n)
{
	volatile char pad[4096];
	pad[0] = n;
	return n > 1 << 30 ? 0 : overflow(n + 1) + pad[0];
}

static void skip(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	(void)sig, (void)info;
	uc->uc_mcontext.gregs[REG_RIP] += 2; /* over the ud2 */
	uc->uc_mcontext.gregs[REG_RBX] = 0x1234;
	count++;
}

static void clobber_fpu(int sig)
{
	(void)sig;
	double x = 3.5;
	__asm__ volatile("pxor %%xmm15, %%xmm15; pxor %%xmm0, %%xmm0; fldz" ::: "xmm0", "xmm15");
	__asm__ volatile("fstp %%st(0)" ::: "st");
	count += (int)x;
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int sig = 1; sig < 32; sig++)
		if (sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGTRAP)
			set(sig, jump, SA_SIGINFO);
	munmap(page + 4096, 4096);
	fault("read unmapped", do_read, page + 4096 + 123);
	fault("write unmapped", do_write, page + 4096 + 123);
	mprotect(page, 4096, PROT_READ);
	fault("write read-only, untouched", do_write, page + 5);
	do_read(page);
	fault("write read-only", do_write, page + 5);
	fault("execute no-exec", do_call, page);
	mprotect(page, 4096, PROT_NONE);
	fault("read no-access", do_read, page + 7);
	fault("null", do_read, (void *)8);
	fault("kernel address", do_read, (void *)0xffffffff81000000);
	fault("non-canonical", do_read, (void *)0x8000000000000000);
	fault("divide", do_divide, NULL);
	fault("x87", do_x87, NULL);
	__asm__ volatile("fninit");
	fault("single step", do_step, NULL);
	fault("ud2", do_ud2, NULL);
	fault("int3", do_int3, NULL);
	fault("hlt", do_hlt, NULL);

	/* A fault while its signal is blocked or ignored kills. */
	for (int how = 0; how < 3; how++) {
		if (fork() == 0) {
			sigset_t all;
			sigfillset(&all);
			if (how == 0)
				sigprocmask(SIG_BLOCK, &all, NULL);
			else if (how == 1)
				signal(SIGSEGV, SIG_IGN);
			else
				signal(SIGSEGV, SIG_DFL);
			do_write(page);
			_exit(0);
		}
		int status;
		wait(&status);
		printf("fatal %d: signaled %d by %d\n", how, WIFSIGNALED(status), WTERMSIG(status));
	}

	/* Alternate stack: overflow of the ordinary one is survived. */
	stack_t alt = { .ss_sp = malloc(65536), .ss_size = 65536 };
	sigaltstack(&alt, NULL);
	set(SIGSEGV, alt_handler, SA_SIGINFO | SA_ONSTACK);
	if (!sigsetjmp(back, 1))
		overflow(0);
	printf("stack overflow handled on the alternate stack: %d\n", on_alt);
	alt.ss_size = 100;
	printf("too small: %d\n", sigaltstack(&alt, NULL) ? errno : 0);
	alt.ss_flags = 77;
	printf("bad flags: %d\n", sigaltstack(&alt, NULL) ? errno : 0);
	alt.ss_flags = SS_DISABLE;
	sigaltstack(&alt, NULL);

	/* The handler's changes to the context count. */
	set(SIGILL, skip, SA_SIGINFO);
	uint64_t rbx;
	count = 0;
	__asm__ volatile("mov $1, %%rbx; ud2; mov %%rbx, %0" : "=r"(rbx)::"rbx", "memory");
	printf("skipped %d, rbx %lx\n", count, rbx);

	/* FPU state is the program's own again afterwards. */
	set(SIGUSR1, clobber_fpu, 0);
	double sum;
	pid_t me = getpid();
	__asm__ volatile("movq %1, %%xmm15; mov $39, %%eax; mov %2, %%edi; mov $10, %%esi; mov $62, %%eax;"
			 "syscall; movq %%xmm15, %0"
			 : "=r"(sum)
			 : "r"(2.25), "r"(me)
			 : "rax", "rdi", "rsi", "rcx", "r11", "xmm15", "memory");
	printf("xmm15 %.2f\n", sum);

	/* Blocking, pending, order of delivery. */
	sigset_t mask, pending, old;
	for (int sig = SIGRTMIN; sig < SIGRTMIN + 3; sig++)
		set(sig, note_info, SA_SIGINFO);
	set(SIGUSR1, note, 0);
	set(SIGUSR2, note, 0);
	set(SIGTERM, note, 0);
	sigfillset(&mask);
	sigprocmask(SIG_BLOCK, &mask, &old);
	count = 0;
	kill(me, SIGTERM), kill(me, SIGUSR2), kill(me, SIGUSR1), kill(me, SIGUSR1);
	union sigval value;
	for (int i = 0; i < 3; i++) {
		value.sival_int = 100 + i;
		sigqueue(me, SIGRTMIN + 1, value);
	}
	sigpending(&pending);
	printf("pending: usr1 %d usr2 %d term %d rt %d hup %d\n", sigismember(&pending, SIGUSR1),
	       sigismember(&pending, SIGUSR2), sigismember(&pending, SIGTERM),
	       sigismember(&pending, SIGRTMIN + 1), sigismember(&pending, SIGHUP));
	sigset_t rt;
	sigemptyset(&rt);
	sigaddset(&rt, SIGRTMIN + 1);
	siginfo_t info;
	int got = sigwaitinfo(&rt, &info);
	printf("waited for: %d code %d value %d own pid %d\n", got == SIGRTMIN + 1, info.si_code,
	       info.si_value.sival_int, info.si_pid == me);
	sigprocmask(SIG_SETMASK, &old, NULL);
	printf("delivered %d:", count);
	for (int i = 0; i < count; i++)
		printf(" %d", order[i]);
	printf(", last value %d\n", seen.si_value.sival_int);
	struct timespec zero = { 0, 0 }, tenth = { 0, 20000000 };
	sigprocmask(SIG_BLOCK, &rt, NULL);
	printf("sigtimedwait: %d", sigtimedwait(&rt, NULL, &zero)), printf(" errno %d", errno);
	printf(", %d errno %d\n", sigtimedwait(&rt, NULL, &tenth), errno);

	/* sigsuspend: the mask counts while it lasts. */
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	count = 0;
	raise(SIGUSR1);
	printf("before sigsuspend %d", count);
	sigemptyset(&mask);
	int r = sigsuspend(&mask);
	printf(", after %d: %d errno %d", count, r, errno);
	raise(SIGUSR1);
	printf(", blocked again %d\n", count);
	sigprocmask(SIG_SETMASK, &old, NULL);

	/* Restarting and interrupted calls: the signal comes again and again, so one of
	   them comes during the call, however late that begins. */
	for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
		int fds[2];
		pipe(fds);
		ends_read = flags ? fds[1] : -1;
		set(SIGALRM, note_and_end_read, flags);
		struct itimerval timer = { { 0, 30000 }, { 0, 30000 } }, off = { { 0, 0 }, { 0, 0 } };
		count = 0;
		setitimer(ITIMER_REAL, &timer, NULL);
		char c;
		ssize_t n = read(fds[0], &c, 1);
		int error = n < 0 ? errno : 0;
		setitimer(ITIMER_REAL, &off, NULL);
		printf("read with flags %d: %zd errno %d, handler ran %d\n", flags != 0, n, error, count > 0);
		close(fds[0]), close(fds[1]);
	}

	/* SA_RESETHAND, SA_NODEFER, masks of handlers. */
	set(SIGUSR1, note, SA_RESETHAND);
	raise(SIGUSR1);
	struct sigaction sa;
	sigaction(SIGUSR1, NULL, &sa);
	printf("reset to default: %d\n", sa.sa_handler == SIG_DFL);
	printf("kill cannot be caught: %d\n", sigaction(SIGKILL, &sa, NULL) ? errno : 0);
	printf("no such signal: %d %d\n", kill(me, 65) ? errno : 0, sigaction(0, NULL, &sa) ? errno : 0);
	printf("no such process: %d\n", kill(999999, 0) ? errno : 0);

	/* A write nobody can read. */
	signal(SIGPIPE, SIG_IGN);
	int fds[2];
	pipe(fds);
	close(fds[0]);
	printf("broken pipe: %zd errno %d\n", write(fds[1], "x", 1), errno);
	if (fork() == 0) {
		signal(SIGPIPE, SIG_DFL);
		write(fds[1], "x", 1);
		_exit(0);
	}
	int status;
	wait(&status);
	printf("killed by %d\n", WTERMSIG(status));

	/* A stack pointer that leaves no room for a frame. */
	if (fork() == 0) {
		set(SIGUSR1, note, 0);
		__asm__ volatile("mov $8, %%rsp; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $10, %%esi;"
				 "mov $62, %%eax; syscall; ud2" ::: "memory");
	}
	wait(&status);
	printf("no room: killed by %d\n", WTERMSIG(status));
	return 0;
}
