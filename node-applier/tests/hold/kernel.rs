//! A kernel that holds what it is told to change, and nothing else.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use rulecast_bundle::{Empty, GroupId, LaneKey};
use rulecast_node::backend::{Applied, Backend, BackendError};
use rulecast_node::view::{Element, Endpoint, Touched, View};

/// One target: where it answers, what it does when it is empty, and its members.
pub(crate) type Target = (Vec<LaneKey>, Empty, Vec<Endpoint>);

/// What there is to see of a view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    targets: BTreeMap<GroupId, Target>,
    elements: BTreeSet<Element>,
    settings: Option<u32>,
    checks: Vec<(u16, String)>,
}

fn target(view: &View, id: &GroupId) -> Option<Target> {
    let target = view.target(id)?;
    let shape = target.shape()?;
    let members = target.members().iter().map(|usable| usable.endpoint).collect();
    Some((shape.keys.to_vec(), shape.empty, members))
}

impl Held {
    pub(crate) fn of(view: &View) -> Self {
        let targets = view.targets().filter_map(|(id, _)| target(view, id).map(|target| (*id, target)));
        let mut held =
            Self { targets: targets.collect(), elements: view.elements().clone(), ..Self::default() };
        held.take_rest(view);
        held
    }

    /// What a backend does not write.
    fn take_rest(&mut self, view: &View) {
        self.settings = view.settings().conntrack_min;
        self.checks = view.health_checks().map(|(port, owner, _)| (port, owner.to_owned())).collect();
    }
}

/// The kernel.
#[derive(Clone, Default)]
pub(crate) struct Kernel(Rc<RefCell<(Held, u8)>>);

impl Kernel {
    pub(crate) fn held(&self) -> Held {
        self.0.borrow().0.clone()
    }

    /// Refuses so many writes.
    pub(crate) fn refuse(&self, writes: u8) {
        self.0.borrow_mut().1 = writes;
    }

    fn write(&self, change: impl FnOnce(&mut Held)) -> Result<Applied, BackendError> {
        let (held, refuse) = &mut *self.0.borrow_mut();
        if *refuse > 0 {
            *refuse -= 1;
            return Err(BackendError::Rules("refused by the test".to_owned()));
        }
        change(held);
        Ok(Applied::default())
    }
}

impl Backend for Kernel {
    fn rebuild(&mut self, view: &View, _: &[IpAddr]) -> Result<Applied, BackendError> {
        self.write(|held| *held = Held::of(view))
    }

    fn update(&mut self, view: &View, touched: &Touched, _: &[IpAddr]) -> Result<Applied, BackendError> {
        self.write(|held| {
            for id in &touched.targets {
                match target(view, id) {
                    Some(target) => drop(held.targets.insert(*id, target)),
                    None => drop(held.targets.remove(id)),
                }
            }
            held.elements.retain(|element| !touched.removed.contains(element));
            held.elements.extend(touched.added.iter().cloned());
            held.take_rest(view);
        })
    }

    fn interference(&mut self) -> Result<Option<String>, BackendError> {
        Ok(None)
    }
}
