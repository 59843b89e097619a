//! The classes of kernel keys, in the order in which every ruleset lists them.

/// A class of kernel keys; its number stands in the bundle's groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Lane {
    /// A cluster IP.
    ClusterIp = 0,
    /// A load balancer's or external IP, externalTrafficPolicy Cluster.
    External = 1,
    /// The same with policy Local, for this node and its pods: they may use every endpoint.
    ExternalInside = 2,
    /// The same with policy Local, for traffic from outside.
    ExternalOutside = 3,
    /// A nodePort, externalTrafficPolicy Cluster.
    NodePort = 4,
    /// The same with policy Local, for this node and its pods.
    NodePortInside = 5,
    /// The same with policy Local, for traffic from outside.
    NodePortOutside = 6,
}
