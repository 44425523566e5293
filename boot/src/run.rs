//! `boot run`: QEMU from its start to its end.
//!
//! One thread per channel carries bytes; the main thread waits for the one
//! event that ends the run, or for the time limit, and then stops QEMU. QEMU
//! never outlives this process: a guard kills it on every way out of
//! [`run`], and on Linux the host's kernel does when this process is killed.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::console::{self, StartFilter};
use crate::image;
use crate::outcome::{Outcome, Status};
use crate::payload::{self, GuestFile};
use crate::qemu::{self, Channel, Firmware, Machine};

/// How long QEMU may take to connect its channels, and to end after the kernel
/// has reported a status.
const GRACE: Duration = Duration::from_secs(20);

/// Arguments of `boot run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The directory of the disk images that `boot image` built
    #[arg(long, default_value = "build/images")]
    images: PathBuf,
    /// What starts the machine
    #[arg(long, value_enum, default_value_t = Firmware::Bios)]
    firmware: Firmware,
    /// Number of CPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: u32,
    /// Memory, as QEMU's -m takes it
    #[arg(long, default_value = "1G")]
    mem: String,
    /// CPU model and features, as QEMU's -cpu takes them
    #[arg(long, default_value = "max")]
    cpu: String,
    /// Let guest time be the number of instructions executed (one CPU thread)
    #[arg(long)]
    icount: bool,
    /// Seconds after which the guest is stopped; 0 is never
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// An environment variable of the program, NAME=VALUE; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = OsStringValueParser::new().try_map(|s| payload::parse_env(&s)))]
    env: Vec<OsString>,
    /// A file for the guest's file system, GUEST=HOST; may be repeated
    #[arg(long = "file", value_name = "GUEST=HOST", value_parser = OsStringValueParser::new().try_map(|s| GuestFile::parse(&s)))]
    files: Vec<GuestFile>,
    /// An option for the kernel, norandom, swap, verify or watchdog=N; may be repeated
    #[arg(long = "option", value_name = "OPTION")]
    options: Vec<String>,
    /// The program's standard input: inherit, null, or a file
    #[arg(long, default_value = "inherit")]
    stdin: OsString,
    /// The program's `argv[0]`, instead of its path in the guest
    #[arg(long)]
    arg0: Option<OsString>,
    /// The UEFI firmware
    #[arg(long, env = "OVMF", default_value = "/usr/share/ovmf/OVMF.fd")]
    ovmf: PathBuf,
    /// The QEMU to use
    #[arg(long, env = "QEMU", default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// One more argument for QEMU, such as -s; may be repeated
    #[arg(long = "qemu-arg", value_name = "ARG", allow_hyphen_values = true)]
    qemu_args: Vec<OsString>,
    /// The program: a static Linux executable, on the host
    program: PathBuf,
    /// The program's arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// What ends a run.
enum Event {
    /// The kernel's status line.
    Status(Status),
    /// QEMU has closed the status channel: it is gone.
    Closed,
    /// This process received a signal.
    Signal(i32),
    /// Our stdout cannot be written any more.
    OutputClosed,
}

