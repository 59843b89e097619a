//! Numbers for the members of a target.

use std::collections::HashSet;

use crate::view::Endpoint;

/// Numbers the `wanted` members 0 to N-1, changing as few of the `current` numbers as can be: a new member takes the
/// number of one that left, else the next free one; a gap is filled by the last member.
pub(super) fn renumber(current: &[Endpoint], wanted: &[Endpoint]) -> Vec<Endpoint> {
    let keep: HashSet<&Endpoint> = wanted.iter().collect();
    let known: HashSet<&Endpoint> = current.iter().collect();
    let mut new = wanted.iter().filter(|e| !known.contains(e));
    let mut slots: Vec<Option<Endpoint>> =
        current.iter().map(|e| if keep.contains(e) { Some(*e) } else { new.next().copied() }).collect();
    slots.extend(new.copied().map(Some));
    let mut at = 0;
    while at < slots.len() {
        if slots[at].is_some() {
            at += 1;
        } else {
            slots.swap_remove(at);
        }
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoints(numbers: &[u8]) -> Vec<Endpoint> {
        numbers.iter().map(|n| Endpoint { addr: [10, 0, 0, *n].into(), port: 80 }).collect()
    }

    #[test]
    fn one_change_touches_one_or_two_numbers() {
        let current = endpoints(&[1, 2, 3, 4]);
        assert_eq!(
            renumber(&current, &endpoints(&[1, 3, 4])),
            endpoints(&[1, 4, 3]),
            "the last fills the gap"
        );
        assert_eq!(renumber(&current, &endpoints(&[1, 2, 3, 4, 5])), endpoints(&[1, 2, 3, 4, 5]));
        assert_eq!(
            renumber(&current, &endpoints(&[1, 9, 3, 4])),
            endpoints(&[1, 9, 3, 4]),
            "a new one replaces"
        );
        assert_eq!(renumber(&current, &[]), []);
    }

    proptest! {
        #[test]
        fn members_are_those_wanted_and_few_numbers_change(
            from in proptest::collection::btree_set(0u8..40, 0..30),
            to in proptest::collection::btree_set(0u8..40, 0..30),
        ) {
            let current = endpoints(&from.iter().copied().collect::<Vec<_>>());
            let wanted = endpoints(&to.iter().copied().collect::<Vec<_>>());
            let numbered = renumber(&current, &wanted);
            let mut sorted = numbered.clone();
            sorted.sort();
            prop_assert_eq!(sorted, wanted);
            let changed = (0..current.len().max(numbered.len())).filter(|i| current.get(*i) != numbered.get(*i)).count();
            let (left, came) = (from.difference(&to).count(), to.difference(&from).count());
            prop_assert!(changed <= left.max(came) + left.saturating_sub(came));
        }
    }
}
