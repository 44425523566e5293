//! Files: tmpfs, devices, `/proc`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

use tests::case::Outcome;
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["file":
    write_and_read_back, seek_and_holes, append, truncate, directories, read_directory, missing, unlinked_but_open,
    rename, null_device, zero_device, large_file, positioned, status_of_files, working_directory,
    proc_maps_is_ordered, proc_status, proc_statm, proc_limits, proc_cmdline, proc_exe, proc_meminfo, access_modes,
    umask_and_modes, descriptor_limit, bad_paths,
];

/// A directory of this case's own, gone when the case is.
struct Scratch(String);

impl Scratch {
    fn new(name: &str) -> std::io::Result<Scratch> {
        let path = format!("/tmp/{name}-{}", std::process::id());
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left: the next run uses another name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| error.raw_os_error()).map(Errno)
}

fn write_and_read_back() -> Outcome {
    let dir = Scratch::new("write")?;
    fs::write(dir.at("a"), "some text")?;
    check_eq!(fs::read_to_string(dir.at("a"))?, "some text");
    fs::write(dir.at("a"), "less")?;
    check_eq!(fs::read_to_string(dir.at("a"))?, "less");
    Ok(())
}

fn seek_and_holes() -> Outcome {
    let dir = Scratch::new("seek")?;
    let mut file = File::create_new(dir.at("a"))?;
    file.seek(SeekFrom::Start(10_000))?;
    file.write_all(b"end")?;
    check_eq!(file.seek(SeekFrom::End(-5))?, 9_998);
    let content = fs::read(dir.at("a"))?;
    check_eq!(content.len(), 10_003);
    check!(content[..10_000].iter().all(|&byte| byte == 0));
    check_eq!(errno(file.seek(SeekFrom::Current(-100_000))), Some(Errno(libc::EINVAL)));
    Ok(())
}

fn append() -> Outcome {
    let dir = Scratch::new("append")?;
    fs::write(dir.at("a"), "one")?;
    let mut file = OpenOptions::new().append(true).open(dir.at("a"))?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(b"two")?;
    check_eq!(fs::read_to_string(dir.at("a"))?, "onetwo");
    Ok(())
}

fn truncate() -> Outcome {
    let dir = Scratch::new("truncate")?;
    fs::write(dir.at("a"), vec![7; 9000])?;
    let file = OpenOptions::new().write(true).open(dir.at("a"))?;
    file.set_len(5000)?;
    file.set_len(6000)?;
    let content = fs::read(dir.at("a"))?;
    check!(content[..5000].iter().all(|&byte| byte == 7));
    check_eq!(&content[5000..], &[0; 1000]);
    Ok(())
}

fn directories() -> Outcome {
    let dir = Scratch::new("directories")?;
    fs::create_dir(dir.at("d"))?;
    check_eq!(errno(fs::create_dir(dir.at("d"))), Some(Errno(libc::EEXIST)));
    fs::write(dir.at("d/f"), "x")?;
    check_eq!(errno(fs::remove_dir(dir.at("d"))), Some(Errno(libc::ENOTEMPTY)));
    check_eq!(errno(fs::write(dir.at("d"), "x")), Some(Errno(libc::EISDIR)));
    check_eq!(errno(fs::read(dir.at("d"))), Some(Errno(libc::EISDIR)));
    check_eq!(errno(fs::create_dir(dir.at("d/f/g"))), Some(Errno(libc::ENOTDIR)));
    fs::remove_file(dir.at("d/f"))?;
    fs::remove_dir(dir.at("d"))?;
    check!(!fs::exists(dir.at("d"))?);
    Ok(())
}

fn read_directory() -> Outcome {
    let dir = Scratch::new("list")?;
    for i in 0..100 {
        fs::write(dir.at(&format!("file-{i:03}")), "")?;
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir.0)? {
        let entry = entry?;
        check!(entry.file_type()?.is_file());
        names.push(entry.file_name().into_string().unwrap_or_default());
    }
    names.sort();
    check_eq!(names, (0..100).map(|i| format!("file-{i:03}")).collect::<Vec<_>>());
    Ok(())
}

fn missing() -> Outcome {
    check_eq!(errno(File::open("/tmp/nothing-of-this-name")), Some(Errno(libc::ENOENT)));
    check_eq!(errno(File::create("/tmp/no-directory/file")), Some(Errno(libc::ENOENT)));
    check_eq!(errno(fs::remove_file("/tmp/nothing-of-this-name")), Some(Errno(libc::ENOENT)));
    Ok(())
}

