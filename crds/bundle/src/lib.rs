//! The bundle: the contract between the rulecast controller and the node applier.
//!
//! A [`Bundle`] is a set of records, each a [`Key`] and a [`Value`], with a digest of its content that costs O(change)
//! to keep. [`frame`] turns lists of changes into bytes; [`Delta`], [`Checkpoint`] and [`Head`] are what travels.
//! Everything read from outside is bounded before memory is taken for it, and has exactly one accepted encoding.
//!
//! There is no Kubernetes client, clock or kernel in here. See docs/design.md, section 2.

mod bundle;
mod catchup;
mod codec;
mod digest;
mod former;
pub mod frame;
mod lane;
mod name;
pub mod nft;
mod publication;
mod record;
mod replica;
mod ruleset;
mod shape;

pub use bundle::{Bundle, MisfitError, Undo};
pub use catchup::{CatchUp, Way};
pub use codec::DecodeError;
pub use digest::{BadDigest, Digest};
pub use former::Former;
pub use frame::Change;
pub use lane::Lane;
pub use name::{BadName, Name, name};
pub use publication::{
    BadChunkId, Checkpoint, ChunkId, Delta, FORMAT, Head, Index, MAX_CHECKPOINT, MAX_CHUNK, MAX_DELTA, Mode,
};
pub use record::{
    Empty, FamilyOptions, Group, GroupId, GroupKind, HealthCheck, IpvsOptions, Key, LaneKey, MAX_LANE_KEYS,
    Member, NodeFact, NodePortAddresses, Part, Pods, Proto, Scope, Settings, Tag, Value, is_next, next_of,
    prefix_contains,
};
pub use replica::{APPLIER, Refusal, Replica, Step};
pub use shape::Shape;
