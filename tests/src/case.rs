//! Cases: what they are, and how a program runs its own.
//!
//! Each case runs in a child process, so that it cannot spoil another's address
//! space, and may die. The parent prints `ok NAME` or `FAILED NAME: REASON`.

use std::error::Error;

use crate::{mem, sys};

/// What a case returns: nothing, or why it failed.
pub type Outcome = Result<(), Box<dyn Error>>;

/// A named test.
pub struct Case {
    pub name: &'static str,
    pub run: fn() -> Outcome,
}

/// Ends the case as failed unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            return Err(format!("{}:{}: {}", file!(), line!(), stringify!($condition)).into());
        }
    };
}

/// Ends the case as failed unless both are equal.
#[macro_export]
macro_rules! check_eq {
    ($left:expr, $right:expr) => {
        match (&$left, &$right) {
            (left, right) => {
                if *left != *right {
                    let (file, line, text) = (file!(), line!(), stringify!($left));
                    return Err(format!("{file}:{line}: {text} is {left:?}, not {right:?}").into());
                }
            }
        }
    };
}

/// Makes a list of [`Case`]s out of functions of the module: `cases![one, two]`.
#[macro_export]
macro_rules! cases {
    ($module:literal: $($name:ident),* $(,)?) => {
        /// The cases of this module.
        pub const CASES: &[$crate::case::Case] =
            &[$($crate::case::Case { name: concat!($module, "/", stringify!($name)), run: $name }),*];
    };
}

/// Seconds after which a case is taken for hung. Generous: an emulated machine is slow.
const PATIENCE: u32 = 120;

fn attempt(case: &Case) -> i32 {
    // SAFETY: sets a timer whose default action ends this child.
    unsafe { libc::alarm(PATIENCE) };
    match (case.run)() {
        Ok(()) => 0,
        Err(reason) => {
            println!("  {reason}");
            1
        }
    }
}

/// Runs the cases and returns how many failed.
pub fn run<'c>(cases: impl Iterator<Item = &'c Case>, isolated: bool) -> usize {
    mem::catch_faults();
    let mut failed = 0;
    for case in cases {
        let status = if isolated { sys::in_child(|| attempt(case)) } else { Ok(sys::Status::Exited(attempt(case))) };
        match status {
            Ok(sys::Status::Exited(0)) => println!("ok {}", case.name),
            other => {
                failed += 1;
                println!("FAILED {}: {other:?}", case.name);
            }
        }
    }
    failed
}