fn unlinked_but_open() -> Outcome {
    let dir = Scratch::new("unlinked")?;
    let mut file = File::options().read(true).write(true).create_new(true).open(dir.at("a"))?;
    fs::remove_file(dir.at("a"))?;
    file.write_all(b"still here")?;
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    check_eq!(text, "still here");
    check!(!fs::exists(dir.at("a"))?);
    Ok(())
}

fn rename() -> Outcome {
    let dir = Scratch::new("rename")?;
    fs::write(dir.at("a"), "a")?;
    fs::write(dir.at("b"), "b")?;
    fs::rename(dir.at("a"), dir.at("b"))?;
    check_eq!(fs::read_to_string(dir.at("b"))?, "a");
    check!(!fs::exists(dir.at("a"))?);
    check_eq!(errno(fs::rename(dir.at("x"), dir.at("y"))), Some(Errno(libc::ENOENT)));
    Ok(())
}

fn null_device() -> Outcome {
    let mut file = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    file.write_all(&[1; 5000])?;
    check_eq!(file.read(&mut [0; 10])?, 0);
    Ok(())
}

fn zero_device() -> Outcome {
    let mut buffer = [1; 5000];
    File::open("/dev/zero")?.read_exact(&mut buffer)?;
    check!(buffer.iter().all(|&byte| byte == 0));
    Ok(())
}

fn large_file() -> Outcome {
    let dir = Scratch::new("large")?;
    let content: Vec<u8> = (0..2_000_000usize).map(|i| (i * 7 % 251) as u8).collect();
    fs::write(dir.at("a"), &content)?;
    check!(fs::read(dir.at("a"))? == content);
    check_eq!(fs::metadata(dir.at("a"))?.len(), 2_000_000);
    Ok(())
}

fn positioned() -> Outcome {
    use std::os::unix::fs::FileExt;
    let dir = Scratch::new("positioned")?;
    let file = File::options().read(true).write(true).create_new(true).open(dir.at("a"))?;
    file.write_all_at(b"world", 6)?;
    file.write_all_at(b"hello ", 0)?;
    let mut buffer = [0; 5];
    file.read_exact_at(&mut buffer, 3)?;
    check_eq!(&buffer, b"lo wo");
    Ok(())
}

fn status_of_files() -> Outcome {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let dir = Scratch::new("status")?;
    fs::write(dir.at("a"), [0; 5000])?;
    let status = fs::metadata(dir.at("a"))?;
    check!(status.is_file());
    check_eq!((status.len(), status.nlink()), (5000, 1));
    check!(fs::metadata("/tmp")?.is_dir());
    check!(fs::metadata("/dev/null")?.file_type().is_char_device());
    check!(fs::metadata(dir.at("a"))?.ino() != fs::metadata(&dir.0)?.ino());
    Ok(())
}

fn working_directory() -> Outcome {
    let dir = Scratch::new("cwd")?;
    fs::write(dir.at("a"), "here")?;
    std::env::set_current_dir(&dir.0)?;
    check_eq!(std::env::current_dir()?.to_str(), Some(dir.0.as_str()));
    check_eq!(fs::read_to_string("a")?, "here");
    check_eq!(fs::read_to_string("../.././tmp/../tmp/".to_owned() + &dir.0[5..] + "//a")?, "here");
    check_eq!(errno(std::env::set_current_dir("a")), Some(Errno(libc::ENOTDIR)));
    Ok(())
}

fn proc_maps_is_ordered() -> Outcome {
    let all = tests::maps::all();
    check!(all.iter().all(|mapping| mapping.start < mapping.end));
    check!(all.windows(2).all(|pair| pair[0].end <= pair[1].start));
    check!(all.iter().any(|mapping| mapping.name.ends_with("/cases") && mapping.access == "r-xp"));
    Ok(())
}

