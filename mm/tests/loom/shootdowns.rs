//! Which CPUs have to be told that a page goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mm::parts::Users;
use mm::parts::atomic::{AtomicBool, give_up};
use mm::{CpuFlush, CpuTlb, PAGE_SIZE, TlbFlush};

use crate::checker::{Cell, check, check_bounded, race};

const CPU: usize = 0;
const PAGE: usize = 0x1000;

/// An address space with one page, and a CPU that uses it.
struct Space {
    users: Users,
    /// The entry that maps the page.
    entry: AtomicBool,
    /// What is in its frame. Who writes uses that for something else.
    page: Cell<u32>,
    /// Whether the CPU is to be interrupted, and what it is to flush then.
    interrupt: AtomicBool,
    request: Cell<Option<TlbFlush>>,
    /// Whether it has, or does not use the address space any more.
    is_done: AtomicBool,
}

impl Space {
    fn new() -> Arc<Space> {
        Arc::new(Space {
            users: Users::new(),
            entry: AtomicBool::new(true),
            page: Cell::new(0),
            interrupt: AtomicBool::new(false),
            request: Cell::new(None),
            is_done: AtomicBool::new(false),
        })
    }

    /// Takes the page out, and uses its frame for something else.
    fn unmap(&self) {
        self.entry.store(false, Ordering::Relaxed);
        self.flush(|request| {
            self.request.write(Some(request));
            self.interrupt.store(true, Ordering::Release);
        });
        self.page.write(1);
    }

    /// Evicts the page, and uses its frame for something else. The CPU has interrupts off until it ends.
    fn evict(&self) {
        self.entry.store(false, Ordering::Relaxed);
        self.evict_other();
        self.page.write(1);
    }

    /// Evicts another page.
    fn evict_other(&self) {
        self.users.mark_stale();
        self.users.flush_stale_by(|| self.flush(|_| {}));
    }

    /// Tells the CPU to flush, if it has to be told, and waits for it.
    fn flush(&self, tell: impl FnOnce(TlbFlush)) {
        let (targets, request) = self.users.next_flush(PAGE, PAGE + PAGE_SIZE);
        if targets.contains(CPU) {
            tell(request);
            // What goes on before it is, in a loop that waits, goes on afterwards too.
            if !self.is_done.load(Ordering::Acquire) {
                give_up();
            }
        }
    }
}

/// A CPU with PCIDs.
struct Cpu<'s> {
    space: &'s Space,
    tlb: CpuTlb,
    /// Whether its TLB has the page.
    knows_page: bool,
}

impl<'s> Cpu<'s> {
    fn new(space: &'s Space) -> Cpu<'s> {
        let tlb = CpuTlb::new();
        tlb.use_pcids();
        Cpu { space, tlb, knows_page: false }
    }

    /// Switches to the address space.
    fn enter(&mut self) {
        let load = self.space.users.enter(CPU, &self.tlb);
        self.knows_page &= load.keep;
    }

    /// Runs the program, which reads its page if it still has it.
    fn run(&mut self) {
        self.knows_page |= self.space.entry.load(Ordering::Relaxed);
        if self.knows_page {
            assert_eq!(self.space.page.read(), 0);
        }
    }

    /// Switches to another address space.
    fn leave(&mut self) {
        self.space.users.leave(CPU, &self.tlb);
    }

    fn take_interrupt(&mut self) {
        if self.space.interrupt.load(Ordering::Acquire) {
            let flush = self.space.request.read().map(|flush| self.tlb.flush(&flush));
            self.knows_page &= flush == Some(CpuFlush::Nothing);
            self.space.is_done.store(true, Ordering::Release);
        }
    }

    /// Does something else from now on, and is interrupted if need be.
    fn end(self) {
        self.space.is_done.store(true, Ordering::Release);
    }
}

/// Invariant: a CPU that switches to another address space, and comes back, never reaches the frame of a page that has
/// gone meanwhile, be it told or not.
#[test]
fn shootdown_and_switch() {
    check(|| {
        race(
            &Space::new(),
            &[Space::unmap, |space| {
                let mut cpu = Cpu::new(space);
                for _ in 0..2 {
                    cpu.enter();
                    cpu.run();
                    cpu.leave();
                    cpu.take_interrupt();
                }
                cpu.end();
            }],
        );
    });
}

/// Invariant: the same for a CPU that goes on with the program.
#[test]
fn shootdown_and_access() {
    check(|| {
        race(
            &Space::new(),
            &[Space::unmap, |space| {
                let mut cpu = Cpu::new(space);
                cpu.enter();
                cpu.run();
                cpu.take_interrupt();
                cpu.run();
                cpu.leave();
                cpu.end();
            }],
        );
    });
}

/// Invariant: the same where two evict pages, and one flushes for both.
#[test]
fn two_evict_and_one_flushes() {
    check_bounded(3, || {
        race(
            &Space::new(),
            &[Space::evict, Space::evict_other, |space| {
                let mut cpu = Cpu::new(space);
                cpu.enter();
                cpu.run();
                cpu.leave();
                cpu.end();
            }],
        );
    });
}
