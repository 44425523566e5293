//! Builds bootable disk images of the kernel, and runs programs on it in QEMU.
//!
//! `boot image` puts a kernel into one image for BIOS and one for UEFI.
//! `boot run` starts QEMU with such an image and hands the guest a program,
//! its arguments and its environment, so that one image serves every program.
//!
//! What the guest's program writes goes to stdout and nothing else does; what
//! the kernel, QEMU and this tool have to say goes to stderr. The exit status
//! is the program's own, or one of those in [`outcome`].

mod bios_disk;
mod console;
mod image;
mod outcome;
mod payload;
mod qemu;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the BIOS and the UEFI disk image of a kernel
    Image(image::ImageArgs),
    /// Run a static Linux program on the kernel, as its first process
    Run(Box<run::RunArgs>),
}

fn main() -> ExitCode {
    // clap would exit with 2 for a bad command line, which a program could
    // have returned as well.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(outcome::TROUBLE) } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Image(args) => image::build(&args).map(|()| 0),
        Command::Run(args) => run::run(&args).map(|outcome| {
            if let Some(message) = outcome.message() {
                eprintln!("boot: {message}");
            }
            outcome.exit_code()
        }),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("boot: {error:#}");
            ExitCode::from(outcome::TROUBLE)
        }
    }
}
