//! Pipes, `dup` and `poll`.

use tests::case::Outcome;
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["pipe":
    passes_bytes, end_of_file, broken, broken_signal, capacity, does_not_block, blocks_until_written,
    blocks_until_read, large_transfer, duplicates, poll_ready, poll_times_out, poll_hang_up, closed_on_exec,
    bad_descriptors, wrong_end, vectors, not_seekable, interrupted,
];

struct Pipe {
    from: usize,
    to: usize,
}

impl Pipe {
    fn new(flags: i32) -> sys::Result<Pipe> {
        let mut ends = [0i32; 2];
        sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, flags as usize])?;
        Ok(Pipe { from: ends[0] as usize, to: ends[1] as usize })
    }

    fn write(&self, bytes: &[u8]) -> sys::Result {
        sys::call(libc::SYS_write, &[self.to, bytes.as_ptr() as usize, bytes.len()])
    }

    fn read(&self, bytes: &mut [u8]) -> sys::Result {
        sys::call(libc::SYS_read, &[self.from, bytes.as_mut_ptr() as usize, bytes.len()])
    }
}

fn close(descriptor: usize) -> sys::Result {
    sys::call(libc::SYS_close, &[descriptor])
}

fn passes_bytes() -> Outcome {
    let pipe = Pipe::new(0)?;
    check_eq!(pipe.write(b"hello")?, 5);
    check_eq!(pipe.write(b" world")?, 6);
    let mut buffer = [0; 64];
    check_eq!(pipe.read(&mut buffer[..3])?, 3);
    check_eq!(pipe.read(&mut buffer[3..])?, 8);
    check_eq!(&buffer[..11], b"hello world");
    Ok(())
}

fn end_of_file() -> Outcome {
    let pipe = Pipe::new(0)?;
    pipe.write(b"x")?;
    close(pipe.to)?;
    let mut buffer = [0; 8];
    check_eq!(pipe.read(&mut buffer)?, 1);
    check_eq!(pipe.read(&mut buffer)?, 0);
    check_eq!(pipe.read(&mut buffer)?, 0);
    Ok(())
}

fn broken() -> Outcome {
    // SAFETY: ignores a signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let pipe = Pipe::new(0)?;
    close(pipe.from)?;
    check_eq!(pipe.write(b"x"), Err(Errno(libc::EPIPE)));
    Ok(())
}

fn broken_signal() -> Outcome {
    let status = sys::in_child(|| {
        // SAFETY: restores a default action (Rust's runtime ignores this signal).
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let Ok(pipe) = Pipe::new(0) else { return 1 };
        let _ = close(pipe.from);
        let _ = pipe.write(b"x");
        0
    })?;
    check_eq!(status, Status::Killed(libc::SIGPIPE));
    Ok(())
}

fn capacity() -> Outcome {
    let pipe = Pipe::new(libc::O_NONBLOCK)?;
    let block = [7u8; 4096];
    let mut total = 0;
    let full = loop {
        match pipe.write(&block) {
            Ok(count) => total += count,
            Err(error) => break error,
        }
    };
    check_eq!(full, Errno(libc::EAGAIN));
    check_eq!(total, 65536);
    let mut buffer = [0; 4096];
    check_eq!(pipe.read(&mut buffer)?, 4096);
    check_eq!(pipe.write(&block)?, 4096);
    Ok(())
}

fn does_not_block() -> Outcome {
    let pipe = Pipe::new(libc::O_NONBLOCK)?;
    check_eq!(pipe.read(&mut [0; 4]), Err(Errno(libc::EAGAIN)));
    close(pipe.to)?;
    check_eq!(pipe.read(&mut [0; 4])?, 0);
    Ok(())
}

fn blocks_until_written() -> Outcome {
    let (there, back) = (Pipe::new(0)?, Pipe::new(0)?);
    let pid = sys::spawn(|| {
        let mut byte = [0];
        for _ in 0..100 {
            if there.read(&mut byte) != Ok(1) || back.write(&[byte[0] + 1]) != Ok(1) {
                return 1;
            }
        }
        0
    })?;
    for i in 0..100 {
        there.write(&[i])?;
        let mut byte = [0];
        check_eq!(back.read(&mut byte)?, 1);
        check_eq!(byte[0], i + 1);
    }
    check_eq!(sys::wait(pid)?, Status::Exited(0));
    Ok(())
}

