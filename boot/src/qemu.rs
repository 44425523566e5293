//! The machine: QEMU's command line.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// What starts the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Firmware {
    /// SeaBIOS, which QEMU brings along
    Bios,
    /// OVMF
    Uefi,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Firmware::Bios => "bios",
            Firmware::Uefi => "uefi",
        })
    }
}

/// A channel from the guest, in the order in which the guest numbers its ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// COM1: the program's terminal.
    Console,
    /// COM2: the kernel's log.
    Log,
    /// Port 0xe9: the line that says how the run ended.
    Status,
}

impl Channel {
    /// All of them.
    pub const ALL: [Channel; 3] = [Channel::Console, Channel::Log, Channel::Status];

    /// The name of QEMU's character device, and of the socket behind it.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Console => "console",
            Channel::Log => "log",
            Channel::Status => "status",
        }
    }
}

/// The machine to run, apart from what it is given to run.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The disk image.
    pub image: &'a Path,
    /// OVMF's image; with none, SeaBIOS starts the machine.
    pub ovmf: Option<&'a Path>,
    /// Number of CPUs.
    pub smp: u32,
    /// Memory, as QEMU's `-m` takes it.
    pub mem: &'a str,
    /// CPU model and features, as QEMU's `-cpu` takes them.
    pub cpu: &'a str,
    /// Whether guest time is the number of instructions executed.
    pub icount: bool,
}

/// QEMU's arguments for `machine`, with the channels' sockets in the directory
/// `sockets` and the fw_cfg `files`, pairs of the name below `opt/mm/` and the
/// host's file with the contents.
pub fn arguments(machine: &Machine<'_>, sockets: &Path, files: &[(&str, PathBuf)]) -> Vec<OsString> {
    let mut arguments = Arguments::default();
    // No configuration of the user's, no default devices: the machine is
    // exactly what is listed here. The bootloader wants a screen.
    arguments.add("-no-user-config", &[]);
    arguments.add("-nodefaults", &[]);
    arguments.add("-vga", &[&"std"]);
    arguments.add("-display", &[&"none"]);
    arguments.add("-monitor", &[&"none"]);
    arguments.add("-no-reboot", &[]);
    // Its threads have names: which is which CPU can be seen.
    arguments.add("-name", &[&"debug-threads=on"]);

    let threads = if machine.smp > 1 && !machine.icount { "multi" } else { "single" };
    arguments.add("-accel", &[&"tcg,thread=", &threads]);
    if machine.icount {
        arguments.add("-icount", &[&"shift=0"]);
    }
    arguments.add("-cpu", &[&machine.cpu]);
    arguments.add("-smp", &[&machine.smp.to_string().as_str()]);
    arguments.add("-m", &[&machine.mem]);
    if let Some(ovmf) = machine.ovmf {
        arguments.add("-bios", &[&ovmf]);
    }
    // With `snapshot` the image is never written, and any number of machines share it.
    arguments.add("-drive", &[&"if=virtio,format=raw,snapshot=on,file=", &escaped(machine.image)]);

    for channel in Channel::ALL {
        let name = channel.name();
        arguments.add("-chardev", &[&"socket,id=", &name, &",path=", &escaped(&sockets.join(name))]);
    }
    for channel in [Channel::Console, Channel::Log] {
        arguments.add("-serial", &[&"chardev:", &channel.name()]);
    }
    arguments.add("-device", &[&"isa-debugcon,iobase=0xe9,chardev=", &Channel::Status.name()]);
    arguments.add("-device", &[&"isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    for (name, file) in files {
        arguments.add("-fw_cfg", &[&"name=opt/mm/", name, &",file=", &escaped(file)]);
    }
    arguments.0
}

/// Doubles the commas of a path, which separate QEMU's options.
fn escaped(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    OsString::from_vec(bytes.split(|&b| b == b',').collect::<Vec<_>>().join(&b",,"[..]))
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    /// Adds an option and its value, which is given in parts.
    fn add(&mut self, option: &str, value: &[&dyn AsRef<OsStr>]) {
        self.0.push(option.into());
        if !value.is_empty() {
            let mut joined = OsString::new();
            value.iter().for_each(|part| joined.push(part));
            self.0.push(joined);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine<'static> {
        Machine { image: Path::new("a,b.img"), ovmf: None, smp: 1, mem: "1G", cpu: "max", icount: false }
    }

    /// The values of `option` for `machine`.
    fn values(machine: &Machine<'_>, option: &str) -> Vec<String> {
        let files = [("program", PathBuf::from("/bin/x,y"))];
        let arguments = arguments(machine, Path::new("/tmp/s"), &files);
        let arguments: Vec<String> = arguments.into_iter().map(|a| a.into_string().unwrap()).collect();
        arguments.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].clone()).collect()
    }

    #[test]
    fn emulation_has_a_thread_per_cpu_unless_instructions_are_counted() {
        let accel = |smp, icount| values(&Machine { smp, icount, ..machine() }, "-accel");
        assert_eq!(accel(1, false), ["tcg,thread=single"]);
        assert_eq!(accel(2, false), ["tcg,thread=multi"]);
        assert_eq!(accel(2, true), ["tcg,thread=single"]);
    }

    #[test]
    fn instructions_are_counted_on_request_only() {
        assert_eq!(values(&machine(), "-icount"), [""; 0]);
        assert_eq!(values(&Machine { icount: true, ..machine() }, "-icount"), ["shift=0"]);
    }

    #[test]
    fn uefi_is_started_by_ovmf() {
        assert_eq!(values(&machine(), "-bios"), [""; 0]);
        let ovmf = Some(Path::new("/fw/OVMF.fd"));
        assert_eq!(values(&Machine { ovmf, ..machine() }, "-bios"), ["/fw/OVMF.fd"]);
    }

    #[test]
    fn cpu_memory_and_count_are_passed_on() {
        let machine = Machine { smp: 3, mem: "300M", cpu: "max,-erms", ..machine() };
        assert_eq!(values(&machine, "-smp"), ["3"]);
        assert_eq!(values(&machine, "-m"), ["300M"]);
        assert_eq!(values(&machine, "-cpu"), ["max,-erms"]);
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(values(&machine(), "-drive"), ["if=virtio,format=raw,snapshot=on,file=a,,b.img"]);
        assert_eq!(values(&machine(), "-fw_cfg"), ["name=opt/mm/program,file=/bin/x,,y"]);
    }

    #[test]
    fn com1_is_the_console_and_com2_the_log() {
        assert_eq!(values(&machine(), "-serial"), ["chardev:console", "chardev:log"]);
        assert!(values(&machine(), "-chardev").contains(&"socket,id=console,path=/tmp/s/console".to_owned()));
    }
}