/// The number in a line such as `VmSize:     1234 kB`.
fn number(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn proc_status() -> Outcome {
    let before = fs::read_to_string("/proc/self/status")?;
    check_eq!(number(&before, "Pid:"), Some(std::process::id() as usize));
    check_eq!(number(&before, "Threads:"), Some(1));
    check!(before.starts_with("Name:\tcases\n"));
    sys::mmap(0, 1 << 24, RW, ANON)?;
    let after = fs::read_to_string("/proc/self/status")?;
    let (Some(old), Some(new)) = (number(&before, "VmSize:"), number(&after, "VmSize:")) else {
        return Err("no VmSize".into());
    };
    check_eq!(new - old, (1 << 24) / 1024);
    Ok(())
}

fn proc_statm() -> Outcome {
    let total = || -> std::result::Result<usize, Box<dyn std::error::Error>> {
        let text = fs::read_to_string("/proc/self/statm")?;
        check_eq!(text.split_whitespace().count(), 7);
        Ok(text.split_whitespace().next().unwrap_or("").parse()?)
    };
    let before = total()?;
    let addr = sys::mmap(0, 100 * PAGE, NONE, ANON)?;
    check_eq!(total()?, before + 100);
    sys::munmap(addr, 40 * PAGE)?;
    check_eq!(total()?, before + 60);
    Ok(())
}

fn proc_limits() -> Outcome {
    let text = fs::read_to_string("/proc/self/limits")?;
    check_eq!(text.lines().count(), 17);
    check!(text.lines().any(|line| line.starts_with("Max stack size            8388608 ")));
    Ok(())
}

fn proc_cmdline() -> Outcome {
    let text = fs::read("/proc/self/cmdline")?;
    let expected: Vec<u8> = std::env::args().flat_map(|word| [word.into_bytes(), vec![0]].concat()).collect();
    check_eq!(text, expected);
    Ok(())
}

fn proc_exe() -> Outcome {
    let path = fs::read_link("/proc/self/exe")?;
    check!(path.ends_with("cases"));
    let mut start = [0; 4];
    File::open("/proc/self/exe")?.read_exact(&mut start)?;
    check_eq!(&start, b"\x7fELF");
    Ok(())
}

fn proc_meminfo() -> Outcome {
    let text = fs::read_to_string("/proc/meminfo")?;
    let (Some(total), Some(free)) = (number(&text, "MemTotal:"), number(&text, "MemFree:")) else {
        return Err("no totals".into());
    };
    check!(free > 0 && free < total);
    Ok(())
}

fn access_modes() -> Outcome {
    let dir = Scratch::new("modes")?;
    fs::write(dir.at("a"), "x")?;
    let mut reader = File::open(dir.at("a"))?;
    check_eq!(errno(reader.write(b"y")), Some(Errno(libc::EBADF)));
    let mut writer = OpenOptions::new().write(true).open(dir.at("a"))?;
    check_eq!(errno(writer.read(&mut [0; 4])), Some(Errno(libc::EBADF)));
    check_eq!(errno(File::create_new(dir.at("a"))), Some(Errno(libc::EEXIST)));
    Ok(())
}

fn umask_and_modes() -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let dir = Scratch::new("umask")?;
    sys::call(libc::SYS_umask, &[0o027])?;
    fs::write(dir.at("a"), "x")?;
    check_eq!(fs::metadata(dir.at("a"))?.permissions().mode() & 0o7777, 0o640);
    check_eq!(sys::call(libc::SYS_umask, &[0o022])?, 0o027);
    fs::set_permissions(dir.at("a"), fs::Permissions::from_mode(0o755))?;
    check_eq!(fs::metadata(dir.at("a"))?.permissions().mode() & 0o7777, 0o755);
    Ok(())
}

fn descriptor_limit() -> Outcome {
    sys::set_limit(libc::RLIMIT_NOFILE, 40)?;
    let mut files = Vec::new();
    let refused = loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => break error,
        }
    };
    check_eq!(refused.raw_os_error(), Some(libc::EMFILE));
    check!(files.len() <= 40 && files.len() > 20);
    drop(files);
    File::open("/dev/null")?;
    Ok(())
}

fn bad_paths() -> Outcome {
    let open = |path: usize| sys::call(libc::SYS_openat, &[libc::AT_FDCWD as usize, path, 0, 0]);
    check_eq!(open(0), Err(Errno(libc::EFAULT)));
    check_eq!(open(0xffff_8000_0000_0000), Err(Errno(libc::EFAULT)));
    check_eq!(open(c"".as_ptr() as usize), Err(Errno(libc::ENOENT)));
    check_eq!(errno(File::open("x".repeat(300))), Some(Errno(libc::ENAMETOOLONG)));
    check_eq!(errno(File::open("x/".repeat(3000))), Some(Errno(libc::ENAMETOOLONG)));
    Ok(())
}
