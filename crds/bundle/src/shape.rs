//! The shape of a bundle: what people review, hold, promote and take back.
//!
//! Shape is which VIPs, ports, policies and options exist and how they compile: rules, settings, groups, elements and health
//! checks. Membership is the rest: which endpoints are usable now, and what is known of nodes. A shape has no endpoint in
//! it, so going back to an older one cannot bring back an endpoint that is gone.

use crate::frame::Decoder;
use crate::nft::Family;
use crate::record::{Empty, Group, Key, Value};
use crate::{Bundle, Change, Checkpoint, DecodeError, Delta, Digest, Index, MisfitError, Mode};

impl Key {
    /// The records of a shape that come from no Service.
    pub const OF_POOL: [Self; 5] = [
        Self::Rules(Family::V4),
        Self::Rules(Family::V6),
        Self::Options(Family::V4),
        Self::Options(Family::V6),
        Self::Settings,
    ];

    /// Whether the record is part of the shape.
    #[must_use]
    pub fn is_shape(&self) -> bool {
        !matches!(self, Self::Member { .. } | Self::Node(_))
    }
}

impl Value {
    /// What of the record is shape: all of it, but for what a group does when it is empty, which depends on the endpoints
    /// elsewhere.
    #[must_use]
    pub fn into_shape(self) -> Self {
        match self {
            Self::Group(group) => Self::Group(Group { empty: Empty::Reject, ..group }),
            other => other,
        }
    }
}

/// The shape of one pool's rules, with its digest.
#[derive(Clone, Default)]
pub struct Shape {
    mode: Mode,
    records: Bundle,
}

impl Shape {
    /// An empty one.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode, records: Bundle::default() }
    }

    /// The shape of a whole bundle.
    #[must_use]
    pub fn of(mode: Mode, bundle: &Bundle) -> Self {
        let mut shape = Self::new(mode);
        let records = bundle.iter().filter(|(key, _)| key.is_shape());
        let changes: Vec<_> =
            records.map(|(key, value)| Change { key, value: Some(value.into_shape()) }).collect();
        shape.apply(&changes).expect("a bundle has no record twice");
        shape
    }

    /// From records alone, such as a revision's; none: there is membership among them.
    #[must_use]
    pub fn from_records(mode: Mode, records: Bundle) -> Option<Self> {
        let only_shape =
            records.iter().all(|(key, value)| key.is_shape() && value.clone().into_shape() == value);
        only_shape.then_some(Self { mode, records })
    }

    /// From a RuleRevision's chunks: an index, the pieces that it lists, and deltas. Whether the digest is the revision's is
    /// for the caller to check.
    pub fn from_chunks(mode: Mode, chunks: &[Vec<u8>]) -> Result<Self, DecodeError> {
        let (index, rest) = chunks.split_first().ok_or(DecodeError::Damaged("a revision without chunks"))?;
        let index = Index::decode(index)?;
        let (base, deltas) =
            rest.split_at_checked(index.chunks.len()).ok_or(DecodeError::Damaged("a revision's chunks"))?;
        let raw = Checkpoint::frame(&index, base)?;
        let mut records = Bundle::load(Decoder::new(&raw)?)?;
        for delta in deltas {
            let delta = Delta::decode(delta)?;
            let _final = records.follow(&delta).map_err(|_| DecodeError::Damaged("a revision's changes"))?;
        }
        Self::from_records(mode, records).ok_or(DecodeError::NotCanonical("a shape, which has members,"))
    }

    /// How many Services there are in it.
    #[must_use]
    pub fn services(&self) -> usize {
        let mut owners: Vec<String> = Vec::new();
        for (_, value) in self.records.iter() {
            if let Some(owner) = value.owner() {
                // Records of a Service mostly follow each other.
                if owners.last().is_none_or(|last| last != owner) {
                    owners.push(owner.to_owned());
                }
            }
        }
        owners.sort_unstable();
        owners.dedup();
        owners.len()
    }

    /// Applies changes of shape records, all or none.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), MisfitError> {
        debug_assert!(changes.iter().all(|change| change.key.is_shape()), "membership is no shape");
        let _final = self.records.apply(changes)?;
        Ok(())
    }

    /// The proxy mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Changes the mode; the records are those of the new one then.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> &Bundle {
        &self.records
    }

    /// Names the shape by its content, in whatever pool. What is approved, and what a revision has.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&[b"rulecast shape", self.mode.to_string().as_bytes(), &self.records.root().0])
    }

    /// The changes that lead from `self` to `target`, sorted by key. The mode is not among them.
    #[must_use]
    pub fn diff(&self, target: &Self) -> Vec<Change> {
        self.records.diff(&target.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GroupId, GroupKind, Member, Proto, Scope, Tag};

    fn bundle(empty: Empty, members: &[u8]) -> Bundle {
        let id = GroupId {
            addr: "10.96.0.1".parse().unwrap(),
            port: 80,
            proto: Proto::Tcp,
            kind: GroupKind::Local,
        };
        let group = Group {
            owner: "a/web".into(),
            port_name: String::new(),
            empty,
            affinity: None,
            keys: Vec::new(),
        };
        let mut changes = vec![Change { key: Key::Group(id), value: Some(Value::Group(group)) }];
        changes.extend(members.iter().map(|last| Change {
            key: Key::Member {
                group: id,
                scope: Scope::Node(Tag(1)),
                port: 8080,
                addr: [10, 0, 0, *last].into(),
            },
            value: Some(Value::Member(Member { node: 1, terminating: false })),
        }));
        let mut bundle = Bundle::default();
        let _final = bundle.apply(&changes).unwrap();
        bundle
    }

    #[test]
    fn membership_leaves_no_trace() {
        let none = Shape::of(Mode::Nftables, &bundle(Empty::Reject, &[]));
        let some = Shape::of(Mode::Nftables, &bundle(Empty::Drop, &[1, 2]));
        assert_eq!(none.digest(), some.digest());
        assert_eq!(some.records().len(), 1);
        assert!(none.diff(&some).is_empty());
        assert_ne!(none.digest(), Shape::of(Mode::Iptables, &bundle(Empty::Reject, &[])).digest());
    }

    #[test]
    fn what_is_read_as_a_shape_has_no_membership() {
        assert!(Shape::from_records(Mode::Nftables, bundle(Empty::Reject, &[])).is_some());
        assert!(Shape::from_records(Mode::Nftables, bundle(Empty::Drop, &[])).is_none());
        assert!(Shape::from_records(Mode::Nftables, bundle(Empty::Reject, &[1])).is_none());
    }
}
