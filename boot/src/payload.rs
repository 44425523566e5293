//! What the guest is given: a program, its name, arguments and environment,
//! files for its file system, and options for the kernel.
//!
//! Each becomes a fw_cfg file below `opt/mm/`. Strings of a list are separated
//! by NUL, which none of them can contain.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The most a fw_cfg file can have, in bytes: its size is a `u32`.
const FILE_LIMIT: u64 = u32::MAX as u64;

/// A file of the host for the guest's file system: `GUEST=HOST`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestFile {
    guest: Vec<u8>,
    host: PathBuf,
}

impl GuestFile {
    /// Parses `GUEST=HOST`, an absolute path in the guest and a path here.
    pub fn parse(argument: &OsStr) -> Result<GuestFile, String> {
        let bytes = argument.as_bytes();
        let Some(split) = bytes.iter().position(|&b| b == b'=') else {
            return Err("expected GUEST=HOST".into());
        };
        let (guest, host) = (&bytes[..split], &bytes[split + 1..]);
        if !guest.starts_with(b"/") || guest.ends_with(b"/") {
            return Err("the path in the guest must be absolute and name a file".into());
        }
        if host.is_empty() {
            return Err("the path on the host is empty".into());
        }
        Ok(GuestFile { guest: guest.to_vec(), host: PathBuf::from(OsStr::from_bytes(host)) })
    }
}

/// Checks one `NAME=VALUE`.
pub fn parse_env(argument: &OsStr) -> Result<OsString, String> {
    match argument.as_bytes().iter().position(|&b| b == b'=') {
        Some(0) => Err("the name is empty".into()),
        Some(_) => Ok(argument.to_owned()),
        None => Err("expected NAME=VALUE".into()),
    }
}

/// Checks that `program` is a file which can be read, and returns its base name.
///
/// Whether it is a program at all is for the kernel to find out.
pub fn check_program(program: &Path) -> anyhow::Result<&OsStr> {
    let shown = program.display();
    let file = File::open(program).with_context(|| format!("cannot read the program {shown}"))?;
    let metadata = file.metadata().with_context(|| format!("cannot examine the program {shown}"))?;
    if !metadata.is_file() {
        bail!("the program {shown} is not a regular file");
    }
    if metadata.len() > FILE_LIMIT {
        bail!("the program {shown} is larger than 4 GiB");
    }
    program.file_name().with_context(|| format!("the program {shown} has no name"))
}

/// Joins strings with NUL between them.
pub fn encode_list<S: AsRef<OsStr>>(strings: &[S]) -> Vec<u8> {
    let strings: Vec<&[u8]> = strings.iter().map(|s| s.as_ref().as_bytes()).collect();
    strings.join(&0)
}

/// The program's argument list: `arg0`, or the path at which the guest has the
/// program, and then `args`.
pub fn encode_args(name: &OsStr, arg0: Option<&OsStr>, args: &[OsString]) -> Vec<u8> {
    let mut path = b"/".to_vec();
    path.extend_from_slice(name.as_bytes());
    let mut list = vec![arg0.map_or_else(|| OsString::from_vec(path), OsStr::to_owned)];
    list.extend_from_slice(args);
    encode_list(&list)
}

/// One record of the archive of files: path length (`u32`), path, mode
/// (`u32`), size (`u64`), contents; numbers are little endian.
fn encode_record(archive: &mut Vec<u8>, path: &[u8], mode: u32, contents: &[u8]) {
    archive.extend_from_slice(&(path.len() as u32).to_le_bytes());
    archive.extend_from_slice(path);
    archive.extend_from_slice(&mode.to_le_bytes());
    archive.extend_from_slice(&(contents.len() as u64).to_le_bytes());
    archive.extend_from_slice(contents);
}

