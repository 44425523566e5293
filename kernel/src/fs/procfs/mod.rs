//! `/proc` and `/sys`: processes and settings as files.
//!
//! Nothing here is stored. A [`Node`] says what a file is about; looking a
//! name up makes an inode for its node, and reading from the start makes the
//! text, which stays the same until the next read from the start. Formats are
//! Linux's, byte for byte.

mod clear_refs;
mod frames;
mod gup_test;
mod huge_pages;
mod ksm;
mod maps;
mod maps_query;
mod pagemap;
mod process;
mod sysctl;
mod system;
mod tree;
mod words;

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

pub use tree::Node;

use super::dentry::{Dentry, copy_bytes};
use super::file::flags::{O_ACCMODE, O_RDWR, O_WRONLY};
use super::file::{DirEntry, File, FileOps, Seek};
use super::inode::{Body, FileSystem, Inode};
use super::io::{Sink, Source, partial};
use super::page::Text;
use super::path::Followed;
use super::sleep_lock::SleepLock;
use super::small_text::SmallText;
use super::tmpfs::emit_dots;
use crate::task::thread::current;
use frames::FrameFile;
use system::SystemFile;

/// The inode of `/proc` itself.
///
/// # Errors
/// `ENOMEM`.
pub fn root_inode() -> Result<Arc<Inode>, Errno> {
    new_inode(Node::Root)
}

/// The inode of `/sys` itself.
///
/// # Errors
/// `ENOMEM`.
pub fn sysfs_root_inode() -> Result<Arc<Inode>, Errno> {
    new_inode(Node::SysfsRoot)
}

fn new_inode(node: Node) -> Result<Arc<Inode>, Errno> {
    let mode = node.mode();
    let links = if mode & super::inode::S_IFMT == super::inode::S_IFDIR { 2 } else { 1 };
    let file_system = if node.is_in_sysfs() { FileSystem::Sysfs } else { FileSystem::Proc };
    Inode::with_number(node.number(), file_system, mode, links, Body::Proc(node))
}

impl Node {
    /// The entry called `name` of this directory.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn look_up(self, directory: &Arc<Dentry>, name: &[u8]) -> Result<Option<Arc<Dentry>>, Errno> {
        match self.child(name) {
            Some(node) => Dentry::new(directory, name, new_inode(node)?).map(Some),
            None => Ok(None),
        }
    }

    /// Where this symbolic link leads.
    ///
    /// # Errors
    /// `ENOENT` if the process, or what it would lead to, is gone; `ENOMEM`.
    pub fn follow(self) -> Result<Followed, Errno> {
        match self {
            Node::SelfLink | Node::ThreadSelfLink | Node::MountsLink => self.read_link().map(Followed::Path),
            _ => process::link_target(self).map(Followed::Jump),
        }
    }

    /// What `readlink` shows for this symbolic link.
    ///
    /// # Errors
    /// As [`follow`](Node::follow).
    pub fn read_link(self) -> Result<Vec<u8>, Errno> {
        match self {
            Node::SelfLink => {
                let pid = current().process().pid();
                copy_bytes(SmallText::new(format_args!("{pid}")).as_bytes())
            }
            Node::ThreadSelfLink => {
                let thread = current();
                let (pid, tid) = (thread.process().pid(), thread.tid());
                copy_bytes(SmallText::new(format_args!("{pid}/task/{tid}")).as_bytes())
            }
            Node::MountsLink => copy_bytes(b"self/mounts"),
            _ => process::link_target(self)?.path(),
        }
    }

    /// The text of this file.
    fn text(self) -> Result<Text, Errno> {
        match self {
            Node::System(file) => file.text(),
            Node::Sysctl(setting) => Text::build(|text| setting.show(text)),
            Node::HugePages(file) => file.text(),
            Node::Ksm(file) => file.text(),
            Node::ProcessFile { pid, tid, file } => process::text(pid, tid, file),
            Node::FdInfo { pid, fd } => process::fd_info(pid, fd),
            _ => Err(Errno::EINVAL),
        }
    }
}

fn writes(flags: u32) -> bool {
    matches!(flags & O_ACCMODE, O_WRONLY | O_RDWR)
}

fn reads(flags: u32) -> bool {
    flags & O_ACCMODE != O_WRONLY
}

