//! Why a kernel key leads to a target.

/// A class of kernel keys; its number stands in the bundle's groups ([`crate::LaneKey`]). The rules say how the kernel serves
/// each of them ([`crate::nft::Lane`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// A cluster IP, internalTrafficPolicy Cluster.
    ClusterIp = 0,
    /// A cluster IP, internalTrafficPolicy Local.
    ClusterIpLocal = 1,
    /// A load balancer's or external IP, externalTrafficPolicy Cluster.
    External = 2,
    /// The same with policy Local, for this node and its pods: they may use every endpoint.
    ExternalInside = 3,
    /// The same with policy Local, for traffic from outside.
    ExternalOutside = 4,
    /// A nodePort, externalTrafficPolicy Cluster.
    NodePort = 5,
    /// The same with policy Local, for this node and its pods.
    NodePortInside = 6,
    /// The same with policy Local, for traffic from outside.
    NodePortOutside = 7,
}

impl Lane {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::ClusterIp,
        Self::ClusterIpLocal,
        Self::External,
        Self::ExternalInside,
        Self::ExternalOutside,
        Self::NodePort,
        Self::NodePortInside,
        Self::NodePortOutside,
    ];

    /// Whether traffic comes to it from outside the cluster: not to a cluster IP.
    #[must_use]
    pub fn is_external(self) -> bool {
        !matches!(self, Self::ClusterIp | Self::ClusterIpLocal)
    }

    /// The lane with this number; none: a later version's.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        for (place, lane) in Lane::ALL.into_iter().enumerate() {
            assert_eq!((lane as usize, Lane::of(lane as u8)), (place, Some(lane)));
            assert_eq!(lane.is_external(), place >= 2);
        }
        assert_eq!(Lane::of(8), None);
    }
}
