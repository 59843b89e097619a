//! The node's own addresses, which answer nodePorts where the pool says so.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// The devices on which IPVS mode keeps VIPs, kube-proxy's and our own.
const VIP_DEVICES: [&str; 2] = ["kube-ipvs0", crate::ipvs::DEVICE];

/// All addresses of all interfaces that are not loopback, sorted; none when the kernel does not tell right now. VIPs that IPVS
/// mode puts on a device are not the node's own.
#[must_use]
pub fn of_this_node() -> Option<Vec<IpAddr>> {
    let mut addrs: Vec<IpAddr> = getifaddrs()
        .ok()?
        .filter(|interface| !VIP_DEVICES.contains(&interface.interface_name.as_str()))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().into()))
        })
        .filter(|addr| !addr.is_loopback())
        .collect();
    addrs.sort_unstable();
    addrs.dedup();
    Some(addrs)
}
