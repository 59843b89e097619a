//! The keys that the rules look things up by.

use rulecast_bundle::nft::Field;

/// What a packet is addressed to, at a VIP.
pub(crate) const VIP: [Field; 3] = [Field::DestAddr, Field::Proto, Field::DestPort];
/// The same, at any address of a node.
pub(crate) const NODE_PORT: [Field; 2] = [Field::Proto, Field::DestPort];
/// The same as [`VIP`] after DNAT.
pub(crate) const ORIGINAL_VIP: [Field; 3] = [Field::OriginalDestAddr, Field::Proto, Field::OriginalDestPort];
/// The same as [`NODE_PORT`] after DNAT.
pub(crate) const ORIGINAL_NODE_PORT: [Field; 2] = [Field::Proto, Field::OriginalDestPort];
/// Where a translated packet goes.
pub(crate) const ENDPOINT: [Field; 2] = [Field::DestAddr, Field::DestPort];
/// A client. Of the protocol there is one in a Service port's own map; nft wants it said wherever a port is translated.
pub(crate) const CLIENT: [Field; 2] = [Field::SourceAddr, Field::Proto];

/// A key with more components.
pub(crate) fn with(fields: &[Field], more: &[Field]) -> Vec<Field> {
    [fields, more].concat()
}
