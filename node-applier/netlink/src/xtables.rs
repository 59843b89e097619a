//! How large a table of x_tables is: what tells that somebody else changed it, at the price of one call.

use std::ffi::{c_char, c_int, c_uint};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use rulecast_bundle::nft::Family;

use crate::error::Error;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO` (`include/uapi/linux/netfilter_ipv4/ip_tables.h`, `…_ipv6/ip6_tables.h`).
const GET_INFO: c_int = 64;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `NF_INET_NUMHOOKS`.
const HOOKS: usize = 5;

/// `struct ipt_getinfo` and `struct ip6t_getinfo`, which are the same.
#[repr(C)]
struct GetInfo {
    name: [c_char; NAME],
    valid_hooks: c_uint,
    hook_entry: [c_uint; HOOKS],
    underflow: [c_uint; HOOKS],
    num_entries: c_uint,
    size: c_uint,
}

/// How large a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableInfo {
    /// Its entries: rules, and two for each chain.
    pub entries: u32,
    /// Their size in bytes.
    pub size: u32,
}

/// Asks the kernel for a table such as `nat` of the legacy variant, in the network namespace of this thread. None: it has
/// none of this name, and may get one by this question.
#[expect(unsafe_code, reason = "no crate knows this socket option")]
pub fn table_info(family: Family, table: &str) -> Result<Option<TableInfo>, Error> {
    let (domain, level) = match family {
        Family::V4 => (libc::AF_INET, libc::IPPROTO_IP),
        Family::V6 => (libc::AF_INET6, libc::IPPROTO_IPV6),
    };
    let failed = || {
        let error = std::io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Error::Permission,
            _ => Error::Unsupported(error),
        }
    };
    // SAFETY: `socket` takes no pointers.
    let socket = unsafe { libc::socket(domain, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    if socket < 0 {
        return Err(failed());
    }
    // SAFETY: the descriptor was opened just now and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut info = GetInfo {
        name: [0; NAME],
        valid_hooks: 0,
        hook_entry: [0; HOOKS],
        underflow: [0; HOOKS],
        num_entries: 0,
        size: 0,
    };
    for (to, byte) in info.name[..NAME - 1].iter_mut().zip(table.bytes()) {
        *to = byte.cast_signed();
    }
    let mut len = libc::socklen_t::try_from(size_of::<GetInfo>()).expect("84 bytes");
    // SAFETY: `info` is a plain structure of `len` bytes, laid out as the kernel's, and lives until the call returns; the kernel
    // writes no more than `len` bytes, all of them integers.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut len)
    };
    if result == 0 {
        return Ok(Some(TableInfo { entries: info.num_entries, size: info.size }));
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOENT | libc::ENOPROTOOPT) => Ok(None),
        _ => Err(failed()),
    }
}
