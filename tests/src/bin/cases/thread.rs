//! Threads, as the standard library makes them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, Mutex, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tests::arena::Arena;
use tests::case::Outcome;
use tests::mem;
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["thread":
    join_returns_value, shared_counter, thread_locals, condition_variable, barrier, channel, scoped,
    reader_writer_lock, many_in_turn, many_at_once, faults_on_the_same_pages, map_and_unmap_at_once,
    protect_while_others_read, floating_point_is_private, sleep_is_long_enough, park_with_timeout, panic_is_caught,
    identifiers, exit_ends_all, main_returns_first, exec_ends_others, fork_from_thread, deep_stack, signal_to_thread,
];

fn join_returns_value() -> Outcome {
    let handle = thread::spawn(|| 6 * 7);
    check_eq!(handle.join().ok(), Some(42));
    Ok(())
}

fn shared_counter() -> Outcome {
    let counter = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..1000).for_each(|_| *counter.lock().expect("not poisoned") += 1));
        }
    });
    check_eq!(counter.into_inner()?, 8000);
    Ok(())
}

fn thread_locals() -> Outcome {
    thread_local!(static MINE: Cell<usize> = const { Cell::new(7) });
    MINE.set(1);
    let results: Vec<usize> = (10..20)
        .map(|i| {
            thread::spawn(move || {
                let before = MINE.replace(i);
                thread::yield_now();
                before * 1000 + MINE.get()
            })
        })
        .map(|handle| handle.join().unwrap_or(0))
        .collect();
    check_eq!(results, (7010..7020).collect::<Vec<_>>());
    check_eq!(MINE.get(), 1);
    Ok(())
}

fn condition_variable() -> Outcome {
    let state = Arc::new((Mutex::new(0), Condvar::new()));
    let other = Arc::clone(&state);
    // Two threads take turns 200 times.
    let handle = thread::spawn(move || {
        let (turn, changed) = &*other;
        for i in 0..100 {
            let mut guard = changed.wait_while(turn.lock().expect("lock"), |turn| *turn != 2 * i + 1).expect("wait");
            *guard += 1;
            changed.notify_one();
        }
    });
    let (turn, changed) = &*state;
    for i in 0..100 {
        let mut guard = changed.wait_while(turn.lock().expect("lock"), |turn| *turn != 2 * i).expect("wait");
        *guard += 1;
        changed.notify_one();
    }
    check!(handle.join().is_ok());
    check_eq!(*turn.lock().expect("lock"), 200);
    Ok(())
}

fn barrier() -> Outcome {
    let barrier = Barrier::new(6);
    let leaders = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..20 {
                    if barrier.wait().is_leader() {
                        leaders.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    check_eq!(leaders.load(SeqCst), 20);
    Ok(())
}

fn channel() -> Outcome {
    let (sender, receiver) = mpsc::sync_channel(4);
    for i in 0..5 {
        let sender = sender.clone();
        thread::spawn(move || (0..100).for_each(|j| sender.send(i * 100 + j).expect("received")));
    }
    drop(sender);
    check_eq!(receiver.iter().sum::<usize>(), (0..500).sum());
    Ok(())
}

fn scoped() -> Outcome {
    let mut numbers = [0; 64];
    thread::scope(|scope| {
        for (i, chunk) in numbers.chunks_mut(16).enumerate() {
            scope.spawn(move || chunk.fill(i));
        }
    });
    check!(numbers.iter().enumerate().all(|(i, &number)| number == i / 16));
    Ok(())
}

fn reader_writer_lock() -> Outcome {
    let lock = RwLock::new((0, 0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let pair = lock.read().expect("lock");
                    assert_eq!(pair.0, pair.1);
                }
            });
        }
        scope.spawn(|| {
            for i in 1..=200 {
                let mut pair = lock.write().expect("lock");
                pair.0 = i;
                thread::yield_now();
                pair.1 = i;
            }
        });
    });
    check_eq!(*lock.read().expect("lock"), (200, 200));
    Ok(())
}

