//! Sockets: connected pairs within the machine; there is no network.

use alloc::sync::Arc;
use mm::Errno;

use super::open::install_pair;
use super::{Result, check_flags, usable};
use crate::arch::usercopy::{read_user, write_user};
use crate::errno::{EAFNOSUPPORT, EISCONN, ENOTSOCK, EPROTONOSUPPORT, ESOCKTNOSUPPORT};
use crate::fs::File;
use crate::fs::file::flags::{O_CLOEXEC, O_NONBLOCK};
use crate::fs::io::{Sink, Source};
use crate::fs::socket::{self, Kind, Socket};

const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_SEQPACKET: u32 = 5;
const SOCK_TYPE_MASK: u32 = 0xf;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_NOSIGNAL: u32 = 0x4000;

/// What sending and receiving know; other flags are refused, lest a program
/// rely on what they do.
const KNOWN: u32 = MSG_DONTWAIT | MSG_NOSIGNAL;

/// `socket`: no family has sockets that are not made in pairs.
pub fn create(_family: u32) -> Result<usize> {
    Err(EAFNOSUPPORT)
}

pub fn create_pair(family: u32, kind: u32, protocol: u32, fds: usize) -> Result<usize> {
    check_flags(kind & !SOCK_TYPE_MASK, O_CLOEXEC | O_NONBLOCK)?;
    match family {
        AF_UNIX => {}
        // Families that Linux has, but not in pairs.
        AF_INET | AF_INET6 => return Err(Errno::EOPNOTSUPP),
        _ => return Err(EAFNOSUPPORT),
    }
    if protocol != 0 && protocol != AF_UNIX {
        return Err(EPROTONOSUPPORT);
    }
    let carried = match kind & SOCK_TYPE_MASK {
        SOCK_STREAM => Kind::Stream,
        SOCK_DGRAM | SOCK_SEQPACKET => Kind::Messages,
        _ => return Err(ESOCKTNOSUPPORT),
    };
    let pair = socket::new_pair(carried, kind & O_NONBLOCK)?;
    install_pair(pair, kind & O_CLOEXEC != 0, fds)
}

/// Runs `call` on the socket `fd`, with whether it must not wait.
fn with_socket(fd: i32, flags: u32, call: impl FnOnce(&Socket, bool) -> Result<usize>) -> Result<usize> {
    let file: Arc<File> = usable(fd)?;
    let socket = file.ops().socket().ok_or(ENOTSOCK)?;
    if flags & !KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    call(socket, file.nonblocking() || flags & MSG_DONTWAIT != 0)
}

pub fn send_to(fd: i32, buffer: usize, len: usize, flags: u32, address: usize) -> Result<usize> {
    with_socket(fd, flags, |socket, nonblocking| {
        if address != 0 {
            return Err(EISCONN);
        }
        socket.send(&mut Source::user(buffer, len)?, nonblocking, flags & MSG_NOSIGNAL != 0)
    })
}

/// `recvfrom`: the other end has no address, so its length is 0.
pub fn receive_from(fd: i32, buffer: usize, len: usize, flags: u32, address_len: usize) -> Result<usize> {
    with_socket(fd, flags, |socket, nonblocking| {
        let count = socket.receive(&mut Sink::user(buffer, len)?, nonblocking)?;
        if address_len != 0 {
            write_user(address_len, 0_u32)?;
        }
        Ok(count)
    })
}

/// `struct msghdr`, as far as it matters.
struct Header {
    name: usize,
    list: usize,
    count: usize,
    control_len: usize,
}

impl Header {
    const NAME_LEN_AT: usize = 8;
    const CONTROL_LEN_AT: usize = 40;
    const FLAGS_AT: usize = 48;

    fn read(at: usize) -> Result<Header> {
        let [name, _, list, count, _, control_len]: [usize; 6] = read_user(at)?;
        Ok(Header { name, list, count, control_len })
    }
}

/// `sendmsg`: files and credentials cannot be sent along.
pub fn send_message(fd: i32, message: usize, flags: u32) -> Result<usize> {
    with_socket(fd, flags, |socket, nonblocking| {
        let header = Header::read(message)?;
        if header.control_len != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if header.name != 0 {
            return Err(EISCONN);
        }
        let mut source = Source::user_vector(header.list, header.count)?;
        socket.send(&mut source, nonblocking, flags & MSG_NOSIGNAL != 0)
    })
}

pub fn receive_message(fd: i32, message: usize, flags: u32) -> Result<usize> {
    with_socket(fd, flags, |socket, nonblocking| {
        let header = Header::read(message)?;
        let count = socket.receive(&mut Sink::user_vector(header.list, header.count)?, nonblocking)?;
        write_user(message.wrapping_add(Header::NAME_LEN_AT), 0_u32)?;
        write_user(message.wrapping_add(Header::CONTROL_LEN_AT), 0_usize)?;
        write_user(message.wrapping_add(Header::FLAGS_AT), 0_u32)?;
        Ok(count)
    })
}

pub fn shut_down(fd: i32, how: u32) -> Result<usize> {
    const SHUT_RD: u32 = 0;
    const SHUT_WR: u32 = 1;
    const SHUT_RDWR: u32 = 2;
    with_socket(fd, 0, |socket, _| {
        match how {
            SHUT_RD | SHUT_WR | SHUT_RDWR => socket.shut_down(how != SHUT_WR, how != SHUT_RD),
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    })
}
