//! `cases exec PROGRAM…`: executes programs, most of which cannot be.

use std::ffi::CString;
use std::process::ExitCode;

use tests::sys::{self, Status};

use crate::process;

/// What a child exits with when `execve` returned an error; the error itself is printed.
const NOT_EXECUTED: i32 = 250;

/// Executes each program in a child and prints how it went.
pub fn programs(paths: &[String]) -> ExitCode {
    for path in paths {
        let Ok(name) = CString::new(path.as_str()) else { continue };
        let shown = path.rsplit('/').next().unwrap_or(path);
        let status = sys::in_child(|| {
            let error = process::exec(&name, std::slice::from_ref(&name), &[]);
            println!("{shown}: execve: {error}");
            NOT_EXECUTED
        });
        match status {
            Ok(Status::Exited(NOT_EXECUTED)) => {}
            Ok(Status::Exited(status)) => println!("{shown}: exited with {status}"),
            Ok(Status::Killed(signal)) => println!("{shown}: killed by signal {signal}"),
            Err(error) => println!("{shown}: {error}"),
        }
    }
    ExitCode::SUCCESS
}