/// Opens something in `/proc` or `/sys`. Root may open any file, except settings that
/// cannot be changed for writing, and those that have no value for reading; whether
/// a write does anything is another question.
///
/// # Errors
/// `EACCES` for such a setting, `ESRCH` if the process is gone, `ENOMEM`.
pub fn open(dentry: Arc<Dentry>, node: Node, flags: u32) -> Result<Arc<File>, Errno> {
    if dentry.inode.is_directory() {
        return File::new(dentry, ProcDirectory(node), flags);
    }
    match node {
        Node::ProcessFile { pid, file: process::ProcessFile::Mem, .. } => {
            File::new(dentry, process::Memory::of(pid)?, flags)
        }
        Node::ProcessFile { pid, file: process::ProcessFile::PageMap, .. } => {
            File::new(dentry, pagemap::PageMap::of(pid)?, flags)
        }
        Node::ProcessFile { pid, file: process::ProcessFile::ClearRefs, .. } => {
            File::new(dentry, clear_refs::ClearRefsFile(pid), flags)
        }
        Node::GupTest => File::new(dentry, gup_test::GupTest::new(), flags),
        Node::System(SystemFile::FrameCounts) => File::new(dentry, FrameFile::Count, flags),
        Node::System(SystemFile::FrameFlags) => File::new(dentry, FrameFile::Flags, flags),
        Node::Sysctl(setting) if writes(flags) && !setting.is_writable() => Err(Errno::EACCES),
        Node::Sysctl(setting) if reads(flags) && !setting.is_readable() => Err(Errno::EACCES),
        Node::HugePages(file) if writes(flags) && !file.is_writable() => Err(Errno::EACCES),
        Node::Ksm(file) if writes(flags) && !file.is_writable() => Err(Errno::EACCES),
        _ => File::new(dentry, ProcText::new(node), flags),
    }
}

/// An open text file.
struct ProcText {
    node: Node,
    text: SleepLock<Option<Text>>,
}

impl ProcText {
    fn new(node: Node) -> ProcText {
        ProcText { node, text: SleepLock::new(None) }
    }
}

impl FileOps for ProcText {
    fn read(&self, _: &File, sink: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let mut cached = self.text.lock()?;
        let text = match &*cached {
            Some(text) if offset != 0 => text,
            _ => cached.insert(self.node.text()?),
        };
        let mut done = 0;
        while sink.remaining() > 0 && offset.saturating_add(done as u64) < text.len() as u64 {
            match sink.put(text.chunk(offset as usize + done)) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) => return partial(done, error),
            }
        }
        Ok(done)
    }

    fn write(&self, _: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        let mut buffer = [0; 64];
        let count = source.take(&mut buffer)?;
        let line = buffer[..count].split(|&byte| byte == b'\n').next().unwrap_or(b"");
        match self.node {
            Node::Sysctl(setting) => setting.store(line)?,
            Node::HugePages(file) => file.store(line)?,
            Node::Ksm(file) => file.store(line)?,
            Node::ProcessFile { pid, tid, file: process::ProcessFile::Comm } => process::set_name(pid, tid, line)?,
            _ => return Err(Errno::EINVAL),
        }
        Ok(count + source.skip_all())
    }

    fn append(&self, file: &File, source: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        self.write(file, source, 0).map(|count| (count, count as u64))
    }

    fn seek(&self, _: &File) -> Seek {
        Seek::To(0)
    }

    fn ioctl(&self, _: &File, request: u32, argument: usize) -> Result<usize, Errno> {
        match self.node {
            Node::ProcessFile { pid, file: process::ProcessFile::Maps, .. } if request == maps_query::PROCMAP_QUERY => {
                maps_query::query(&*process::space(pid)?, argument)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}

/// An open directory.
struct ProcDirectory(Node);

impl FileOps for ProcDirectory {
    fn read(&self, _: &File, _: &mut Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn seek(&self, _: &File) -> Seek {
        Seek::To(0)
    }

    fn read_dir(&self, file: &File, position: u64, emit: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64, Errno> {
        let mut position = emit_dots(file, position, emit);
        if position < 2 {
            return Ok(position);
        }
        while let Some((found, name, node)) = self.0.next_child(position - 2) {
            let next = found + 3;
            let entry = DirEntry { next, number: node.number(), mode: node.mode(), name: name.as_bytes() };
            if !emit(entry) {
                break;
            }
            position = next;
        }
        Ok(position)
    }
}
