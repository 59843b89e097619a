//! Pieces of schema that several kinds share.

use serde_json::{Value, json};

/// The highest sequence, epoch or revision number: 2^53 - 1, which every JSON reader keeps exactly.
///
/// A million publications a second reach it after 285 years, so a number near it is an attack or an accident: refusing
/// it keeps a pool from being driven into a corner where no higher sequence is left.
pub const MAX_COUNTER: u64 = (1 << 53) - 1;

/// A SHA-256 digest in base64url without padding.
pub(crate) const DIGEST: &str = "^[A-Za-z0-9_-]{27}$";

/// A `RuleChunk`'s name: 160 bits of its content's hash, base32hex in lower case.
pub(crate) const CHUNK_NAME: &str = "^[0-9a-v]{32}$";

/// A pool's name. It is also a label value and the front part of other names, hence a DNS label.
pub(crate) const POOL_NAME: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";

/// The same, or the name of the bundle by which a pool's next shape reaches the nodes of a wave.
pub(crate) const BUNDLE_NAME: &str = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.next)?$";

/// A condition's or error's reason.
pub(crate) const REASON: &str = "^[A-Z][A-Za-z0-9]*$";

/// The `x-kubernetes-validations` of one CEL rule.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!([{ "rule": rule, "message": message }])
}

/// The rule for objects that never change once written.
pub(crate) fn immutable() -> Value {
    rule("self == oldSelf", "is immutable; write a new object instead")
}

/// For `skip_serializing_if`: leaves out what a reader would fill in.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
