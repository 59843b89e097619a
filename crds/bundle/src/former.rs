//! What a step took from the shape: enough to go back to the shape before it.

use std::collections::BTreeMap;

use crate::record::{Key, Value};
use crate::{Bundle, Undo};

/// Shape records as they were before a step changed them, none for one that came with it, and the last members of groups
/// that went. Sorted by key, so that it can be encoded as a frame.
pub type Former = BTreeMap<Key, Option<Value>>;

/// What `undos`, in the order of the steps, take from the shape when they have led to `now`.
pub(crate) fn of_undos(undos: &[Undo], now: &Bundle) -> Former {
    let mut before = BTreeMap::new();
    for (key, value) in undos.iter().flat_map(Undo::before) {
        before.entry(key).or_insert(value);
    }
    former(before.into_iter().map(|(key, value)| (decode_key(key), value)), now)
}

/// What is taken from the shape by putting `now` in the place of `before`.
pub(crate) fn of_bundles(before: &Bundle, now: &Bundle) -> Former {
    let changed = before.differing_from(now).into_iter();
    former(changed.map(|key| (decode_key(key), before.get_encoded(key))), now)
}

/// From the records that changed, in the order of their keys: a group comes before its members.
fn former<'a>(changed: impl Iterator<Item = (Key, Option<&'a [u8]>)>, now: &Bundle) -> Former {
    let mut former = Former::new();
    for (key, before) in changed {
        let decode = |bytes| Value::decode(&key, bytes).expect("what is stored was encoded here");
        if let Key::Member { group, .. } = &key {
            let went = matches!(former.get(&Key::Group(*group)), Some(Some(_)));
            if let Some(before) = before.filter(|_| went && now.get(&Key::Group(*group)).is_none()) {
                former.insert(key.clone(), Some(decode(before)));
            }
        } else if key.is_shape() {
            let before = before.map(decode);
            let shape = |value: &Option<Value>| value.clone().map(Value::into_shape);
            if shape(&before) != shape(&now.get(&key)) {
                former.insert(key.clone(), before);
            }
        }
    }
    former
}

fn decode_key(key: &[u8]) -> Key {
    Key::decode(key).expect("what is stored was encoded here")
}
