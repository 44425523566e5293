//! Processes: exit, wait, execve.

use std::ffi::CString;
use std::process::{Command, ExitCode};

use tests::case::Outcome;
use tests::mem;
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["process":
    exit_status, killed_by_signal, wait_any, wait_without_children, wait_does_not_hang, waitid_reports,
    parent_is_known, orphan_gets_parent, exec_self, exec_arguments, exec_environment, exec_drops_mappings,
    exec_from_file_without_permission, exec_errors, exec_too_big, exec_keeps_pid, std_command, many_processes,
    session_and_group,
];

/// What this program does when it is executed by one of its own cases.
pub fn child(arguments: &[String]) -> ExitCode {
    match arguments.first().map(String::as_str) {
        Some("status") => ExitCode::from(arguments[1].parse::<u8>().unwrap_or(255)),
        Some("arguments") => {
            println!("{:?}", &arguments[1..]);
            ExitCode::SUCCESS
        }
        Some("environment") => {
            let mut all: Vec<_> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            all.sort();
            println!("{all:?}");
            ExitCode::SUCCESS
        }
        Some("unmapped") => {
            mem::catch_faults();
            let addr = usize::from_str_radix(&arguments[1], 16).unwrap_or(0);
            ExitCode::from(u8::from(mem::read(addr).is_ok()))
        }
        Some("pid") => ExitCode::from(u8::from(arguments[1] != std::process::id().to_string())),
        _ => ExitCode::from(254),
    }
}

/// Executes this program as `cases child …`; returns only when that fails.
fn exec_child(arguments: &[&str], environment: &[&str]) -> Errno {
    let path = CString::new("/proc/self/exe").expect("no zero bytes");
    let strings = |words: &[&str]| -> Vec<CString> {
        words.iter().map(|word| CString::new(*word).expect("no zero bytes")).collect()
    };
    let mut words = vec!["cases", "child"];
    words.extend(arguments);
    exec(&path, &strings(&words), &strings(environment))
}

/// `execve`, which returns only when it fails.
pub fn exec(path: &CString, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const i8> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    sys::flush();
    let call = [path.as_ptr() as usize, arguments.as_ptr() as usize, environment.as_ptr() as usize];
    match sys::call(libc::SYS_execve, &call) {
        Err(error) => error,
        Ok(_) => Errno(0),
    }
}

fn exit_status() -> Outcome {
    for status in [0, 1, 2, 127, 128, 255] {
        check_eq!(sys::in_child(|| status)?, Status::Exited(status));
    }
    check_eq!(sys::in_child(|| 256 + 7)?, Status::Exited(7));
    Ok(())
}

fn kill(pid: i32, signal: i32) -> sys::Result {
    sys::call(libc::SYS_kill, &[pid as usize, signal as usize])
}

fn killed_by_signal() -> Outcome {
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1, libc::SIGALRM, libc::SIGABRT] {
        let pid = sys::spawn(|| {
            loop {
                std::thread::park();
            }
        })?;
        kill(pid, signal)?;
        check_eq!(sys::wait(pid)?, Status::Killed(signal));
        check_eq!(kill(pid, 0), Err(Errno(libc::ESRCH)));
    }
    Ok(())
}

fn wait_any() -> Outcome {
    let mut children = vec![sys::spawn(|| 3)?, sys::spawn(|| 3)?, sys::spawn(|| 3)?];
    for _ in 0..3 {
        let mut status = 0i32;
        let pid = sys::call(libc::SYS_wait4, &[usize::MAX, &raw mut status as usize, 0, 0])? as i32;
        check!(children.contains(&pid));
        children.retain(|&child| child != pid);
        check_eq!(libc::WEXITSTATUS(status), 3);
    }
    check!(children.is_empty());
    Ok(())
}

