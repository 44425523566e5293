//! Signals: delivery, masks, stacks, and coming back from them.

use std::arch::asm;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tests::case::Outcome;
use tests::mem;
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["signal":
    handler_runs, siginfo_of_kill, mask_holds_back, mask_in_handler, nodefer, resethand, alternate_stack,
    registers_survive, vector_registers_survive, flags_survive, blocked_fault_kills, ignored, default_actions,
    child_end_is_reported, alarm_rings, interval_timer, suspend, pause_and_kill, tgkill_self, pending_set,
    wait_for_signal, restarted_read, inherited_by_fork, reset_by_exec, cannot_be_caught, wrong_numbers,
    stop_and_continue,
];

static COUNT: AtomicI32 = AtomicI32::new(0);
static SEEN: AtomicI32 = AtomicI32::new(0);
static WHERE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(signal: i32) {
    COUNT.fetch_add(1, SeqCst);
    SEEN.store(signal, SeqCst);
    let local = 0u8;
    WHERE.store(&raw const local as usize, SeqCst);
}

/// Installs a handler with these flags and these signals blocked while it runs.
fn handle(signal: i32, handler: usize, flags: i32, blocked: &[i32]) {
    // SAFETY: the action is initialised; the handlers in this file do only what is
    // allowed in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        for &signal in blocked {
            libc::sigaddset(&raw mut action.sa_mask, signal);
        }
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

fn count_signal(signal: i32) {
    handle(signal, count as *const () as usize, 0, &[]);
}

fn raise(signal: i32) -> sys::Result {
    sys::call(libc::SYS_kill, &[std::process::id() as usize, signal as usize])
}

