//! Files that shrink, or get holes, while they are mapped.

use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["truncate":
    cut_off_is_sigbus, private_copies_are_cut_off, last_page_keeps_its_start, other_process_sees_it,
    forked_copies_are_cut_off, moved_mapping, split_mapping, grows_back_as_zeroes, kernel_copies_fail,
    hole_is_seen, hole_spares_private_copies, open_truncates,
];

const PAGES: usize = 4;

/// A file in memory of [`PAGES`] pages, each of which starts with its number and one.
struct File(usize);

impl File {
    fn new() -> sys::Result<File> {
        let file = File(sys::call(libc::SYS_memfd_create, &[c"file".as_ptr() as usize, 0])?);
        file.resize(PAGES)?;
        for page in 0..PAGES {
            let byte = [page as u8 + 1];
            sys::call(libc::SYS_pwrite64, &[file.0, byte.as_ptr() as usize, 1, page * PAGE])?;
        }
        Ok(file)
    }

    fn resize(&self, pages: usize) -> sys::Result<usize> {
        self.resize_to(pages * PAGE)
    }

    fn resize_to(&self, bytes: usize) -> sys::Result<usize> {
        sys::call(libc::SYS_ftruncate, &[self.0, bytes])
    }

    fn punch_hole(&self, first: usize, pages: usize) -> sys::Result<usize> {
        let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;
        sys::call(libc::SYS_fallocate, &[self.0, mode, first * PAGE, pages * PAGE])
    }

    fn map(&self, flags: i32) -> sys::Result<usize> {
        sys::call(libc::SYS_mmap, &[0, PAGES * PAGE, RW, flags as usize, self.0, 0])
    }

    fn shared(&self) -> sys::Result<usize> {
        self.map(libc::MAP_SHARED)
    }

    fn private(&self) -> sys::Result<usize> {
        self.map(libc::MAP_PRIVATE)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = sys::call(libc::SYS_close, &[self.0]);
    }
}

/// What each page starts with; `None`: an access is `SIGBUS`, as beyond the end of a file.
fn contents(addr: usize) -> Vec<Option<u8>> {
    const BUS_ADRERR: i32 = 2;
    let look = |page| {
        let at = addr + page * PAGE;
        match mem::read(at) {
            Ok(byte) => Some(byte),
            Err(fault) => {
                assert_eq!(fault, Fault { signal: libc::SIGBUS, code: BUS_ADRERR, addr: at });
                None
            }
        }
    };
    (0..PAGES).map(look).collect()
}

fn cut_off_is_sigbus() -> Outcome {
    let file = File::new()?;
    let (shared, private) = (file.shared()?, file.private()?);
    for addr in [shared, private] {
        check_eq!(contents(addr), [Some(1), Some(2), Some(3), Some(4)]);
    }
    file.resize(2)?;
    for addr in [shared, private] {
        check_eq!(contents(addr), [Some(1), Some(2), None, None]);
        check!(mem::write(addr + 3 * PAGE, 1).is_err());
    }
    file.resize(0)?;
    check_eq!(contents(shared), [None; PAGES]);
    Ok(())
}

fn private_copies_are_cut_off() -> Outcome {
    let file = File::new()?;
    let private = file.private()?;
    mem::fill(private, PAGES, 1)?;
    file.resize(1)?;
    check!(mem::holds(private, 0, 1, 1)?);
    check_eq!(contents(private)[1..], [None; 3]);
    Ok(())
}

fn last_page_keeps_its_start() -> Outcome {
    let file = File::new()?;
    let shared = file.shared()?;
    mem::fill(shared, PAGES, 1)?;
    let first = mem::read(shared + PAGE)?;
    file.resize_to(PAGE + 1)?;
    check_eq!((mem::read(shared + PAGE)?, mem::read(shared + 2 * PAGE - 1)?), (first, 0));
    check_eq!(contents(shared)[2..], [None; 2]);
    Ok(())
}

fn other_process_sees_it() -> Outcome {
    let file = File::new()?;
    let shared = file.shared()?;
    check_eq!(contents(shared)[3], Some(4));
    let status = sys::in_child(|| match file.resize(3) {
        Ok(_) if contents(shared) == [Some(1), Some(2), Some(3), None] => 0,
        _ => 1,
    })?;
    check_eq!(status, Status::Exited(0));
    check_eq!(contents(shared), [Some(1), Some(2), Some(3), None]);
    Ok(())
}