fn wait_without_children() -> Outcome {
    check_eq!(sys::call(libc::SYS_wait4, &[usize::MAX, 0, 0, 0]), Err(Errno(libc::ECHILD)));
    check_eq!(sys::wait(1), Err(Errno(libc::ECHILD)));
    check_eq!(sys::call(libc::SYS_wait4, &[usize::MAX, 0, 1 << 20, 0]), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn wait_does_not_hang() -> Outcome {
    let pid = sys::spawn(|| {
        loop {
            std::thread::park();
        }
    })?;
    let nohang = libc::WNOHANG as usize;
    check_eq!(sys::call(libc::SYS_wait4, &[pid as usize, 0, nohang, 0])?, 0);
    kill(pid, libc::SIGKILL)?;
    check_eq!(sys::wait(pid)?, Status::Killed(libc::SIGKILL));
    Ok(())
}

fn waitid_reports() -> Outcome {
    let pid = sys::spawn(|| 9)?;
    // SAFETY: `siginfo_t` is plain data, for which zeroes are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let waitid = |options: i32, info: *mut libc::siginfo_t| {
        let arguments = [libc::P_PID as usize, pid as usize, info as usize, options as usize, 0];
        sys::call(libc::SYS_waitid, &arguments)
    };
    // Looking does not take it away.
    for options in [libc::WEXITED | libc::WNOWAIT, libc::WEXITED] {
        waitid(options, &raw mut info)?;
        check_eq!(info.si_signo, libc::SIGCHLD);
        check_eq!(info.si_code, libc::CLD_EXITED);
        // SAFETY: the kernel has filled in the fields of a child's end.
        let (who, status) = unsafe { (info.si_pid(), info.si_status()) };
        check_eq!((who, status), (pid, 9));
    }
    check_eq!(waitid(libc::WEXITED, &raw mut info), Err(Errno(libc::ECHILD)));
    check_eq!(waitid(0, &raw mut info), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn parent_is_known() -> Outcome {
    let me = std::process::id() as usize;
    let status = sys::in_child(|| i32::from(sys::call(libc::SYS_getppid, &[]) != Ok(me)))?;
    check_eq!(status, Status::Exited(0));
    Ok(())
}

fn orphan_gets_parent() -> Outcome {
    let mut ends = [0i32; 2];
    sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0])?;
    let status = sys::in_child(|| {
        let middle = std::process::id() as usize;
        let orphan = sys::spawn(|| {
            while sys::call(libc::SYS_getppid, &[]) == Ok(middle) {
                std::thread::yield_now();
            }
            i32::from(sys::call(libc::SYS_write, &[ends[1] as usize, b"!".as_ptr() as usize, 1]).is_err())
        });
        i32::from(orphan.is_err())
    })?;
    check_eq!(status, Status::Exited(0));
    let mut byte = 0u8;
    check_eq!(sys::call(libc::SYS_read, &[ends[0] as usize, &raw mut byte as usize, 1])?, 1);
    Ok(())
}

fn exec_self() -> Outcome {
    let status = sys::in_child(|| exec_child(&["status", "42"], &[]).0)?;
    check_eq!(status, Status::Exited(42));
    Ok(())
}

fn exec_arguments() -> Outcome {
    let words = ["arguments", "", "a b", "ü", "--", "*"];
    check_eq!(sys::in_child(|| exec_child(&words, &[]).0)?, Status::Exited(0));
    let long = "x".repeat(100_000);
    let status = sys::in_child(|| exec_child(&["status", "5", &long], &[]).0)?;
    check_eq!(status, Status::Exited(5));
    Ok(())
}

fn exec_environment() -> Outcome {
    let status = sys::in_child(|| exec_child(&["environment"], &["A=1", "B=two words", "EMPTY="]).0)?;
    check_eq!(status, Status::Exited(0));
    Ok(())
}

fn exec_drops_mappings() -> Outcome {
    let addr = sys::mmap(0x1_2345_6000, PAGE, RW, ANON | FIXED)?;
    mem::write(addr, 1)?;
    let status = sys::in_child(|| exec_child(&["unmapped", "123456000"], &[]).0)?;
    check_eq!(status, Status::Exited(0));
    check_eq!(mem::read(addr)?, 1);
    Ok(())
}

fn exec_from_file_without_permission() -> Outcome {
    let path = format!("/tmp/cases-{}", std::process::id());
    std::fs::write(&path, b"\x7fELF")?;
    let name = CString::new(path.clone())?;
    check_eq!(exec(&name, &[], &[]), Errno(libc::EACCES));
    std::fs::remove_file(&path)?;
    check_eq!(exec(&name, &[], &[]), Errno(libc::ENOENT));
    Ok(())
}

fn exec_errors() -> Outcome {
    let path = |path: &str| CString::new(path).expect("no zero bytes");
    check_eq!(exec(&path("/nowhere"), &[], &[]), Errno(libc::ENOENT));
    check_eq!(exec(&path("/proc/self/exe/x"), &[], &[]), Errno(libc::ENOTDIR));
    check_eq!(exec(&path("/tmp"), &[], &[]), Errno(libc::EACCES));
    check_eq!(exec(&path("/dev/null"), &[], &[]), Errno(libc::EACCES));
    check_eq!(exec(&path(""), &[], &[]), Errno(libc::ENOENT));
    check_eq!(exec(&path(&"x".repeat(5000)), &[], &[]), Errno(libc::ENAMETOOLONG));
    let fault = Err(Errno(libc::EFAULT));
    check_eq!(sys::call(libc::SYS_execve, &[1, 0, 0]), fault);
    let this = path("/proc/self/exe");
    check_eq!(sys::call(libc::SYS_execve, &[this.as_ptr() as usize, 8, 0]), fault);
    let bad = [8usize, 0];
    check_eq!(sys::call(libc::SYS_execve, &[this.as_ptr() as usize, bad.as_ptr() as usize, 0]), fault);
    Ok(())
}

fn exec_too_big() -> Outcome {
    // One string may have 32 pages, with its end.
    let long = "x".repeat(32 * PAGE);
    check_eq!(exec_child(&["status", "1", &long], &[]), Errno(libc::E2BIG));
    // All together a quarter of the stack's limit.
    let longs = vec!["y".repeat(100_000); 30];
    let words: Vec<&str> = ["status", "1"].into_iter().chain(longs.iter().map(String::as_str)).collect();
    check_eq!(exec_child(&words, &[]), Errno(libc::E2BIG));
    Ok(())
}

fn exec_keeps_pid() -> Outcome {
    let status = sys::in_child(|| {
        let pid = std::process::id().to_string();
        exec_child(&["pid", &pid], &[]).0
    })?;
    check_eq!(status, Status::Exited(0));
    Ok(())
}

fn std_command() -> Outcome {
    // What the standard library does: posix_spawn, with a pipe for the output.
    let output = Command::new("/proc/self/exe").args(["child", "arguments", "one", "two"]).output()?;
    check!(output.status.success());
    check_eq!(String::from_utf8(output.stdout)?, "[\"one\", \"two\"]\n");
    let status = Command::new("/proc/self/exe").args(["child", "status", "17"]).status()?;
    check_eq!(status.code(), Some(17));
    check!(Command::new("/no/such/program").status().is_err());
    Ok(())
}

fn many_processes() -> Outcome {
    let mut children = Vec::new();
    for i in 0..50 {
        children.push((sys::spawn(|| i)?, i));
    }
    for (pid, i) in children.into_iter().rev() {
        check_eq!(sys::wait(pid)?, Status::Exited(i));
    }
    Ok(())
}

fn session_and_group() -> Outcome {
    let status = sys::in_child(|| {
        let me = std::process::id() as usize;
        let led = sys::call(libc::SYS_setsid, &[]) == Ok(me)
            && sys::call(libc::SYS_getpgid, &[0]) == Ok(me)
            && sys::call(libc::SYS_getsid, &[0]) == Ok(me);
        i32::from(!led)
    })?;
    check_eq!(status, Status::Exited(0));
    Ok(())
}