/// Changes the mask of this thread (`SIG_BLOCK`, …) by system call; returns the old one.
fn mask(how: i32, set: u64) -> sys::Result<u64> {
    let mut old = 0u64;
    let (new, old_pointer) = (&raw const set as usize, &raw mut old as usize);
    sys::call(libc::SYS_rt_sigprocmask, &[how as usize, new, old_pointer, 8])?;
    Ok(old)
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

fn handler_runs() -> Outcome {
    count_signal(libc::SIGUSR1);
    for i in 1..=10 {
        raise(libc::SIGUSR1)?;
        check_eq!(COUNT.load(SeqCst), i);
    }
    check_eq!(SEEN.load(SeqCst), libc::SIGUSR1);
    Ok(())
}

fn siginfo_of_kill() -> Outcome {
    static SENDER: AtomicI32 = AtomicI32::new(0);
    static CODE: AtomicI32 = AtomicI32::new(-1);
    extern "C" fn note(_: i32, info: *const libc::siginfo_t, _: *const libc::c_void) {
        // SAFETY: valid for the duration of the handler.
        let info = unsafe { &*info };
        CODE.store(info.si_code, SeqCst);
        // SAFETY: a signal from `kill` carries the sender.
        SENDER.store(unsafe { info.si_pid() }, SeqCst);
    }
    handle(libc::SIGUSR1, note as *const () as usize, libc::SA_SIGINFO, &[]);
    raise(libc::SIGUSR1)?;
    check_eq!(CODE.load(SeqCst), libc::SI_USER);
    check_eq!(SENDER.load(SeqCst), std::process::id() as i32);
    Ok(())
}

fn mask_holds_back() -> Outcome {
    count_signal(libc::SIGUSR1);
    mask(libc::SIG_BLOCK, bit(libc::SIGUSR1))?;
    raise(libc::SIGUSR1)?;
    raise(libc::SIGUSR1)?;
    check_eq!(COUNT.load(SeqCst), 0);
    check_eq!(mask(libc::SIG_UNBLOCK, bit(libc::SIGUSR1))? & bit(libc::SIGUSR1), bit(libc::SIGUSR1));
    // Twice is once, for an ordinary signal.
    check_eq!(COUNT.load(SeqCst), 1);
    Ok(())
}

fn mask_in_handler() -> Outcome {
    static DEPTH: AtomicI32 = AtomicI32::new(0);
    static DEEPEST: AtomicI32 = AtomicI32::new(0);
    extern "C" fn nested(signal: i32) {
        let depth = DEPTH.fetch_add(1, SeqCst) + 1;
        DEEPEST.fetch_max(depth, SeqCst);
        if COUNT.fetch_add(1, SeqCst) < 3 {
            // Both are blocked now: delivered only after this one has returned.
            let _ = raise(signal);
            let _ = raise(libc::SIGUSR2);
        }
        DEPTH.fetch_sub(1, SeqCst);
    }
    handle(libc::SIGUSR1, nested as *const () as usize, 0, &[libc::SIGUSR2]);
    handle(libc::SIGUSR2, nested as *const () as usize, 0, &[libc::SIGUSR1]);
    raise(libc::SIGUSR1)?;
    check!(COUNT.load(SeqCst) >= 3);
    check_eq!(DEEPEST.load(SeqCst), 1);
    Ok(())
}

fn nodefer() -> Outcome {
    extern "C" fn nested(signal: i32) {
        if COUNT.fetch_add(1, SeqCst) < 5 {
            let before = COUNT.load(SeqCst);
            let _ = raise(signal);
            // It has run already, inside this one.
            if COUNT.load(SeqCst) > before {
                SEEN.fetch_add(1, SeqCst);
            }
        }
    }
    handle(libc::SIGUSR1, nested as *const () as usize, libc::SA_NODEFER, &[]);
    raise(libc::SIGUSR1)?;
    check_eq!((COUNT.load(SeqCst), SEEN.load(SeqCst)), (6, 5));
    Ok(())
}

fn resethand() -> Outcome {
    let status = sys::in_child(|| {
        handle(libc::SIGUSR1, count as *const () as usize, libc::SA_RESETHAND, &[]);
        let _ = raise(libc::SIGUSR1);
        if COUNT.load(SeqCst) != 1 {
            return 1;
        }
        let _ = raise(libc::SIGUSR1);
        0
    })?;
    check_eq!(status, Status::Killed(libc::SIGUSR1));
    Ok(())
}

fn alternate_stack() -> Outcome {
    let size = 64 * 1024;
    let memory = sys::mmap(0, size, RW, ANON)?;
    let stack = libc::stack_t { ss_sp: memory as *mut _, ss_flags: 0, ss_size: size };
    let mut old = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: the memory is mapped and used for nothing else.
    check_eq!(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }, 0);
    handle(libc::SIGUSR1, count as *const () as usize, libc::SA_ONSTACK, &[]);
    raise(libc::SIGUSR1)?;
    check!((memory..memory + size).contains(&WHERE.load(SeqCst)));
    handle(libc::SIGUSR1, count as *const () as usize, 0, &[]);
    raise(libc::SIGUSR1)?;
    check!(!(memory..memory + size).contains(&WHERE.load(SeqCst)));
    // SAFETY: only asks for the present one.
    check_eq!(unsafe { libc::sigaltstack(std::ptr::null(), &raw mut old) }, 0);
    check_eq!((old.ss_sp as usize, old.ss_size), (memory, size));
    let tiny = libc::stack_t { ss_sp: memory as *mut _, ss_flags: 0, ss_size: 100 };
    check_eq!(sys::call(libc::SYS_sigaltstack, &[&raw const tiny as usize, 0]), Err(Errno(libc::ENOMEM)));
    Ok(())
}

/// Sends this process SIGUSR1 in the middle of assembly that knows what is in the registers.
fn registers_survive() -> Outcome {
    count_signal(libc::SIGUSR1);
    let pid = std::process::id() as u64;
    let (mut r8, mut r9, mut r10, mut r12, mut r15): (u64, u64, u64, u64, u64) = (8, 9, 10, 12, 15);
    let mut rdx: u64 = 3;
    // SAFETY: makes a system call; all that it changes is declared.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") libc::SYS_kill => _,
            in("rdi") pid, in("rsi") libc::SIGUSR1 as u64,
            inlateout("rdx") rdx, inlateout("r8") r8, inlateout("r9") r9, inlateout("r10") r10,
            inlateout("r12") r12, inlateout("r15") r15, lateout("rcx") _, lateout("r11") _,
        );
    }
    check_eq!(COUNT.load(SeqCst), 1);
    check_eq!((rdx, r8, r9, r10, r12, r15), (3, 8, 9, 10, 12, 15));
    Ok(())
}

