//! `futex`, by hand.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use tests::case::Outcome;
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["futex":
    value_differs, times_out, wakes_one, wakes_counted, nobody_to_wake, bitsets, requeues, wake_op,
    absolute_timeout, bad_addresses, bad_operations, between_threads, robust_list_is_accepted,
];

const WAIT: usize = libc::FUTEX_WAIT as usize | libc::FUTEX_PRIVATE_FLAG as usize;
const WAKE: usize = libc::FUTEX_WAKE as usize | libc::FUTEX_PRIVATE_FLAG as usize;

fn futex(word: &AtomicU32, operation: usize, rest: &[usize]) -> sys::Result {
    let mut arguments = [word.as_ptr() as usize, operation, 0, 0, 0, 0];
    arguments[2..2 + rest.len()].copy_from_slice(rest);
    sys::call(libc::SYS_futex, &arguments)
}

fn milliseconds(count: i64) -> libc::timespec {
    libc::timespec { tv_sec: count / 1000, tv_nsec: count % 1000 * 1_000_000 }
}

fn value_differs() -> Outcome {
    let word = AtomicU32::new(5);
    check_eq!(futex(&word, WAIT, &[4, 0]), Err(Errno(libc::EAGAIN)));
    Ok(())
}

fn times_out() -> Outcome {
    let word = AtomicU32::new(5);
    for length in [0, 1, 30] {
        let timeout = milliseconds(length);
        let start = Instant::now();
        check_eq!(futex(&word, WAIT, &[5, &raw const timeout as usize]), Err(Errno(libc::ETIMEDOUT)));
        check!(start.elapsed() >= Duration::from_millis(length as u64));
    }
    let wrong = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000_000 };
    check_eq!(futex(&word, WAIT, &[5, &raw const wrong as usize]), Err(Errno(libc::EINVAL)));
    Ok(())
}

/// Starts `count` threads that wait on the word; returns when they do.
fn waiters<'s>(
    scope: &'s thread::Scope<'s, '_>,
    word: &'s AtomicU32,
    count: usize,
    operation: usize,
    mask: usize,
) -> Vec<thread::ScopedJoinHandle<'s, sys::Result>> {
    let handles: Vec<_> = (0..count).map(|_| scope.spawn(move || futex(word, operation, &[0, 0, 0, mask]))).collect();
    // Nothing tells that a thread sleeps; this long it will have got there.
    thread::sleep(Duration::from_millis(100));
    handles
}

fn wakes_one() -> Outcome {
    let word = AtomicU32::new(0);
    let woken = thread::scope(|scope| {
        let handles = waiters(scope, &word, 1, WAIT, 0);
        let woken = futex(&word, WAKE, &[1]);
        (woken, handles.into_iter().map(|handle| handle.join().ok()).collect::<Vec<_>>())
    });
    check_eq!(woken, (Ok(1), vec![Some(Ok(0))]));
    Ok(())
}

fn wakes_counted() -> Outcome {
    let word = AtomicU32::new(0);
    let counts = thread::scope(|scope| {
        let handles = waiters(scope, &word, 5, WAIT, 0);
        let counts = [2, 1, 100, 100].map(|count| futex(&word, WAKE, &[count]));
        handles.into_iter().for_each(|handle| drop(handle.join()));
        counts
    });
    check_eq!(counts, [Ok(2), Ok(1), Ok(2), Ok(0)]);
    Ok(())
}

fn nobody_to_wake() -> Outcome {
    let word = AtomicU32::new(0);
    check_eq!(futex(&word, WAKE, &[1])?, 0);
    Ok(())
}