fn blocks_until_read() -> Outcome {
    let pipe = Pipe::new(0)?;
    let pid = sys::spawn(|| {
        // Four times what fits.
        let block = vec![3u8; 4 * 65536];
        i32::from(pipe.write(&block) != Ok(block.len()))
    })?;
    close(pipe.to)?;
    let mut total = 0;
    let mut buffer = [0; 1000];
    loop {
        let count = pipe.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        check!(buffer[..count].iter().all(|&byte| byte == 3));
        total += count;
    }
    check_eq!(total, 4 * 65536);
    check_eq!(sys::wait(pid)?, Status::Exited(0));
    Ok(())
}

fn large_transfer() -> Outcome {
    const TOTAL: usize = 1 << 20;
    let pipe = Pipe::new(0)?;
    let pid = sys::spawn(|| {
        let mut sent = 0;
        while sent < TOTAL {
            let block: Vec<u8> = (sent..(sent + 5000).min(TOTAL)).map(|i| (i % 251) as u8).collect();
            match pipe.write(&block) {
                Ok(count) => sent += count,
                Err(_) => return 1,
            }
        }
        0
    })?;
    close(pipe.to)?;
    let mut got = 0;
    let mut buffer = vec![0; 7777];
    loop {
        let count = pipe.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        check!(buffer[..count].iter().enumerate().all(|(i, &byte)| byte == ((got + i) % 251) as u8));
        got += count;
    }
    check_eq!(got, TOTAL);
    check_eq!(sys::wait(pid)?, Status::Exited(0));
    Ok(())
}

fn duplicates() -> Outcome {
    let pipe = Pipe::new(0)?;
    let copy = sys::call(libc::SYS_dup, &[pipe.to])?;
    check_eq!(sys::call(libc::SYS_dup2, &[pipe.to, 77])?, 77);
    check_eq!(sys::call(libc::SYS_dup2, &[pipe.to, pipe.to])?, pipe.to);
    check_eq!(sys::call(libc::SYS_dup3, &[pipe.to, pipe.to, 0]), Err(Errno(libc::EINVAL)));
    let dupfd = libc::F_DUPFD_CLOEXEC as usize;
    check_eq!(sys::call(libc::SYS_fcntl, &[pipe.to, dupfd, 100])?, 100);
    check_eq!(sys::call(libc::SYS_fcntl, &[100, libc::F_GETFD as usize])?, libc::FD_CLOEXEC as usize);
    check_eq!(sys::call(libc::SYS_fcntl, &[77, libc::F_GETFD as usize])?, 0);
    close(pipe.to)?;
    close(copy)?;
    close(100)?;
    sys::call(libc::SYS_write, &[77, b"z".as_ptr() as usize, 1])?;
    let mut byte = [0];
    check_eq!(pipe.read(&mut byte)?, 1);
    close(77)?;
    check_eq!(pipe.read(&mut byte)?, 0);
    Ok(())
}

/// `poll` on one descriptor: how many are ready, and for what.
fn poll(descriptor: usize, events: i16, timeout: i32) -> sys::Result<(usize, i16)> {
    let mut entry = libc::pollfd { fd: descriptor as i32, events, revents: 0 };
    let ready = sys::call(libc::SYS_poll, &[&raw mut entry as usize, 1, timeout as usize])?;
    Ok((ready, entry.revents))
}

fn poll_ready() -> Outcome {
    let pipe = Pipe::new(0)?;
    check_eq!(poll(pipe.to, libc::POLLOUT, 0)?, (1, libc::POLLOUT));
    check_eq!(poll(pipe.from, libc::POLLIN, 0)?, (0, 0));
    pipe.write(b"x")?;
    check_eq!(poll(pipe.from, libc::POLLIN, -1)?, (1, libc::POLLIN));
    check_eq!(poll(999, libc::POLLIN, 0)?, (1, libc::POLLNVAL));
    Ok(())
}

