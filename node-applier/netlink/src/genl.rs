//! Generic netlink: subsystems are found by name (`include/uapi/linux/genetlink.h`, `net/netlink/genetlink.c`).

use netlink_sys::protocols::NETLINK_GENERIC;

use crate::attr::{Buffer, host_u16};
use crate::error::Error;
use crate::requests::Requests;

/// The family of the controller, by which the others are found.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Opens a socket and looks up a family's number. The kernel loads the family's module if it can.
pub(crate) fn open(name: &str) -> Result<(Requests, u16), Error> {
    let mut requests = Requests::open(NETLINK_GENERIC)?;
    let id = requests.get(
        "look up a family of generic netlink",
        |b, seq, flags| write_lookup(b, seq, flags, name),
        |answer| answer.attributes().raw(CTRL_ATTR_FAMILY_ID).and_then(|raw| host_u16(raw, 0)),
    )?;
    Ok((requests, id.ok_or(Error::Malformed("a family of generic netlink without a number"))?))
}

fn write_lookup(b: &mut Buffer, seq: u32, flags: u16, name: &str) {
    message(b, GENL_ID_CTRL, flags, seq, (CTRL_CMD_GETFAMILY, 1), |b| b.text(CTRL_ATTR_FAMILY_NAME, name));
}

/// A message with `struct genlmsghdr`: command and version.
pub(crate) fn message(
    b: &mut Buffer,
    family: u16,
    flags: u16,
    seq: u32,
    (command, version): (u8, u8),
    write: impl FnOnce(&mut Buffer),
) {
    let start = b.open_header(family, flags, seq, &[command, version, 0, 0]);
    write(b);
    b.close_message(start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_family_is_looked_up_by_its_name() {
        let mut b = Buffer::default();
        write_lookup(&mut b, 7, 1, "IPVS");
        let expected = [
            &[32, 0, 0, 0, 0x10, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0][..],
            &[3, 1, 0, 0],
            &[9, 0, 2, 0, b'I', b'P', b'V', b'S', 0, 0, 0, 0],
        ];
        assert_eq!(b.bytes(), expected.concat());
    }
}
