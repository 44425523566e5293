//! `boot run` with a real QEMU and, in place of the kernel, boot sectors of a
//! few instructions: each does to the ports what a kernel would, or would not.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const COM1: u16 = 0x3f8;
const COM2: u16 = 0x2f8;
const STATUS: u16 = 0xe9;
const EXIT: u16 = 0xf4;

/// Real-mode code for a boot sector. It may change every register.
struct Sector(Vec<u8>);

impl Sector {
    fn new() -> Sector {
        Sector(Vec::new())
    }

    /// Writes the bytes to the port: `mov dx, port`, and for each byte
    /// `mov al, byte; out dx, al`.
    fn out(mut self, port: u16, bytes: &[u8]) -> Sector {
        let [low, high] = port.to_le_bytes();
        self.0.extend([0xba, low, high]);
        bytes.iter().for_each(|&byte| self.0.extend([0xb0, byte, 0xee]));
        self
    }

    /// Opens both serial ports with their start marks.
    fn start(self) -> Sector {
        self.out(COM1, b"\x10S").out(COM2, b"\x10S")
    }

    /// Reports a status as the kernel does, and ends QEMU.
    fn end(self, line: &[u8]) -> Sector {
        self.out(STATUS, line).out(EXIT, &[0])
    }

    /// Sends back what COM1 receives, up to and including an `E`, and waits
    /// until the last byte has gone.
    fn echo(mut self) -> Sector {
        self.0.extend([
            0xba, 0xfd, 0x03, // again: mov dx, 0x3fd
            0xec, // in al, dx
            0x24, 0x21, // and al, 0x21 (a byte has come, and one can be sent)
            0x3c, 0x21, // cmp al, 0x21
            0x75, 0xf6, // jne again
            0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xec, // in al, dx
            0xee, // out dx, al
            0x3c, b'E', // cmp al, 'E'
            0x75, 0xed, // jne again
            0xba, 0xfd, 0x03, // mov dx, 0x3fd
            0xec, // wait: in al, dx
            0xa8, 0x40, // test al, 0x40 (all is sent)
            0x74, 0xfb, // jz wait
        ]);
        self
    }

    /// `int3` without an interrupt table: a triple fault.
    fn triple_fault(mut self) -> Sector {
        self.0.extend([
            0x31, 0xc0, // xor ax, ax
            0x8e, 0xd8, // mov ds, ax
            0x0f, 0x01, 0x1e, 0xf0, 0x7d, // lidt [0x7df0] (zeroes: the end of the sector)
            0xcc, // int3
        ]);
        self
    }

    /// A directory with this as the BIOS image; the machine halts at the end.
    fn images(mut self) -> TempDir {
        self.0.extend([0xfa, 0xf4, 0xeb, 0xfd]); // cli; hlt; jmp to hlt
        assert!(self.0.len() <= 0x1f0, "too much for a boot sector");
        self.0.resize(510, 0);
        self.0.extend([0x55, 0xaa]);
        self.0.resize(1 << 20, 0); // the firmware does not believe in smaller disks
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("bios.img"), &self.0).unwrap();
        directory
    }
}

/// A `boot run` of an empty program; `options` come before it.
fn command(images: &Path, options: &[&str]) -> Command {
    let program = images.join("program");
    fs::write(&program, "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_boot"));
    command.args(["run", "--images"]).arg(images).args(options);
    if !options.contains(&"--timeout") {
        command.args(["--timeout", "120"]);
    }
    command.arg(program);
    command.stdin(Stdio::null());
    command
}