fn forked_copies_are_cut_off() -> Outcome {
    let file = File::new()?;
    let private = file.private()?;
    mem::fill(private, PAGES, 1)?;
    let status = sys::in_child(|| {
        let shrunk = mem::write(private, 9).is_ok() && file.resize(1).is_ok();
        i32::from(!shrunk || contents(private) != [Some(9), None, None, None])
    })?;
    check_eq!(status, Status::Exited(0));
    check!(mem::holds(private, 0, 1, 1)?);
    check_eq!(contents(private)[1..], [None; 3]);
    Ok(())
}

fn moved_mapping() -> Outcome {
    let file = File::new()?;
    let shared = file.shared()?;
    contents(shared);
    let room = sys::mmap(0, 16 * PAGE, NONE, ANON)?;
    let moved = sys::mremap(shared, PAGES * PAGE, PAGES * PAGE, TO, room + 5 * PAGE)?;
    check_eq!(contents(moved), [Some(1), Some(2), Some(3), Some(4)]);
    file.resize(2)?;
    check_eq!(contents(moved), [Some(1), Some(2), None, None]);
    Ok(())
}

fn split_mapping() -> Outcome {
    let file = File::new()?;
    let shared = file.shared()?;
    contents(shared);
    sys::mprotect(shared + 2 * PAGE, PAGE, R)?;
    file.resize(3)?;
    check_eq!(contents(shared), [Some(1), Some(2), Some(3), None]);
    sys::munmap(shared + PAGE, PAGE)?;
    file.resize(0)?;
    check!(mem::read(shared).is_err() && mem::read(shared + 2 * PAGE).is_err());
    Ok(())
}

fn grows_back_as_zeroes() -> Outcome {
    let file = File::new()?;
    let (shared, private) = (file.shared()?, file.private()?);
    mem::fill(shared, PAGES, 1)?;
    mem::fill(private, PAGES, 2)?;
    file.resize(0)?;
    file.resize(PAGES)?;
    check!(mem::is_zero(shared, PAGES)? && mem::is_zero(private, PAGES)?);
    mem::write(shared + PAGE, 5)?;
    check_eq!(contents(private), [Some(0), Some(5), Some(0), Some(0)]);
    Ok(())
}

fn kernel_copies_fail() -> Outcome {
    let file = File::new()?;
    let shared = file.shared()?;
    contents(shared);
    file.resize(2)?;
    let mut ends = [0i32; 2];
    sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0])?;
    let write = |page: usize| sys::call(libc::SYS_write, &[ends[1] as usize, shared + page * PAGE, 8]);
    check_eq!(write(1), Ok(8));
    check_eq!(write(2), Err(Errno(libc::EFAULT)));
    Ok(())
}

fn hole_is_seen() -> Outcome {
    let file = File::new()?;
    let (shared, private) = (file.shared()?, file.private()?);
    for addr in [shared, private] {
        check_eq!(contents(addr)[2], Some(3));
    }
    file.punch_hole(1, 2)?;
    for addr in [shared, private] {
        check_eq!(contents(addr), [Some(1), Some(0), Some(0), Some(4)]);
    }
    mem::write(shared + PAGE, 7)?;
    check_eq!(contents(private), [Some(1), Some(7), Some(0), Some(4)]);
    Ok(())
}

fn hole_spares_private_copies() -> Outcome {
    let file = File::new()?;
    let private = file.private()?;
    mem::write(private + PAGE, 9)?;
    check_eq!(contents(private)[2], Some(3));
    file.punch_hole(0, PAGES)?;
    check_eq!(contents(private), [Some(0), Some(9), Some(0), Some(0)]);
    Ok(())
}

fn open_truncates() -> Outcome {
    let file = File::new()?;
    let shared = file.shared()?;
    contents(shared);
    let path = format!("/proc/self/fd/{}\0", file.0);
    let flags = (libc::O_RDWR | libc::O_TRUNC) as usize;
    let again = sys::call(libc::SYS_openat, &[libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0])?;
    check_eq!(contents(shared), [None; PAGES]);
    sys::call(libc::SYS_close, &[again])?;
    Ok(())
}
