//! An ordinary program with threads, arguments, environment and a heap: what anyone
//! might write. Prints the same everywhere, and exits with 3.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Primes below `limit`, counted by several threads that share the work.
fn primes(limit: u64, workers: u64) -> u64 {
    let count = AtomicU64::new(0);
    thread::scope(|scope| {
        for worker in 0..workers {
            let count = &count;
            scope.spawn(move || {
                let is_prime = |n: &u64| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
                count.fetch_add((worker..limit).step_by(workers as usize).filter(is_prime).count() as u64, SeqCst);
            });
        }
    });
    count.into_inner()
}

/// Words counted by threads that get them through a channel.
fn words() -> BTreeMap<String, usize> {
    let (sender, receiver) = mpsc::channel::<String>();
    let receiver = Arc::new(Mutex::new(receiver));
    let totals = Arc::new(RwLock::new(HashMap::new()));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (receiver, totals) = (Arc::clone(&receiver), Arc::clone(&totals));
            thread::spawn(move || {
                loop {
                    let Ok(word) = receiver.lock().expect("not poisoned").recv() else { break };
                    *totals.write().expect("not poisoned").entry(word).or_insert(0) += 1;
                }
            })
        })
        .collect();
    for i in 0..2000 {
        sender.send(["map", "unmap", "protect", "move", "fork"][i * i % 5].to_owned()).expect("received");
    }
    drop(sender);
    workers.into_iter().for_each(|worker| worker.join().expect("joined"));
    totals.read().expect("not poisoned").clone().into_iter().collect()
}

/// A ball passed around by threads that wait for their turn.
fn ring(players: usize, rounds: usize) -> usize {
    let state = Arc::new((Mutex::new(0usize), Condvar::new()));
    let handles: Vec<_> = (0..players)
        .map(|player| {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let (turn, changed) = &*state;
                for _ in 0..rounds {
                    let waiting = changed.wait_while(turn.lock().expect("lock"), |turn| *turn % players != player);
                    *waiting.expect("lock") += 1;
                    changed.notify_all();
                }
            })
        })
        .collect();
    handles.into_iter().for_each(|handle| handle.join().expect("joined"));
    *state.0.lock().expect("lock")
}

/// Large and small allocations by several threads at once, checked.
fn heap() -> usize {
    let work = |seed: usize| {
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for i in 0..300 {
            let size = (i * 7919 + seed * 104_729) % 100_000 + 1;
            kept.push(vec![(i % 251) as u8; size]);
            if i % 3 == 0 {
                let victim = (i * seed) % kept.len();
                kept.swap_remove(victim);
            }
        }
        kept.iter().map(|block| usize::from(block.iter().all(|byte| *byte == block[0]))).sum::<usize>()
    };
    let handles: Vec<_> = (1..5).map(|seed| thread::spawn(move || work(seed))).collect();
    handles.into_iter().map(|handle| handle.join().expect("joined")).sum()
}

fn main() -> ExitCode {
    println!("arguments: {:?}", std::env::args().skip(1).collect::<Vec<_>>());
    println!("environment: {:?}", std::env::vars().collect::<BTreeMap<_, _>>());
    println!("primes below 20000: {}", primes(20_000, 4));
    println!("words: {:?}", words());
    println!("passes: {}", ring(5, 40));
    println!("blocks: {}", heap());
    let start = Instant::now();
    thread::sleep(Duration::from_millis(20));
    println!("slept: {}", start.elapsed() >= Duration::from_millis(20));
    println!(
        "pi: {:.12}",
        (0..100_000).map(|k| 4.0 / (2 * k + 1) as f64 * if k % 2 == 0 { 1.0 } else { -1.0 }).sum::<f64>()
    );
    ExitCode::from(3)
}
