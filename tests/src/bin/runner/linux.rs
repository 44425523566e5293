//! A Linux kernel of Debian's in QEMU: the same machine as ours, another kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cpio::Archive;
use crate::process::{self, Output};

/// Kernel parameters: quiet, and without what the other kernel does not have either.
const PARAMETERS: &str = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off init_on_alloc=0 \
                          cgroup_disable=memory audit=0 transparent_hugepage=madvise";

/// A CPU without what this kernel leaves out: five-level paging and protection keys.
pub const CPU: &str = "max,-la57,-pku";

/// What to run, and on what.
#[derive(Debug)]
pub struct Linux<'a> {
    pub vmlinuz: &'a Path,
    /// The program `init` of this package.
    pub init: &'a Path,
    pub program: &'a Path,
    /// Its path there, in the root directory, and its arguments.
    pub args: &'a [String],
    pub memory: &'a str,
    pub cpu: &'a str,
    pub cpus: u32,
    /// Whether guest time is the number of instructions executed, and addresses are
    /// the same each time.
    pub icount: bool,
    pub timeout: Duration,
}

impl Linux<'_> {
    /// Runs the program and returns what it printed and how it ended.
    pub fn run(&self, scratch: &Path) -> Result<Output> {
        fs::create_dir_all(scratch)?;
        // Several may run at the same time.
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let unique = format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let initramfs = scratch.join(format!("initramfs-{unique}"));
        let status = scratch.join(format!("status-{unique}"));
        fs::write(&initramfs, self.initramfs()?)?;
        let output = process::run(&mut self.qemu(&initramfs, &status), self.timeout);
        let ended = fs::read_to_string(&status).unwrap_or_default();
        let _ = (fs::remove_file(&initramfs), fs::remove_file(&status));
        let mut output = output.context("qemu-system-x86_64")?;
        // The terminal turns newlines into two characters.
        output.stdout = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n").into_bytes();
        match ended.trim().strip_prefix("exit ").and_then(|number| number.parse().ok()) {
            Some(number) => output.status = number,
            None => bail!("Linux did not run the program to its end:\n{}", String::from_utf8_lossy(&output.stdout)),
        }
        Ok(output)
    }

    fn initramfs(&self) -> Result<Vec<u8>> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut archive = Archive::default();
        for directory in ["proc", "dev", "tmp"] {
            archive.directory(directory);
        }
        archive.file("init", 0o755, &read(self.init)?);
        archive.file(self.args[0].trim_start_matches('/'), 0o755, &read(self.program)?);
        archive.file("args", 0o644, self.args.join("\0").as_bytes());
        Ok(archive.finish())
    }

    fn qemu(&self, initramfs: &Path, status: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        // The threads of virtual CPUs are found by their names.
        command.args(["-name", "debug-threads=on"]);
        let threads = if self.cpus > 1 && !self.icount { "multi" } else { "single" };
        command.args(["-accel", &format!("tcg,thread={threads}")]);
        if self.icount {
            command.args(["-icount", "shift=0"]);
        }
        command.args(["-cpu", self.cpu, "-m", self.memory, "-smp", &self.cpus.to_string()]);
        let parameters = format!("{PARAMETERS}{}", if self.icount { " norandmaps" } else { "" });
        command.args(["-append", &parameters, "-serial", "stdio"]);
        command.arg("-kernel").arg(self.vmlinuz).arg("-initrd").arg(initramfs);
        let mut debug = std::ffi::OsString::from("file:");
        debug.push(status);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        command.arg("-debugcon").arg(debug).stdin(Stdio::null());
        command
    }
}

/// Debian's kernel of that version (`6.18`, or `newest`), fetched if it is not there yet.
pub fn fetch(script: &Path, version: &str) -> Result<PathBuf> {
    let output = Command::new(script)
        .arg(version)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} {version}: {}", script.display(), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let path = text.lines().last().context("the script printed no path")?;
    Ok(fs::canonicalize(path)?)
}

/// The version in such a path: the name of its directory.
pub fn version(vmlinuz: &Path) -> String {
    vmlinuz.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
