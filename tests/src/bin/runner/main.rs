//! Drives the test programs and the benchmark.
//!
//! `runner test` runs programs on the Linux it stands on, then on this kernel in QEMU
//! through `boot run`, and requires that both do the same. `runner bench` compares the
//! speed with that of a Linux in the same QEMU. `runner linux` runs one program on such
//! a Linux, to see what is right where the machine's own is too old to know.
//!
//! It builds nothing: `make` does, and says where everything is.

mod bench;
mod cpio;
mod differ;
mod elf;
mod host;
mod linux;
mod process;
mod report;
mod scaling;
mod shrink;
mod suite;
mod surroundings;
mod tap;
mod transcript;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(version, about = "Runs programs on Linux and on this kernel")]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

/// Where things are.
#[derive(Args, Debug)]
pub struct Places {
    /// The tool that runs a program on this kernel
    #[arg(long, default_value = "target/boot/debug/boot")]
    boot: PathBuf,
    /// The directory of the disk images
    #[arg(long, default_value = "build/images")]
    images: PathBuf,
    /// The directory of the test programs, as position-independent executables
    #[arg(long, default_value = "target/x86_64-unknown-linux-gnu/release")]
    guests: PathBuf,
    /// The directory of what else is built: C programs, what comes from Debian
    #[arg(long, default_value = "build")]
    build: PathBuf,
    /// The directory of the scripts that fetch things from Debian
    #[arg(long, default_value = "tests/scripts")]
    scripts: PathBuf,
}

impl Places {
    fn guest(&self, name: &str) -> PathBuf {
        self.guests.join(name)
    }

    fn script(&self, name: &str) -> PathBuf {
        self.scripts.join(name)
    }
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the tests
    Test(suite::TestArgs),
    /// Do random memory operations here and on this Linux, and compare
    Replay(differ::ReplayArgs),
    /// Run the benchmark, here and on Linux
    Bench(bench::BenchArgs),
    /// Measure what a second CPU is worth, here and on Linux
    Scaling(scaling::ScalingArgs),
    /// Run one program on a Linux of Debian's in QEMU
    Linux(LinuxArgs),
    /// Keep the CPUs awake until the end of standard input
    #[command(name = host::AWAKE, hide = true)]
    KeepAwake,
}

#[derive(Args, Debug)]
struct LinuxArgs {
    /// The version, such as 6.18, or newest
    version: String,
    /// The program, a static executable
    program: PathBuf,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
    #[arg(long, default_value = "1G")]
    mem: String,
    #[arg(long, default_value_t = 1)]
    smp: u32,
    #[arg(long, default_value_t = 600)]
    timeout: u64,
}

fn on_linux(args: &LinuxArgs, places: &Places) -> Result<ExitCode> {
    let vmlinuz = linux::fetch(&places.script("fetch-linux.sh"), &args.version)?;
    let name = args.program.file_name().unwrap_or_default().to_string_lossy();
    let mut words = vec![format!("/{name}")];
    words.extend(args.args.iter().cloned());
    let output = linux::Linux {
        vmlinuz: &vmlinuz,
        init: &places.guest("init"),
        program: &args.program,
        args: &words,
        memory: &args.mem,
        cpu: linux::CPU,
        cpus: args.smp,
        icount: false,
        timeout: Duration::from_secs(args.timeout),
    }
    .run(&places.build.join("linux"))?;
    print!("{}", output.text());
    Ok(ExitCode::from(output.status as u8))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Test(args) => suite::run(args, &cli.places),
        Command::Replay(args) => differ::run(args, &cli.places),
        Command::Bench(args) => bench::run(args, &cli.places).map(|()| ExitCode::SUCCESS),
        Command::Scaling(args) => scaling::run(args, &cli.places).map(|()| ExitCode::SUCCESS),
        Command::Linux(args) => on_linux(args, &cli.places),
        Command::KeepAwake => {
            host::keep_awake();
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("runner: {error:#}");
        ExitCode::from(2)
    })
}
