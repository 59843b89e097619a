//! What makes another shape of a published bundle: `effective = published + mask`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use rulecast_bundle::{Bundle, Change, DecodeError, Former, GroupId, Key, Mode, Shape, Value, frame};

use crate::view::Records;

/// Shape records with the value that is kept instead of the published one, none for a record that is kept away; and the last
/// known members of groups that are kept although the published version no longer has them.
///
/// Members of groups that the published version has are always the published ones, and so is what a group does when it is
/// empty: a held shape has no endpoint in it that is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask(BTreeMap<Key, Option<Value>>);

/// What a mask has of endpoints that nobody vouches for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastKnown {
    /// Endpoints.
    pub endpoints: usize,
    /// Of so many Service ports.
    pub ports: usize,
}

impl Mask {
    /// The mask that undoes a step. It is of use as long as no further step changes the shape.
    #[must_use]
    pub fn undoing(former: Former) -> Self {
        Self(former)
    }

    /// For this published bundle, without what is as published.
    #[must_use]
    pub fn over(mut self, published: &Bundle) -> Self {
        let keys: Vec<Key> = self.0.keys().cloned().collect();
        self.tidy(&keys, published);
        self
    }

    /// Takes note of a step that led to `published`: what it changed for the first time is kept as it was.
    pub fn absorb(&mut self, former: Former, published: &Bundle) {
        let keys: Vec<Key> = former.keys().cloned().collect();
        for (key, value) in former {
            match (self.0.entry(key), value) {
                (Entry::Vacant(new), value) => drop(new.insert(value)),
                // Of a group that goes, the last that is known.
                (Entry::Occupied(mut kept), Some(Value::Group(last))) => {
                    if let Some(Value::Group(kept)) = kept.get_mut() {
                        kept.empty = last.empty;
                    }
                }
                (Entry::Occupied(_), _) => {}
            }
        }
        self.tidy(&keys, published);
    }

    /// Lets go of what is as published, and of members whose group is published or not kept. Of `keys` and what belongs to
    /// them.
    fn tidy(&mut self, keys: &[Key], published: &Bundle) {
        let groups: BTreeSet<GroupId> = keys.iter().filter_map(Key::group).collect();
        for key in keys.iter().filter(|key| key.is_shape()) {
            let kept = self.0.get(key).cloned();
            if kept
                .is_some_and(|kept| kept.map(Value::into_shape) == published.get(key).map(Value::into_shape))
            {
                self.0.remove(key);
            }
        }
        for group in groups {
            let kept = matches!(self.0.get(&Key::Group(group)), Some(Some(_)));
            if !kept || published.get(&Key::Group(group)).is_some() {
                self.members_of(group).into_iter().for_each(|key| drop(self.0.remove(&key)));
            }
        }
    }

    /// The last known members of a group.
    fn members_of(&self, group: GroupId) -> Vec<Key> {
        let from_group =
            self.0.range(Key::Group(group)..).skip_while(|(key, _)| matches!(key, Key::Group(_)));
        from_group.map(|(key, _)| key.clone()).take_while(|key| key.group() == Some(group)).collect()
    }

    /// Whether the published bundle is in force as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many shape records differ from the published ones.
    #[must_use]
    pub fn differing(&self) -> usize {
        self.0.keys().filter(|key| key.is_shape()).count()
    }

    /// The endpoints that are only known from before their group went.
    #[must_use]
    pub fn last_known(&self) -> LastKnown {
        let members = || self.0.keys().filter(|key| matches!(key, Key::Member { .. }));
        let endpoint = |key: &Key| match key {
            Key::Member { group, port, addr, .. } => {
                Some(((group.addr, group.port, group.proto), (*addr, *port)))
            }
            _ => None,
        };
        // An endpoint may be for several nodes and zones, and in both lists of its port.
        let endpoints: BTreeSet<_> = members().filter_map(endpoint).collect();
        let ports: BTreeSet<_> = endpoints.iter().map(|(port, _)| port).collect();
        LastKnown { endpoints: endpoints.len(), ports: ports.len() }
    }

