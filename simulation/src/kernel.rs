//! A kernel: what a node's rules come to, changed in transactions as the applier asks for them.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher as _};

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Bundle, GroupId, Key, Value};
use rulecast_node::view::{Element, Target, Touched, View};

/// What a kernel holds, in short: two that hold the same have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Rules(u64);

impl Rules {
    /// What a bundle makes of a node's kernel.
    pub(crate) fn of(node: &str, bundle: &Bundle) -> Self {
        let mut kernel = Kernel::default();
        kernel.rebuild(&View::new(node, bundle));
        kernel.rules()
    }
}

/// The kernel's tables. A sum of hashes stands for the whole, so that a change costs what it touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    fixed: u64,
    fact: u64,
    targets: HashMap<GroupId, u64>,
    elements: BTreeSet<Element>,
    sum: u64,
}

impl Kernel {
    pub(crate) fn rules(&self) -> Rules {
        Rules(hash(&(self.fixed, self.fact, self.sum)))
    }

    /// Holds this view, whatever it held before.
    pub(crate) fn rebuild(&mut self, view: &View) {
        *self = Self::default();
        let fixed = |family| {
            let rules =
                view.rules(family).map(|r| Value::Rules(Box::new(r.clone())).encode(&Key::Rules(family)));
            let options = view
                .options(family)
                .map(|o| Value::Options(Box::new(o.clone())).encode(&Key::Options(family)));
            rules.or(options)
        };
        self.fixed = hash(&[fixed(Family::V4), fixed(Family::V6)]);
        self.fact = fact(view);
        view.targets().for_each(|(id, target)| self.set_target(*id, Some(target)));
        view.elements().iter().for_each(|element| self.set_element(element, true));
    }

    /// Changes what was touched, and nothing else.
    pub(crate) fn update(&mut self, view: &View, touched: &Touched) {
        if touched.fact {
            self.fact = fact(view);
        }
        touched.targets.iter().for_each(|id| self.set_target(*id, view.target(id)));
        touched.removed.iter().for_each(|element| self.set_element(element, false));
        touched.added.iter().for_each(|element| self.set_element(element, true));
    }

    /// What somebody else does to it.
    pub(crate) fn interfere(&mut self) {
        self.fixed ^= 1;
    }

    fn set_target(&mut self, id: GroupId, target: Option<&Target>) {
        let now = target.filter(|target| target.shape().is_some()).map(|target| {
            let shape = target.shape().map(|s| (&s.keys, s.affinity, format!("{:?}", s.empty)));
            let members = target.members().iter().map(|m| (m.endpoint, m.own, m.terminating));
            hash(&(id, shape, members.collect::<Vec<_>>()))
        });
        let before = match now {
            Some(now) => self.targets.insert(id, now),
            None => self.targets.remove(&id),
        };
        self.sum = self.sum.wrapping_add(now.unwrap_or(0)).wrapping_sub(before.unwrap_or(0));
    }

    fn set_element(&mut self, element: &Element, there: bool) {
        let of = hash(element);
        if there && self.elements.insert(element.clone()) {
            self.sum = self.sum.wrapping_add(of);
        } else if !there && self.elements.remove(element) {
            self.sum = self.sum.wrapping_sub(of);
        }
    }
}

/// What of the node's fact is written into rules.
fn fact(view: &View) -> u64 {
    hash(&(&view.fact().addrs, &view.fact().pod_cidrs))
}

fn hash(what: &impl Hash) -> u64 {
    // With the same keys in every process, so that a history can be repeated.
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
