//! The host's CPUs while real time is measured.

use std::collections::HashSet;
use std::path::Path;
use std::process::{self, Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, hint, io, thread};

use ::tests::sys;

/// The command of this program that is [`keep_awake`].
pub const AWAKE: &str = "keep-awake";

/// How often to look for a machine that has been started.
const LOOK: Duration = Duration::from_millis(10);

/// As long as this exists,
///
/// - each virtual CPU of the machines that this process starts stays on one CPU of the host: two of them on the
///   same one for a while is what else happens;
/// - those CPUs do not go to sleep. QEMU's threads do when they find its lock taken, and how long
///   a CPU takes to wake up would be much of what is measured.
///
/// What the host does not allow is left as it is.
pub struct Steady {
    /// [`keep_awake`], if it could be started.
    awake: Option<Child>,
    over: Arc<AtomicBool>,
}

impl Steady {
    pub fn new() -> Steady {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        thread::spawn(move || {
            let cpus = cpus();
            let mut bound = HashSet::new();
            while !until.load(Ordering::Relaxed) {
                bind_machines(&cpus, &mut bound);
                thread::sleep(LOOK);
            }
        });
        let awake = env::current_exe().and_then(|this| Command::new(this).arg(AWAKE).stdin(Stdio::piped()).spawn());
        Steady { awake: awake.ok(), over }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(awake) = &mut self.awake {
            // Either it is there, or there is nothing to end.
            let _ = (awake.kill(), awake.wait());
        }
    }
}

/// Keeps the host's CPUs awake until the end of standard input, as a process of its own: each of its threads
/// spins on a CPU, but gives way to others.
///
/// Threads of a process can be told to give way to those of other sessions only if all of their session does:
/// Linux shares out CPUs among sessions first (`autogroup` in sched(7)).
pub fn keep_awake() {
    // Who has been started leads no group yet, so it may.
    let _ = crate::process::new_session();
    // Where there are no such groups there is nothing to say.
    let _ = fs::write("/proc/self/autogroup", "19");
    for cpu in cpus() {
        thread::spawn(move || spin_on(cpu));
    }
    // An error is the end as well.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

/// Spins on a CPU, but gives way to any other thread of the session at once (`SCHED_IDLE`).
fn spin_on(cpu: usize) {
    // Where that is refused it keeps some CPU awake.
    let _ = sys::bind(0, cpu);
    let priority: libc::c_int = 0;
    let parameters = [0, libc::SCHED_IDLE as usize, (&raw const priority) as usize];
    // Who may not be idle does not spin either.
    if sys::call(libc::SYS_sched_setscheduler, &parameters).is_ok() {
        // Without a pause: many of them in a row may cost a virtual machine its CPU.
        (0..u64::MAX).for_each(|turn| _ = hint::black_box(turn));
    }
}

/// The CPUs of the host that this process may use.
fn cpus() -> Vec<usize> {
    let mut set = [0u64; sys::CPUS / 64];
    // Of a host with more than fit into the set none are known.
    let _ = sys::call(libc::SYS_sched_getaffinity, &[0, size_of_val(&set), set.as_mut_ptr() as usize]);
    (0..sys::CPUS).filter(|cpu| set[cpu / 64] >> (cpu % 64) & 1 != 0).collect()
}

/// Binds the virtual CPUs of this process's descendants that are not `bound` yet.
fn bind_machines(cpus: &[usize], bound: &mut HashSet<i32>) {
    let mut processes = vec![process::id() as i32];
    while let Some(process) = processes.pop() {
        for thread in threads(process) {
            let task = format!("/proc/{process}/task/{thread}");
            processes.extend(numbers(&read(format!("{task}/children"))));
            let Some(number) = virtual_cpu(&read(format!("{task}/comm"))) else { continue };
            if bound.insert(thread)
                && let Some(&cpu) = cpus.get(number % cpus.len().max(1))
            {
                // It may be gone.
                let _ = sys::bind(thread as usize, cpu);
            }
        }
    }
}

/// The number of the virtual CPU that QEMU's thread with that name is; 0 if it is all of them in turns.
fn virtual_cpu(name: &str) -> Option<usize> {
    match name.trim().strip_suffix("/TCG")?.strip_prefix("CPU ") {
        Some(number) => number.parse().ok(),
        None => Some(0),
    }
}

fn threads(process: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn numbers(text: &str) -> Vec<i32> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// What is gone by now is empty.
fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_cpus_are_told_by_their_threads_names() {
        assert_eq!(virtual_cpu("CPU 0/TCG\n"), Some(0));
        assert_eq!(virtual_cpu("CPU 3/TCG\n"), Some(3));
        assert_eq!(virtual_cpu("ALL CPUs/TCG\n"), Some(0));
        assert_eq!(virtual_cpu("qemu-system-x86\n"), None);
    }
}