    /// A record of the effective bundle.
    #[must_use]
    pub fn get(&self, published: &Bundle, key: &Key) -> Option<Value> {
        match (self.0.get(key), published.get(key)) {
            (None, published) => published,
            (Some(Some(Value::Group(kept))), Some(Value::Group(published))) => {
                Some(Value::Group(rulecast_bundle::Group { empty: published.empty, ..kept.clone() }))
            }
            (Some(kept), _) => kept.clone(),
        }
    }

    /// The changes that a step to `published`, which made these changes of its own, makes of the effective bundle. `before` is
    /// the mask before the step. Some of them may be none.
    #[must_use]
    pub fn translate(&self, before: &Self, published: &Bundle, changes: &[Change]) -> Vec<Change> {
        // The shape is kept, but for what groups do when they are empty.
        let follows = |key: &&Key| !key.is_shape() || matches!(key, Key::Group(_));
        let mut keys: BTreeSet<Key> =
            changes.iter().map(|change| &change.key).filter(follows).cloned().collect();
        let groups: Vec<GroupId> = keys.iter().filter(|key| key.is_shape()).filter_map(Key::group).collect();
        for group in groups {
            keys.extend(before.members_of(group).into_iter().chain(self.members_of(group)));
        }
        keys.into_iter().map(|key| Change { value: self.get(published, &key), key }).collect()
    }

    /// The changes that lead from this mask's effective bundle to that of another mask over the same published one.
    #[must_use]
    pub fn changes_to(&self, other: &Self, published: &Bundle) -> Vec<Change> {
        let keys: BTreeSet<&Key> = self.0.keys().chain(other.0.keys()).collect();
        let changes = keys.into_iter().filter_map(|key| {
            let value = other.get(published, key);
            (value != self.get(published, key)).then(|| Change { key: key.clone(), value })
        });
        changes.collect()
    }

    /// The shape of the effective bundle.
    #[must_use]
    pub fn shape(&self, mode: Mode, published: &Bundle) -> Shape {
        let mut shape = Shape::of(mode, published);
        let kept = self
            .0
            .iter()
            .filter(|(key, _)| key.is_shape())
            .map(|(key, value)| (key.clone(), value.clone().map(Value::into_shape)));
        let changes = kept.filter(|(key, value)| shape.records().get(key) != *value);
        let changes: Vec<_> = changes.map(|(key, value)| Change { key, value }).collect();
        shape.apply(&changes).expect("what is as published was left out");
        shape
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(self.0.iter().map(|(key, value)| (key, value.as_ref())))
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut mask = BTreeMap::new();
        for change in frame::Decoder::new(bytes)? {
            let Change { key, value } = change?;
            if matches!(key, Key::Node(_)) || (!key.is_shape() && value.is_none()) {
                return Err(DecodeError::NotCanonical("a mask, which has membership,"));
            }
            mask.insert(key, value);
        }
        Ok(Self(mask))
    }
}

/// A published bundle under a mask.
pub struct Effective<'a> {
    /// What is published.
    pub published: &'a Bundle,
    /// What is kept instead.
    pub mask: &'a Mask,
}

impl Records for Effective<'_> {
    fn get(&self, key: &Key) -> Option<Value> {
        self.mask.get(self.published, key)
    }

    fn iter(&self) -> impl Iterator<Item = (Key, Value)> {
        let Self { published, mask } = *self;
        let published_records = published.iter().filter_map(|(key, value)| {
            let value = if mask.0.contains_key(&key) { mask.get(published, &key) } else { Some(value) };
            value.map(|value| (key, value))
        });
        let kept = mask.0.iter().filter(|(key, _)| published.get(key).is_none());
        let kept = kept.filter_map(|(key, value)| value.clone().map(|value| (key.clone(), value)));
        published_records.chain(kept)
    }
}