/// Runs the program to its end.
///
/// # Errors
/// Whatever keeps the guest from being started: a program that cannot be read,
/// an image or a QEMU that is not there.
pub fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let input = open_input(&args.stdin)?;
    let image = image::path(&args.images, args.firmware);
    if !image.is_file() {
        bail!("there is no disk image {}; `make image` builds it", image.display());
    }
    let ovmf = (args.firmware == Firmware::Uefi).then_some(args.ovmf.as_path());
    if let Some(path) = ovmf
        && !path.is_file()
    {
        bail!("there is no UEFI firmware {}; `make setup` installs it, --ovmf names another", path.display());
    }
    let machine = Machine { image: &image, ovmf, smp: args.smp, mem: &args.mem, cpu: &args.cpu, icount: args.icount };

    let directory = tempfile::Builder::new().prefix("boot-").tempdir().context("cannot create a directory")?;
    let files = write_payload(args, directory.path())?;
    let listeners = Channel::ALL.map(|channel| UnixListener::bind(directory.path().join(channel.name())));

    let (events, incoming) = mpsc::channel();
    // Before QEMU starts: from here on no signal ends this process without cleaning up.
    forward_signals(events.clone()).context("cannot catch signals")?;
    let mut qemu = Qemu::start(&args.qemu, qemu::arguments(&machine, directory.path(), &files), &args.qemu_args)?;
    let deadline = (args.timeout > 0).then(|| Instant::now() + Duration::from_secs(args.timeout));

    let mut streams = Vec::new();
    for listener in listeners {
        match qemu.accept(&listener.context("cannot listen on a socket")?)? {
            Connection::Stream(stream) => streams.push(stream),
            Connection::Exited(status) => return Ok(Outcome::Unreported(status)),
        }
    }
    let [console, log, status]: [UnixStream; 3] = streams.try_into().expect("one stream per channel");

    let (start, started) = mpsc::channel();
    let writer = console.try_clone().context("cannot use the console's socket")?;
    // Detached: it may be blocked in a read of stdin when the run ends.
    thread::spawn(move || forward_input(input, writer, &started));
    // A receiver that is gone needs no telling: the results of `send` do not matter.
    let closed = events.clone();
    let on_start = move || {
        let _ = start.send(());
    };
    let on_failure = move || {
        let _ = closed.send(Event::OutputClosed);
    };
    let readers = [
        thread::spawn(move || copy_output(console, io::stdout(), on_start, on_failure)),
        thread::spawn(move || copy_output(log, io::stderr(), || (), || ())),
    ];
    thread::spawn(move || watch_status(status, &events));

    let outcome = wait(&mut qemu, &incoming, deadline, args.timeout);
    qemu.kill();
    for (reader, channel) in readers.into_iter().zip(Channel::ALL) {
        report_preamble(reader, channel);
    }
    outcome
}

/// Waits for the run's end.
fn wait(qemu: &mut Qemu, events: &Receiver<Event>, deadline: Option<Instant>, timeout: u64) -> anyhow::Result<Outcome> {
    let event = match deadline {
        None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(deadline) => events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
    };
    Ok(match event {
        Ok(Event::Status(status)) => {
            // Let QEMU deliver the rest of the output and end by itself.
            while let Ok(Event::Status(_)) = events.recv_timeout(GRACE) {}
            Outcome::Reported(status)
        }
        Ok(Event::Signal(signal)) => Outcome::Interrupted(signal),
        Ok(Event::OutputClosed) => Outcome::OutputClosed,
        Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => {
            Outcome::Unreported(qemu.0.wait().context("cannot wait for QEMU")?)
        }
        Err(RecvTimeoutError::Timeout) => Outcome::TimedOut(Duration::from_secs(timeout)),
    })
}

/// A running QEMU; killed when dropped.
struct Qemu(Child);

/// What came of waiting for a channel.
enum Connection {
    Stream(UnixStream),
    /// QEMU has ended before it connected.
    Exited(ExitStatus),
}

impl Qemu {
    fn start(program: &Path, arguments: Vec<OsString>, more: &[OsString]) -> anyhow::Result<Qemu> {
        let mut command = Command::new(program);
        command.args(arguments).args(more).stdin(Stdio::null()).stdout(Stdio::null());
        end_with_parent(&mut command);
        let child = command.spawn().with_context(|| {
            format!("cannot start {} (`make setup` installs it, QEMU=… names another)", program.display())
        })?;
        Ok(Qemu(child))
    }