fn poll_times_out() -> Outcome {
    let pipe = Pipe::new(0)?;
    let start = std::time::Instant::now();
    check_eq!(poll(pipe.from, libc::POLLIN, 50)?, (0, 0));
    check!(start.elapsed().as_millis() >= 50);
    Ok(())
}

fn poll_hang_up() -> Outcome {
    let pipe = Pipe::new(0)?;
    let pid = sys::spawn(|| {
        let _ = close(pipe.from);
        std::thread::sleep(std::time::Duration::from_millis(20));
        0
    })?;
    close(pipe.to)?;
    check_eq!(poll(pipe.from, libc::POLLIN, -1)?, (1, libc::POLLHUP));
    check_eq!(sys::wait(pid)?, Status::Exited(0));
    Ok(())
}

fn closed_on_exec() -> Outcome {
    // The standard library opens everything so; the writer's end must not leak into the child.
    let pipe = Pipe::new(libc::O_CLOEXEC)?;
    let status = std::process::Command::new("/proc/self/exe").args(["child", "status", "3"]).status()?;
    check_eq!(status.code(), Some(3));
    close(pipe.to)?;
    check_eq!(pipe.read(&mut [0; 4])?, 0);
    Ok(())
}

fn bad_descriptors() -> Outcome {
    let bad = Err(Errno(libc::EBADF));
    for descriptor in [500, usize::MAX, 1 << 40 | 999] {
        check_eq!(close(descriptor), bad);
        check_eq!(sys::call(libc::SYS_read, &[descriptor, 0, 0]), bad);
        check_eq!(sys::call(libc::SYS_write, &[descriptor, 0, 0]), bad);
        check_eq!(sys::call(libc::SYS_dup, &[descriptor]), bad);
        check_eq!(sys::call(libc::SYS_lseek, &[descriptor, 0, 0]), bad);
        check_eq!(sys::call(libc::SYS_fcntl, &[descriptor, 1, 0]), bad);
    }
    Ok(())
}

fn wrong_end() -> Outcome {
    let pipe = Pipe::new(0)?;
    let mut byte = 0u8;
    let bad = Err(Errno(libc::EBADF));
    check_eq!(sys::call(libc::SYS_read, &[pipe.to, &raw mut byte as usize, 1]), bad);
    check_eq!(sys::call(libc::SYS_write, &[pipe.from, &raw const byte as usize, 1]), bad);
    check_eq!(sys::call(libc::SYS_pipe2, &[&raw mut byte as usize, 1]), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn vectors() -> Outcome {
    let pipe = Pipe::new(0)?;
    let vector = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    let out = [vector(b"ab"), vector(b""), vector(b"cdefg")];
    check_eq!(sys::call(libc::SYS_writev, &[pipe.to, out.as_ptr() as usize, 3])?, 7);
    let (mut first, mut second) = ([0u8; 3], [0u8; 10]);
    let target = |bytes: &mut [u8]| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let into = [target(&mut first), target(&mut second)];
    check_eq!(sys::call(libc::SYS_readv, &[pipe.from, into.as_ptr() as usize, 2])?, 7);
    check_eq!((&first[..], &second[..4]), (&b"abc"[..], &b"defg"[..]));
    check_eq!(sys::call(libc::SYS_writev, &[pipe.to, out.as_ptr() as usize, 1025]), Err(Errno(libc::EINVAL)));
    check_eq!(sys::call(libc::SYS_writev, &[pipe.to, 8, 1]), Err(Errno(libc::EFAULT)));
    Ok(())
}

fn not_seekable() -> Outcome {
    let pipe = Pipe::new(0)?;
    check_eq!(sys::call(libc::SYS_lseek, &[pipe.from, 0, 0]), Err(Errno(libc::ESPIPE)));
    Ok(())
}

fn interrupted() -> Outcome {
    extern "C" fn note(_: i32) {}
    let pipe = Pipe::new(0)?;
    // SAFETY: installs a handler that does nothing, without SA_RESTART, and a timer for it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as *const () as usize;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        libc::alarm(1);
    }
    check_eq!(pipe.read(&mut [0; 4]), Err(Errno(libc::EINTR)));
    Ok(())
}