fn bitsets() -> Outcome {
    let wait = libc::FUTEX_WAIT_BITSET as usize | libc::FUTEX_PRIVATE_FLAG as usize;
    let wake = libc::FUTEX_WAKE_BITSET as usize | libc::FUTEX_PRIVATE_FLAG as usize;
    let word = AtomicU32::new(0);
    let counts = thread::scope(|scope| {
        let first = waiters(scope, &word, 1, wait, 1);
        let second = waiters(scope, &word, 1, wait, 2);
        let counts = [4, 2, 2, 1].map(|mask| futex(&word, wake, &[10, 0, 0, mask]));
        first.into_iter().chain(second).for_each(|handle| drop(handle.join()));
        counts
    });
    check_eq!(counts, [Ok(0), Ok(1), Ok(0), Ok(1)]);
    check_eq!(futex(&word, wake, &[1, 0, 0, 0]), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn requeues() -> Outcome {
    let requeue = libc::FUTEX_CMP_REQUEUE as usize | libc::FUTEX_PRIVATE_FLAG as usize;
    let (word, other) = (AtomicU32::new(0), AtomicU32::new(0));
    let counts = thread::scope(|scope| {
        let handles = waiters(scope, &word, 4, WAIT, 0);
        let counts = [
            futex(&word, requeue, &[1, 2, other.as_ptr() as usize, 9]),
            futex(&word, requeue, &[1, 2, other.as_ptr() as usize, 0]),
            futex(&word, WAKE, &[10]),
            futex(&other, WAKE, &[10]),
        ];
        handles.into_iter().for_each(|handle| drop(handle.join()));
        counts
    });
    check_eq!(counts, [Err(Errno(libc::EAGAIN)), Ok(3), Ok(1), Ok(2)]);
    Ok(())
}

fn wake_op() -> Outcome {
    // Adds 3 to the second word, and wakes there as well if it was 4.
    let operation = libc::FUTEX_WAKE_OP as usize | libc::FUTEX_PRIVATE_FLAG as usize;
    let encoded = 1 << 28 | 3 << 12 | 4;
    let (word, other) = (AtomicU32::new(0), AtomicU32::new(4));
    check_eq!(futex(&word, operation, &[1, 1, other.as_ptr() as usize, encoded])?, 0);
    check_eq!(other.load(SeqCst), 7);
    Ok(())
}

fn absolute_timeout() -> Outcome {
    let wait = libc::FUTEX_WAIT_BITSET as usize | libc::FUTEX_PRIVATE_FLAG as usize;
    let word = AtomicU32::new(0);
    let mut now = milliseconds(0);
    // SAFETY: the pointer is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_nsec += 20_000_000;
    if now.tv_nsec >= 1_000_000_000 {
        now.tv_nsec -= 1_000_000_000;
        now.tv_sec += 1;
    }
    let start = Instant::now();
    let result = futex(&word, wait, &[0, &raw const now as usize, 0, u32::MAX as usize]);
    check_eq!(result, Err(Errno(libc::ETIMEDOUT)));
    check!(start.elapsed() >= Duration::from_millis(15));
    Ok(())
}

fn bad_addresses() -> Outcome {
    let call = |addr: usize, operation: usize| sys::call(libc::SYS_futex, &[addr, operation, 0, 0]);
    let unmapped = sys::mmap(0, PAGE, RW, ANON)?;
    sys::munmap(unmapped, PAGE)?;
    check_eq!(call(unmapped, WAIT), Err(Errno(libc::EFAULT)));
    for addr in [0, 0xffff_8000_0000_0000] {
        check_eq!(call(addr, WAIT), Err(Errno(libc::EFAULT)));
    }
    check_eq!(call(unmapped + 2, WAIT), Err(Errno(libc::EINVAL)));
    check_eq!(call(unmapped + 1, WAKE), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn bad_operations() -> Outcome {
    let word = AtomicU32::new(0);
    for operation in [50, 127] {
        check_eq!(futex(&word, operation, &[0, 0]), Err(Errno(libc::ENOSYS)));
    }
    Ok(())
}

fn between_threads() -> Outcome {
    // Two threads hand a word to and fro.
    let word = AtomicU32::new(0);
    let take_turns = |mine: u32| {
        for _ in 0..200 {
            while word.load(SeqCst) != mine {
                let _ = futex(&word, WAIT, &[(1 - mine) as usize, 0]);
            }
            word.store(1 - mine, SeqCst);
            let _ = futex(&word, WAKE, &[1]);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| take_turns(0));
        scope.spawn(|| take_turns(1));
    });
    check_eq!(word.load(SeqCst), 0);
    Ok(())
}

fn robust_list_is_accepted() -> Outcome {
    let head = [0usize; 3];
    check_eq!(sys::call(libc::SYS_set_robust_list, &[head.as_ptr() as usize, 23]), Err(Errno(libc::EINVAL)));
    Ok(())
}