fn many_in_turn() -> Outcome {
    for i in 0..200 {
        check_eq!(thread::spawn(move || i).join().ok(), Some(i));
    }
    Ok(())
}

fn many_at_once() -> Outcome {
    let handles: Vec<_> = (0..60).map(|i| thread::spawn(move || i)).collect();
    let sum: usize = handles.into_iter().map(|handle| handle.join().unwrap_or(0)).sum();
    check_eq!(sum, (0..60).sum());
    Ok(())
}

fn faults_on_the_same_pages() -> Outcome {
    const PAGES: usize = 256;
    let arena = Arena::new(PAGES)?;
    arena.map(0, PAGES, RW)?;
    // Each thread owns one byte of each page; none may be lost.
    thread::scope(|scope| {
        for thread in 0..4 {
            let arena = &arena;
            scope.spawn(move || {
                for page in 0..PAGES {
                    mem::write(arena.at(page) + thread * 64, thread as u8 + 1).expect("mapped");
                    if page % 16 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    for page in 0..PAGES {
        for thread in 0..4 {
            check_eq!(mem::read(arena.at(page) + thread * 64)?, thread as u8 + 1);
        }
    }
    Ok(())
}

fn map_and_unmap_at_once() -> Outcome {
    let failures = AtomicUsize::new(0);
    thread::scope(|scope| {
        for seed in 1..5 {
            let failures = &failures;
            scope.spawn(move || {
                for round in 0..100 {
                    let pages = 1 + (seed * round) % 20;
                    let Ok(addr) = sys::mmap(0, pages * PAGE, RW, ANON) else {
                        failures.fetch_add(1, SeqCst);
                        continue;
                    };
                    let good = mem::fill(addr, pages, seed).is_ok() && mem::holds(addr, 0, pages, seed) == Ok(true);
                    let gone = sys::munmap(addr, pages * PAGE).is_ok();
                    failures.fetch_add(usize::from(!(good && gone)), SeqCst);
                }
            });
        }
    });
    check_eq!(failures.load(SeqCst), 0);
    Ok(())
}

fn protect_while_others_read() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 16, RW)?;
    arena.fill(0, 16, 1)?;
    let good = thread::scope(|scope| {
        let readers: Vec<_> =
            (0..3).map(|_| scope.spawn(|| (0..200).all(|_| arena.holds(0, 16, 1) == Ok(true)))).collect();
        for _ in 0..100 {
            let _ = arena.protect(4, 12, R);
            let _ = arena.protect(4, 12, RW);
            thread::yield_now();
        }
        readers.into_iter().all(|reader| reader.join().unwrap_or(false))
    });
    check!(good);
    Ok(())
}

fn floating_point_is_private() -> Outcome {
    let sum = |step: f64| {
        let mut total = 0.0;
        for i in 0..20_000 {
            total += step * f64::from(i);
            if i % 1000 == 0 {
                thread::yield_now();
            }
        }
        total
    };
    let expected: Vec<f64> = (1..5).map(|i| sum(f64::from(i))).collect();
    let handles: Vec<_> = (1..5).map(|i| thread::spawn(move || sum(f64::from(i)))).collect();
    let got: Vec<f64> = handles.into_iter().map(|handle| handle.join().unwrap_or(0.0)).collect();
    check_eq!(got, expected);
    Ok(())
}

fn sleep_is_long_enough() -> Outcome {
    for milliseconds in [0, 1, 10, 50] {
        let start = Instant::now();
        thread::sleep(Duration::from_millis(milliseconds));
        check!(start.elapsed() >= Duration::from_millis(milliseconds));
    }
    Ok(())
}

fn park_with_timeout() -> Outcome {
    let start = Instant::now();
    thread::park_timeout(Duration::from_millis(30));
    check!(start.elapsed() >= Duration::from_millis(25));
    let me = thread::current();
    let handle = thread::spawn(move || me.unpark());
    thread::park();
    check!(handle.join().is_ok());
    Ok(())
}

fn panic_is_caught() -> Outcome {
    // Only where panics unwind; the programs are built to abort, so a child does it.
    let status = sys::in_child(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let _ = thread::spawn(|| panic!("on purpose")).join();
        0
    })?;
    check!(matches!(status, Status::Exited(0) | Status::Killed(libc::SIGABRT)));
    Ok(())
}

fn identifiers() -> Outcome {
    let pid = std::process::id() as usize;
    check_eq!(sys::call(libc::SYS_gettid, &[])?, pid);
    let other = thread::spawn(|| (sys::call(libc::SYS_getpid, &[]), sys::call(libc::SYS_gettid, &[])));
    let Ok((Ok(process), Ok(thread))) = other.join() else { return Err("no identifiers".into()) };
    check_eq!(process, pid);
    check!(thread != pid);
    Ok(())
}

fn exit_ends_all() -> Outcome {
    let status = sys::in_child(|| {
        for _ in 0..4 {
            thread::spawn(|| {
                loop {
                    thread::yield_now();
                }
            });
        }
        thread::spawn(|| thread::sleep(Duration::from_secs(1000)));
        thread::sleep(Duration::from_millis(5));
        33
    })?;
    check_eq!(status, Status::Exited(33));
    Ok(())
}

fn main_returns_first() -> Outcome {
    let status = sys::in_child(|| {
        thread::spawn(|| {
            thread::sleep(Duration::from_millis(30));
            sys::exit(44);
        });
        // Only this thread ends; the process lives on.
        let _ = sys::call(libc::SYS_exit, &[1]);
        2
    })?;
    check_eq!(status, Status::Exited(44));
    Ok(())
}

fn exec_ends_others() -> Outcome {
    let status = sys::in_child(|| {
        for _ in 0..3 {
            thread::spawn(|| {
                loop {
                    thread::yield_now();
                }
            });
        }
        let words = [c"cases", c"child", c"status", c"21"].map(|word| word.to_owned());
        crate::process::exec(&c"/proc/self/exe".to_owned(), &words, &[]).0
    })?;
    check_eq!(status, Status::Exited(21));
    Ok(())
}

fn fork_from_thread() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    let status =
        thread::scope(|scope| scope.spawn(|| sys::in_child(|| i32::from(arena.holds(0, 4, 1) != Ok(true)))).join());
    check_eq!(status.map_err(|_| "the thread panicked")?, Ok(Status::Exited(0)));
    Ok(())
}

fn deep_stack() -> Outcome {
    fn recurse(levels: usize) -> usize {
        let page = std::hint::black_box([1u8; 4096]);
        if levels == 0 { 0 } else { recurse(levels - 1) + page[levels % 4096] as usize }
    }
    let handle = thread::Builder::new().stack_size(8 << 20).spawn(|| recurse(1000))?;
    check_eq!(handle.join().ok(), Some(1000));
    Ok(())
}

fn signal_to_thread() -> Outcome {
    static RECEIVER: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn note(_: i32) {
        RECEIVER.store(sys::call(libc::SYS_gettid, &[]).unwrap_or(0), SeqCst);
    }
    // SAFETY: the handler only makes a system call and stores to an atomic.
    unsafe { libc::signal(libc::SIGUSR1, note as *const () as usize) };
    let (sender, receiver) = mpsc::channel();
    let handle = thread::spawn(move || {
        let _ = sender.send(sys::call(libc::SYS_gettid, &[]).unwrap_or(0));
        while RECEIVER.load(SeqCst) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    });
    let thread = receiver.recv()?;
    let pid = std::process::id() as usize;
    sys::call(libc::SYS_tgkill, &[pid, thread, libc::SIGUSR1 as usize])?;
    check!(handle.join().is_ok());
    check_eq!(RECEIVER.load(SeqCst), thread);
    Ok(())
}