/// Reads the files and packs them into one archive.
pub fn encode_files(files: &[GuestFile]) -> anyhow::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for file in files {
        let shown = file.host.display();
        let contents = fs::read(&file.host).with_context(|| format!("cannot read {shown}"))?;
        let metadata = fs::metadata(&file.host).with_context(|| format!("cannot examine {shown}"))?;
        encode_record(&mut archive, &file.guest, metadata.permissions().mode() & 0o7777, &contents);
    }
    if archive.len() as u64 > FILE_LIMIT {
        bail!("the files for the guest are larger than 4 GiB together");
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(strings: &[&str]) -> Vec<OsString> {
        strings.iter().map(OsString::from).collect()
    }

    #[test]
    fn lists_are_separated_by_nul() {
        assert_eq!(encode_list(&os(&[])), b"");
        assert_eq!(encode_list(&os(&["a"])), b"a");
        assert_eq!(encode_list(&os(&["a b", "c"])), b"a b\0c");
    }

    #[test]
    fn empty_arguments_are_kept() {
        assert_eq!(encode_list(&os(&["a", "", "b", ""])), b"a\0\0b\0");
    }

    #[test]
    fn first_argument_is_the_path_in_the_guest_unless_given() {
        let name = OsStr::new("echo");
        assert_eq!(encode_args(name, None, &os(&["x", ""])), b"/echo\0x\0");
        assert_eq!(encode_args(name, Some(OsStr::new("sh")), &os(&["-c"])), b"sh\0-c");
    }

    #[test]
    fn arguments_need_not_be_utf8() {
        let args = [OsString::from_vec(vec![0xff, b'=', 0x80])];
        assert_eq!(encode_args(OsStr::new("p"), None, &args), b"/p\0\xff=\x80");
    }

    #[test]
    fn environment_entries_have_a_name() {
        assert_eq!(parse_env(OsStr::new("A=b=c")), Ok("A=b=c".into()));
        assert_eq!(parse_env(OsStr::new("A=")), Ok("A=".into()));
        assert!(parse_env(OsStr::new("=b")).is_err());
        assert!(parse_env(OsStr::new("A")).is_err());
        assert!(parse_env(OsStr::new("")).is_err());
    }

    #[test]
    fn guest_files_are_split_at_the_first_equals_sign() {
        let file = GuestFile::parse(OsStr::new("/etc/a=dir/b=c")).unwrap();
        assert_eq!(file, GuestFile { guest: b"/etc/a".to_vec(), host: "dir/b=c".into() });
        for bad in ["", "/a", "/a=", "a=b", "=b", "/a/=b"] {
            assert!(GuestFile::parse(OsStr::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn records_follow_each_other() {
        let mut archive = Vec::new();
        encode_record(&mut archive, b"/a", 0o644, b"xyz");
        encode_record(&mut archive, b"/b", 0o755, b"");
        let mut expected = b"\x02\0\0\0/a\xa4\x01\0\0\x03\0\0\0\0\0\0\0xyz".to_vec();
        expected.extend_from_slice(b"\x02\0\0\0/b\xed\x01\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(archive, expected);
    }

    #[test]
    fn files_are_packed_with_their_mode() {
        let directory = tempfile::tempdir().unwrap();
        let host = directory.path().join("script");
        fs::write(&host, "hi").unwrap();
        fs::set_permissions(&host, fs::Permissions::from_mode(0o750)).unwrap();
        let files = [GuestFile { guest: b"/bin/s".to_vec(), host }];
        assert_eq!(encode_files(&files).unwrap(), b"\x06\0\0\0/bin/s\xe8\x01\0\0\x02\0\0\0\0\0\0\0hi");
    }

    #[test]
    fn a_missing_file_is_named_in_the_error() {
        let files = [GuestFile { guest: b"/a".to_vec(), host: "/nonexistent/file".into() }];
        assert!(format!("{:#}", encode_files(&files).unwrap_err()).contains("/nonexistent/file"));
    }

    #[test]
    fn the_program_must_be_a_readable_file() {
        let missing = check_program(Path::new("/nonexistent/program")).unwrap_err();
        assert!(format!("{missing:#}").contains("/nonexistent/program"));
        let directory = tempfile::tempdir().unwrap();
        assert!(format!("{:#}", check_program(directory.path()).unwrap_err()).contains("not a regular file"));
        let program = directory.path().join("prog");
        fs::write(&program, "").unwrap();
        assert_eq!(check_program(&program).unwrap(), "prog");
    }
}