fn run(sector: Sector, options: &[&str]) -> Output {
    let images = sector.images();
    command(images.path(), options).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn console_log_and_status_are_kept_apart() {
    let output = run(Sector::new().start().out(COM1, b"hello\n").out(COM2, b"log\n").end(b"exit 42\n"), &[]);
    assert_eq!(output.stdout, b"hello\n");
    assert_eq!(stderr(&output), "log\n");
    assert_eq!(output.status.code(), Some(42));
}

#[test]
fn success_is_success() {
    let output = run(Sector::new().start().end(b"exit 0\n"), &[]);
    assert_eq!((output.status.code(), &output.stdout[..], stderr(&output).as_str()), (Some(0), &b""[..], ""));
}

#[test]
fn what_the_firmware_writes_is_not_the_programs_output() {
    let sector = Sector::new().out(COM1, b"\x1b[2Jfirmware\r\n").out(COM2, b"more of it").start();
    let output = run(sector.out(COM1, b"program").end(b"exit 0\n"), &[]);
    assert_eq!((&output.stdout[..], stderr(&output).as_str()), (&b"program"[..], ""));
}

#[test]
fn a_machine_that_never_reaches_the_kernel_says_what_it_said() {
    let output = run(Sector::new().out(COM1, b"no kernel here").triple_fault(), &[]);
    assert_eq!(output.stdout, b"");
    assert_eq!(output.status.code(), Some(123));
    assert!(stderr(&output).contains("no kernel here"), "{}", stderr(&output));
}

#[test]
fn a_panic_fails() {
    let output = run(Sector::new().start().out(COM2, b"panicked at\n").end(b"panic\n"), &[]);
    assert_eq!(output.status.code(), Some(123));
    assert!(stderr(&output).starts_with("panicked at\n"), "{}", stderr(&output));
    assert!(stderr(&output).contains("the kernel panicked"), "{}", stderr(&output));
}

#[test]
fn a_triple_fault_fails_and_keeps_the_output() {
    let output = run(Sector::new().start().out(COM1, b"last words").triple_fault(), &[]);
    assert_eq!(output.stdout, b"last words");
    assert_eq!(output.status.code(), Some(123));
    assert!(stderr(&output).contains("triple fault"), "{}", stderr(&output));
}

#[test]
fn a_hanging_guest_is_stopped_and_keeps_its_output() {
    let start = Instant::now();
    let output = run(Sector::new().start().out(COM1, b"before"), &["--timeout", "10"]);
    assert!(start.elapsed() < Duration::from_secs(40));
    assert_eq!(output.stdout, b"before");
    assert_eq!(output.status.code(), Some(124));
    assert!(stderr(&output).contains("within 10 seconds"), "{}", stderr(&output));
}

#[test]
fn input_is_escaped_and_its_end_is_marked() {
    let images = Sector::new().start().echo().end(b"exit 0\n").images();
    let mut command = command(images.path(), &[]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"ab\x10\0\xff\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"ab\x10\x10\0\xff\n\x10E");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn input_comes_from_a_file_or_from_nowhere() {
    let images = Sector::new().start().echo().end(b"exit 0\n").images();
    let input = images.path().join("input");
    fs::write(&input, "a file").unwrap();
    let output = command(images.path(), &["--stdin", input.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.stdout, b"a file\x10E");
    let output = command(images.path(), &["--stdin", "null"]).output().unwrap();
    assert_eq!(output.stdout, b"\x10E");
}

#[test]
fn more_input_than_a_buffer_holds_arrives_whole() {
    let images = Sector::new().start().echo().end(b"exit 0\n").images();
    let input = images.path().join("input");
    let text = "0123456789abcdef\n".repeat(600);
    fs::write(&input, &text).unwrap();
    let output = command(images.path(), &["--stdin", input.to_str().unwrap()]).output().unwrap();
    let (sent, received) = (text.len() + 2, output.stdout.len());
    assert!(output.stdout == [text.as_bytes(), b"\x10E"].concat(), "of {sent} bytes, {received} came back");
}

#[test]
fn what_cannot_be_started_is_named() {
    let images = Sector::new().start().end(b"exit 0\n").images();
    let boot = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_boot")).args(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        stderr(&output)
    };
    let path = images.path().to_str().unwrap();
    assert!(boot(&["run", "--images", path, "/nonexistent/program"]).contains("/nonexistent/program"));
    assert!(boot(&["run", "--images", path, path]).contains("not a regular file"));
    assert!(boot(&["run", "--images", "/nonexistent", "/bin/sh"]).contains("/nonexistent/bios.img"));
    fs::write(images.path().join("uefi.img"), "").unwrap();
    let uefi = ["run", "--images", path, "--firmware", "uefi", "--ovmf", "/nonexistent/fw", "/bin/sh"];
    assert!(boot(&uefi).contains("/nonexistent/fw"));
    assert!(boot(&["run", "--images", path, "--qemu", "/nonexistent/qemu", "/bin/sh"]).contains("/nonexistent/qemu"));
    assert!(boot(&["run", "--images", path, "--cpu", "abacus", "/bin/sh"]).contains("QEMU failed"));
    assert!(boot(&["run", "--images", path, "--env", "NONAME", "/bin/sh"]).contains("NAME=VALUE"));
    assert!(boot(&["run", "--images", path, "--stdin", "/nonexistent/in", "/bin/sh"]).contains("/nonexistent/in"));
    assert!(boot(&["run", "--no-such-option", "/bin/sh"]).contains("--no-such-option"));
}

#[test]
fn an_image_needs_an_elf_file() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("kernel");
    fs::write(&kernel, "not a kernel").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_boot"));
    command.arg("image").arg("--kernel").arg(&kernel).arg("--out").arg(directory.path().join("images"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("not an ELF file"), "{}", stderr(&output));
}

/// A `boot run` of a guest that hangs after its first line, and QEMU's process ID.
fn start_hanging(images: &Path) -> (Child, PathBuf) {
    let pid_file = images.join("pid");
    let options = ["--qemu-arg", "-pidfile", "--qemu-arg", pid_file.to_str().unwrap()];
    let mut child = command(images, &options).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let pid = fs::read_to_string(&pid_file).unwrap();
    (child, Path::new("/proc").join(pid.trim()))
}

/// Waits until the process is gone, or only its parent's interest keeps it.
fn assert_ends(process: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Ok(status) = fs::read_to_string(process.join("status")) {
        if status.contains("State:\tZ") {
            return;
        }
        assert!(Instant::now() < deadline, "QEMU is still running");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn qemu_ends_with_us_whatever_signal_we_get() {
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let images = Sector::new().start().out(COM1, b"up\n").images();
        let (mut child, qemu) = start_hanging(images.path());
        assert!(qemu.exists());
        let status = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
        assert_ends(&qemu);
    }
}

#[test]
fn the_run_ends_when_nobody_reads_the_output() {
    let sector = Sector::new().start().out(COM1, b"up\n").echo();
    let images = sector.images();
    let input = images.path().join("input");
    fs::write(&input, "x".repeat(1 << 20)).unwrap();
    let mut command = command(images.path(), &["--stdin", input.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
}