fn vector_registers_survive() -> Outcome {
    extern "C" fn spoil(_: i32) {
        COUNT.fetch_add(1, SeqCst);
        // SAFETY: overwrites registers that a handler may overwrite.
        unsafe {
            asm!("pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15",
                 out("xmm0") _, out("xmm7") _, out("xmm15") _);
        }
    }
    handle(libc::SIGUSR1, spoil as *const () as usize, 0, &[]);
    let pid = std::process::id() as u64;
    let (mut x0, mut x7, mut x15) = (1.5f64, 7.5f64, 15.5f64);
    // SAFETY: as above.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") libc::SYS_kill => _,
            in("rdi") pid, in("rsi") libc::SIGUSR1 as u64,
            inlateout("xmm0") x0, inlateout("xmm7") x7, inlateout("xmm15") x15,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    check_eq!(COUNT.load(SeqCst), 1);
    check_eq!((x0, x7, x15), (1.5, 7.5, 15.5));
    Ok(())
}

fn flags_survive() -> Outcome {
    count_signal(libc::SIGUSR1);
    let pid = std::process::id() as u64;
    let carry: u8;
    // SAFETY: as above; the handler runs with the direction flag clear whatever it was here,
    // and it is cleared again before Rust code goes on.
    unsafe {
        asm!(
            "stc", "std", "syscall", "setc {carry}", "cld",
            carry = lateout(reg_byte) carry,
            inlateout("rax") libc::SYS_kill => _,
            in("rdi") pid, in("rsi") libc::SIGUSR1 as u64,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    check_eq!((COUNT.load(SeqCst), carry), (1, 1));
    Ok(())
}

fn blocked_fault_kills() -> Outcome {
    let status = sys::in_child(|| {
        let _ = mask(libc::SIG_BLOCK, bit(libc::SIGSEGV));
        let _ = mem::read(0);
        0
    })?;
    check_eq!(status, Status::Killed(libc::SIGSEGV));
    Ok(())
}

fn ignored() -> Outcome {
    handle(libc::SIGTERM, libc::SIG_IGN, 0, &[]);
    raise(libc::SIGTERM)?;
    raise(libc::SIGCHLD)?;
    raise(libc::SIGURG)?;
    raise(libc::SIGWINCH)?;
    raise(libc::SIGCONT)?;
    Ok(())
}

fn default_actions() -> Outcome {
    for signal in 1..=64 {
        let harmless = [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT];
        let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
        if harmless.contains(&signal) || stops.contains(&signal) || signal == 32 || signal == 33 {
            continue;
        }
        let status = sys::in_child(|| {
            // SAFETY: restores the default action, where there was another.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            let _ = raise(signal);
            0
        })?;
        check_eq!(status, Status::Killed(signal));
    }
    Ok(())
}

fn child_end_is_reported() -> Outcome {
    static CHILD: AtomicI32 = AtomicI32::new(0);
    static STATUS: AtomicI32 = AtomicI32::new(0);
    extern "C" fn note(_: i32, info: *const libc::siginfo_t, _: *const libc::c_void) {
        // SAFETY: valid for the duration of the handler, with the fields of a child's end.
        let info = unsafe { &*info };
        // SAFETY: as above.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        CHILD.store(pid, SeqCst);
        STATUS.store(status, SeqCst);
    }
    handle(libc::SIGCHLD, note as *const () as usize, libc::SA_SIGINFO | libc::SA_RESTART, &[]);
    let pid = sys::spawn(|| 12)?;
    check_eq!(sys::wait(pid)?, Status::Exited(12));
    check_eq!((CHILD.load(SeqCst), STATUS.load(SeqCst)), (pid, 12));
    // With the signal ignored, children leave no trace.
    handle(libc::SIGCHLD, libc::SIG_IGN, 0, &[]);
    let pid = sys::spawn(|| 12)?;
    check_eq!(sys::wait(pid), Err(Errno(libc::ECHILD)));
    Ok(())
}

fn alarm_rings() -> Outcome {
    count_signal(libc::SIGALRM);
    let start = Instant::now();
    check_eq!(sys::call(libc::SYS_alarm, &[1])? as u32 > 0, true);
    let pause = sys::call(libc::SYS_pause, &[]);
    check_eq!(pause, Err(Errno(libc::EINTR)));
    check_eq!(SEEN.load(SeqCst), libc::SIGALRM);
    check!(start.elapsed() >= Duration::from_millis(900));
    check_eq!(sys::call(libc::SYS_alarm, &[0])?, 0);
    Ok(())
}

fn interval_timer() -> Outcome {
    count_signal(libc::SIGALRM);
    let tick = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    let timer = libc::itimerval { it_interval: tick, it_value: tick };
    sys::call(libc::SYS_setitimer, &[libc::ITIMER_REAL as usize, &raw const timer as usize, 0])?;
    // Busy, so that the processor has to be taken away.
    while COUNT.load(SeqCst) < 5 {
        std::hint::spin_loop();
    }
    let off = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: off, it_value: off };
    sys::call(libc::SYS_setitimer, &[libc::ITIMER_REAL as usize, &raw const timer as usize, 0])?;
    Ok(())
}

fn suspend() -> Outcome {
    count_signal(libc::SIGUSR1);
    mask(libc::SIG_BLOCK, bit(libc::SIGUSR1))?;
    raise(libc::SIGUSR1)?;
    check_eq!(COUNT.load(SeqCst), 0);
    let none = 0u64;
    let result = sys::call(libc::SYS_rt_sigsuspend, &[&raw const none as usize, 8]);
    check_eq!(result, Err(Errno(libc::EINTR)));
    check_eq!(COUNT.load(SeqCst), 1);
    // The mask is what it was before.
    raise(libc::SIGUSR1)?;
    check_eq!(COUNT.load(SeqCst), 1);
    Ok(())
}

fn pause_and_kill() -> Outcome {
    let pid = sys::spawn(|| {
        let _ = sys::call(libc::SYS_pause, &[]);
        0
    })?;
    std::thread::sleep(Duration::from_millis(20));
    sys::call(libc::SYS_kill, &[pid as usize, libc::SIGTERM as usize])?;
    check_eq!(sys::wait(pid)?, Status::Killed(libc::SIGTERM));
    Ok(())
}

fn tgkill_self() -> Outcome {
    count_signal(libc::SIGUSR2);
    let pid = std::process::id() as usize;
    let thread = sys::call(libc::SYS_gettid, &[])?;
    sys::call(libc::SYS_tgkill, &[pid, thread, libc::SIGUSR2 as usize])?;
    check_eq!(COUNT.load(SeqCst), 1);
    check_eq!(sys::call(libc::SYS_tgkill, &[1 << 29, thread, 0]), Err(Errno(libc::ESRCH)));
    check_eq!(sys::call(libc::SYS_tgkill, &[0, thread, 0]), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn pending_set() -> Outcome {
    mask(libc::SIG_BLOCK, bit(libc::SIGUSR1) | bit(libc::SIGUSR2))?;
    raise(libc::SIGUSR2)?;
    let mut pending = 0u64;
    sys::call(libc::SYS_rt_sigpending, &[&raw mut pending as usize, 8])?;
    check_eq!(pending, bit(libc::SIGUSR2));
    Ok(())
}

fn wait_for_signal() -> Outcome {
    let set = bit(libc::SIGUSR1);
    mask(libc::SIG_BLOCK, set)?;
    let wait = |nanoseconds: i64| {
        let timeout = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
        let arguments = [&raw const set as usize, 0, &raw const timeout as usize, 8];
        sys::call(libc::SYS_rt_sigtimedwait, &arguments)
    };
    check_eq!(wait(1_000_000), Err(Errno(libc::EAGAIN)));
    raise(libc::SIGUSR1)?;
    check_eq!(wait(1_000_000)?, libc::SIGUSR1 as usize);
    check_eq!(wait(0), Err(Errno(libc::EAGAIN)));
    Ok(())
}

fn restarted_read() -> Outcome {
    handle(libc::SIGUSR1, count as *const () as usize, libc::SA_RESTART, &[]);
    let mut ends = [0i32; 2];
    sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0])?;
    let parent = std::process::id() as usize;
    let pid = sys::spawn(|| {
        std::thread::sleep(Duration::from_millis(50));
        let _ = sys::call(libc::SYS_kill, &[parent, libc::SIGUSR1 as usize]);
        std::thread::sleep(Duration::from_millis(50));
        let _ = sys::call(libc::SYS_write, &[ends[1] as usize, b"!".as_ptr() as usize, 1]);
        0
    })?;
    let mut byte = 0u8;
    check_eq!(sys::call(libc::SYS_read, &[ends[0] as usize, &raw mut byte as usize, 1])?, 1);
    check_eq!(COUNT.load(SeqCst), 1);
    check_eq!(sys::wait(pid)?, Status::Exited(0));
    Ok(())
}

fn inherited_by_fork() -> Outcome {
    count_signal(libc::SIGUSR1);
    mask(libc::SIG_BLOCK, bit(libc::SIGUSR1))?;
    raise(libc::SIGUSR1)?;
    let status = sys::in_child(|| {
        // Handler and mask, but nothing that was pending.
        let old = mask(libc::SIG_UNBLOCK, bit(libc::SIGUSR1)).unwrap_or(0);
        if old & bit(libc::SIGUSR1) == 0 || COUNT.load(SeqCst) != 0 {
            return 1;
        }
        let _ = raise(libc::SIGUSR1);
        i32::from(COUNT.load(SeqCst) != 1)
    })?;
    check_eq!(status, Status::Exited(0));
    Ok(())
}

fn reset_by_exec() -> Outcome {
    count_signal(libc::SIGUSR1);
    handle(libc::SIGUSR2, libc::SIG_IGN, 0, &[]);
    let status = std::process::Command::new("/proc/self/exe").args(["child", "status", "0"]).status()?;
    check!(status.success());
    Ok(())
}

fn cannot_be_caught() -> Outcome {
    let action = [0usize; 4];
    for signal in [libc::SIGKILL, libc::SIGSTOP] {
        let arguments = [signal as usize, action.as_ptr() as usize, 0, 8];
        check_eq!(sys::call(libc::SYS_rt_sigaction, &arguments), Err(Errno(libc::EINVAL)));
    }
    mask(libc::SIG_BLOCK, u64::MAX)?;
    let blocked = mask(libc::SIG_SETMASK, 0)?;
    check_eq!(blocked & (bit(libc::SIGKILL) | bit(libc::SIGSTOP)), 0);
    Ok(())
}

fn wrong_numbers() -> Outcome {
    let invalid = Err(Errno(libc::EINVAL));
    check_eq!(raise(65), invalid);
    check_eq!(raise(-1), invalid);
    check_eq!(raise(0)?, 0);
    for signal in [0, 65, usize::MAX] {
        check_eq!(sys::call(libc::SYS_rt_sigaction, &[signal, 0, 0, 8]), invalid);
    }
    check_eq!(sys::call(libc::SYS_rt_sigaction, &[10, 0, 0, 16]), invalid);
    check_eq!(sys::call(libc::SYS_rt_sigprocmask, &[9, [0u64].as_ptr() as usize, 0, 8]), invalid);
    check_eq!(sys::call(libc::SYS_kill, &[1 << 29, 0]), Err(Errno(libc::ESRCH)));
    Ok(())
}

fn stop_and_continue() -> Outcome {
    let pid = sys::spawn(|| {
        loop {
            std::thread::yield_now();
        }
    })?;
    let kill = |signal: i32| sys::call(libc::SYS_kill, &[pid as usize, signal as usize]);
    let mut status = 0i32;
    let mut wait = |options: i32| {
        sys::call(libc::SYS_wait4, &[pid as usize, &raw mut status as usize, options as usize, 0]).map(|_| status)
    };
    kill(libc::SIGSTOP)?;
    let stopped = wait(libc::WUNTRACED)?;
    check!(libc::WIFSTOPPED(stopped) && libc::WSTOPSIG(stopped) == libc::SIGSTOP);
    kill(libc::SIGCONT)?;
    check!(libc::WIFCONTINUED(wait(libc::WCONTINUED)?));
    kill(libc::SIGKILL)?;
    check_eq!(sys::wait(pid)?, Status::Killed(libc::SIGKILL));
    Ok(())
}
