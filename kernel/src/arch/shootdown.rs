//! TLB flushes on several CPUs.
//!
//! Who asks for one writes it into its own CPU's [`Mailbox`], enters itself in
//! the inbox of each target, sends them an interrupt, and waits until all have
//! done it. A CPU has one request at a time: the kernel is not preempted, and
//! interrupt handlers flush nothing.
//!
//! Why that ends: a CPU answers with interrupts enabled, while it waits for its
//! own request, and while it waits for one of the kernel's locks ([`poll`] in
//! [`super::irq`]). So one that keeps interrupts disabled must not wait for
//! anything else that another CPU might keep while it asks for a flush: that is,
//! with interrupts disabled nothing of `mm` is called but to allocate and to
//! free frames.

use core::cell::UnsafeCell;
use core::hint;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use mm::{CpuFlush, CpuSet, PAGE_SIZE, PhysAddr, TlbFlush};
use x86_64::VirtAddr;
use x86_64::instructions::tlb;

use super::cpu::{self, Cpu};
use super::{apic, irq, paging};
use crate::task::watchdog;

/// What is to be flushed.
#[derive(Clone, Debug)]
enum Request {
    /// Translations of an address space.
    Space(TlbFlush),
    /// Translations of the kernel's own, in this range of bytes.
    Kernel(Range<usize>),
}

/// One CPU's part in flushes.
pub(super) struct Mailbox {
    /// The CPUs that ask this one for a flush.
    inbox: AtomicU64,
    /// The CPUs that have not done yet what this one asks for.
    awaited: AtomicU64,
    /// What this one asks for. Others read it while they are in `awaited`.
    request: UnsafeCell<Request>,
}

// SAFETY: `request` is written by its CPU while `awaited` is empty, and read by
// those that are in `awaited`.
unsafe impl Sync for Mailbox {}

impl Mailbox {
    pub const fn new() -> Mailbox {
        Mailbox {
            inbox: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            request: UnsafeCell::new(Request::Kernel(0..0)),
        }
    }
}

/// Executes `flush` on all `targets` that use the address space.
#[inline(always)]
pub fn flush_space(targets: CpuSet, flush: TlbFlush) {
    let this = cpu::current();
    if targets == CpuSet::single(this.id()) {
        execute(this, flush);
    } else {
        // Registers hold that; in memory, it would have to be there in the other case too.
        let TlbFlush { root, context, generation, start, end, full } = flush;
        run_space(targets, root, (context, generation), start..end, full);
    }
}

/// Drops the translations of the kernel's pages `range` on all CPUs.
pub fn flush_kernel(range: Range<usize>) {
    run(cpu::online(), Request::Kernel(range));
}

#[cold]
fn run_space(
    targets: CpuSet,
    root: PhysAddr,
    (context, generation): (u64, u64),
    Range { start, end }: Range<usize>,
    full: bool,
) {
    run(targets, Request::Space(TlbFlush { root, context, generation, start, end, full }));
}

fn run(targets: CpuSet, request: Request) {
    let enabled = irq::are_enabled();
    irq::disable();
    let this = cpu::current();
    let others = CpuSet(targets.0 & !CpuSet::single(this.id()).0);
    let mailbox = this.mailbox();
    if !others.is_empty() {
        // SAFETY: nobody reads it: no CPU is awaited.
        unsafe { *mailbox.request.get() = request.clone() };
        mailbox.awaited.store(others.0, Ordering::SeqCst);
        for target in others.iter().filter_map(cpu::get) {
            target.mailbox().inbox.fetch_or(1 << this.id(), Ordering::SeqCst);
            apic::send(target.apic_id(), super::trap::SHOOTDOWN_VECTOR);
        }
    }
    if targets.contains(this.id()) {
        perform(this, &request);
    }
    while mailbox.awaited.load(Ordering::Acquire) != 0 {
        poll();
        watchdog::waits();
        hint::spin_loop();
    }
    if enabled {
        irq::enable();
    }
}

/// Does what other CPUs ask this one for. Interrupts are disabled.
#[inline]
pub fn poll() {
    // Before there are several CPUs, `GS` may not be set up yet.
    if cpu::count() > 1 {
        answer();
    }
}

fn answer() {
    let this = cpu::current();
    let inbox = &this.mailbox().inbox;
    if inbox.load(Ordering::Relaxed) == 0 {
        return;
    }
    if cpu::thread() == 0 {
        // Once is enough: it has no use for the translations, unless there comes one.
        this.ask_to_leave();
    }
    let askers = CpuSet(inbox.swap(0, Ordering::SeqCst));
    for asker in askers.iter().filter_map(cpu::get) {
        let mailbox = asker.mailbox();
        // SAFETY: this CPU is among those that the asker awaits.
        perform(this, unsafe { &*mailbox.request.get() });
        mailbox.awaited.fetch_and(!(1 << this.id()), Ordering::Release);
    }
}

fn perform(this: &Cpu, request: &Request) {
    match request {
        Request::Space(flush) => execute(this, *flush),
        Request::Kernel(range) => paging::flush_kernel_pages(range.clone()),
    }
    fence(Ordering::SeqCst);
}

/// Executes `flush` on `this`, the current CPU, if it has the address space loaded.
#[inline(always)]
fn execute(this: &Cpu, flush: TlbFlush) {
    match this.tlb().flush(&flush) {
        CpuFlush::Nothing => {}
        CpuFlush::Pages => {
            for page in (flush.start..flush.end).step_by(PAGE_SIZE) {
                tlb::flush(VirtAddr::new_truncate(page as u64));
            }
        }
        CpuFlush::All => paging::flush_loaded(),
    }
}