    /// Waits until QEMU has connected one channel.
    fn accept(&mut self, listener: &UnixListener) -> anyhow::Result<Connection> {
        listener.set_nonblocking(true)?;
        let deadline = Instant::now() + GRACE;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(Connection::Stream(stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("cannot connect to QEMU"),
            }
            if let Some(status) = self.0.try_wait()? {
                return Ok(Connection::Exited(status));
            }
            if Instant::now() > deadline {
                bail!("QEMU does not connect its serial ports");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends QEMU, if it has not ended yet.
    fn kill(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Has the host's kernel kill the child when this process dies without
/// having been able to do so itself.
#[cfg(target_os = "linux")]
fn end_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    let set = || {
        // SAFETY: `prctl` with PR_SET_PDEATHSIG takes a signal number and touches no memory.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: `set` makes one system call, which is safe between fork and exec.
    unsafe { command.pre_exec(set) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_command: &mut Command) {}

/// Sends an event for each signal that asks this process to end.
fn forward_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Opens what `--stdin` names.
fn open_input(stdin: &OsStr) -> anyhow::Result<Box<dyn Read + Send>> {
    Ok(match stdin.to_str() {
        Some("inherit") => Box::new(io::stdin()),
        Some("null") => Box::new(io::empty()),
        _ => {
            let path = Path::new(stdin);
            Box::new(fs::File::open(path).with_context(|| format!("cannot read the input {}", path.display()))?)
        }
    })
}

/// Writes what the guest is given into `directory`; returns fw_cfg names and files.
fn write_payload(args: &RunArgs, directory: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let name = payload::check_program(&args.program)?;
    let parts = [
        ("name", name.as_encoded_bytes().to_vec()),
        ("args", payload::encode_args(name, args.arg0.as_deref(), &args.args)),
        ("env", payload::encode_list(&args.env)),
        ("options", args.options.join(" ").into_bytes()),
        ("files", payload::encode_files(&args.files)?),
    ];
    let mut files = vec![("program", args.program.clone())];
    for (name, contents) in parts {
        // An empty part is as good as none.
        if !contents.is_empty() {
            let path = directory.join(format!("{name}.bin"));
            fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
            files.push((name, path));
        }
    }
    Ok(files)
}

/// Carries our input to the guest's console, once the kernel listens.
fn forward_input(mut input: Box<dyn Read + Send>, mut console: UnixStream, started: &Receiver<()>) {
    if started.recv().is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    loop {
        let piece = match input.read(&mut buffer) {
            Ok(0) => console::END_OF_INPUT.to_vec(),
            Ok(length) => console::escape(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // What cannot be read any more has ended, as far as the guest is concerned.
            Err(_) => console::END_OF_INPUT.to_vec(),
        };
        if console.write_all(&piece).is_err() || piece == console::END_OF_INPUT {
            return;
        }
    }
}

/// Carries a port's output to `to` until the port is closed.
fn copy_output(
    mut port: UnixStream,
    mut to: impl Write,
    on_start: impl FnOnce(),
    on_failure: impl FnOnce(),
) -> StartFilter {
    let mut filter = StartFilter::default();
    let mut on_start = Some(on_start);
    let mut on_failure = Some(on_failure);
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = match port.read(&mut buffer) {
            Ok(0) => return filter,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return filter,
        };
        let bytes = filter.feed(&buffer[..length]);
        if filter.started()
            && let Some(on_start) = on_start.take()
        {
            on_start();
        }
        // After a failure the port is still emptied, so that QEMU does not block.
        if on_failure.is_some()
            && to.write_all(bytes).and_then(|()| to.flush()).is_err()
            && let Some(on_failure) = on_failure.take()
        {
            on_failure();
        }
    }
}

/// Reports the status lines of the kernel, and the end of QEMU.
fn watch_status(port: UnixStream, events: &Sender<Event>) {
    for line in BufReader::new(port).split(b'\n') {
        let Ok(line) = line else { break };
        let event = match Status::parse(&String::from_utf8_lossy(&line)) {
            Some(status) => Event::Status(status),
            // Not the kernel's; firmware may use the port as well.
            None => continue,
        };
        if events.send(event).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Closed);
}

/// Shows what came from a port on which the kernel never started to write:
/// it tells how far the machine got.
fn report_preamble(reader: JoinHandle<StartFilter>, channel: Channel) {
    let Ok(filter) = reader.join() else { return };
    if !filter.started() && !filter.preamble().is_empty() {
        eprintln!("boot: the kernel did not open its {}; what the firmware wrote there:", channel.name());
        eprintln!("{}", String::from_utf8_lossy(filter.preamble()).trim_end());
    }
}
