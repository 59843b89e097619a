//! The kernel's numbers, from `include/uapi/linux/netfilter/ipset/ip_set.h` and `linux/netfilter/nfnetlink.h`.

const NFNL_SUBSYS_IPSET: u16 = 6;
const fn ipset(kind: u16) -> u16 {
    (NFNL_SUBSYS_IPSET << 8) | kind
}
pub(super) const IPSET_CMD_PROTOCOL: u16 = ipset(1);
pub(super) const IPSET_CMD_CREATE: u16 = ipset(2);
pub(super) const IPSET_CMD_DESTROY: u16 = ipset(3);
pub(super) const IPSET_CMD_FLUSH: u16 = ipset(4);
pub(super) const IPSET_CMD_LIST: u16 = ipset(7);
pub(super) const IPSET_CMD_ADD: u16 = ipset(9);
pub(super) const IPSET_CMD_DEL: u16 = ipset(10);

/// Understood by every kernel; version 7 (Linux 4.20) adds commands by index, which are not used here.
pub(super) const IPSET_PROTOCOL: u8 = 6;

pub(super) const IPSET_ATTR_PROTOCOL: u16 = 1;
pub(super) const IPSET_ATTR_SETNAME: u16 = 2;
pub(super) const IPSET_ATTR_TYPENAME: u16 = 3;
pub(super) const IPSET_ATTR_REVISION: u16 = 4;
pub(super) const IPSET_ATTR_FAMILY: u16 = 5;
pub(super) const IPSET_ATTR_FLAGS: u16 = 6;
pub(super) const IPSET_ATTR_DATA: u16 = 7;
pub(super) const IPSET_ATTR_ADT: u16 = 8;
pub(super) const IPSET_ATTR_LINENO: u16 = 9;

pub(super) const IPSET_ATTR_IP: u16 = 1;
pub(super) const IPSET_ATTR_PORT: u16 = 4;
pub(super) const IPSET_ATTR_PROTO: u16 = 7;
pub(super) const IPSET_ATTR_TIMEOUT: u16 = 6;
pub(super) const IPSET_ATTR_HASHSIZE: u16 = 18;
pub(super) const IPSET_ATTR_MAXELEM: u16 = 19;
pub(super) const IPSET_ATTR_ELEMENTS: u16 = 24;
pub(super) const IPSET_ATTR_IP2: u16 = 20;
pub(super) const IPSET_ATTR_CIDR2: u16 = 21;
pub(super) const IPSET_ATTR_IPADDR_IPV4: u16 = 1;
pub(super) const IPSET_ATTR_IPADDR_IPV6: u16 = 2;

/// In a listing: the sets themselves, without their entries.
pub(super) const IPSET_FLAG_LIST_HEADER: u32 = 1 << 2;

/// Error numbers of ipsets' own, above those of `errno`.
pub(super) const IPSET_ERR_FIND_TYPE: i32 = 4098;
pub(super) const IPSET_ERR_BUSY: i32 = 4100;
pub(super) const IPSET_ERR_TYPE_MISMATCH: i32 = 4102;
pub(super) const IPSET_ERR_HASH_FULL: i32 = 4352;
